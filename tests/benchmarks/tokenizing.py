"""`vltok.tokenize` from JPEGs in shards to shards of codes, against the tokenizer's own forward pass on the same images
in memory.

Exports are long. So what an export takes once, before its first batch is done, does not count on either side.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
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
from .table import Row, Setting, name, ratios


def rows(setting: Setting) -> Iterator[Row]:
    """At each precision."""
    count, size, batch = (4, 32, 2) if setting.tiny else (48, 256, 8)
    if setting.device == "cuda":
        count, batch = 4096, 64
    tokenizer = imported(vq_model(tiny=setting.tiny)).to(setting.device).eval()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root / "pictures", count, size)
        vltok.pack(root / "pictures", root / "shards")
        data = WebDataset(f"{folder}/shards/*.tar", size=size, batch_size=batch, workers=1)
        images = [part.images for part in data.export_dataloader()]
        for dtype in setting.precisions:

            def ours(precision: str = name(dtype)) -> float:
                shutil.rmtree(root / "codes", ignore_errors=True)
                times: list[float] = []
                vltok.tokenize(
                    tokenizer,
                    data,
                    root / "codes",
                    precision=precision,
                    progress=lambda done, total: times.append(time.perf_counter()),
                )
                return time.perf_counter() - times[1]

            @torch.inference_mode()
            def forward(precision: str = name(dtype)) -> float:
                times: list[float] = []
                with packed_convolutions(tokenizer), kept_memory(), computing(setting.device, precision):
                    for batch in images:
                        tokenizer.encode(batch.to(setting.device)).lengths.tolist()  # waits for a GPU
                        times.append(time.perf_counter())
                return times[-1] - times[0]

            counted = count - batch
            seconds, baseline = zip(*((ours(), forward()) for _ in range(min(setting.turns, 3))), strict=True)
            yield Row(
                "vltok tokenize",
                f"{counted} JPEGs of {size}² after the first batch of {batch}, {name(dtype)}",
                f"{counted / min(seconds):.2f} images/s",
                f"forward pass {counted / min(baseline):.2f} images/s",
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
