"""The means of a rate-distortion curve, which a tokenizer's bundle keeps: reports of evaluations show them, too."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltok.errors import UserError
from vltok.evaluation.rate_curves import RateCurve
from vltok.files import written_whole
from vltok.io.bundle_files import CURVE, FILES
from vltok.io.hub import Hub, find

_VERSION = 1


@dataclass(frozen=True)
class RateMeans:
    """The mean figures of pictures at each rate, `psnr` and `file_bits_per_pixel` at least.

    Attributes:
        points: Of a tokenizer, by rising rate; none where it cannot be steered.
        own: Of what it chooses itself.
        codecs: Of codecs by name, each by rising quality.
        data: Which pictures, in words; not where they lie, for bundles are published.
    """

    points: Sequence[Mapping[str, float]]
    own: Mapping[str, float]
    codecs: Mapping[str, Sequence[Mapping[str, float]]]
    data: str = ""

    @classmethod
    def of(cls, curve: RateCurve, data: str = "") -> RateMeans:
        """Those of a curve that was measured."""
        codecs = {str(name): [point.mean for point in points] for name, points in curve.codecs.items()}
        return cls([point.mean for point in curve.points], curve.own.mean, codecs, data)

    def store(self, bundle: Path, tokenizer: str) -> Path:
        """Write them into the folder of a tokenizer's bundle, of this fingerprint; the path."""
        tree = {"version": _VERSION, "tokenizer": tokenizer, **vars(self)}
        with written_whole(bundle / CURVE) as file:
            file.write_text(json.dumps(tree), encoding="utf-8")
        return bundle / CURVE

    @classmethod
    def stored(cls, bundle: str | os.PathLike, tokenizer: str) -> RateMeans | None:
        """What a bundle has of the tokenizer of a fingerprint, if anything.

        Raises:
            UserError: It is damaged.
        """
        path = find(bundle, Hub(), FILES) / CURVE
        if not path.is_file():
            return None
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree["version"] != _VERSION or tree["tokenizer"] != tokenizer:
                return None  # of the weights that were there before, or of a newer vltok
            codecs = {str(name): _points(points) for name, points in tree["codecs"].items()}
            (own,) = _points([tree["own"]])
            return cls(_points(tree["points"]), own, codecs, str(tree["data"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"'{path}' is damaged: remove it, and measure anew with 'vltok rate'") from error


def _points(given: Any) -> list[dict[str, float]]:
    points = [{str(name): float(value) for name, value in point.items()} for point in given]
    # what a plot of it needs
    if not all(math.isfinite(point["psnr"]) and point["file_bits_per_pixel"] > 0 for point in points):
        raise ValueError("a point has no rate or no quality")
    return points
