"""`metrics.json`: figures that say under which protocol they were measured.

`vltok fit`, `reconstruct` and `evaluate` all write it, and `compare` and `ablate` read it: one schema. Files that
vltok 0.1.0 wrote are read too (`vltok.evaluation.old_records`).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vltok.errors import UserError
from vltok.evaluation.differences import look_up
from vltok.evaluation.old_records import figure_name, migrated
from vltok.evaluation.values import Value
from vltok.files import written_whole
from vltok.version import __version__

RecordKind = Literal["tokenizer", "codec", "prior"]
RECORD = "metrics.json"
#: What a record has; the last may be absent.
_KEYS = ("kind", "subject", "values", "codes", "protocol", "environment", "images")
#: The names of figures, which name files, too: of a plot, for example.
_FIGURE = re.compile(r"[\w.:/@+-]{1,150}")
_VERSIONED = ("torch", "torchvision", "torchmetrics", "timm", "torch-fidelity", "pillow", "numpy", "scipy")


@dataclass(frozen=True)
class Record:
    """What was measured of a tokenizer, a prior or a codec.

    Attributes:
        kind: What was measured.
        subject: Which one: its path, fingerprint and number of parameters, or its codec and quality, and the rate
            that was asked for.
        values: The figures by name. Names with a slash end in the feature network that they rest on; those that end in
            ``_of_training`` are of crops of the training pictures.
        codes: What the codes look like: lengths, ratios, use of the codebook. Empty for a codec.
        protocol: What the figures depend on. Figures of two records may be compared where the parts `data` and
            `precision` agree, and for those that rest on a network the part `features` or `lpips` too, for
            correlations with the errors of a code of fixed length the part `fixed`, for what a prior drew the count and
            seed of the part `drawn`, and for what torchmetrics computes its version. `data` holds a hash of the pixels:
            it says whether other `crops`, or another version of Pillow, made a difference. What `vltok fit` measured at
            its end says how many `steps` it had trained.
        environment: Where it was measured and how the data was described, for the record.
        images: The figures of each picture, where they belong to the record.
    """

    kind: RecordKind
    subject: Mapping[str, Any]
    values: Mapping[str, Value]
    codes: Mapping[str, Any]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """What a table calls it."""
        if self.kind == "codec":
            return f"{self.subject['codec']} {self.subject['quality']}"
        return str(self.subject["path"])

    @property
    def of_training(self) -> bool:
        """Whether `vltok fit` has measured it at its end."""
        return "steps" in self.protocol

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        values = {name: value.to_json() for name, value in self.values.items()}
        tree = {**{key: getattr(self, key) for key in _KEYS}, "values": values}
        return tree if self.images else {key: value for key, value in tree.items() if key != "images"}

    def figure(self, key: str) -> Any:
        """What stands under a key: a figure's name, or a dotted path into the file; None where nothing does.

        Names that version 0.1.0 gave to figures are understood.
        """
        name = figure_name(key)
        return self.values[name].value if name in self.values else look_up(self.to_json(), key)

    def write(self, folder: Path) -> Path:
        """Write `metrics.json`; its path."""
        with written_whole(folder / RECORD) as path:
            path.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return folder / RECORD

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read what `write` wrote, or version 0.1.0.

        Raises:
            UserError: There is none, or it is no such file.
        """
        path = folder / RECORD if folder.is_dir() else folder
        try:
            return _record(migrated(json.loads(path.read_text(encoding="utf-8")), str(path.parent)))
        except OSError as error:
            raise UserError(
                f"'{path}' cannot be read: {error.strerror}; vltok evaluate writes it, and vltok fit at its end"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"'{path}' is not what vltok evaluate writes: evaluate the bundle of this run first"
            ) from error


def environment(device: Any) -> dict[str, Any]:
    """Where it is measured."""
    import torch

    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return {
        "vltok": __version__,
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in _VERSIONED},
        "device": gpu or f"{device}, {torch.get_num_threads()} threads",
    }


def package_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _record(tree: Any) -> Record:
    """The record that plain values describe.

    Raises:
        ValueError, KeyError, TypeError or AttributeError: They describe none.
    """
    kind, subject, values, codes, protocol, where = (tree[key] for key in _KEYS[:-1])
    named = ("codec", "quality") if kind == "codec" else ("path",)
    parts = [codes] if "length" in codes else codes.values()
    histograms = [part["length"]["histogram"] for part in parts]
    images = tree.get("images", [])
    right = [
        kind in get_args(RecordKind),
        all(isinstance(subject[key], str | int) for key in named),
        all(isinstance(part, dict) for part in (protocol["data"], where, *images)),
        all(_FIGURE.fullmatch(name) for name in values),
        all(int(length) >= 0 and isinstance(n, int) for each in histograms for length, n in each.items()),
        "precision" in protocol and "device" in where,
    ]
    if not all(right):
        raise ValueError("it is no record")
    read = {name: Value.from_json(value) for name, value in values.items()}
    return Record(kind, subject, read, codes, protocol, where, tuple(images))
