"""Which names are those of pictures, and what it takes to read them: the one place that decides it."""

from __future__ import annotations

import functools
import importlib
import os

from PIL import Image, features

#: The endings of what Pillow reads by itself, of photographs and scans.
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".tga", ".avif", ".avifs"}
)
# what reads the others, by ending, and the module that it is
_HEIF, _JPEG_XL, _AVIF = ("pillow_heif", "pillow-heif"), ("pillow_jxl", "pillow-jxl-plugin"), ("pillow_avif", "")
_PLUGINS = {".heic": _HEIF, ".heif": _HEIF, ".heics": _HEIF, ".heifs": _HEIF, ".hif": _HEIF, ".jxl": _JPEG_XL}
# what lies beside pictures: labels, texts, records, archives
_COMPANIONS = frozenset(
    {".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".xmp", ".yaml", ".yml", ".md", ".rst", ".html", ".log", ".db"}
    | {".cls", ".caption", ".ini", ".npy", ".npz", ".pkl", ".pt", ".parquet", ".gz", ".py", ".sh"}
    | {".mat", ".h5", ".lst", ".idx", ".rec", ".pdf", ".toml", ".aae", ".thm", ".lock", ".index", ".bak", ".swp"}
)
# the same without an ending
_TEXTS = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile"})
_ARCHIVES = frozenset({".zip", ".rar", ".7z", ".tgz"})
_UNFINISHED = frozenset({".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".aria2", ".filepart"})
_VIDEOS = frozenset({".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"})
# what systems and programs put beside pictures, besides names that start with a dot
_HIDDEN = frozenset({"__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information"})
_HIDDEN_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder, by its own name, is hidden, or kept by a system for itself."""
    return name.startswith(".") or name.lower() in _HIDDEN or name.lower() in _HIDDEN_FILES


def ending_of(name: str) -> str:
    """The ending of a file's name, in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()


@functools.cache
def readable(ending: str) -> bool:
    """Whether what has an ending is a picture that can be read."""
    if ending in EXTENSIONS and not ending.startswith(".avif"):
        return True
    if ending not in _PLUGINS and ending not in EXTENSIONS:
        return False
    failed = register_plugins()
    if ending in EXTENSIONS:
        return features.check("avif") or not failed.keys() >= {_AVIF[0], _HEIF[0]}
    # whoever else has taught Pillow the ending serves as well
    return _PLUGINS[ending][0] not in failed or Image.registered_extensions().get(ending) in Image.OPEN


def is_picture(name: str) -> bool:
    """Whether a file of this name is one of vltok's pictures: it is not hidden, and what has its ending can be read.

    Args:
        name: The name, or a path with forward slashes.
    """
    return not is_hidden(name.rpartition("/")[2]) and readable(ending_of(name))


def left_out(name: str) -> bool:
    """Whether a file that is no picture to vltok may be one to its owner, who should hear of it."""
    name = name.rpartition("/")[2]
    known = is_hidden(name) or is_picture(name) or ending_of(name) in _COMPANIONS or name.lower() in _TEXTS
    return not known


def remedy(ending: str) -> str:
    """What lets files with an ending be read."""
    if ending in _PLUGINS:
        module, name = _PLUGINS[ending]
        broken = register_plugins().get(module)
        return f"pip install {name}" if broken is None else f"{name} does not load: {broken}"
    if ending in (".avif", ".avifs"):
        return "pip install --upgrade pillow"
    if ending == ".cls":
        return "labels beside pictures are not read: sort the pictures into a folder for each class"
    if ending == ".tar":
        return "shards are read by themselves, with --data webdataset"
    for endings, way in (
        (_ARCHIVES, "unpack them"),
        (_UNFINISHED, "copies that were not finished: finish or remove them"),
        (_VIDEOS, "videos: write their frames as pictures"),
    ):
        if ending in endings:
            return way
    return "convert them to JPEG, PNG or TIFF" if ending else "names without an ending: add one, such as .jpg"


@functools.cache
def register_plugins() -> dict[str, str | None]:
    """Let Pillow read HEIC and JPEG XL, where its plug-ins are installed.

    Returns:
        By module, why a plug-in does not load; None where it is not installed.
    """
    failed: dict[str, str | None] = {}
    for module, _ in (_HEIF, _JPEG_XL, _AVIF):
        try:
            plugin = importlib.import_module(module)
            if module == _HEIF[0]:
                plugin.register_heif_opener()
        except ModuleNotFoundError as error:
            failed[module] = None if error.name == module else str(error)
        except Exception as error:  # whatever it raises, other pictures can be read
            failed[module] = str(error) or type(error).__name__
    return failed
