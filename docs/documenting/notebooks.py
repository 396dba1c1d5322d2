"""A notebook as Markdown, with what its cells showed when it was last run."""

import json
from collections.abc import Iterator
from typing import Any

from documenting.texts import ROOT


def notebook(name: str) -> str:
    """A notebook of `docs/`: its texts, its code, and under each cell what it printed and drew."""
    cells = json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell))


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield _printed(output["text"])
        elif "image/png" in output["data"]:
            yield f"![what the cell above draws](data:image/png;base64,{''.join(output['data']['image/png']).strip()})"
        else:
            yield _printed(output["data"]["text/plain"])


def _printed(lines: list[str]) -> str:
    return f"```{{code-block}} text\n:class: printed\n\n{''.join(lines)}\n```"
