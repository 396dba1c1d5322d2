"""Whatever stands beside the pixels, and however broken it is, costs no picture."""

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from vltok.pictures.decoding import CorruptPicture, decode

from .picture_files import chunk, exif, short, with_chunks, with_segments, with_tags

TURNED = short(0x0112, 6)
#: Entries that break what reads or writes EXIF.
RATIONAL = exif(TURNED, struct.pack("<HHII", 0x011A, 10, 1, 38)) + struct.pack("<ii", -1, 0)
DENSITY_AS_TEXT = exif(TURNED, short(0x0128, 2), struct.pack("<HHI4s", 0x011A, 2, 4, b"abc"))
BEYOND_THE_END = exif(TURNED, struct.pack("<HHII", 0x010F, 2, 1000, 9000))[:-6]
MPF = exif(struct.pack("<HHI4s", 0xB000, 7, 4, b"0100"), struct.pack("<HHII", 0xB001, 4, 1, 2))


def packed(letters: int) -> bytes:
    return zlib.compress(b"a" * letters)


PNG = {
    "text of 5 MB": [chunk(b"zTXt", b"k\0\0" + packed(5_000_000))],
    "international text of 5 MB": [chunk(b"iTXt", b"k\0\1\0\0\0" + packed(5_000_000))],
    "texts of 70 MB": [chunk(b"zTXt", b"%d\0\0" % index + packed(1_000_000)) for index in range(70)],
    "text with a wrong checksum": [chunk(b"tEXt", b"k\0text", spoilt=True)],
    "profile of 3 MB": [chunk(b"iCCP", b"k\0\0" + packed(3_000_000))],
    "profile that is none": [chunk(b"iCCP", b"k\0\0nonsense")],
    "profile packed in another way": [chunk(b"iCCP", b"k\0\7nonsense")],
    "profile that is empty": [chunk(b"iCCP", b"")],
    "gamma that is empty": [chunk(b"gAMA", b"")],
    "gamma of 0": [chunk(b"gAMA", bytes(4))],
    "primaries that are short": [chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"cHRM", b"123")],
    "primaries of 0": [chunk(b"gAMA", b"\0\0\xb1\x8e"), chunk(b"cHRM", bytes(32))],
    "colours that are short": [chunk(b"cICP", b"\x0c")],
    "size of a pixel that is short": [chunk(b"pHYs", b"1")],
    "transparent colour that is short": [chunk(b"tRNS", b"1")],
    "EXIF that is none": [chunk(b"eXIf", b"garbage")],
    "animation that is short": [chunk(b"acTL", b"1")],
    "frame that is short": [chunk(b"acTL", struct.pack(">II", 5, 0)), chunk(b"fcTL", b"123")],
    "raw profile that is none": [chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz")],
}
JPEG = {
    "a rational of -1 / 0": [(0xE1, b"Exif\0\0" + RATIONAL)],
    "a density that is text": [(0xE1, b"Exif\0\0" + DENSITY_AS_TEXT)],
    "a value beyond the end": [(0xE1, b"Exif\0\0" + BEYOND_THE_END)],
    "two of EXIF": [(0xE1, b"Exif\0\0" + exif(TURNED)), (0xE1, b"Exif\0\0" + exif(short(0x0112, 3)))],
    "EXIF that is none": [(0xE1, b"Exif\0\0garbage")],
    "EXIF that is empty": [(0xE1, b"Exif\0\0")],
    "an orientation of 99": [(0xE1, b"Exif\0\0" + exif(short(0x0112, 99)))],
    "several pictures that are none": [(0xE2, b"MPF\0garbage")],
    "several pictures without places": [(0xE2, b"MPF\0" + MPF)],
    "JFIF that is short": [(0xE0, b"JFIF\0")],
    "a profile that is short": [(0xE2, b"ICC_PROFILE\0")],
    "one part of two of a profile": [(0xE2, b"ICC_PROFILE\0\1\2abc")],
    "a profile of nonsense": [(0xE2, b"ICC_PROFILE\0\1\1" + b"nonsense" * 30)],
    "Photoshop's that is short": [(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x20short")],
    "Adobe's that is short": [(0xEE, b"Adobe\0")],
    "XMP that is none": [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<\xff tiff:Orientation='6'")],
    "60 kB of comment": [(0xFE, b"x" * 60_000)],
}
TIFF = {
    "XMP that is text": struct.pack("<HHI4s", 700, 2, 3, b"ab\0"),
    "XMP that is a number": short(700, 7),
    "a profile that is a number": short(34675, 5),
    "EXIF beyond the end": struct.pack("<HHII", 0x8769, 4, 1, 2**31 - 5),
    "a text beyond the end": struct.pack("<HHII", 0x010F, 2, 1000, 2**31 - 5),
    "a type that nobody knows": struct.pack("<HHII", 0x9999, 99, 1, 5),
}


@pytest.fixture(scope="module")
def picture(astronaut: Image.Image) -> Callable[..., bytes]:
    def written(form: str, **options: object) -> bytes:
        file = io.BytesIO()
        astronaut.save(file, form, **options)
        return file.getvalue()

    return written


def check(file: bytes, like: bytes, turned: bool = False) -> None:
    """One file is decoded as another, perhaps turned, and without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(file)
    expected = decode(like)
    expected = expected.transpose(Image.Transpose.ROTATE_270) if turned else expected
    assert found.size == expected.size
    assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", PNG)
def test_png(kind: str, behind: bool, picture: Callable[..., bytes]) -> None:
    check(with_chunks(picture("PNG"), *PNG[kind], behind=behind), picture("PNG"))


@pytest.mark.parametrize("kind", JPEG)
def test_jpeg(kind: str, picture: Callable[..., bytes]) -> None:
    turned = any(TURNED in content for _, content in JPEG[kind])
    check(with_segments(picture("JPEG"), *JPEG[kind]), picture("JPEG"), turned)


@pytest.mark.parametrize("kind", TIFF)
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_tiff(kind: str, compression: str, picture: Callable[..., bytes]) -> None:
    file = picture("TIFF", compression=compression)
    check(with_tags(file, TIFF[kind]), file)
    check(with_tags(file, TURNED, TIFF[kind]), file, turned=True)


@pytest.mark.parametrize("beside", [{"exif": b"Exif\0\0garbage"}, {"xmp": b"<\xff"}, {"icc_profile": b"nonsense" * 30}])
def test_webp(beside: dict[str, bytes], picture: Callable[..., bytes]) -> None:
    check(picture("WEBP", lossless=True, **beside), picture("WEBP", lossless=True))
    file = picture("WEBP", lossless=True, **{"exif": exif(TURNED)} | beside)
    check(file[:4] + struct.pack("<I", 2**31) + file[8:], picture("WEBP", lossless=True), turned="exif" not in beside)


def test_a_transparent_colour_survives_a_broken_text(astronaut: Image.Image) -> None:
    file = io.BytesIO()
    astronaut.quantize(16).save(file, "PNG", transparency=3)
    check(with_chunks(file.getvalue(), *PNG["text of 5 MB"]), file.getvalue())


def test_the_colours_of_a_jpeg_in_cmyk_survive_a_broken_profile(astronaut: Image.Image) -> None:
    file = io.BytesIO()
    astronaut.convert("CMYK").save(file, "JPEG")
    check(with_segments(file.getvalue(), (0xE2, b"ICC_PROFILE\0")), file.getvalue())


def test_a_jpeg_may_lack_its_end_but_no_pixel(picture: Callable[..., bytes]) -> None:
    for options in ({}, {"progressive": True}):
        file = picture("JPEG", quality=95, **options)
        check(file[:-2], file)
        for cut in (60, len(file) // 2):
            with pytest.raises(CorruptPicture, match="truncated"):
                decode(file[:-cut])


def test_rubbish_beside_the_pixels_is_never_more_than_that(picture: Callable[..., bytes]) -> None:
    """Whatever bytes stand in any optional part of a file: the picture is the same."""
    generator = random.Random(0)
    png, jpeg = picture("PNG"), picture("JPEG")
    for _ in range(60):
        content = generator.randbytes(generator.choice([0, 1, 3, 9, 40]))
        name = bytes(
            generator.choice([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"sRGB", b"cHRM", b"pHYs", b"tIME", b"abCd"])
        )
        check(with_chunks(png, chunk(name, content), behind=generator.random() < 0.5), png)
        start = generator.choice([b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"MPF\0", b"ICC_PROFILE\0", b"JFIF\0"])
        marker = generator.choice([0xE0, 0xE1, 0xE2, 0xED, 0xFE])
        check(with_segments(jpeg, (marker, start + content)), jpeg)
