"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

from vltok.io.markdown import escaped


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose last line ends too; what a cell holds is shown as it is."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)
