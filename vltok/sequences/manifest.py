"""`codes.json`, the manifest of a folder of code shards, and `codes.index.npy`, which tells where samples stand."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from vltok.arguments import fields_of
from vltok.codes import CodeSpec
from vltok.errors import UserError, one_line
from vltok.files import sha256_of, written_whole
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.plain import from_plain
from vltok.sequences.shards import CodeSample, shard_format

MANIFEST = "codes.json"
INDEX = "codes.index.npy"
#: Version 1 told neither the options nor whether TF32 was allowed.
VERSION = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
        options: The options that the input follows from, by name, so that a refusal can say which one differs.
        tf32: Whether a GPU might round float32 to TF32; None where a version 1 does not tell.
    """

    tokenizer: str
    format: str
    shard_size: int
    batch_size: int
    precision: str
    pictures: int
    input: str
    options: dict[str, Any] = field(default_factory=dict)
    tf32: bool | None = False

    def alike(self, other: ExportSettings) -> bool:
        """Whether the same bytes follow from both, whatever the options that led to the same input."""
        tf32 = self.tf32 if None in (self.tf32, other.tf32) else other.tf32
        return self == dataclasses.replace(other, options=self.options, tf32=tf32)

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-self.pictures // self.shard_size))

    def places(self, shard: int) -> range:
        """The places in the input of the pictures of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.pictures))

    def name(self, shard: int) -> str:
        """The name of a shard's file."""
        return f"codes-{shard:06d}{shard_format(self.format).suffix}"

    def check(self) -> None:
        """See that there may be such settings.

        Raises:
            ValueError: A number is too small.
            UserError: There is no such format.
        """
        shard_format(self.format)
        for name in ("shard_size", "batch_size", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"settings.{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class _Lengths:
    """`length` of the statistics."""

    mean: float
    variance: float
    minimum: int
    maximum: int
    histogram: dict[str, int]


@dataclass(frozen=True)
class _Statistics:
    """What the statistics hold, as `CodeCounts.statistics` says."""

    samples: int
    codes: int
    pixels: int
    length: _Lengths
    ratios: dict[str, float]
    codebook_usage: dict[str, float]
    bits_per_pixel: dict[str, float]


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
        described: Whether some samples have a text.
        embedding_size: How many numbers the embedding of each sample has; None where they have none.
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
    described: bool = False
    embedding_size: int | None = None

    @property
    def indexed(self) -> bool:
        """Whether a sample can be read by itself."""
        return self.index_sha256 is not None

    def write(self, folder: Path, through: Path | None = None) -> None:
        """Write `codes.json`, whole; `through` is where it stands until then."""
        with written_whole(folder / MANIFEST, through) as path:
            written = {"version": VERSION, **dataclasses.asdict(self), "spec": fields_of(self.spec)}
            path.write_text(json.dumps(written, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> CodeManifest:
        """The manifest of a folder.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} holds no finished codes: there is no {MANIFEST}; make them with vltok tokenize")
        values = read_json(path)
        try:
            manifest = from_plain(cls, values, "")
            manifest._check()
        except (ValueError, UserError) as error:
            raise damaged(path, error) from error
        return manifest

    def _check(self) -> None:
        """See that what the file says goes together; a `ValueError` else."""
        self.settings.check()
        if [shard.name for shard in self.shards] != [self.settings.name(shard) for shard in self.settings.shards]:
            raise ValueError(f"shards must be the {len(self.settings.shards)} that follow from the settings")
        for place, shard in enumerate(self.shards):
            most = len(self.settings.places(place))
            if not 0 <= shard.samples <= most or min(shard.codes, shard.bytes) < 0:
                raise ValueError(f"shards[{place}] must hold up to {most} samples, and no number below 0")
        statistics = from_plain(_Statistics, self.statistics, "statistics")
        totals = [sum(shard.samples for shard in self.shards), sum(shard.codes for shard in self.shards)]
        if totals != [statistics.samples, statistics.codes] or statistics.samples < 1:
            raise ValueError(f"statistics.samples and .codes must be the shards' {totals}, and above 0")
        digests = [shard.sha256 for shard in self.shards] + [self.index_sha256]
        if not all(_DIGEST.fullmatch(digest) for digest in digests if digest is not None):
            raise ValueError("a checksum must have 64 hexadecimal digits")

    def read_index(self, folder: Path) -> Int64[np.ndarray, "b columns"]:
        """For each sample, in order: its first byte in its shard, its size in bytes, its code length.

        Where pictures have several sizes, the rows and columns of its grain map follow, but not in exports of before.

        Raises:
            UserError: The index is missing or not the one that was written.
        """
        path = folder / INDEX
        if not path.is_file() or sha256_of(path) != self.index_sha256:
            raise _missing(path)
        try:
            # mapped first, so that no memory is taken for what the file only says that it holds
            index = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise _missing(path) from error
        ends = np.repeat([shard.bytes for shard in self.shards], [shard.samples for shard in self.shards])
        columns = (3, 5) if self.spec.gridded and self.spec.regions is None else (3,)
        if index.dtype != np.int64 or index.shape not in [(len(ends), n) for n in columns] or (index < 0).any():
            raise _missing(path)
        if (index[:, 0] > ends).any() or (index[:, 1] > ends - index[:, 0]).any():
            raise _missing(path)
        return index

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
        """The samples of one shard, in order: each of another picture, as many as there are to be.

        Raises:
            UserError: The shard is not the one that the manifest speaks of.
        """
        self.check_content(folder, shard)
        path, count, last = folder / shard.name, 0, -1
        axis = self.spec.id_shape
        for sample in shard_format(self.settings.format).read(path):
            if sample.index <= last or (sample.grains is None) == self.spec.gridded or sample.ids.shape[1:] != axis:
                raise UserError(f"{path} is damaged: sample {sample.index} stands twice, or is none of these codes")
            count, last = count + 1, sample.index
            yield sample
        if count != shard.samples:
            raise UserError(f"{path} is damaged: it holds {count} samples, not the {shard.samples} of the manifest")

    def check_content(self, folder: Path, shard: Shard) -> None:
        """See that a shard holds the very bytes that were written, which takes reading it.

        Raises:
            UserError: It does not.
        """
        path = folder / shard.name
        if not path.is_file() or sha256_of(path) != shard.sha256:
            raise _missing(path)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of one of the two versions holds; version 1 named no version where it was unfinished.

    Raises:
        UserError: It is no JSON, or of another version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it must be an object")
        settings = values.get("settings")
        version = values.get("version", 1)
        if type(version) is not int:
            raise ValueError(f"version must be a whole number, not {version!r:.60}")
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not 1 <= version <= VERSION:
        raise UserError(f"{path} is of version {version}; this vltok reads versions up to {VERSION}")
    if version == 1 and isinstance(settings, dict):
        values["settings"] = {**settings, "tf32": None}
    return values


def damaged(path: Path, reason: Exception) -> UserError:
    """The error for a file that says something else than it should."""
    return UserError(f"{path} is damaged: {one_line(reason)}; copy it again, or write it again to another folder")


def _missing(path: Path) -> UserError:
    return UserError(f"{path} is missing or damaged: copy it again, or run vltok tokenize again")
