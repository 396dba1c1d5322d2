"""`vltok.tokenize` from JPEGs in shards to shards of codes, against the tokenizer's own forward pass on the same images
in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from skimage import data as photographs

import vltok
from vltok.nn.convolutions import packed_convolutions
from vltok.nn.memory import kept_memory
from vltok.nn.precision import computing
from vltok.pictures.shards import WebDataset

from .codec import imported, vq_model
from .table import Row, Setting, in_turns, name, ratios


def rows(setting: Setting) -> Iterator[Row]:
    """At each precision."""
    count, size, batch = (4, 32, 2) if setting.tiny else (48, 256, 16)
    if setting.device == "cuda":
        count = 4096
    tokenizer = imported(vq_model(tiny=setting.tiny)).to(setting.device).eval()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root / "pictures", count, size)
        vltok.pack(root / "pictures", root / "shards")
        data = WebDataset(f"{folder}/shards/*.tar", size=size, batch_size=batch, workers=1)
        images = [part.images for part in data.export_dataloader()]
        for dtype in setting.precisions:

            def ours(precision: str = name(dtype)) -> None:
                shutil.rmtree(root / "codes", ignore_errors=True)
                vltok.tokenize(tokenizer, data, root / "codes", precision=precision)

            @torch.inference_mode()
            def forward(precision: str = name(dtype)) -> None:
                with packed_convolutions(tokenizer), kept_memory(), computing(setting.device, precision):
                    for batch in images:
                        tokenizer.encode(batch.to(setting.device))

            seconds, baseline = in_turns(ours, forward, replace(setting, turns=min(setting.turns, 3)))
            yield Row(
                "vltok tokenize",
                f"{count} JPEGs of {size}², batch {batch}, {name(dtype)}",
                f"{count / min(seconds):.2f} images/s",
                f"forward pass {count / min(baseline):.2f} images/s",
                ratios(seconds, baseline),
                target=0.95,
            )


def write_pictures(folder: Path, count: int, size: int) -> None:
    """JPEGs a quarter larger than what is encoded, as crops of real photographs."""
    folder.mkdir()
    sources = [Image.fromarray(photograph()) for photograph in (photographs.astronaut, photographs.coffee)]
    side = size * 5 // 4
    for index in range(count):
        source = sources[index % len(sources)]
        left, top = 7 * index % max(source.width - side, 1), 5 * index % max(source.height - side, 1)
        source.crop((left, top, left + side, top + side)).save(folder / f"{index:06d}.jpg", quality=90)
