"""What one process does and two do together."""

import json
import subprocess
import sys

import pytest
import torch

from vltok_lagrangian_budget.multipliers import Multipliers

GAPS = [[0.1, 0.2], [0.3, 0.0], [-0.4, 0.1], [0.5, 0.3]]

ONE_OF_TWO = """
import json, sys
import torch
from torch import distributed
from vltok_lagrangian_budget.multipliers import Multipliers

rank, folder, gaps = int(sys.argv[1]), sys.argv[2], torch.tensor(json.loads(sys.argv[3])).requires_grad_()
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
multipliers = Multipliers(2, 1.0, 0.1)
multipliers(gaps)
loss = multipliers(gaps)
loss.backward()
distributed.destroy_process_group()
print(json.dumps([multipliers.values.tolist(), loss.item(), gaps.grad.tolist()]))
"""


def test_processes_hold_the_gap_of_all(tmp_path):
    halves = [json.dumps(GAPS[:2]), json.dumps(GAPS[2:])]
    processes = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(rank), str(tmp_path), half], stdout=subprocess.PIPE)
        for rank, half in enumerate(halves)
    ]
    found = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in processes]
    gaps = torch.tensor(GAPS).requires_grad_()
    multipliers = Multipliers(2, 1.0, 0.1)
    multipliers(gaps)
    loss = multipliers(gaps)
    loss.backward()
    for values, value, _ in found:
        assert values == pytest.approx(multipliers.values.tolist())
        assert value == pytest.approx(loss.item())
    # each is the mean over its half of the images: averaged over the processes, they are the gradient of all
    gradients = torch.tensor([gradient for _, _, gradient in found]).flatten(0, 1)
    torch.testing.assert_close(gradients / 2, gaps.grad)
