"""Splits by the hash of a picture's key: the same on every machine, and stable when pictures are added."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from vltok.errors import UserError


def key_bytes(key: str) -> bytes:
    """A key as what follows from it is to be computed: the same for a file and its copy by way of a Mac.

    File systems store accented letters as one character or as two (Unicode's NFC and NFD), and names that are no text.
    """
    return unicodedata.normalize("NFC", key).encode("utf-8", "surrogateescape")


def unit_hash(key: str) -> float:
    """A number in [0, 1) that the key alone decides, spread evenly over keys."""
    return int.from_bytes(hashlib.sha256(key_bytes(key)).digest()[:6], "big") / 2**48


def held_out_below(hashes: Iterable[float], share: float) -> float:
    """The hash up to which (inclusive) pictures are held out: about `share` of them, at least one, and never all.

    Raises:
        UserError: The share does not lie between 0 and 1, or there are fewer than two pictures.
    """
    if not 0 < share < 1:
        raise UserError(f"data.val_share must lie between 0 and 1, both excluded, not {share}")
    ordered = sorted(hashes)
    if len(ordered) < 2:
        raise UserError(
            f"{len(ordered)} picture is too few to hold any out for validation: add pictures, or give validation "
            "pictures of its own (data.val_root, data.val_shards)"
        )
    return min(max(share, ordered[0]), ordered[-2])
