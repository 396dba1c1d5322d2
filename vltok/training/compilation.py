"""`torch.compile` for a tokenizer that is trained against a discriminator."""

from __future__ import annotations

import types
from collections.abc import Callable

import torch

from vltok.interfaces import Adversarial, Tokenizer


def compile_tokenizer(tokenizer: Tokenizer, backend: str | Callable = "inductor") -> None:
    """Compile a tokenizer's forward pass in place, all but its last layer.

    The adaptive weight of the adversarial loss needs two gradients at the last layer. A compiled graph has one backward
    pass for all that it holds: were the last layer inside, each of the two would run back through the whole tokenizer.
    """
    last = tokenizer.last_layer if isinstance(tokenizer, Adversarial) else None
    for module in tokenizer.modules():
        if any(parameter is last for parameter in module.parameters(recurse=False)):
            # a method, not a plain function: copies of the module bind it to themselves
            module.forward = types.MethodType(torch.compiler.disable(type(module).forward), module)
    tokenizer.compile(backend=backend)
