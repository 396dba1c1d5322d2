"""What is noted of a finished shard until the manifest is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltok.files import written_whole
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.manifest import CodeManifest, Shard, damaged, read_json
from vltok.sequences.plain import from_plain
from vltok.sequences.shards import codes_of
from vltok.sequences.statistics import CodeCounts


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest will need of a shard.

    Attributes:
        shard: Its file.
        skipped: Those of its pictures that could not be read.
        labelled: Whether every sample has a label.
        grids: The sizes of its grain maps.
        counts: What is counted over its samples: `CodeCounts.to_json`.
        index: For each sample its first byte, its size in bytes, its code length, and the rows and columns of its grain
            map, where it has one; None where it has no index.
        described: Whether a sample has a text.
        embedding_size: How many numbers the embeddings of its samples have; None where they have none.
    """

    shard: Shard
    skipped: tuple[SkippedPicture, ...]
    labelled: bool
    grids: tuple[tuple[int, int], ...]
    counts: dict[str, Any]
    index: tuple[tuple[int, ...], ...] | None
    described: bool = False
    embedding_size: int | None = None

    def write(self, path: Path) -> None:
        """Write it as JSON, whole."""
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> ShardRecord:
        """Read what `write` wrote.

        Raises:
            UserError: It is damaged.
        """
        try:
            return from_plain(cls, read_json(path), "")
        except ValueError as error:
            raise damaged(path, error) from error


def records_of(manifest: CodeManifest, folder: Path) -> Iterator[ShardRecord]:
    """The records of a finished export, shard by shard, which it no longer has.

    All its pictures have one size; none was skipped.

    Raises:
        UserError: A shard is damaged.
    """
    index = None if manifest.index_sha256 is None else manifest.read_index(folder).tolist()
    first = 0
    for shard in manifest.shards:
        samples = list(manifest.read_samples(folder, shard))
        counts = CodeCounts.of(codes_of(samples), manifest.spec, pixels_of(manifest, len(samples)))
        yield ShardRecord(
            shard=shard,
            skipped=(),
            labelled=manifest.labelled,
            grids=tuple({sample.grains.shape for sample in samples if sample.grains is not None}),
            counts=counts.to_json(),
            index=None if index is None else tuple(map(tuple, index[first : first + len(samples)])),
            described=any(sample.text is not None for sample in samples),
            embedding_size=manifest.embedding_size,
        )
        first += len(samples)


def pixels_of(manifest: CodeManifest, samples: int) -> int:
    """The pixels of so many of an export's pictures, which all have one size."""
    return manifest.statistics["pixels"] * samples // manifest.statistics["samples"]
