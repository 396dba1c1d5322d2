"""Crops of pictures that lie in folders of classes, each with a text that says its class and colours.

```
python -m tests.captions ../shared/photos/labelled runs/captioned
```

writes `train/` and `val/`, with `NAME.txt` beside `NAME.png`; all crops of a picture fall on one side.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image

from vltok.pictures.splits import unit_hash

_COLOURS = {
    "black": (20, 20, 20),
    "dark grey": (80, 80, 80),
    "grey": (135, 135, 135),
    "light grey": (190, 190, 190),
    "white": (240, 240, 240),
    "brown": (110, 75, 45),
    "beige": (195, 170, 135),
    "red": (175, 45, 45),
    "orange": (215, 125, 45),
    "yellow": (210, 195, 70),
    "green": (80, 120, 50),
    "dark green": (40, 60, 30),
    "blue": (60, 110, 180),
    "light blue": (140, 185, 220),
    "dark blue": (30, 45, 85),
    "purple": (120, 70, 130),
    "pink": (215, 150, 165),
}


def caption(crop: Image.Image, kind: str) -> str:
    """What describes a crop of a picture: its class, and the colours of its halves."""
    pixels = np.asarray(crop.convert("RGB"), dtype=np.float64)
    above, below = (_colour(half) for half in np.array_split(pixels, 2))
    return f"{kind}, {above}" if above == below else f"{kind}, {above} above {below}"


def write(root: Path, out: Path, crops: int, held_out: float) -> int:
    """Write the crops of all pictures below a folder; how many there are."""
    written = 0
    for path in sorted(root.glob("*/*")):
        folder = out / ("val" if unit_hash(path.stem) <= held_out else "train")
        folder.mkdir(parents=True, exist_ok=True)
        picture, numbers = Image.open(path).convert("RGB"), random.Random(path.name)
        for number in range(crops):
            side = round(min(picture.size) * numbers.uniform(0.5, 1))
            left, top = (numbers.randint(0, length - side) for length in picture.size)
            crop = picture.crop((left, top, left + side, top + side)).resize((64, 64), Image.Resampling.LANCZOS)
            name = f"{path.parent.name}-{path.stem}-{number:02d}"
            crop.save(folder / f"{name}.png")
            (folder / f"{name}.txt").write_text(caption(crop, path.parent.name), encoding="utf-8")
            written += 1
    return written


def _colour(pixels: np.ndarray) -> str:
    mean = pixels.reshape(-1, 3).mean(0)
    return min(_COLOURS, key=lambda name: float(np.square(mean - _COLOURS[name]).sum()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", type=Path, help="a folder of folders of pictures, named as their classes")
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", type=int, default=16, help="of each picture")
    parser.add_argument("--held-out", type=float, default=0.15, help="the share of pictures for val")
    arguments = parser.parse_args()
    print(f"{write(arguments.root, arguments.out, arguments.crops, arguments.held_out)} captioned crops")
