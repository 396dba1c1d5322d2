"""A watch for losses and weights that are no longer finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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


def require_finite_weights(state: Mapping[str, Tensor], step: int) -> None:
    """Check tensors by name, before they are written.

    Raises:
        UserError: One holds NaN or an infinity.
    """
    numbers = {name: value for name, value in state.items() if value.is_floating_point()}
    if not numbers:
        return
    finite = torch.stack([value.isfinite().all() for value in numbers.values()]).tolist()
    broken = [name for name, good in zip(numbers, finite, strict=True) if not good]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(f"weights are NaN or infinite after step {step} ({broken[0]}{more}): {_REMEDY}")
