"""Which files are pictures, and the plug-ins that make more of them so."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from vltok.pictures import formats
from vltok.pictures.decoding import CorruptPicture, decode
from vltok.pictures.formats import is_picture, left_out, remedy

_PLUGIN = """
from PIL import Image, ImageFile

class Opened(ImageFile.ImageFile):
    format = "HEIF"

    def _open(self):
        self._size, self._mode = (3, 2), "RGB"
        self.info["exif"] = b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\0\\0\\0\\0\\0\\0"  # turned already, and says so no longer

    def load(self):
        self._im = Image.new("RGB", (3, 2), (9, 8, 7)).im
        return Image.Image.load(self)

def register_heif_opener():
    Image.register_open("HEIF", Opened, lambda start: start[4:12] == b"ftypheic")
"""


@pytest.fixture
def fresh() -> Iterator[None]:
    """Plug-ins are looked for anew, and forgotten."""
    for clear in (formats.register_plugins, formats.readable):
        clear.cache_clear()
    yield
    for clear in (formats.register_plugins, formats.readable):
        clear.cache_clear()
    sys.modules.pop("pillow_heif", None)
    Image.OPEN.pop("HEIF", None)
    Image.ID[:] = [name for name in Image.ID if name != "HEIF"]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a/b.c/d.JpEg", "é.png", "a.b.webp", "-.tif", "水.jxr.gif"])
def test_pictures(name: str) -> None:
    assert is_picture(name)


@pytest.mark.parametrize(
    "name", ["._a.jpg", "a/._b.jpg", ".jpg", ".hidden.png", "Thumbs.db", "a.txt", "jpg", "a.jpg.part", "a.heicc"]
)
def test_no_pictures(name: str) -> None:
    assert not is_picture(name)


def test_what_may_be_one_to_its_owner_is_told_apart_from_what_lies_beside() -> None:
    assert all(map(left_out, ("a.cr2", "a.psd", "picture", "a.jpg_large", "a.JPG~")))
    assert not any(map(left_out, ("a.txt", "a.json", "._a.cr2", "Thumbs.db", "a.jpg", "README", "b/LICENSE")))
    assert remedy(".cr2") == "convert them to JPEG, PNG or TIFF"


def test_heic_without_and_with_its_plugin(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    assert left_out("a.HEIC") and remedy(".heic") == "pip install pillow-heif"
    with pytest.raises(CorruptPicture, match="pip install pillow-heif"):
        decode(heic)
    with pytest.raises(CorruptPicture, match="pip install pillow-jxl-plugin"):
        decode(b"\xff\x0a" + bytes(20))
    monkeypatch.delitem(sys.modules, "pillow_heif")
    (tmp_path / "pillow_heif.py").write_text(_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for clear in (formats.register_plugins, formats.readable):
        clear.cache_clear()
    assert is_picture("a.HEIC")
    assert decode(heic).tobytes() == Image.new("RGB", (3, 2), (9, 8, 7)).tobytes()


def test_a_broken_plugin_costs_its_own_pictures_alone(
    fresh: None, astronaut: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pillow_heif.py").write_text("raise RuntimeError('libheif.so.1: no such file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert remedy(".heic") == "pillow-heif does not load: libheif.so.1: no such file"
    astronaut.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").size == astronaut.size


def test_to_name_pictures_imports_no_torch() -> None:
    code = "import sys; from vltok.pictures.decoding import decode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
