"""`codes.json`, the manifest of a folder of code shards, and `codes.index.npy`, which tells where samples stand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from vltok.codes import CodeSpec
from vltok.data.code_shards import CodeSample, shard_format
from vltok.errors import UserError
from vltok.files import sha256_of, written_whole

MANIFEST = "codes.json"
INDEX = "codes.index.npy"
_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One file of samples.

    Attributes:
        name: The file's name.
        samples: How many samples it holds.
        codes: How many codes they have together.
        bytes: The file's size.
        sha256: Its checksum, in hexadecimal digits.
    """

    name: str
    samples: int
    codes: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that could not be read.

    Attributes:
        index: Its place in the input.
        key: What the data module calls it.
        reason: What is wrong with it.
    """

    index: int
    key: str
    reason: str


@dataclass(frozen=True)
class ExportSettings:
    """What the bytes of an export follow from, besides the machine's arithmetic.

    Attributes:
        tokenizer: The tokenizer's fingerprint: of its weights and configuration.
        format: The name of the shards' format.
        shard_size: Pictures of the input that go into one shard.
        batch_size: Pictures that are encoded at once; a batch never spans two shards.
        precision: The type in which the tokenizer computed.
        pictures: Number of pictures of the input, corrupt ones too.
        input: A digest of what the input is.
    """

    tokenizer: str
    format: str
    shard_size: int
    batch_size: int
    precision: str
    pictures: int
    input: str


@dataclass(frozen=True)
class CodeManifest:
    """What a folder of code shards holds.

    Attributes:
        spec: What the codes may be; its `regions` are set where all pictures have one size.
        settings: What the export followed from.
        shards: In order.
        skipped: The pictures that could not be read, in the order of the input.
        labelled: Whether every sample has a label.
        classes: The names of the labels, or None where they have none.
        statistics: See `CodeCounts.statistics`.
        index_sha256: The checksum of `codes.index.npy`, for shards that have one.
        tokenizer_places: Where the tokenizer's bundle was: paths, relative ones from the folder, or a Hub name.
    """

    spec: CodeSpec
    settings: ExportSettings
    shards: tuple[Shard, ...]
    skipped: tuple[SkippedPicture, ...]
    labelled: bool
    classes: tuple[str, ...] | None
    statistics: dict[str, Any]
    index_sha256: str | None
    tokenizer_places: tuple[str, ...] = ()

    def write(self, folder: Path, through: Path | None = None) -> None:
        """Write `codes.json`, whole; `through` is where it stands until then."""
        with written_whole(folder / MANIFEST, through) as path:
            path.write_text(json.dumps({"version": _VERSION, **dataclasses.asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> CodeManifest:
        """The manifest of a folder.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} holds no finished codes: there is no {MANIFEST}; make them with vltok tokenize")
        try:
            values = json.loads(path.read_text())
            if values["version"] != _VERSION:
                raise UserError(f"{path} is of version {values['version']}; this vltok reads version {_VERSION}")
            return cls(
                spec=spec_from_json(values["spec"]),
                settings=ExportSettings(**values["settings"]),
                shards=tuple(Shard(**shard) for shard in values["shards"]),
                skipped=tuple(SkippedPicture(**picture) for picture in values["skipped"]),
                labelled=values["labelled"],
                classes=None if values["classes"] is None else tuple(values["classes"]),
                statistics=values["statistics"],
                index_sha256=values["index_sha256"],
                tokenizer_places=tuple(values["tokenizer_places"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def read_index(self, folder: Path) -> Int64[np.ndarray, "b 3"]:
        """For each sample, in order: its first byte in its shard, its size in bytes, its code length.

        Raises:
            UserError: The shards have no index, or it is missing or not the one that was written.
        """
        path = folder / INDEX
        if self.index_sha256 is None:
            raise UserError(
                f"{folder} holds {self.settings.format} shards, in which no sample can be looked up; "
                "training reads those of vltok tokenize --format webdataset"
            )
        if not path.is_file() or sha256_of(path) != self.index_sha256:
            raise UserError(f"{path} is missing or damaged: copy it again, or run vltok tokenize again")
        return np.load(path, allow_pickle=False)

    def check_shards(self, folder: Path) -> None:
        """See that every shard is there, with its size.

        Raises:
            UserError: One is missing or was cut short.
        """
        for shard in self.shards:
            path = folder / shard.name
            found = path.stat().st_size if path.is_file() else 0
            if found != shard.bytes:
                raise UserError(f"{path} has {found} bytes, not the {shard.bytes} of the manifest: copy it again")

    def read_samples(self, folder: Path, shard: Shard) -> Iterator[CodeSample]:
        """The samples of one shard, in order.

        Raises:
            UserError: The shard is not the one that the manifest speaks of.
        """
        path = folder / shard.name
        if not path.is_file() or sha256_of(path) != shard.sha256:
            raise UserError(f"{path} is missing or damaged: copy it again, or run vltok tokenize again")
        return shard_format(self.settings.format).read(path)


def spec_from_json(values: dict[str, Any]) -> CodeSpec:
    """The spec that `dataclasses.asdict` and JSON made plain."""
    regions = values["regions"]
    return CodeSpec(
        codebook_size=values["codebook_size"],
        factors=tuple(values["factors"]),
        regions=None if regions is None else tuple(regions),
        max_length=values["max_length"],
    )
