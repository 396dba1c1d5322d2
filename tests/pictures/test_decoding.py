"""Every mode and depth of picture becomes the same RGB."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from vltok.pictures.decoding import CorruptPicture, decode
from vltok.shown import to_rgb

from .picture_files import SIGNATURE, chunk, with_chunks


def written(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_16_bit(array: np.ndarray, colour_type: int) -> bytes:
    """Pillow writes no PNG with several channels of 16 bits."""

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


def wide(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.uint16) * 257


def opaque(array: np.ndarray) -> np.ndarray:
    return np.dstack([array, np.full(array.shape[:2], 65535, np.uint16)])


# What a colour picture is stored as, and how far it may stray (mean over pixels, of 255).
COLOUR: dict[str, tuple[Callable[[Image.Image], bytes], float]] = {
    "PNG": (lambda image: written(image, "PNG"), 0),
    "PNG of 16 bits": (lambda image: png_16_bit(wide(image), 2), 0),
    "PNG of 16 bits with alpha": (lambda image: png_16_bit(opaque(wide(image)), 6), 0),
    "PNG with alpha": (lambda image: written(image.convert("RGBA"), "PNG"), 0),
    "PNG with palette": (lambda image: written(image.quantize(256), "PNG"), 6),
    "GIF": (lambda image: written(image.quantize(256), "GIF"), 6),
    "JPEG": (lambda image: written(image, "JPEG", quality=97), 3),
    "JPEG in CMYK": (lambda image: written(image.convert("CMYK"), "JPEG", quality=97), 3),
    "WebP": (lambda image: written(image, "WEBP", lossless=True), 0),
    "BMP": (lambda image: written(image, "BMP"), 0),
    "JPEG 2000": (lambda image: written(image, "JPEG2000"), 1),
    "TIFF in CMYK": (lambda image: written(image.convert("CMYK"), "TIFF"), 0),
    "TIFF in CIELAB": (lambda image: written(lab(image), "TIFF"), 2),
    "TIFF of 16 bits": (lambda image: tiff(wide(image), photometric="rgb"), 0),
    "TIFF of 16 bits in planes": (
        lambda image: tiff(np.moveaxis(wide(image), -1, 0), photometric="rgb", planarconfig="separate"),
        0,
    ),
    "TIFF of 16 bits with alpha": (
        lambda image: tiff(opaque(wide(image)), photometric="rgb", extrasamples=["unassalpha"]),
        0,
    ),
    "TIFF of floats": (lambda image: tiff(np.asarray(image, np.float32) / 255, photometric="rgb"), 0),
}

# The same for a grey one.
GREY: dict[str, tuple[Callable[[Image.Image], bytes], float]] = {
    "PNG": (lambda image: written(image, "PNG"), 0),
    "PNG of 16 bits": (lambda image: written(Image.fromarray(wide(image)), "PNG"), 0),
    "PNG with alpha": (lambda image: written(image.convert("LA"), "PNG"), 0),
    "PNG of 16 bits with alpha": (lambda image: png_16_bit(opaque(wide(image)), 4), 0),
    "PGM of 16 bits": (lambda image: written(Image.fromarray(wide(image)), "PPM"), 0),
    "TIFF of 16 bits": (lambda image: tiff(wide(image)), 0),
    "TIFF of 16 bits, big-endian": (lambda image: tiff(wide(image), byteorder=">"), 0),
    "TIFF of 32 bits": (lambda image: tiff(wide(image).astype(np.int32) * 32768), 0.5),
    "TIFF of 32 bits, unsigned": (lambda image: tiff(wide(image).astype(np.uint32) * 65537), 0.5),
    "TIFF of floats in [0, 1]": (lambda image: tiff(np.asarray(image, np.float32) / 255), 0),
    "TIFF of floats in [0, 255]": (lambda image: tiff(np.asarray(image, np.float32)), 0),
    "TIFF of doubles": (lambda image: tiff(np.asarray(image, np.float64) / 255), 0),
}


def check(decoded: Image.Image, expected: Image.Image, tolerance: float) -> None:
    assert decoded.mode == "RGB"
    assert decoded.size == expected.size
    difference = np.abs(np.asarray(decoded, np.float64) - np.asarray(expected.convert("RGB"), np.float64))
    assert difference.mean() <= tolerance


@pytest.mark.parametrize("kind", COLOUR)
def test_colour(kind: str, astronaut: Image.Image) -> None:
    store, tolerance = COLOUR[kind]
    check(decode(store(astronaut)), astronaut, tolerance)


@pytest.mark.parametrize("kind", GREY)
def test_grey(kind: str, astronaut: Image.Image) -> None:
    store, tolerance = GREY[kind]
    grey = astronaut.convert("L")
    check(decode(store(grey)), grey, tolerance)


def test_one_bit(astronaut: Image.Image) -> None:
    bits = astronaut.convert("1")
    check(decode(written(bits, "PNG")), bits.convert("L"), 0)


def test_transparent_pixels_are_white(astronaut: Image.Image) -> None:
    clear = astronaut.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    alpha = np.asarray(clear.getchannel("A"), np.float64)[..., None] / 255
    expected = np.asarray(astronaut) * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(decode(written(clear, "PNG"))) - expected).max() <= 1


def test_transparent_colour_of_a_palette_is_white(astronaut: Image.Image) -> None:
    indexed = astronaut.quantize(16)
    commonest = int(np.bincount(np.asarray(indexed).ravel()).argmax())
    clear = np.asarray(indexed) == commonest
    decoded = np.asarray(decode(written(indexed, "PNG", transparency=commonest)))
    assert (decoded[clear] == 255).all()
    assert (decoded[~clear] == np.asarray(indexed.convert("RGB"))[~clear]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(orientation: int, form: str, astronaut: Image.Image) -> None:
    turn_back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned left, shown turned right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = astronaut.transpose(turn_back[orientation]) if orientation > 1 else astronaut
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 97} if form == "JPEG" else {}
    check(decode(written(stored, form, exif=exif, **options)), astronaut, 3)


def test_orientation_of_floats(astronaut: Image.Image) -> None:
    stored = np.asarray(astronaut.transpose(Image.Transpose.ROTATE_90), np.float32) / 255
    file = tiff(stored, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    check(decode(file), astronaut, 0)


def test_dark_16_bit_picture_stays_dark(astronaut: Image.Image) -> None:
    dark = wide(astronaut.convert("L")) // 4
    decoded = decode(written(Image.fromarray(dark), "PNG"))
    assert np.abs(np.asarray(decoded)[..., 0] - dark / 257).max() <= 0.5


def test_negative_floats_show_their_range() -> None:
    ramp = np.linspace(-3, 5, 64 * 4, dtype=np.float32).reshape(4, 64)
    decoded = np.asarray(decode(tiff(ramp)))[..., 0].ravel()
    assert (decoded[0], decoded[-1]) == (0, 255)
    assert (np.diff(decoded.astype(int)) >= 0).all()


def test_signed_bytes_show_their_range() -> None:
    ramp = np.arange(-128, 128, dtype=np.int8).reshape(4, 64)
    assert (np.asarray(decode(tiff(ramp)))[..., 0] == ramp.astype(int) + 128).all()


def test_infinite_samples_leave_the_others_as_they_are(astronaut: Image.Image) -> None:
    array = np.asarray(astronaut.convert("L"), np.float32) / 255
    expected = np.rint(array * 255)
    array[0], array[1], array[2] = np.inf, -np.inf, np.nan
    expected[0], expected[1], expected[2] = expected[3:].max(), 0, 0
    assert np.abs(np.asarray(decode(tiff(array)))[..., 0] - expected).max() <= 1


def test_large_jpegs_are_decoded_small_but_never_too_small(astronaut: Image.Image) -> None:
    large = astronaut.resize((1600, 1200))
    file = written(large, "JPEG", quality=95)
    small = decode(file, least_side=140)
    assert small.size == (200, 150)
    check(small, large.resize((200, 150), Image.Resampling.BOX), 2)
    assert decode(file).size == (1600, 1200)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda file: b"", "empty"),
        (lambda file: file[: len(file) // 2], "truncated"),
        (lambda file: b"no picture at all", "no picture"),
        (lambda file: b"II" + file, "no picture"),
    ],
    ids=["empty", "truncated", "text", "broken TIFF"],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_corrupt(break_it: Callable[[bytes], bytes], reason: str, form: str, astronaut: Image.Image) -> None:
    with pytest.raises(CorruptPicture, match=reason) as error:
        decode(break_it(written(astronaut, form)))
    assert "\n" not in str(error.value)


def test_missing_file_is_corrupt(tmp_path) -> None:
    with pytest.raises(CorruptPicture, match="No such file"):
        decode(tmp_path / "gone.jpg")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "device.png", "folder.png"):
        with pytest.raises(CorruptPicture, match="no file"):
            decode(tmp_path / name)


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_other_formats(orientation: int, form: str, astronaut: Image.Image) -> None:
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    check(decode(written(astronaut.transpose(turn), form, exif=exif, quality=95)), astronaut, 8)


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "F",
    "I;16",
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_shows_black_and_white(mode: str) -> None:
    """What is transparent is white; the rest has the colours of the same picture in RGB."""
    for value in (0, 255):
        image = Image.new("RGB", (2, 2), (value,) * 3)
        if mode == "LAB":
            image = lab(image)
        elif mode == "PA":
            image = image.quantize().convert("PA")
        elif mode in ("La", "RGBa"):
            image = image.convert(mode.upper()).convert(mode)
        elif mode == "F":
            image = image.convert("F").point(lambda brightness: brightness / 255)
        elif mode in ("I", "I;16"):
            image = Image.fromarray(np.full((2, 2), value * 257, np.int32 if mode == "I" else np.uint16))
        else:
            image = image.convert(mode)
        assert image.mode == mode
        found = to_rgb(image)
        assert found.mode == "RGB" and np.abs(np.asarray(found).astype(int) - value).max() <= 1
    for clear in ("LA", "La", "PA", "RGBA", "RGBa"):
        assert to_rgb(Image.new(clear, (2, 2))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("colour_type", [0, 2])
def test_the_transparent_colour_of_16_bits_is_white(colour_type: int) -> None:
    array = np.array([[1000, 50000]], np.uint16)
    array = np.dstack([array] * 3) if colour_type else array
    clear = chunk(b"tRNS", struct.pack(">H", 1000) * (3 if colour_type else 1))
    found = np.asarray(decode(with_chunks(png_16_bit(array, colour_type), clear)))
    assert found[0, 0].tolist() == [255] * 3
    assert found[0, 1].max() < 200


def test_of_an_animation_the_first_frame_is_taken(astronaut: Image.Image) -> None:
    others = [Image.new("RGB", astronaut.size, colour) for colour in ("red", "blue")]
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {"quality": 97})):
        file = written(astronaut, form, save_all=True, append_images=others, **options)
        check(decode(file), astronaut, 3)


def test_a_huge_scan_is_read_in_silence_and_a_bomb_refused(recwarn: pytest.WarningsRecorder) -> None:
    scan = written(Image.new("1", (14000, 14000), 1), "PNG")
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(scan))
    assert decode(scan).size == (14000, 14000)
    bomb = scan.replace(struct.pack(">II", 14000, 14000), struct.pack(">II", 100_000, 100_000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    with pytest.raises(CorruptPicture, match=r"it has 100000 × 100000 pixels, more than 500 millions: shrink it"):
        decode(bomb)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not [warning for warning in recwarn if "bomb" in str(warning.message)]
