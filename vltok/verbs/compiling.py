"""`--compile`: the networks of a tokenizer, compiled for as long as a verb codes with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch

from vltok.errors import UserError
from vltok.interfaces import Decoder, Encoder, Tokenizer

#: With fewer batches, compiling takes longer than it saves.
FEWEST_BATCHES = 100

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def compiled(tokenizer: Tokenizer, wanted: bool, batches: int, backend: str | Callable = "inductor") -> Iterator[None]:
    """Compile the encoder and the decoder of a tokenizer inside the block, where that is wanted and worth it.

    Args:
        tokenizer: In evaluation mode. Its weights must not change inside the block: on the CPU, they become constants.
        wanted: Whether to compile.
        batches: How many are coded; fewer than `FEWEST_BATCHES` are coded as without.
        backend: What compiles.

    Raises:
        UserError: The tokenizer has neither part, or what compiles does not work on this machine.
    """
    if not wanted:
        yield
        return
    from torch._dynamo.exc import BackendCompilerFailed  # they take a second
    from torch._inductor import config as inductor

    parts = [part for part in tokenizer.children() if isinstance(part, Encoder | Decoder)]
    if not parts:
        raise UserError(
            f"--compile is for encoders and decoders, and {type(tokenizer).__name__} has none: leave it out"
        )
    if batches < FEWEST_BATCHES:
        _LOG.info("--compile: nothing is compiled for %d batches, it pays from %d on", batches, FEWEST_BATCHES)
        yield
        return
    _LOG.info("--compile: the first batches take a minute or more, until all is compiled")
    for part in parts:
        vars(part)["forward"] = torch.compile(part.forward, backend=backend)
    try:
        with inductor.patch(freezing=next(tokenizer.parameters()).device.type == "cpu"):
            yield
    except BackendCompilerFailed as error:
        reason = (str(error.inner_exception).strip() or type(error.inner_exception).__name__).splitlines()[0]
        raise UserError(
            f"--compile does not work here ({reason}): leave it out, or install the compiler that it asks for"
        ) from error
    finally:
        for part in parts:
            del vars(part)["forward"]
        torch.compiler.reset()  # what was compiled would not see that weights have changed
