"""Text that others chose, in Markdown."""

import re


def escaped(text: str) -> str:
    """A text on one line that Markdown shows as it is: nothing in it is a cell's end, a tag, a link or code."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return re.sub(r"[\\|<>`]|\](?=[(\[:])", r"\\\g<0>", line)


def fenced(text: str, language: str = "") -> str:
    """A block of code, whose fence is longer than any in it."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
