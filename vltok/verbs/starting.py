"""A training that begins with the weights of a bundle."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.io.bundles import load_prior, load_tokenizer
from vltok.training.objective import Objective

#: How many names of tensors a line shows.
_SHOWN = 3


def begin_with(model: LightningModule, bundle: str, trust: bool, say: Callable[[str], None]) -> None:
    """Give what is trained the weights of a bundle; what the bundle has not, such as a new gate's, stays as drawn.

    Raises:
        UserError: There is no such bundle, it is of another kind, or its weights have other shapes.
    """
    if not isinstance(model, Objective):
        raise UserError(f"start: {type(model).__name__} says nothing of what it trains, so that no bundle can begin it")
    trained = model.trained
    load = load_tokenizer if isinstance(trained, Tokenizer) else load_prior
    state, own = load(bundle, trust=trust).state_dict(), trained.state_dict()
    for name in (name for name in own if name in state):
        if state[name].shape != own[name].shape:
            there, here = list(state[name].shape), list(own[name].shape)
            raise UserError(
                f"start '{bundle}': {name} is {there} there and {here} in the recipe: leave out what changes its shape"
            )
    missing, left_out = trained.load_state_dict(state, strict=False)
    if len(left_out) == len(state):
        raise UserError(f"start '{bundle}': none of its weights has a place in the recipe's model")
    say(f"starting from {bundle}")
    for names, what in ((missing, "are new"), (left_out, "of it have no place")):
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            say(f"  {len(names)} tensors {what}: {shown}")
