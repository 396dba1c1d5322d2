"""Which texts say what is drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vltok.drawing.conditioning import Conditioning
from vltok.errors import UserError
from vltok.paths import read_path


def choose_prompts(given: str | os.PathLike | Sequence[str] | None, conditioning: Conditioning) -> list[str] | None:
    """The texts that say what is drawn, at least one; None for pictures without.

    Args:
        given: A file with one a line, or the texts themselves; None for pictures without one.
        conditioning: The prior's.

    Raises:
        UserError: The prior reads no texts, or draws nothing without; or there is none in the file.
    """
    if given is None:
        if conditioning.described and not conditioning.label_dropout:
            raise UserError("this prior draws what a text describes: give --prompt TEXT, or --prompts FILE")
        return None
    if not conditioning.described:
        raise UserError("--prompts: this prior reads no texts: leave it out")
    prompts = _of_file(given) if isinstance(given, str | os.PathLike) else list(given)
    if not prompts:
        raise UserError("--prompts must hold a text at least")
    return prompts


def _of_file(given: str | os.PathLike) -> list[str]:
    path = read_path(given)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts '{path}' is not UTF-8: {error}") from error
    except OSError as error:
        remedy = "one text is given with --prompt"
        raise UserError(f"--prompts '{path}' cannot be read ({error.strerror}); {remedy}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"--prompts '{path}' holds no text: write one a line")
    return prompts
