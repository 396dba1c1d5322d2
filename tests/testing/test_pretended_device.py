import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vltok.errors import UserError
from vltok.testing import PretendedDevice


@pytest.fixture
def device():
    with PretendedDevice() as device:
        yield device


def test_a_model_trains_there_as_on_the_cpu(device):
    def trained(where: str) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(288, 2))
        model.to(where, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters())
        images = torch.randn(2, 3, 8, 8).to(where, non_blocking=True)
        device.forget()
        for _ in range(2):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert not device.read_backs + device.uploads
        return copy.deepcopy(model)(images)

    torch.testing.assert_close(trained(device.name).cpu(), trained("cpu"))


def test_attention_runs_there(device):
    query = torch.randn(2, 4, 6, 8, device=device.name, requires_grad=True)
    mask = torch.zeros(6, 6, device=device.name)
    for options in ({"is_causal": True}, {"attn_mask": mask}, {"is_causal": True, "dropout_p": 0.5}):
        F.scaled_dot_product_attention(query, query, query, **options).sum().backward()
    assert query.grad.device.type == device.name and not device.read_backs


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there.index_select(0, here.long()),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: here[there.long()],
        lambda there, here: there.add_(here),
        lambda there, here: F.linear(there, here[None]),
        lambda there, here: torch.rand(3, device=there.device, generator=torch.Generator()),
    ],
)
def test_operations_that_mix_devices_raise(device, mixed):
    with pytest.raises(RuntimeError):
        mixed(torch.ones(3, device=device.name), torch.zeros(3))


def test_numbers_of_the_host_may_take_part(device):
    there = torch.ones(3, device=device.name)
    assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]
    there[1] = 5
    there[there > 3] = 7
    assert device.read_backs == device.read_backs[:1] and not device.uploads
    assert there.tolist() == [1, 7, 1]


@pytest.mark.parametrize(
    "read",
    [
        lambda there: there.sum().item(),
        lambda there: int(there[0]),
        lambda there: bool((there > 0).all()),
        lambda there: there.tolist(),
        lambda there: there.cpu(),
        lambda there: torch.zeros(3).copy_(there),
        lambda there: there.nonzero(),
        lambda there: there[there > 0],
        lambda there: there.unique(),
        lambda there: there.equal(there + 1),
        lambda there: there.repeat_interleave(there.long()),
        lambda there: there.multinomial(1),
        lambda there: f"{there[0]:.1f}",
    ],
)
def test_what_waits_for_a_result_is_counted(device, read):
    there = torch.ones(3, device=device.name)
    assert not device.read_backs
    read(there)
    assert len(device.read_backs) == 1
    assert __file__ in device.read_backs[0]
    device.forget()
    assert not device.read_backs


@pytest.mark.parametrize(
    "run",
    [
        lambda there: there[torch.zeros(2, dtype=torch.long, device=there.device)],
        lambda there: torch.arange(3, device=there.device).repeat_interleave(there.long(), output_size=3),
        lambda there: F.one_hot(there.long(), 4),
        lambda there: there.quantile(0.3),
        lambda there: there.new_full((2,), 3.0) + torch.zeros((), device=there.device),
        lambda there: torch.randn(3).to(there.device, non_blocking=True),
    ],
)
def test_what_the_device_does_alone_is_not_counted(device, run):
    there = torch.ones(3, device=device.name)
    assert run(there).device.type == device.name
    assert not device.read_backs + device.uploads


@pytest.mark.parametrize(
    "copied",
    [
        lambda there: torch.tensor([1.0, 2.0], device=there.device),
        lambda there: there.new_tensor([1.0, 2.0]),
        lambda there: torch.as_tensor(np.ones(3), device=there.device),
        lambda there: torch.zeros(3).to(there.device),
        lambda there: there.copy_(torch.zeros(3)),
        lambda there: there[torch.tensor([0, 1])],
        lambda there: there[[0, 1]],
    ],
)
def test_what_waits_for_a_copy_to_the_device_is_counted(device, copied):
    there = torch.ones(3, device=device.name)
    assert copied(there).device.type == device.name
    assert len(device.uploads) == 1 and not device.read_backs
    assert __file__ in device.uploads[0]


def test_numpy_does_not_take_its_tensors(device):
    there = torch.ones(3, device=device.name)
    for taken in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="cpu"):
            taken()
    assert there.cpu().numpy().sum() == 3


def test_a_device_may_lack_double_precision():
    with PretendedDevice(double_precision=False) as device:
        there = torch.ones(3, device=device.name)
        for doubled in (there.double, lambda: torch.zeros(2, device=device.name, dtype=torch.float64)):
            with pytest.raises(TypeError, match="float64"):
                doubled()
        with pytest.raises(TypeError, match="float64"):
            torch.tensor(np.ones(3), device=device.name)
    with PretendedDevice() as device:
        assert torch.ones(3, device=device.name).double().dtype == torch.float64


def test_its_state_goes_to_a_file_and_back(device):
    model = nn.Linear(2, 2).to(device.name)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    assert all(value.device.type == "cpu" for value in state.values())
    model.load_state_dict(state)
    assert model.weight.device.type == device.name and model.weight.cpu().equal(state["weight"])


def test_inference_runs_there(device):
    layer = nn.Linear(2, 2).to(device.name)
    with torch.inference_mode():
        found = F.linear(torch.ones(1, 2, device=device.name), layer.weight.detach()).view(2)
    assert found.cpu().equal(layer.weight.cpu().sum(1))


def test_a_model_there_changes_its_precision(device):
    layer = nn.Linear(2, 2).to(device.name)
    weight = layer.weight
    layer.to(torch.bfloat16)
    assert layer(torch.ones(1, 2, device=device.name, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.weight is weight and layer.cpu().weight.device.type == "cpu"


def test_it_is_there_in_its_block_alone():
    before = torch.accelerator.is_available()
    for _ in range(2):
        with PretendedDevice() as device:
            kept = torch.ones(3, device=device.name)
            assert kept.to(device.name) is kept and kept.to("cpu").equal(torch.ones(3))
            with pytest.raises(UserError, match="in use"), PretendedDevice():
                pass
        assert torch.accelerator.is_available() is before
        assert kept.tolist() == [1, 1, 1] and not device.read_backs[1:]
    with pytest.raises((RuntimeError, IndexError)):
        torch.zeros(3, device=PretendedDevice.name)


def test_mixed_precision_follows_cudas_rules(device):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU()).to(device.name)
    images = torch.randn(2, 3, 8, 8, device=device.name)
    with torch.autocast(device.name, torch.bfloat16):
        convolved = model[0](images)
        normed = model(images)
        assert (convolved.dtype, normed.dtype) == (torch.bfloat16, torch.float32)
        assert (convolved * 2).dtype == torch.bfloat16 and convolved.softmax(1).dtype == torch.float32
        assert torch.addcmul(convolved, normed, normed).dtype == torch.float32
        with torch.autocast(device.name, enabled=False):
            assert model[0](images).dtype == torch.float32
    normed.square().mean().backward()
    assert model[0].weight.grad.dtype == torch.float32 and model[0].weight.grad.cpu().any()
    assert model[0](images).dtype == torch.float32
