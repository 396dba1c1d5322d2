"""The `metrics.json` of vltok 0.1.0, of which `fit` and `reconstruct` each had a form of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What 0.1.0 called a figure, where it has another name now.
_RENAMED = {
    "mean_length": "length_of_training",
    "unseen_mean_length": "length",
    "expected_mean_length": "expected_length",
    "error_correlation": "coarse_error_correlation",  # of what stood below `adaptation`
    "code_length": "length",
}
#: What stood below another key then: `ratios.8`.
_GROUPS = {"ratios": "ratio_{}_of_training", "step_gain_correlations": "step_gain_correlation_{}"}
#: Of `adaptation` and `protocol`, what are no figures.
_COUNTS = ("images", "regions")


def figure_name(key: str) -> str:
    """The present name of a figure that 0.1.0 may have called by another one, such as ``adaptation.gain_share``."""
    group, _, name = key.rpartition(".")
    if group.rpartition(".")[2] in _GROUPS:
        return _GROUPS[group.rpartition(".")[2]].format(name)
    if group == "adaptation":
        return _RENAMED.get(name, name)
    return key if key == "error_correlation" else _RENAMED.get(key, key)


def migrated(tree: Any, folder: str) -> Any:
    """The tree of a file in a folder as it would be written now; one that is no file of 0.1.0 comes back as it is."""
    if "kind" in tree:
        return tree
    if "tokenizer" in tree and "mean" in tree:
        return _reconstruct(tree)
    return _fit(tree, folder)


def _fit(tree: Mapping[str, Any], folder: str) -> dict[str, Any]:
    kind = "tokenizer" if "image_size" in tree["protocol"] else "prior"
    old = dict(tree["protocol"])
    data = {"described": old.pop("data", None), **{key: old.get(key) for key in ("image_size", "images", "tokenizer")}}
    figures = {key: value for key, value in tree.items() if key != "protocol"}
    return {
        "kind": kind,
        "subject": {"path": folder, "fingerprint": None},
        "values": _values(figures),
        "codes": {},
        "protocol": {**old, "data": data, "precision": "float32" if kind == "tokenizer" else old["precision"]},
        "environment": {"vltok": old["vltok"], "device": None},
    }


def _reconstruct(tree: Mapping[str, Any]) -> dict[str, Any]:
    ratios = (tree["mean"] or {}).get("ratios", {})
    figures = {key: value for key, value in (tree["mean"] or {}).items() if key in ("psnr", "code_length")}
    values = {**_values(figures), **{f"ratio_{factor}": {"value": share} for factor, share in ratios.items()}}
    sources = [image["source"] for image in tree["images"]]
    return {
        "kind": "tokenizer",
        "subject": tree["tokenizer"],
        "values": {**values, **_values({"adaptation": tree["adaptation"]})},
        "codes": {},
        "protocol": {"data": {"sources": sources}, "precision": "float32", "tile": tree["tile"]},
        "environment": {"device": None, "skipped": tree["failed"]},
        "images": tree["images"],
    }


def _values(figures: Mapping[str, Any], group: str = "") -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            found |= _values(value, f"{group}{key}.")
        elif isinstance(value, int | float) and not (group and key in _COUNTS):
            found[figure_name(f"{group}{key}")] = {"value": value}
    return found
