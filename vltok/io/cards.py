"""Model cards: the README of a bundle, with the front matter that the Hugging Face Hub reads."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vltok.io import yaml_text
from vltok.io.markdown import escaped, fenced
from vltok.measures.meanings import meaning
from vltok.version import __version__

_KINDS = {
    "tokenizer": (
        ["image-tokenizer"],
        "A {length} image tokenizer.",
        'tokenizer = vltok.load_tokenizer("path/or/hub-id")\n'
        "codes = tokenizer.encode(images)  # [b 3 H W] in [-1, 1]\nimages = tokenizer.decode(codes)",
    ),
    "prior": (
        ["image-generation", "autoregressive"],
        "A prior over the codes of a {length} image tokenizer: it draws codes, the tokenizer makes images of "
        "them. `vltok sample --prior path/or/hub-id --out samples` does both.",
        'prior = vltok.load_prior("path/or/hub-id")\n'
        'tokenizer = vltok.load_tokenizer(vltok.find_tokenizer("path/or/hub-id"))\n'
        "images = tokenizer.decode(prior.sample(4, vltok.SamplingConfig()))  # [4 3 H W] in [-1, 1]",
    ),
}


def model_card(
    name: str,
    kind: str,
    config: Mapping[str, Any],
    text: str,
    metrics: Mapping[str, Any],
    protocol: Mapping[str, Any] | None = None,
    length: str = "variable-length",
) -> str:
    """The Markdown of a bundle's card.

    Args:
        name: Its title.
        kind: ``tokenizer`` or ``prior``.
        config: The `class_path` and `init_args`.
        text: How it was trained, on what.
        metrics: Measured figures by name; numbers and nested mappings.
        protocol: What the figures depend on.
        length: What the codes of images are: ``variable-length`` or ``fixed-length``.
    """
    tags, purpose, use = _KINDS[kind]
    front = {"library_name": "vltok", "tags": ["vltok", *tags, length, config["class_path"]]}
    sections = [
        f"---\n{_written(front)}---",
        f"# {escaped(name)}",
        purpose.format(length=length),
        text.strip(),
        f"## Use\n\n```python\nimport vltok\n\n{use}\n```",
        "" if not metrics else "## Measured figures\n\n" + _table(metrics),
        "" if not protocol else f"Their protocol:\n\n{fenced(_written(protocol), 'yaml')}",
        f"## Configuration\n\n{fenced(_written(config), 'yaml')}",
        f"Written by vltok {__version__}.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def published(
    card: str, name: str, repository: str, license: str | None, datasets: Sequence[str], picture: str | None = None
) -> str:
    """A bundle's card for a repository on the Hub: it names the repository in its title and the lines that load it.

    Args:
        card: The card, with or without front matter.
        name: The title that it was given; another one stays.
        repository: ``user/name``.
        license: Its identifier on the Hub, such as ``apache-2.0``; None leaves what the card says.
        datasets: What it was trained on, as the Hub names data sets; none leaves what the card says.
        picture: The name of a file beside the card that is shown.
    """
    head, found, text = card.removeprefix("---\n").partition("\n---\n")
    if not card.startswith("---\n") or not found:
        head, text = "", card
    front = yaml_text.load(head)
    front = {"library_name": "vltok", **(front if isinstance(front, dict) else {})}
    front |= {"license": license} if license else {}
    front |= {"datasets": list(datasets)} if datasets else {}
    text = text.strip().replace("path/or/hub-id", repository)
    if text.startswith(title := f"# {escaped(name)}\n"):
        text = f"# {escaped(repository.partition('/')[2])}\n{text.removeprefix(title)}"
    shown = f"\n\n## Pictures\n\n![Pictures and their coding maps]({picture})" if picture else ""
    return f"---\n{yaml_text.dump(front)}---\n\n{text}{shown}\n"


def _table(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name, value in metrics.items():
        means = meaning(name)
        cells = (f"{means.name} {means.arrow}", _shown(value, name), means.text)
        rows.append(f"| {' | '.join(map(escaped, cells))} |")
    return "\n".join(["| figure | value | what it says |", "| --- | --- | --- |", *rows])


def _shown(value: Any, name: str) -> str:
    if isinstance(value, float):
        return meaning(name).shown(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item, name)}" for key, item in value.items())
    return str(value) if isinstance(value, str | int) else json.dumps(value)


def _written(tree: Mapping[str, Any]) -> str:
    """As YAML, each text in one line and in its own letters, so that a path in it can be found again."""
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=math.inf)
