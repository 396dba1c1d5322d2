"""The classes of pictures in tar shards: what a label is, and what the classes are called."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from vltok.codes import LARGEST_LABEL
from vltok.errors import UserError
from vltok.loading.classes import same_classes
from vltok.pictures.samples import TarSample
from vltok.pictures.tars import is_address

#: The file beside shards that lists the names of their classes.
CLASSES_FILE = "classes.json"


def class_names(shards: Sequence[str], key: str) -> list[str] | None:
    """The names of the classes, from `classes.json` beside local shards; None where there is none.

    Args:
        shards: The shards, in one folder or several.
        key: What the user gives them by.

    Raises:
        UserError: A file is no list of names, or those beside two shards differ.
    """
    folders = sorted({str(Path(shard).parent) for shard in shards if not is_address(shard)})
    found = [read_class_names(Path(folder)) for folder in folders]
    for folder, names in zip(folders, found, strict=True):
        same_classes(key, (folders[0], found[0]), (folder, names))
        same_classes(key, (folder, names), (folders[0], found[0]))
    return next((names for names in found if names is not None), None)


def read_class_names(folder: Path) -> list[str] | None:
    """The names that a folder's `classes.json` lists; None where there is no such file.

    Raises:
        UserError: It is no list of names.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    remedy = "remove it, or pack the shards again"
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): {remedy}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} must hold a list of names, one for each class: {remedy}")
    return names


def label_of(sample: TarSample, classes: Sequence[str] | None = None) -> int | None:
    """The class of a sample: what its `.cls` holds, or what its `.json` has under `label`; None where it has none.

    It is a whole number from 0 on, in quotes or not, or the name of a class.

    Args:
        sample: The sample.
        classes: The names of the classes, where they have any.

    Raises:
        UserError: It is something else, or `.cls` and `.json` say two things.
    """
    found = {}
    if sample.cls is not None:
        found[".cls"] = sample.cls.decode("utf-8-sig", "backslashreplace").strip()
    if sample.json is not None:
        try:
            record = json.loads(sample.json)
        except (ValueError, RecursionError) as error:
            raise _refused(sample, f"no readable label: '.json' is no JSON ({error})") from error
        if isinstance(record, dict) and record.get("label") is not None:
            found[".json"] = record["label"]
    labels = {source: _number(sample, value, classes) for source, value in found.items()}
    if len(set(labels.values())) > 1:
        raise _refused(sample, f"two labels: {labels['.cls']} in '.cls', and {labels['.json']} in '.json'")
    return next(iter(labels.values()), None)


def _number(sample: TarSample, value: object, classes: Sequence[str] | None) -> int:
    number = None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = int(value)
        if number is None and classes is not None and value in classes:
            number = classes.index(value)
            if value in classes[number + 1 :]:
                raise _refused(sample, f"label {value!r}, which {CLASSES_FILE} lists twice: give its number")
    elif type(value) is int or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if number is None:
        named = f", or one of the names in {CLASSES_FILE}" if classes is not None else ""
        remedy = "" if classes is not None else f"; a file {CLASSES_FILE} beside the shards may list names"
        raise _refused(sample, f"no readable label: it must be a whole number{named}, not {value!r:.80}{remedy}")
    if number < 0:
        raise _refused(sample, f"label {number}: number the classes from 0 on, and leave pictures without a class out")
    if number > LARGEST_LABEL:
        raise _refused(sample, "a label of more than 64 bits: number the classes from 0 on")
    if classes is not None and number >= len(classes):
        raise _refused(
            sample,
            f"label {number}, but {CLASSES_FILE} beside the shards lists {len(classes)} classes, numbered from 0: "
            "remove it, or let it list all",
        )
    return number


def _refused(sample: TarSample, has: str) -> UserError:
    return UserError(f"sample {sample.key} of shard '{sample.shard}' has {has}")
