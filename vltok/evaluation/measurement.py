"""What every kind of measurement shares: its result, the pictures that it takes, its clock, the names of figures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.values import Value
from vltok.figures.examples import Example
from vltok.measures.codes import codebook_perplexity
from vltok.pictures.exporting import export_batches
from vltok.pictures.images import ExportSource, ImageBatch
from vltok.sequences.statistics import CodeCounts


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured on pictures.

    Attributes:
        images: How many pictures were measured, over all processes.
        pixels: A hash of their pixels, in order.
        values: The figures.
        codes: What the codes look like; empty for a codec.
        keys: What names each picture.
        per_image: The figures of each picture, `[n]`, by name.
        examples: The first pictures.
    """

    images: int
    pixels: str
    values: Mapping[str, Value]
    codes: Mapping[str, Any]
    keys: Sequence[str] = ()
    per_image: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    examples: Sequence[Example] = ()


@dataclass(frozen=True)
class ProcessShare:
    """The pictures that this process takes, of those that several processes measure together.

    They are whole batches: however many processes there are, an image is always computed with the same others, and the
    figures are the same to the last bit.

    Attributes:
        rank: Which process this is; one as high as there are processes takes nothing.
        world_size: How many there are.
        batch_size: Pictures that are in memory at the same time.
        workers: Processes that decode pictures.
        report: Is told of every so many pictures that are done.
    """

    rank: int = 0
    world_size: int = 1
    batch_size: int = 32
    workers: int = 0
    report: Callable[[int], None] = lambda count: None

    def of(self, count: int) -> range:
        """Which of so many pictures: consecutive ones."""
        batches = -(-count // self.batch_size)
        first, end = (batches * rank // self.world_size * self.batch_size for rank in (self.rank, self.rank + 1))
        return range(min(first, count), min(end, count))

    def examples(self, wanted: int, count: int) -> int:
        """How many of its pictures are among so many that are wanted of the first of all, which are so many."""
        return max(0, wanted - self.of(count).start)

    def batches(self, source: ExportSource) -> Iterator[ImageBatch]:
        """This process's pictures.

        Raises:
            UserError: They cannot be read.
        """
        for batch in export_batches(source, [self.of(source.pictures)], self.batch_size, self.workers):
            if batch.images is not None:
                yield batch.images
            self.report(len(batch.places) + len(batch.skipped))


def pixel_digests(pixels: UInt8[Tensor, "b 3 H W"]) -> list[bytes]:
    """A hash of each picture's size and pixels."""
    size = repr(tuple(pixels.shape[1:])).encode()
    return [hashlib.sha256(size + image.tobytes()).digest() for image in pixels.cpu().numpy()]


def joint_hash(digests: Sequence[bytes]) -> str:
    """One hash of all pictures, whatever batches they came in."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def without_warm_up(batches: Sequence[tuple[float, int]]) -> Sequence[tuple[float, int]]:
    """The times of a process's batches and how many images each had, without the first, where there are others."""
    return batches[1:] or batches


def seconds_each(batches: Sequence[tuple[float, int]]) -> Value:
    """Seconds for an image.

    Args:
        batches: How long each batch took, and how many images it had.
    """
    return Value(sum(seconds for seconds, _ in batches) / max(sum(images for _, images in batches), 1))


def describe_codes(counts: CodeCounts, spec: CodeSpec) -> dict[str, Any]:
    """The statistics of codes, with the perplexity of their use, overall and per granularity."""
    uses = torch.from_numpy(counts.uses)
    perplexity = {"any": codebook_perplexity(uses.sum(0)).item()}
    if spec.gridded:
        perplexity |= dict(zip(map(str, spec.factors), codebook_perplexity(uses).tolist(), strict=True))
    return {**counts.statistics(spec), "codebook_perplexity": perplexity}


def named_distances(found: Mapping[str, Value], network: str, prefix: str = "") -> dict[str, Value]:
    """What `SetDistances.compute` gave, by published names for Inception alone, by that of the network for every other.

    The prefix is ``r`` for reconstructions, as in rFID.
    """
    published = {"frechet": f"{prefix}fid", "kernel": f"{prefix}kid", "score": f"{prefix}inception_score"}
    if network == "inception":
        return {published.get(name, name): value for name, value in found.items()}
    spelt = {"frechet": "frechet_distance", "kernel": "kernel_distance", "score": "class_score"}
    return {f"{spelt.get(name, name)}/{network}": value for name, value in found.items()}
