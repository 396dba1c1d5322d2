"""Real photographs and where a gate puts their codes.

The gate `entropy` needs no training, only a measurement of its thresholds: so these pictures are made anew in seconds,
while the rest of their tokenizer has learned nothing and is not shown.
"""

import functools

import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import vltok
from documenting.panels import picture, row
from vltok.code_maps import code_lengths
from vltok.figures.coding_maps import draw_picture_coding_map
from vltok.interfaces import Tokenizer

#: Two stand side by side; sixteen divides both.
SIZE = (352, 240)


def coding_maps(*rates: str, factors: tuple[int, ...] = (8, 16), original: bool = True) -> str:
    """A photograph, and its coding map at some rates."""
    tokenizer, photograph = _tokenizer(factors), _photograph()
    pixels = torch.tensor(list(photograph.getdata()), dtype=torch.uint8).T.view(3, *photograph.size[::-1])
    panels = [picture(photograph, "the photograph")] if original else []
    for rate in rates:
        grains = tokenizer.encode(photograph, rate).require_grains()
        drawn = draw_picture_coding_map(pixels, grains[0], tokenizer.spec).permute(1, 2, 0).numpy()
        length = int(code_lengths(grains, tokenizer.spec))
        panels.append(picture(Image.fromarray(drawn), f"{rate}: {length} codes"))
    return row(*panels)


@functools.cache
def _photograph() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize(SIZE)


@functools.cache
def _tokenizer(factors: tuple[int, ...]) -> Tokenizer:
    share = 1 / len(factors)
    ratios = dict.fromkeys(factors, share)
    tokenizer = vltok.build(
        {
            "class_path": "dq-vae",
            "init_args": {
                "encoder": {"class_path": "patch", "init_args": {"factors": list(factors), "width": 8, "channels": 8}},
                "gate": {"class_path": "entropy", "init_args": {"ratios": ratios}},
                "quantizer": {"class_path": "vq", "init_args": {"size": 16, "dimension": 4}},
                "decoder": {"class_path": "pixel-shuffle", "init_args": {"width": 8}},
            },
        }
    )
    photographs = vltok.build({"class_path": "photos", "init_args": {"size": 128, "batch_size": 16, "train_crops": 64}})
    photographs.setup("fit")
    tokenizer.gate.calibrate(batch.images for batch in photographs.train_dataloader())
    return tokenizer.eval()
