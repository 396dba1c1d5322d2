"""`metrics.json`: figures that say under which protocol they were measured."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vltok.errors import UserError
from vltok.files import written_whole
from vltok.measures.values import Value
from vltok.version import __version__

Kind = Literal["tokenizer", "codec", "prior"]
_FILE = "metrics.json"
_KEYS = ("kind", "subject", "codes", "protocol", "environment")
#: The names of figures, which name files, too: of a plot, for example.
_FIGURE = re.compile(r"[\w.:/@+-]{1,150}")
_VERSIONED = ("torch", "torchvision", "torchmetrics", "timm", "torch-fidelity", "pillow", "numpy", "scipy")


@dataclass(frozen=True)
class Record:
    """What `vltok evaluate` found.

    Attributes:
        kind: What was measured.
        subject: Which one: its path, fingerprint and number of parameters, or its codec and quality, and the rate
            that was asked for.
        values: The figures by name. Names with a slash end in the feature network that they rest on.
        codes: What the codes look like: lengths, ratios, use of the codebook. Empty for a codec.
        protocol: What the figures depend on. Figures of two records may be compared where the parts `data` and
            `precision` agree, and for those that rest on a network the part `features` or `lpips` too, for
            correlations with the errors of a code of fixed length the part `fixed`, for what a prior drew the count and
            seed of the part `drawn`, and for what torchmetrics computes its version. `data` holds a hash of the pixels:
            it says whether other `crops`, or another version of Pillow, made a difference.
        environment: Where it was measured and how the data was described, for the record.
    """

    kind: Kind
    subject: Mapping[str, Any]
    values: Mapping[str, Value]
    codes: Mapping[str, Any]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a table calls it."""
        if self.kind == "codec":
            return f"{self.subject['codec']} {self.subject['quality']}"
        return str(self.subject["path"])

    def write(self, folder: Path) -> Path:
        """Write `metrics.json`; its path."""
        tree = {
            "kind": self.kind,
            "subject": self.subject,
            "values": {name: value.to_json() for name, value in self.values.items()},
            "codes": self.codes,
            "protocol": self.protocol,
            "environment": self.environment,
        }
        with written_whole(folder / _FILE) as path:
            path.write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return folder / _FILE

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read what `write` wrote.

        Raises:
            UserError: There is none, or it is no such file.
        """
        path = folder / _FILE if folder.is_dir() else folder
        try:
            record = _record(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror}; vltok evaluate writes it") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"'{path}' is not what vltok evaluate writes: evaluate the bundle of this run first"
            ) from error
        return record


def environment(device: str) -> dict[str, Any]:
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
    kind, subject, codes, protocol, where = (tree[key] for key in _KEYS)
    named = ("codec", "quality") if kind == "codec" else ("path",)
    histogram = codes.get("length", {}).get("histogram", {})
    right = [
        kind in get_args(Kind),
        all(isinstance(subject[key], str | int) for key in named),
        all(isinstance(part, dict) for part in (protocol["data"], where)),
        all(_FIGURE.fullmatch(name) for name in tree["values"]),
        all(int(length) >= 0 and isinstance(count, int) for length, count in histogram.items()),
        "precision" in protocol and "device" in where,
    ]
    if not all(right):
        raise ValueError("it is no record")
    values = {name: _value(value) for name, value in tree["values"].items()}
    return Record(kind, subject, values, codes, protocol, where)


def _value(given: Mapping[str, float | None]) -> Value:
    value, *rest = (given.get(name) for name in ("value", "low", "high", "deviation"))
    return Value(
        float("nan") if value is None else float(value), *(None if each is None else float(each) for each in rest)
    )
