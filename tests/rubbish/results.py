"""Whether what a command has written is what others can read."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from vltok.errors import UserError
from vltok.io.bundles import load_prior, load_tokenizer
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import codes_of


def invalid(folder: Path, new: Sequence[str]) -> str | None:
    """What is wrong with files that a command has written and called good; None where nothing is.

    Args:
        folder: Where.
        new: Their paths in it.
    """
    for name in new:
        path = folder / name
        try:
            _check(path)
        except (UserError, ValueError, OSError, yaml.YAMLError, tarfile.TarError, SyntaxError) as error:
            return f"it succeeds, but {name} is no good: {type(error).__name__}: {error}"
    return None


def _check(path: Path) -> None:
    if path.is_dir() or not path.is_file():
        return
    if path.name == "codes.json":
        _check_codes(path.parent)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_json)
    elif path.name == "config.yaml" and path.parent.name == "bundle":
        _check_bundle(path.parent)
    elif path.suffix == ".yaml":
        yaml.safe_load(path.read_text(encoding="utf-8"))
    elif path.suffix in (".png", ".gif"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".tar":
        with tarfile.open(path) as archive:
            # a shard of codes may hold none: all of its pictures were skipped
            if not archive.getmembers() and not (path.parent / "codes.json").is_file():
                raise ValueError("an archive of nothing")


def _check_bundle(folder: Path) -> None:
    kind = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["kind"]
    model = {"tokenizer": load_tokenizer, "prior": load_prior}[kind](folder)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} is not finite")


def _check_codes(folder: Path) -> None:
    manifest = CodeManifest.read(folder)
    manifest.check_shards(folder)
    count = 0
    for shard in manifest.shards:
        samples = list(manifest.read_samples(folder, shard))
        count += len(samples)
        for sample in samples:
            codes_of([sample]).validate(manifest.spec)
    if count != manifest.statistics["samples"]:
        raise ValueError(f"{count} samples, and {manifest.statistics['samples']} in the statistics")
    if manifest.index_sha256 is not None and len(manifest.read_index(folder)) != count:
        raise ValueError("the index has other samples")
    np.testing.assert_equal(manifest.statistics["samples"], count)


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
