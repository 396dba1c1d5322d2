"""`vltok.reconstruct`: pictures through a tokenizer and back, with a map of where the codes went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vltok.errors import UserError, whole_number
from vltok.evaluation.adaptation import adaptive, measure_adaptation, picture_crops
from vltok.evaluation.pictures import PictureFigures, code_picture, picture_figures, reconstruction_record
from vltok.evaluation.records import Record
from vltok.figures.coding_maps import draw_picture_coding_map
from vltok.files import alone_in, check_folder, written_whole
from vltok.interfaces import Tokenizer
from vltok.measures.pixels import to_picture
from vltok.pictures.decoding import CorruptPicture
from vltok.rates import Rate
from vltok.tokenizers.rate import RateEncoder
from vltok.verbs.compiling import compiled
from vltok.verbs.given_pictures import Picture, pictures_by_name, pixels_of, skip
from vltok.verbs.inputs import Opened, open_tokenizer

#: Regions of each crop on which adaptation is measured; there are up to four crops of a picture.
_REGIONS = 16
#: What follows a picture's name in those of its results.
_ENDINGS = (".png", ".coding.png")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A picture as a tokenizer gives it back.

    Attributes:
        name: That of its results; no other picture has it.
        source: Its path, or None where pixels were given.
        figures: What it cost, and how well it came back.
        pixels: The reconstruction, of the picture's size.
        coding_map: The picture tinted by the granularity of each region; None where codes lie on no grid.
    """

    name: str
    source: Path | None
    figures: PictureFigures
    pixels: UInt8[np.ndarray, "H W 3"]
    coding_map: UInt8[np.ndarray, "H W 3"] | None

    def record(self) -> dict[str, Any]:
        """What `metrics.json` says of it."""
        return {"name": self.name, "source": None if self.source is None else str(self.source), **asdict(self.figures)}


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What `reconstruct` gave.

    Attributes:
        pictures: The pictures; none where they were written to a folder, from which they can be read.
        record: The figures of each picture, their mean, and whether the codes went where they help: what
            `metrics.json` holds.
        failed: Why others could not be reconstructed, by path or name.
    """

    pictures: tuple[Reconstruction, ...]
    record: Record
    failed: dict[str, str]


def reconstruct(
    tokenizer: Tokenizer | str | os.PathLike,
    pictures: Picture | Sequence[Picture],
    out: str | os.PathLike | None = None,
    *,
    rate: Rate | str | None = None,
    tile: int = 1024,
    device: str | None = None,
    compile: bool = False,
    trust: bool = False,
    progress: Callable[[Reconstruction], None] | None = None,
) -> Reconstructed:
    """Encode and decode pictures of any size.

    For each, a folder receives NAME.png, the reconstruction, and NAME.coding.png, the picture tinted by the granularity
    of each region, from blue (few codes) to red (many). metrics.json holds the figures, and whether the codes went
    where they help, measured on crops of all pictures together. NAME is the picture's name without its ending, with a
    number where two pictures share it.

    Args:
        tokenizer: A tokenizer's bundle, a folder or `user/name`; in Python, a tokenizer too.
        pictures: Pictures, folders of pictures, or (quoted) patterns such as `a/**/*.jpg`; in Python also Pillow's
            images, or arrays and tensors of one image or a batch: uint8, or floats in [-1, 1].
        out: The folder that receives the results; in Python they are given back without it, and nothing is written.
        rate: How many codes pictures get, such as ``codes=400``; see `vltok.Rate`.
        tile: A picture with a longer side, in pixels, is coded in tiles of about equal size, each as a picture of its
            own; bounds the memory.
        device: `cpu`, `cuda` or `cuda:1`; by default where the tokenizer is, or a GPU where there is one.
        compile: Whether to compile encoder and decoder with torch.compile, for long runs on a GPU: it takes minutes, so
            that fewer than 100 pictures are coded as without, and gained nothing on the CPU where it was measured.
        trust: Whether the bundle may name more than registered components: see `load_tokenizer`.
        progress: Is given each picture as soon as it is done.

    Raises:
        UserError: An argument is wrong. A picture that cannot be read or coded is warned of, and named in the result.
    """
    whole_number("--tile", tile, 1)
    folder = None if out is None else check_folder("--out", out)
    inputs = pictures_by_name(pictures, folder, _ENDINGS)
    kept: list[Reconstruction] = []
    records: list[dict[str, Any]] = []
    crops: list[Tensor] = []
    failed: dict[str, str] = {}
    adaptation = None
    alone = contextlib.nullcontext() if folder is None else alone_in(folder)
    with (
        alone,
        open_tokenizer(tokenizer, device, trust=trust) as opened,
        compiled(opened.model, compile, len(inputs)),
    ):
        origin = {"path": opened.name, "fingerprint": opened.fingerprint}
        encoder = None if rate is None else RateEncoder(opened.model, Rate.of(rate))
        try:
            for name, given in inputs.items():
                source = given if isinstance(given, Path) else None
                try:
                    picture = pixels_of(given)
                    done = _reconstructed(name, source, picture, tile, opened, encoder)
                except (CorruptPicture, UserError, torch.OutOfMemoryError) as error:
                    skip(failed, source or name, error, ": give a smaller --tile")
                    continue
                if folder is None:
                    kept.append(done)
                else:
                    _write(done, folder)
                records.append(done.record())
                if adaptive(opened.model):
                    crops.append(picture_crops(picture, opened.model.divisor))
                if progress is not None:
                    progress(done)
            if count := sum(map(len, crops)):
                adaptation = measure_adaptation(opened.model, crops, opened.device, images=count, regions=_REGIONS)
        finally:
            # after an interrupt too: no finished picture goes without its figures
            skipped = [{"source": source, "error": reason} for source, reason in failed.items()]
            asked = None if encoder is None else encoder.rate
            record = reconstruction_record(origin, records, tile, adaptation, skipped, opened.device, asked)
            if folder is not None:
                record.write(folder)
    return Reconstructed(tuple(kept), record, failed)


def _reconstructed(
    name: str,
    source: Path | None,
    picture: UInt8[Tensor, "3 H W"],
    tile: int,
    opened: Opened[Tokenizer],
    rate: RateEncoder | None,
) -> Reconstruction:
    spec = opened.model.spec
    coded = code_picture(opened.model, picture, tile, opened.device, rate)
    coding_map = None
    if coded.grains is not None:
        coding_map = _pixels(draw_picture_coding_map(picture, coded.grains, spec))
    return Reconstruction(
        name, source, picture_figures(picture, coded, spec), _pixels(coded.reconstruction), coding_map
    )


def _write(done: Reconstruction, folder: Path) -> None:
    for pixels, ending in zip((done.pixels, done.coding_map), _ENDINGS, strict=True):
        if pixels is not None:
            with written_whole(folder / f"{done.name}{ending}") as file:
                Image.fromarray(pixels).save(file)


def _pixels(picture: UInt8[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W 3"]:
    return np.asarray(to_picture(picture))
