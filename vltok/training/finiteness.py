"""A watch for losses, gradients and weights that are no longer finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vltok.errors import SaidElsewhere, UserError
from vltok.processes import sum_over_processes, world

_NEVER = torch.iinfo(torch.int64).max
_REMEDY = (
    "lower model.learning_rate, set trainer.gradient_clip_val, or train in trainer.precision bf16-mixed or 32-true"
)


class Diverged(UserError):
    """A training that came to NaN or infinity; every process raises it at the same step, and the first one says it."""


class DivergedElsewhere(Diverged, SaidElsewhere):
    """The same on the other processes."""


class FiniteWatch:
    """Notes, on the device, the first step at which each loss was not finite on any process.

    Noting does not make the host wait for the device; `require_finite` does, so it is called now and then, and before
    anything is written.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Tensor] = {}

    def note(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Look at the losses of a step; on several processes all do so together, and of the same losses."""
        names = tuple(losses)
        broken = ~torch.stack([loss.detach().float() for loss in losses.values()]).isfinite()
        first = torch.where(sum_over_processes(broken.float()) > 0, step, _NEVER)
        self._first[names] = torch.minimum(self._first[names], first) if names in self._first else first

    def note_gradient(self, module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradient with which a step is about to be made.

        The losses may be finite where it is not. In half precision the gradient scaler leaves out such a step itself.
        """
        if gradient_scaler(module.trainer) is not None:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            norm = nn.utils.get_total_norm(gradients)
            self.note(module.global_step, {"gradient": norm.full_tensor() if isinstance(norm, DTensor) else norm})
            self.look(module)

    def look(self, module: LightningModule) -> None:
        """Check all that was noted, where that costs little, on every process at the same steps.

        Raises:
            Diverged: See `require_finite`.
        """
        # where the host itself runs the step, looking costs nothing
        if module.device.type == "cpu" or module.global_step % module.trainer.log_every_n_steps == 0:
            self.require_finite()

    def require_finite(self) -> None:
        """Check all that was noted.

        Raises:
            Diverged: Something was not finite: names the first step, and what was not at that step.
        """
        found = [
            (step, name)
            for names, steps in self._first.items()
            for name, step in zip(names, steps.tolist(), strict=True)
        ]
        broken_at = min((step for step, _ in found), default=_NEVER)
        if broken_at < _NEVER:
            names = ", ".join(dict.fromkeys(name for step, name in found if step == broken_at))
            raise _diverged(f"training diverged: NaN or infinite at step {broken_at} (not finite: {names}): {_REMEDY}")


def gradient_scaler(trainer: Trainer) -> object | None:
    """What scales gradients in half precision."""
    return getattr(trainer.precision_plugin, "scaler", None)


def takes_fused(trainer: Trainer) -> bool:
    """Whether optimizers may be fused: in mixed precision Lightning lets these clip no gradients, nor scale them."""
    mixed = isinstance(trainer.precision_plugin, MixedPrecision)
    return not mixed or not (trainer.gradient_clip_val or gradient_scaler(trainer))


def require_finite_weights(module: nn.Module, step: int) -> None:
    """Check a module before it is written.

    Raises:
        Diverged: A parameter holds NaN or an infinity, or a buffer NaN (an infinite threshold may be meant).
    """
    parameters = dict(module.named_parameters())
    good = {name: _own(parameter).isfinite().all() for name, parameter in parameters.items()}
    good |= {name: ~buffer.isnan().any() for name, buffer in module.named_buffers()}
    if not good:
        return
    found = torch.stack(list(good.values()))
    if any(isinstance(parameter, DTensor) for parameter in parameters.values()):  # each process sees its pieces alone
        found = sum_over_processes((~found).int()) == 0
    whole = found.tolist()
    broken = [name for name, fine in zip(good, whole, strict=True) if not fine]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise _diverged(f"weights are NaN or infinite after step {step} ({broken[0]}{more}): {_REMEDY}")


def _own(parameter: Tensor) -> Tensor:
    """What this process has of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _diverged(message: str) -> Diverged:
    return DivergedElsewhere(message) if world()[0] else Diverged(message)
