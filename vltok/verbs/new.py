"""A package of one's own, with a component that works, its contract test and a recipe."""

import importlib.util
import keyword
import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml

from vltok.errors import UserError, unknown
from vltok.files import folder_written_whole, is_device
from vltok.paths import new_path
from vltok.registry import KINDS, components
from vltok.version import __version__

_TEMPLATES = files("vltok.verbs") / "templates"
#: What the base recipe says otherwise so that a component of a kind has its part in it, by dotted keys; `NAME` stands
#: for the component.
_RECIPES: dict[str, dict[str, Any]] = {
    "tokenizer": {"model.init_args.tokenizer": {"class_path": "NAME", "init_args": {"patch": 8, "size": 256}}},
    "prior": {"model.init_args.prior": "NAME"},
    "masked-prior": {"model.init_args.prior": "NAME"},
    "text_encoder": {
        "model.init_args.prior": {
            "class_path": "dq-transformer",
            "init_args": {
                "position_transformer": {"width": 64, "heads": 2, "layers": 1},
                "content_transformer": {"layers": 1},
                "text_encoder": "NAME",
            },
        },
        "model.init_args.learning_rate": 0.001,
    },
    "encoder": {
        "model.init_args.tokenizer.init_args.encoder": {
            "class_path": "NAME",
            "init_args": {"factors": [4, 8], "channels": 64},
        }
    },
    "gate": {
        "model.init_args.tokenizer.init_args.gate": {"class_path": "NAME", "init_args": {"ratios": {4: 0.5, 8: 0.5}}}
    },
    "budget": {
        "model.init_args.tokenizer.init_args.gate": "feature",
        "model.init_args.tokenizer.init_args.budget": {
            "class_path": "NAME",
            "init_args": {"ratios": {4: 0.5, 8: 0.5}},
        },
    },
    "quantizer": {
        "model.init_args.tokenizer.init_args.quantizer": {"class_path": "NAME", "init_args": {"dimension": 8}}
    },
    "decoder": {"model.init_args.tokenizer.init_args.decoder": "NAME"},
    "perceptual": {"model.init_args.perceptual": "NAME"},
    "discriminator": {"model.init_args.discriminator": {"class_path": "NAME", "init_args": {"width": 32}}},
    "data": {"data": {"class_path": "NAME", "init_args": {"size": 64, "batch_size": 16}}},
    # these read what this recipe leaves
    "importer": {},
    "exporter": {},
}
#: What can be written: a component of each kind, and a prior that is no likelihood.
NEW = tuple(_RECIPES)
#: What stands before the kind of a component that is written in this way.
_MASKED = "masked-"
_LONGEST_NAME = 64
_TRAIN = """Train with it:

```sh
vltok fit --config recipe.yaml
```"""
_TRAIN_PRIOR = """Train it on the codes of a small tokenizer, and draw pictures:

```sh
vltok fit --config tokenizer.yaml --out runs/tokenizer
vltok tokenize --tokenizer runs/tokenizer/bundle --split train --data.train_crops 3200 --out codes/train
vltok tokenize --tokenizer runs/tokenizer/bundle --split val --out codes/val
vltok fit --config recipe.yaml --out runs/prior
vltok sample --prior runs/prior/bundle --count 16 --out samples
```"""
#: Of codes of pictures that have texts.
_TRAIN_TEXTS = """Train a prior with it on the codes of pictures that have texts, each in a `.txt` beside its picture:

```sh
vltok fit --config tokenizer.yaml --out runs/tokenizer
for split in train val; do
  vltok tokenize --tokenizer runs/tokenizer/bundle --split $split --out codes/$split \\
    --data folder --data.root pictures --data.size 64 --data.texts txt
done
vltok fit --config recipe.yaml --out runs/prior
vltok sample --prior runs/prior/bundle --prompt 'a red fox' --out samples
```"""
_TRAIN_IMPORTER = """What it reads is left by a training, such as:

```sh
vltok fit --config recipe.yaml --out runs/tokenizer
```"""
_TRAIN_EXPORTER = """It writes what a training leaves, such as:

```sh
vltok fit --config recipe.yaml --out runs/tokenizer
vltok export runs/tokenizer/bundle exported --to NAME
```"""
_USES = {
    "prior": _TRAIN_PRIOR,
    "masked-prior": _TRAIN_PRIOR,
    "text_encoder": _TRAIN_TEXTS,
    "importer": _TRAIN_IMPORTER,
    "exporter": _TRAIN_EXPORTER,
}
#: Those that train on codes.
_OF_CODES = ("prior", "masked-prior", "text_encoder")


