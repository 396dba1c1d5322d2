"""What `vltok VERB --help` says, as Markdown."""

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator
from unittest.mock import patch

from vltok.cli.main import VERBS, main

#: The end of an option's help, where argparse says of which type it is.
_TYPE = re.compile(r" \((?:required, |type: |default: )[^()]*(?:\([^()]*\)[^()]*)*\)$")
_CODE = re.compile(r"``?[^`]+``?|(?<!\w)'[^']+'(?!\w)")


def verbs() -> str:
    """A list of all verbs, each with its purpose and a link to its page."""
    return "\n".join(f"- [`vltok {verb}`](/verbs/{verb}.md): {_small(purpose)}" for verb, purpose in VERBS.items())


def help_of(verb: str) -> str:
    """Usage, purpose and options of a verb."""
    usage, *blocks = _printed(verb).strip().split("\n\n")
    parts = [f"```text\n{_usage(usage)}\n```"]
    for block in blocks:
        heading, _, rest = block.partition("\n")
        if rest and heading.endswith(":") and rest.startswith("  -" if heading == "options:" else "  "):
            parts += [f"**{_markdown(heading[:1].upper() + heading[1:-1])}**", "\n".join(_entries(rest))]
        elif block.startswith("  "):
            parts.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            parts.append(_markdown(" ".join(block.split())))
    return "\n\n".join(parts)


def _printed(verb: str) -> str:
    """What the command prints where lines have no end, so that every option stands on one."""
    with patch.dict(os.environ, COLUMNS="100000"), contextlib.redirect_stdout(io.StringIO()) as printed:
        main([verb, "--help"])
    return printed.getvalue()


def _usage(line: str) -> str:
    words = re.findall(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]|\S+", line.removeprefix("usage: "))
    glued = " ".join(word.replace(" ", "\0") for word in words)
    wrapped = textwrap.wrap(glued, 76, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapped).replace("\0", " ")


def _entries(lines: str) -> Iterator[str]:
    for entry in re.split(r"\n(?=  \S)", lines):
        name, _, meaning = re.sub(r"\n +", "   ", entry.strip()).partition("  ")
        meaning = " ".join(meaning.split())
        kind = _TYPE.search(meaning)
        said = _markdown(meaning[: kind.start()] if kind else meaning)
        shown = f" *{_escaped(kind.group().strip(' ()'))}*" if kind else ""
        yield f"`{name}`\n: {said}{shown}\n"


def _markdown(plain: str) -> str:
    """A text of a terminal: what it quotes is code."""
    parts, end = [], 0
    for code in _CODE.finditer(plain):
        parts += [_escaped(plain[end : code.start()]), f"`{code.group().strip('`').strip(chr(39))}`"]
        end = code.end()
    return "".join([*parts, _escaped(plain[end:])])


def _escaped(plain: str) -> str:
    return re.sub(r"([\\*_<>\[\]{}|])", r"\\\1", plain)


def _small(words: str) -> str:
    return _markdown(f"{words[:1].lower()}{words[1:]}")
