"""Blocks whose activations the backward pass computes again, instead of keeping them."""

from __future__ import annotations

import types

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A block of one input and one output that keeps much in between."""


def recompute(model: nn.Module) -> bool:
    """Let the backward pass compute the blocks of a model again: less memory, a third more time.

    These are the `Recomputable` ones, and what timm's backbones take for blocks.

    Args:
        model: What is trained.

    Returns:
        Whether it has such blocks.
    """
    found = False
    for module in model.modules():
        if isinstance(module, Recomputable):
            # a method, not a plain function: copies of the module bind it to themselves
            module.forward = types.MethodType(_recomputed, module)
            found = True
        elif callable(switch := getattr(module, "set_grad_checkpointing", None)):
            try:
                switch()
                found = True
            except AssertionError:  # so timm says that a backbone cannot
                continue
    return found


def _recomputed(block: nn.Module, features: Tensor) -> Tensor:
    return checkpoint(type(block).forward, block, features, use_reentrant=False)
