"""Model cards: the README of a bundle, with the front matter that the Hugging Face Hub reads."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from vltok.version import __version__


def model_card(name: str, config: Mapping[str, Any], text: str, metrics: Mapping[str, Any]) -> str:
    """The Markdown of a tokenizer's card.

    Args:
        name: Its title.
        config: The tokenizer's `class_path` and `init_args`.
        text: How it was trained, on what.
        metrics: Measured figures by name; numbers and nested mappings.
    """
    front = {"library_name": "vltok", "tags": ["vltok", "image-tokenizer", "variable-length", config["class_path"]]}
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        "A variable-length image tokenizer.",
        text.strip(),
        '## Use\n\n```python\nimport vltok\n\ntokenizer = vltok.load_tokenizer("path/or/hub-id")\n'
        "codes = tokenizer.encode(images)  # [b 3 H W] in [-1, 1]\nimages = tokenizer.decode(codes)\n```",
        "" if not metrics else "## Measured figures\n\n" + _table(metrics),
        f"## Configuration\n\n```yaml\n{yaml.safe_dump(dict(config), sort_keys=False)}```",
        f"Written by vltok {__version__}.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _table(metrics: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {_shown(value)} |" for name, value in metrics.items()]
    return "\n".join(["| figure | value |", "| --- | --- |", *rows])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return str(value) if isinstance(value, str | int) else json.dumps(value)
