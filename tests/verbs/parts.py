"""An export in many parts, each a process of its own, of which some are killed; its pictures are numbers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.exports import contents
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Tokenizer, TokenizerOutput
from vltok.launchers import array_of
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.pictures.images import ExportSource, ImageData, Sample
from vltok.sequences.manifest import CodeManifest
from vltok.verbs.merge import merge
from vltok.verbs.tokenize import tokenize


class Numbers(Tokenizer):
    """A picture's codes are the first of the four bytes of its number, which its pixels hold."""

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(256)

    @property
    def divisor(self) -> int:
        return 1

    def encode_batch(self, images: Tensor) -> Codes:
        numbers = ((images[:, 0, 0] + 1) * 127.5).round().long()
        lengths = numbers[:, 0] % 4 + 1
        return Codes(numbers[torch.arange(4) < lengths[:, None]], lengths)

    def decode_batch(self, codes: Codes) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> TokenizerOutput:
        raise NotImplementedError


class NumberedPictures(ExportSource):
    """Pictures in memory that hold their number; to read one of them kills the process, if it is named."""

    described = "numbers"

    def __init__(self, pictures: int, deadly: int | None, seen: Path) -> None:
        self.pictures, self._deadly, self._seen = pictures, deadly, seen
        self.skipped = SkippedPictures(0.0)

    def keys(self) -> Iterable[str]:
        return [str(self.pictures)]

    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        with self._seen.open("a") as seen:
            for place in places:
                if place == self._deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen.write(f"{place}\n")
                number = torch.tensor(list(place.to_bytes(4, "little")), dtype=torch.uint8)
                yield Sample(f"{place}", number.expand(3, 1, 4))


class NumberedData(ImageData):
    """A source of them."""

    size, batch_size, workers, classes = 4, 16, 0, None
    train_dataloader = val_dataloader = training_crops_dataloader = export_dataloader = None

    def __init__(self, source: ExportSource) -> None:
        super().__init__()
        self._source = source

    def export_source(self, split: str) -> ExportSource:
        return self._source

    @property
    def skipped(self) -> list[str]:
        return []

    def description(self) -> dict[str, Any]:
        return {}


class Job:
    """An export by independent parts.

    Args:
        folder: Where it goes, and what the parts have seen.
        pictures: How many there are.
        shard_size: Pictures of a shard.
        parts: How many parts there are.
    """

    def __init__(self, folder: Path, pictures: int, shard_size: int, parts: int) -> None:
        self.out, self.seen = folder / "codes", folder / "seen"
        self.seen.mkdir(parents=True)
        self._pictures, self._shard_size, self.parts = pictures, shard_size, parts

    def places(self, part: int) -> list[int]:
        """The pictures of a part."""
        shards = range(part - 1, -(-self._pictures // self._shard_size), self.parts)
        size = self._shard_size
        return [place for each in shards for place in range(each * size, min((each + 1) * size, self._pictures))]

    def run(self, part: int | None, deadly: int | None, seen: str) -> None:
        """One part, in this process."""
        source = NumberedPictures(self._pictures, deadly, self.seen / seen)
        name = None if part is None else f"{part}/{self.parts}"
        tokenize(Numbers(), NumberedData(source), self.out, shard_size=self._shard_size, device="cpu", part=name)

    def start(self, parts: Sequence[int], deadly: dict[int, int]) -> list[int]:
        """Some parts, each in a process of its own; those that did not end well."""
        context = multiprocessing.get_context("fork")
        jobs = {part: context.Process(target=self.run, args=(part, deadly.get(part), f"{part}")) for part in parts}
        for process in jobs.values():
            process.start()
        for process in jobs.values():
            process.join()
        return [part for part, process in jobs.items() if process.exitcode]


def check_killed_parts(folder: Path, pictures: int, shard_size: int, parts: int) -> None:
    """Kill a third of the parts, start those again, and see that nothing is lost or done twice.

    Raises:
        AssertionError: Something is.
    """
    alone = Job(folder / "alone", pictures, shard_size, 1)
    alone.run(None, None, "all")
    job = Job(folder / "parts", pictures, shard_size, parts)
    chance = random.Random(0)
    killed = sorted(chance.sample(range(1, parts + 1), parts // 3))
    assert job.start(range(1, parts + 1), {part: chance.choice(job.places(part)) for part in killed}) == killed
    with pytest.raises(UserError, match=rf"{len(killed)} parts of {parts} .*\(--array={array_of(killed)}\)"):
        merge([job.out])
    # what a killed part had finished it does not do again
    left = {part: len(job.places(part)) for part in killed}
    for path in job.out.glob("codes-*.tar"):
        part = int(path.stem.partition("-")[2]) % parts + 1
        if part in killed and (job.out / ".unfinished" / f"{path.stem}.json").exists():
            left[part] -= CodeManifest.read(alone.out).shards[int(path.stem.partition("-")[2])].samples
    before = {part: len((job.seen / f"{part}").read_text().split()) for part in killed}
    assert job.start(killed, {}) == []
    for part in killed:
        assert len((job.seen / f"{part}").read_text().split()) - before[part] == left[part]
    assert contents(job.out) == contents(alone.out)
    assert merge([job.out]).manifest == CodeManifest.read(alone.out)
