"""`vltok.info`: what a bundle is, without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltok.code_spec import CodeSpec
from vltok.errors import UserError
from vltok.io.bundle_files import CONFIG, WEIGHTS, check_weights, fingerprint_of, read_bundle, read_calibration
from vltok.io.hub import Hub


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle is.

    Attributes:
        bundle: Its folder.
        kind: ``tokenizer`` or ``prior``.
        component: What it is built of: a registered name, or the dotted path of a class.
        fingerprint: The hash by which codes name their tokenizer.
        parameters: How many the model has.
        bytes: The size of its weights on disk.
        codes: What its codes may be: codebook, factors, regions.
        ratios: The share of regions that each factor is asked to reach; None where nothing is asked for.
        figures: What was measured, by name: `length` is the mean code length of held-out pictures, `expected_length`
            what it was asked to reach.
        provenance: What made it, from which recipe or checkpoint, under which protocol; empty where it is not told.
        vltok: The version of vltok that wrote it.
        requires: The distributions that it needs, with the versions that it was written with.
        config: What it is built from: `class_path` and `init_args`.
        tokenizer: Of a prior, the fingerprint of the tokenizer whose codes it models.
        tokenizer_places: Where that one was.
        calibrated: What `vltok rate` calibrated a tokenizer's rates on: how many pictures, and which; None
            where it did not.
        classes: Of a prior, how many classes it knows; None where it knows none.
        class_names: Their names, where they have any.
    """

    bundle: Path
    kind: str
    component: str
    fingerprint: str
    parameters: int
    bytes: int
    codes: CodeSpec
    ratios: Mapping[int, float] | None
    figures: Mapping[str, Any]
    provenance: Mapping[str, Any]
    vltok: str
    requires: Mapping[str, str]
    config: Mapping[str, Any]
    calibrated: str | None = None
    tokenizer: str | None = None
    tokenizer_places: tuple[str, ...] = ()
    classes: int | None = None
    class_names: tuple[str, ...] | None = None


def info(
    bundle: str | os.PathLike, *, trust: bool = False, revision: str | None = None, token: str | None = None
) -> BundleInfo:
    """Say what a bundle is: its size, factors and codebook, code lengths, figures, and what made it.

    The code length is the one that it was asked for, and the one that was measured. Weights are checked, not loaded; a
    bundle of version 0.1.0 is built to be counted.

    Args:
        bundle: A folder, or a repository `user/name` of the Hugging Face Hub.
        trust: Whether a bundle of version 0.1.0 may name more than registered components.
        revision: A branch, a tag or a commit of the repository.
        token: For a repository that not everybody may read.

    Raises:
        UserError: There is no such bundle, or it is damaged.
    """
    folder, content = read_bundle(bundle, None, Hub(revision, token))
    check_weights(folder / WEIGHTS, content["weights"])
    kind, summary = content["kind"], content.get("summary")
    if summary is None:
        from vltok.io.descriptions import summary_of  # needs torch

        summary = summary_of(content, trust)
    try:
        codes = CodeSpec(**summary["codes"])
        parameters, ratios, classes = int(summary["parameters"]), summary.get("ratios"), summary.get("classes")
        shares = None if ratios is None else {int(factor): float(share) for factor, share in ratios.items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"'{folder / CONFIG}' is damaged: summary does not tell parameters and codes") from error
    calibration = read_calibration(folder, fingerprint_of(content, kind)) if kind == "tokenizer" else None
    belongs = content["tokenizer"] if kind == "prior" else {}
    names = content.get("classes")
    return BundleInfo(
        bundle=folder,
        kind=kind,
        component=str(content[kind]["class_path"]),
        fingerprint=fingerprint_of(content, kind),
        parameters=parameters,
        bytes=content["weights"]["size"],
        codes=codes,
        ratios=shares,
        figures=content.get("figures", {}),
        provenance=content.get("provenance", {}),
        vltok=content["vltok"],
        requires={required["distribution"]: required["version"] for required in content["requires"]},
        config=content[kind],
        calibrated=None if calibration is None else f"{calibration.pictures} pictures ({calibration.data})",
        tokenizer=belongs.get("fingerprint"),
        tokenizer_places=tuple(belongs.get("places", ())),
        classes=classes,
        class_names=None if names is None else tuple(names),
    )
