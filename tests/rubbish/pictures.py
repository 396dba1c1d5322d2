"""Rubbish among pictures."""

import io
import os
import random
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .cases import Case
from .sound import PICTURES
from .values import mutated_bytes


def picture(draw: random.Random, folder: Path) -> Case:
    """A folder of pictures with a strange one in it, and a verb that reads it."""
    path = (
        folder / "pictures" / "cat" / f"strange{draw.choice(['.png', '.jpg', '.gif', '.tif', '.webp', '.PNG', '.tga'])}"
    )
    make = draw.choice(_PICTURES)
    make(draw, path)
    what = f"{path.name}: {make.__name__.strip('_')}"
    if draw.random() < 0.15:  # nothing else is there
        for other in folder.glob("pictures/*/*.png"):
            if other != path:
                other.unlink()
    given = str(path.relative_to(folder))
    tokenizer, out = "--tokenizer=runs/tokenizer/bundle", "--out=out"
    commands = (
        ("reconstruct", given, tokenizer, out),
        ("reconstruct", given, "pictures/person/000.png", tokenizer, out),
        ("reconstruct", "pictures", tokenizer, out, "--tile=32"),
        ("pack", "pictures", "out", "--workers=0"),
        ("pack", "pictures", "out", "--workers=0", "--max-corrupt=0.5"),
        ("tokenize", tokenizer, out, "--shard-size=4", *PICTURES),
        ("tokenize", tokenizer, out, *PICTURES, "--data.max_corrupt=0.0"),
        ("tokenize", tokenizer, out, *PICTURES, "--data.workers=1"),
        ("evaluate", "--codec=jpeg", "--quality=50", out, *PICTURES),
        ("fit", "--config=tokenizer.yaml", out),
        ("doctor", "pictures", "--workers=0"),
    )
    return Case(what, draw.choice(commands))


def _save(path: Path, image: Image.Image, kind: str = "PNG", **options: object) -> None:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue())


def _noise(draw: random.Random, width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def _damaged(draw: random.Random, path: Path) -> None:
    source = io.BytesIO()
    _noise(draw, 40, 40).save(source, draw.choice(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "TGA"]))
    path.write_bytes(mutated_bytes(draw, source.getvalue())[1])


def _of_some_mode(draw: random.Random, path: Path) -> None:
    mode, kind = draw.choice(
        (
            *(("1", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG")),
            *(("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP"), ("1", "TIFF"), ("LAB", "TIFF")),
        )
    )
    image = (
        Image.new("LAB", (40, 40)) if mode == "LAB" else _noise(draw, 40, 40).convert("L" if mode == "LA" else "RGB")
    )
    _save(path, image.convert(mode), kind)


def _of_some_depth(draw: random.Random, path: Path) -> None:
    array = draw.choice(
        [
            np.full((40, 40), 60000, np.uint16),
            np.full((40, 40), -3, np.int32),
            np.full((40, 40), np.nan, np.float32),
            np.full((40, 40), np.inf, np.float32),
            np.full((40, 40), 1e38, np.float32),
        ]
    )
    _save(path, Image.fromarray(array), "TIFF")


def _of_some_size(draw: random.Random, path: Path) -> None:
    size = draw.choice([(1, 1), (1, 10000), (10000, 1), (2, 3), (1, 2), (7, 5000), (16, 15)])
    _save(path, _noise(draw, *size))


def _enormous(draw: random.Random, path: Path) -> None:
    """A header that promises more pixels than there are bytes on the machine."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = draw.choice([(60000, 60000), (2**31 - 1, 2**31 - 1), (0, 0), (0, 5)])[0].to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(content)


def _bomb(draw: random.Random, path: Path) -> None:
    """A small file of very many pixels."""
    _save(path, Image.new("1", (14000, 14000)))


def _without_frames(draw: random.Random, path: Path) -> None:
    path.write_bytes(b"GIF89a\x10\x00\x10\x00\x00\x00\x00;")


def _folder(draw: random.Random, path: Path) -> None:
    path.mkdir()


def _broken_link(draw: random.Random, path: Path) -> None:
    path.symlink_to(draw.choice(["gone.png", path.name, "/nowhere/x.png"]))


def _link_to_folder_above(draw: random.Random, path: Path) -> None:
    path.symlink_to("..")


def _pipe(draw: random.Random, path: Path) -> None:
    os.mkfifo(path)


def _device(draw: random.Random, path: Path) -> None:
    path.symlink_to(draw.choice(["/dev/zero", "/dev/null", "/dev/random", "/proc/self/maps", "/dev/stdin"]))


def _strange_name(draw: random.Random, path: Path) -> None:
    name = draw.choice(
        ["a\nb", "\x1b[31mred", "a b", "ünï", "-x", "..png", "a" * 240, "\udcff", "%d", "$HOME", "*", "CON"]
    )
    path = path.with_name(f"{name}.png")
    if draw.random() < 0.5:
        path.write_bytes(b"no picture")
    else:
        _save(path, _noise(draw, 30, 30))


def _with_odd_metadata(draw: random.Random, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = draw.choice([0, 9, 6, 200, 8])
    _save(path, _noise(draw, 30, 50), "JPEG", exif=exif, icc_profile=b"rubbish")


_PICTURES = (
    *(_damaged, _damaged, _damaged, _of_some_mode, _of_some_depth, _of_some_size, _enormous, _bomb, _without_frames),
    *(_folder, _broken_link, _link_to_folder_above, _pipe, _device, _strange_name, _with_odd_metadata),
)
