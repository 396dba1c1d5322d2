"""Where a verb computes."""

from __future__ import annotations

import torch

from vltok.errors import UserError


def choose_device(wanted: str | None, local_rank: int = 0) -> str:
    """The device that is asked for, or a GPU where there is one; each process of a machine gets another GPU.

    Raises:
        UserError: It is not on this machine.
    """
    device = wanted or "cpu"
    if wanted in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA fails an assertion
        raise UserError(f"--device '{device}' is not on this machine: {str(error).splitlines()[0]}") from error
    return device
