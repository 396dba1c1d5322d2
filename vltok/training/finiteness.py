"""A watch for losses and weights that are no longer finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vltok.errors import UserError

_NEVER = torch.iinfo(torch.int64).max
_REMEDY = (
    "lower model.learning_rate, set trainer.gradient_clip_val, or train in trainer.precision bf16-mixed or 32-true"
)


class FiniteWatch:
    """Notes, on the device, the first step at which each loss was not finite.

    Noting does not make the host wait for the device; `require_finite` does, so it is called now and then, and before
    anything is written.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Tensor] = {}

    def note(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Look at the losses of a step."""
        names = tuple(losses)
        finite = torch.stack([loss.detach().float() for loss in losses.values()]).isfinite()
        first = torch.where(finite, _NEVER, step)
        self._first[names] = torch.minimum(self._first[names], first) if names in self._first else first

    def require_finite(self) -> None:
        """Check all that was noted.

        Raises:
            UserError: A loss was not finite: names the first step and the losses of that step that were not.
        """
        found = [
            (step, name)
            for names, steps in self._first.items()
            for name, step in zip(names, steps.tolist(), strict=True)
        ]
        broken_at = min((step for step, _ in found), default=_NEVER)
        if broken_at < _NEVER:
            names = ", ".join(dict.fromkeys(name for step, name in found if step == broken_at))
            raise UserError(f"the loss is NaN or infinite at step {broken_at} (not finite: {names}): {_REMEDY}")


def require_finite_weights(module: nn.Module, step: int) -> None:
    """Check a module before it is written.

    Raises:
        UserError: A parameter holds NaN or an infinity, or a buffer NaN (an infinite threshold may be meant).
    """
    good = {name: parameter.isfinite().all() for name, parameter in module.named_parameters()}
    good |= {name: ~buffer.isnan().any() for name, buffer in module.named_buffers()}
    if not good:
        return
    whole = torch.stack(list(good.values())).tolist()
    broken = [name for name, fine in zip(good, whole, strict=True) if not fine]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(f"weights are NaN or infinite after step {step} ({broken[0]}{more}): {_REMEDY}")
