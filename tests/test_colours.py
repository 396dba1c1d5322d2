"""Colours are those of sRGB, whatever space they are stored in."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from vltok.colours import rgb_profile
from vltok.pictures.decoding import decode
from vltok.shown import to_rgb

from .pictures.picture_files import chunk, icc_profile, with_chunks

#: x and y of white, red, green and blue.
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PRO_PHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
#: The linear light of sRGB from that of the others, as the field's tables have it.
TO_SRGB = {
    "P3": [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
    "Adobe": [[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]],
    "ProPhoto": [[2.0341, -0.7276, -0.3067], [-0.2288, 1.2316, -0.0028], [-0.0086, -0.1533, 1.1618]],
}
PROFILES = {
    "P3": rgb_profile(P3, SRGB_CURVE),
    "Adobe": rgb_profile(ADOBE, (563 / 256,)),
    "ProPhoto": rgb_profile(PRO_PHOTO, (1.8,)),
}


def linear(values: np.ndarray, space: str) -> np.ndarray:
    if space == "P3":
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return values ** {"Adobe": 563 / 256, "ProPhoto": 1.8}[space]


def in_srgb(pixels: np.ndarray, space: str) -> np.ndarray:
    """The textbook's way from another space."""
    light = np.clip(linear(pixels / 255, space) @ np.transpose(TO_SRGB[space]), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.fixture(scope="module")
def flat() -> Image.Image:
    """Colours in patches that no format blurs, none of them at the edge of a space."""
    patches = np.random.default_rng(0).integers(90, 200, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(patches.repeat(16, 0).repeat(16, 1))


def written(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


FORMS: dict[str, Callable[[Image.Image, bytes], bytes]] = {
    "JPEG": lambda image, profile: written(image, "JPEG", quality=100, subsampling=0, icc_profile=profile),
    "PNG": lambda image, profile: written(image, "PNG", icc_profile=profile),
    "PNG with palette": lambda image, profile: written(image.quantize(), "PNG", icc_profile=profile),
    "PNG with alpha": lambda image, profile: written(image.convert("RGBA"), "PNG", icc_profile=profile),
    "TIFF": lambda image, profile: written(image, "TIFF", icc_profile=profile),
    "WebP": lambda image, profile: written(image, "WEBP", lossless=True, icc_profile=profile),
}


@pytest.mark.parametrize("space", PROFILES)
@pytest.mark.parametrize("form", FORMS)
def test_an_embedded_profile(form: str, space: str, flat: Image.Image) -> None:
    found = np.asarray(decode(FORMS[form](flat, PROFILES[space])), dtype=float)
    expected = in_srgb(np.asarray(flat), space)
    assert np.abs(found - expected).max() < 4
    assert np.abs(np.asarray(flat) - expected).max() > 8  # else it would tell nothing


def test_a_profile_of_srgb_changes_no_pixel(astronaut: Image.Image) -> None:
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), rgb_profile(SRGB, SRGB_CURVE)):
        assert np.array_equal(np.asarray(decode(written(astronaut, "PNG", icc_profile=profile))), np.asarray(astronaut))


def test_deep_tiffs_have_profiles_too(flat: Image.Image) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tag = (34675, "B", len(PROFILES["P3"]), PROFILES["P3"], True)
    tifffile.imwrite(file, np.asarray(flat, np.float32) / 255, photometric="rgb", extratags=[tag])
    assert np.abs(np.asarray(decode(file.getvalue())) - in_srgb(np.asarray(flat), "P3")).max() < 4


def test_a_clear_pixel_stays_white(flat: Image.Image) -> None:
    clear = flat.convert("RGBA")
    clear.putalpha(0)
    assert (np.asarray(decode(written(clear, "PNG", icc_profile=PROFILES["P3"]))) == 255).all()


def test_grey(flat: Image.Image) -> None:
    """A profile of grey that tells of light itself; one of colours serves too."""
    curve = b"curv" + struct.pack(">4xIH", 1, 256)  # an exponent of 1
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    profile = icc_profile(b"GRAY", [(b"wtpt", white), (b"kTRC", curve)])
    for grey, given in (
        (Image.new("L", (8, 8), 128), profile),
        (Image.new("LA", (8, 8), (128, 255)), profile),
        (Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)), profile),
        (Image.new("L", (8, 8), 128), rgb_profile(SRGB, (1.0,))),
    ):
        pixels = np.asarray(decode(written(grey, "PNG", icc_profile=given)))
        assert np.abs(pixels - 188.0).max() <= 1


def test_cmyk() -> None:
    """A profile of inks, in which cyan shows as dark green: the table alone says so."""
    black, green, paper = (0, 128, 128), (90, 88, 168), (255, 128, 128)  # CIELAB in 8 bits
    corners = b"".join(bytes(black if ink & 1 else green if ink & 8 else paper) for ink in range(16))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    curves = bytes(range(256))
    table = b"mft1\0\0\0\0\4\3\2\0" + identity + curves * 4 + corners + curves * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    profile = icc_profile(b"CMYK", [(b"wtpt", white), (b"A2B0", table)], b"prtr", b"Lab ")
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for file in (written(inks, "TIFF", icc_profile=profile), written(inks, "JPEG", quality=100, icc_profile=profile)):
        red, green, blue = decode(file).getpixel((8, 8))
        assert green > 90 and max(red, blue) < 60
    assert decode(written(inks, "TIFF")).getpixel((8, 8)) == (0, 255, 255)


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16"])
def test_a_profile_of_other_channels_counts_for_nothing(mode: str) -> None:
    image = Image.new(mode, (8, 8))
    image.info["icc_profile"] = icc_profile(b"GRAY" if mode == "CMYK" else b"CMYK", [])
    assert to_rgb(image).tobytes() == to_rgb(Image.new(mode, (8, 8))).tobytes()


def test_what_a_png_tells_of_its_colours(flat: Image.Image) -> None:
    png, pixels = written(flat, "PNG"), np.asarray(flat)
    gamma = {name: chunk(b"gAMA", struct.pack(">I", round(1e5 / value))) for name, value in (("1", 1), ("2.2", 2.2))}
    adobe = chunk(b"cHRM", struct.pack(">8I", *(round(1e5 * value) for value in ADOBE)))
    p3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
    light = 255 * (1.055 * (pixels / 255) ** (1 / 2.4) - 0.055)
    for chunks, expected in (
        ([gamma["2.2"]], pixels),
        ([gamma["1"]], light),
        ([gamma["1"], chunk(b"sRGB", b"\0")], pixels),
        ([chunk(b"gAMA", struct.pack(">I", 45470)), adobe], in_srgb(pixels, "Adobe")),
        ([p3], in_srgb(pixels, "P3")),
        ([gamma["1"], chunk(b"sRGB", b"\0"), p3], in_srgb(pixels, "P3")),
        ([chunk(b"cICP", bytes([9, 16, 0, 1]))], pixels),  # HDR is left as it is
    ):
        found = np.asarray(decode(with_chunks(png, *chunks)), dtype=float)
        # near 1 / 2.2 the curve is sRGB's, which differs a little
        assert np.abs(found - expected).max() < (6 if adobe in chunks else 4)