def new(kind: str, name: str, out: str | os.PathLike | None = None) -> Path:
    """Write a package with a component, whole or not at all.

    Args:
        kind: What to write, one of `NEW`.
        name: Its name in recipes, and the package's: lower case, such as `my-gate`.
        out: The folder to write; `./NAME` by default.

    Returns:
        The folder.

    Raises:
        UserError: The kind does not exist, the name cannot be taken, or the folder exists.
    """
    if kind not in NEW:
        raise unknown("kind of component", kind, NEW)
    component = kind.removeprefix(_MASKED)
    _check_name(component, name)
    folder = new_path("--out", out or name)
    if folder.exists():
        raise UserError(f"'{folder}' exists; it is left as it is: name another folder with --out")
    module = name.replace("-", "_")
    words = {
        "kind": component,
        "A_kind": f"{'An' if component[0] in 'aeiou' else 'A'} {component}",
        "name": name,
        "module": module,
        "cls": _class_name(name),
        "group": KINDS[component][0],
        "version": __version__,
        "use": _USES.get(kind, _TRAIN).replace("NAME", name),
    }
    texts = {
        "pyproject.toml": _filled("pyproject.toml", words),
        "README.md": _filled("README.md", words),
        f"src/{module}/__init__.py": _filled("init.py", words),
        f"src/{module}/{component}.py": _filled(f"{kind}.py", words),
        f"tests/test_{component}.py": _filled(f"test_{kind}.py", words),
        "recipe.yaml": _recipe(kind, name),
    }
    if kind in _OF_CODES:
        texts["tokenizer.yaml"] = _headed("A small tokenizer, in a minute", "tokenizer.yaml", _base("tokenizer"))
    with folder_written_whole(folder) as place:
        for path, text in texts.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    return folder


def _check_name(kind: str, name: str) -> None:
    """See that a name can be a package's, a class's and a component's.

    Raises:
        UserError: It cannot.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"name '{name}' must be lower-case words with hyphens between them, such as my-{kind}")
    taken = [component for component in components(kind) if component.name == name]
    if taken:
        raise UserError(f"{kind} '{name}' is {taken[0].distribution}'s already: choose another name, such as my-{name}")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"name '{name[:20]}…' must have at most {_LONGEST_NAME} letters, not {len(name)}")
    if is_device(name):
        raise UserError(f"name '{name}' is that of a device on Windows: choose another, such as my-{name}")
    module = name.replace("-", "_")
    if (
        keyword.iskeyword(_class_name(name))
        or keyword.iskeyword(module)
        or module in sys.stdlib_module_names
        or importlib.util.find_spec(module) is not None
    ):
        raise UserError(f"name '{name}' is that of a Python module already: choose another, such as my-{name}")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _recipe(kind: str, name: str) -> str:
    recipe = _base("prior" if kind in _OF_CODES else "tokenizer")
    for keys, value in _RECIPES[kind].items():
        *path, last = keys.split(".")
        place = recipe
        for key in path:
            place = place[key]
        place[last] = _named(value, name)
    trains = f"Trains with the {kind.removeprefix(_MASKED)} {name}, in a minute"
    title = trains if _RECIPES[kind] else f"A tokenizer to {kind[:-2]}"
    return _headed(title, "recipe.yaml", recipe)


def _named(value: Any, name: str) -> Any:
    """What a recipe says, with the component's name wherever `NAME` stands."""
    if isinstance(value, dict):
        return {key: _named(inner, name) for key, inner in value.items()}
    return name if value == "NAME" else value


def _base(name: str) -> dict[str, Any]:
    return yaml.safe_load((_TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))


def _headed(title: str, file: str, recipe: dict[str, Any]) -> str:
    body = yaml.safe_dump(recipe, sort_keys=False, width=120)
    return f"# {title}.\n# vltok fit --config {file}\n{body}"


def _filled(template: str, words: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")).substitute(words)
