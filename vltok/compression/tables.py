"""How often codes and granularities occur: the model of codes that decodes anywhere, stored beside a bundle's weights.

Axis letters: k granularity, v vocabulary, x neighbours of a region, n code length.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, Int32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vltok.code_maps import entries, for_each_id
from vltok.codes import Codes, CodeSpec
from vltok.compression.contexts import CLASSES, Contexts, helpful
from vltok.compression.frequencies import TOTAL, quantized
from vltok.compression.neighbours import Neighbours, neighbours
from vltok.errors import UserError
from vltok.files import held, written_whole
from vltok.io.bundle_files import FILES, TABLES
from vltok.io.bundles import fingerprint
from vltok.io.hub import Hub, find

_FORMAT = "vltok code tables"
#: What is written; in the first version no tables know what codes stand beside.
_VERSION, _VERSIONS = "2", ("1", "2")
#: So many codes at most are kept with what lies beside them; of more, each third batch: batches of the same pictures at
#: several rates follow each other.
_MOST_BESIDE, _FEWER = 1 << 22, 3
#: Granularities of one region, or of many.
_Grains = TypeVar("_Grains", int, np.ndarray)
#: Counted besides what was seen, so that everything can be coded (Krichevsky and Trofimov, 1981).
_UNSEEN = 0.5


@dataclass(frozen=True, eq=False)
class CodeTables:
    """Frequencies of codes by granularity and of granularities by their neighbours, each row of which sums to 2²⁴.

    Attributes:
        spec: The codes that they are of.
        ids: Of the codes of each granularity, in a row for each of their ids; of all codes in one row where they lie on
            no grid.
        grains: Of a region's granularity, by those of the regions at its left, above it, and above at its right:
            `neighbourhoods` says which row that is. None where codes lie on no grid.
        lengths: Of an image's code length, where codes lie on no grid.
        contexts: Of codes beside others; None where that says no more of pictures that were not counted.
    """

    spec: CodeSpec
    ids: Int32[np.ndarray, "_ v"]
    grains: Int32[np.ndarray, "x k"] | None = None
    lengths: Int32[np.ndarray, " n"] | None = None
    contexts: Contexts | None = None

    @classmethod
    def measure(cls, codes: Iterable[Codes], spec: CodeSpec) -> CodeTables:
        """The frequencies in batches of codes; of none, all are equal.

        Args:
            codes: Of one tokenizer.
            spec: What they are codes of.

        Raises:
            UserError: They are no such codes, or more of a kind than the coder can tell apart, or they have several ids
                and lie on no grid.
        """
        if spec.codebooks > 1 and not spec.gridded:
            raise UserError(
                f"tables know no codes on no grid that have {spec.codebooks} ids: compress them under a prior (--prior)"
            )
        rows = max(spec.granularities, 1) * spec.codebooks
        if max(spec.codebook_size, 1 if spec.gridded else spec.longest_length + 1) > TOTAL // 2:
            raise UserError(f"tables take at most {TOTAL // 2} different codes, not {spec.codebook_size}")
        ids = np.zeros(rows * spec.codebook_size, dtype=np.int64)
        grains = np.zeros((spec.granularities + 1) ** 3 * spec.granularities, dtype=np.int64)
        lengths = np.zeros(0 if spec.gridded else spec.longest_length + 1, dtype=np.int64)
        beside, every = list[list[Neighbours]](), 1
        for number, batch in enumerate(codes):
            here = batch.on_host.validate(spec)
            row = here.granularities(spec) if spec.gridded else torch.zeros_like(here.ids)
            places = for_each_id(row * spec.entries, spec) + entries(here.ids, spec)
            ids += np.bincount(places.flatten().numpy(), minlength=len(ids))
            if spec.gridded:
                found = here.require_grains().numpy()
                regions = neighbourhoods(found, spec.granularities) * spec.granularities + found
                grains += np.bincount(regions.ravel(), minlength=len(grains))
                # what lies beside a code is a symbol, of one id
                if number % every == 0 and spec.codebooks == 1:
                    code_map = here.to_code_map(spec).numpy()
                    beside.append([neighbours(code_map, found, each, spec) for each in range(spec.granularities)])
                    if sum(len(part.ids) for parts in beside for part in parts) > _MOST_BESIDE:
                        beside, every = beside[::_FEWER], every * _FEWER
            else:
                lengths += np.bincount(here.lengths.numpy(), minlength=len(lengths))
        return cls(
            spec,
            _frequencies(ids.reshape(rows, -1)),
            _frequencies(grains.reshape(-1, spec.granularities)) if spec.gridded else None,
            None if spec.gridded else _frequencies(lengths),
            helpful(beside, spec),
        )

    @property
    def name(self) -> str:
        """A hash of what they hold, in hexadecimal digits."""
        digest = hashlib.sha256(repr((self.spec.codebook_size, self.spec.factors, self.spec.max_length)).encode())
        for values in self._values().values():
            digest.update(values.astype("<i4").tobytes())
        return digest.hexdigest()

    def save(self, bundle: str | os.PathLike) -> Path:
        """Store them in the folder of the tokenizer's bundle, whole or not at all; the path.

        Those that are there stay, so that files which were compressed with them can still be read; the ones that were
        stored last are the ones to compress with.

        Raises:
            UserError: It is no such folder, or what it has for tables is damaged.
        """
        owner = fingerprint(bundle)
        path = Path(bundle) / TABLES
        with held(path.with_name(f".{TABLES}.lock"), -1):  # others would lose what this adds, or the reverse
            stored = {table.name: table for table in _stored(path, owner, self.spec)} if path.exists() else {}
            stored.pop(self.name, None)
            tensors = {
                f"{number}.{kind}": torch.from_numpy(values)
                for number, tables in enumerate([*stored.values(), self])
                for kind, values in tables._values().items()
            }
            with written_whole(path) as file:
                save_file(tensors, file, {"format": _FORMAT, "version": _VERSION, "tokenizer": owner})
        return path

    @classmethod
    def stored(cls, bundle: str | os.PathLike, spec: CodeSpec) -> list[CodeTables]:
        """All that a tokenizer's bundle has, the one to compress with last; none where none were stored.

        Raises:
            UserError: They are damaged, or another tokenizer's.
        """
        path = find(bundle, Hub(), FILES) / TABLES
        return _stored(path, fingerprint(bundle), spec) if path.is_file() else []

    def _values(self) -> dict[str, Int32[np.ndarray, "*n"]]:
        found = {"ids": self.ids, "grains": self.grains, "lengths": self.lengths}
        if self.contexts is not None:
            found |= {"classes": self.contexts.classes, "contexts": self.contexts.frequencies}
        return {kind: values for kind, values in found.items() if values is not None}


def neighbourhoods(grains: Int[np.ndarray, "b h w"], granularities: int) -> Int[np.ndarray, "b h w"]:
    """Which neighbours each region has among those before it; beyond the edge lies a granularity of its own.

    On photographs the third neighbour saves 3% of the grain map, and a fourth nothing.
    """
    around = np.pad(grains, ((0, 0), (1, 0), (1, 1)), constant_values=granularities)
    left, above, right = around[:, 1:, :-2], around[:, :-1, 1:-1], around[:, :-1, 2:]
    return neighbourhood(left, above, right, granularities)


def neighbourhood(left: _Grains, above: _Grains, right: _Grains, granularities: int) -> _Grains:
    """The number of a neighbourhood of so many granularities, and the one beyond the edge."""
    return (left * (granularities + 1) + above) * (granularities + 1) + right


def _frequencies(counts: Int[np.ndarray, "*rows n"]) -> Int32[np.ndarray, "*rows n"]:
    return quantized(counts + _UNSEEN).astype(np.int32)


def _stored(path: Path, owner: str, spec: CodeSpec) -> list[CodeTables]:
    damaged = f"'{path}' is damaged or was not written by vltok: remove it, and measure tables anew with 'vltok rate'"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(damaged) from error
    if about.get("format") != _FORMAT:
        raise UserError(damaged)
    if about.get("version") not in _VERSIONS:
        raise UserError(
            f"'{path}' has version {about.get('version')}, this vltok reads {_VERSION}: install a later one"
        )
    if about.get("tokenizer") != owner:
        raise UserError(
            f"'{path}' holds the tables of another tokenizer: remove it, and measure its own with 'vltok rate'"
        )
    tables: list[CodeTables] = []
    for number in itertools.count():
        values = {name.split(".")[1]: found[name].numpy() for name in found if name.split(".")[0] == str(number)}
        if not values:
            return tables
        tables.append(_checked(values, spec, damaged))
    raise AssertionError


def _checked(values: dict[str, np.ndarray], spec: CodeSpec, damaged: str) -> CodeTables:
    """Tables of what a file holds.

    Raises:
        UserError: It holds no such tables.
    """
    shapes = {kind: each.shape for kind, each in CodeTables.measure([], spec)._values().items()}
    shapes |= Contexts.shapes(spec) if "contexts" in values else {}
    classes = values.get("classes", np.zeros(1, dtype=np.int32))
    rows = [each for kind, each in values.items() if kind != "classes"]
    if (
        {kind: each.shape for kind, each in values.items()} != shapes
        or any(each.dtype != np.int32 for each in values.values())
        or any(each.min() < 1 or (each.sum(-1, dtype=np.int64) != TOTAL).any() for each in rows)
        or not 0 <= classes.min() <= classes.max() < CLASSES
    ):
        raise UserError(damaged)
    contexts = Contexts(values.pop("classes"), values.pop("contexts")) if "contexts" in values else None
    return CodeTables(spec, **values, contexts=contexts)
