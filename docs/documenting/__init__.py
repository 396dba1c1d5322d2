"""What the pages take from the repository: they are templates of Jinja, and these are the names that they may use."""

from typing import Any

from jinja2 import Environment, StrictUndefined
from sphinx.application import Sphinx

from documenting import figures, photographs
from documenting.components import components
from documenting.docstrings import as_rst, public
from documenting.notebooks import notebook
from documenting.texts import readme, text
from documenting.verbs import help_of, verbs

NAMES = {
    "components": components,
    "figure": figures,
    "help": help_of,
    "notebook": notebook,
    "photograph": photographs,
    "public": public,
    "readme": readme,
    "text": text,
    "verbs": verbs,
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    templates = Environment(undefined=StrictUndefined, autoescape=False)

    def fill(_: Sphinx, page: str, source: list[str]) -> None:
        source[0] = templates.from_string(source[0]).render(NAMES)

    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", as_rst)
    return {"parallel_read_safe": True}
