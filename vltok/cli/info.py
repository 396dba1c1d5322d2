"""`vltok info`: what a bundle is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vltok.errors import one_line
from vltok.io.recipes import parse_options
from vltok.measures.meanings import meaning
from vltok.verbs.options import keywords, verb_parser

if TYPE_CHECKING:
    from vltok.verbs.info import BundleInfo


def run(arguments: list[str]) -> None:
    """Run `vltok info` with what follows the verb.

    Raises:
        UserError: There is no such bundle, or it is damaged.
    """
    parser = verb_parser("info", "bundle")
    parser.add_argument("--json", action="store_true", help="print everything, as JSON")
    options = parse_options(parser, arguments)
    from vltok.verbs.info import info

    found = info(**keywords(options, "json"))
    if options.json:
        print(json.dumps({**asdict(found), "bundle": str(found.bundle)}, indent=2, ensure_ascii=False))
        return
    print(one_line(f"{found.kind} {found.component}: {found.bundle}"))
    for name, value in _lines(found):
        print(f"  {name:<14} {one_line(value)}")


def _lines(found: BundleInfo) -> Iterator[tuple[str, str]]:
    figures, codes = found.figures, found.codes
    yield "size", f"{found.parameters:,} parameters, {found.bytes:,} bytes"
    several = f" in each of {codes.codebooks} codebooks" if codes.codebooks > 1 else ""
    yield "codebook", f"{codes.codebook_size} codes{several}"
    if codes.factors:
        yield "factors", ", ".join(map(str, codes.factors))
    if codes.regions is not None:
        yield "regions", " × ".join(map(str, codes.regions))
    if codes.max_length is not None:
        yield "longest", f"{codes.max_length} codes"
    target = [] if found.ratios is None else [f"ratios {_shown(found.ratios)}"]
    if "expected_length" in figures:
        target.append(f"{_shown(figures['expected_length'])} codes an image")
    yield "target", "; ".join(target) or "none"
    if "length" in figures:
        yield "measured", f"{_shown(figures['length'])} codes an image"
    if found.calibrated is not None:
        yield "calibrated", f"on {found.calibrated}"
    if found.kind == "prior":
        yield "classes", "none" if found.classes is None else _classes(found)
        yield "tokenizer", f"{found.tokenizer} ({' or '.join(found.tokenizer_places) or 'no place is told'})"
    for place, (name, value) in enumerate(figures.items()):
        means = meaning(name)
        shown = means.shown(value) if isinstance(value, float) else _shown(value)
        yield "" if place else "figures", f"{means.name} {means.arrow or '='} {shown}"
    yield from _provenance(found.provenance, found.vltok)
    yield "needs", ", ".join(f"{name} {version}" for name, version in found.requires.items())
    yield "fingerprint", found.fingerprint


def _classes(found: BundleInfo) -> str:
    return f"{found.classes}" + (f": {', '.join(found.class_names)}" if found.class_names else "")


def _provenance(provenance: Mapping[str, Any], version: str) -> Iterator[tuple[str, str]]:
    yield "made by", f"{provenance.get('by', 'a program that does not say so')}, vltok {version}"
    for name, value in provenance.items():
        if name == "recipe" and isinstance(value, Mapping):
            parts = {
                key: value[key].get("class_path") for key in ("model", "data") if isinstance(value.get(key), Mapping)
            }
            yield name, f"{_shown(parts)}, seed {value.get('seed_everything')}; --json shows it"
        elif name != "by":
            yield name, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    return str(value)
