"""Bundles: a trained tokenizer or prior as a folder that anyone can load, without pickle.

```
bundle/
  config.yaml         what to build (a recipe's class_path and init_args), what it needs, and the weights' hash;
                      for a prior also which tokenizer's codes it models, and where that is; besides, what people
                      ask of it (`vltok info`): its size and codes, figures, and what made it
  model.safetensors   the weights
  README.md           a model card, as the Hugging Face Hub shows it
  rate.json                 of a tokenizer, once `vltok rate` has measured it: which threshold gives which code length
  code_tables.safetensors   how often its codes occur
  rate_curve.json           and what pictures cost and lose at each rate
```
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model

from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError
from vltok.files import folder_written_whole, sha256_of
from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundle_files import (
    CALIBRATION,
    CARD,
    CONFIG,
    CURVE,
    TABLES,
    WEIGHTS,
    Kind,
    check_weights,
    fingerprint_of,
    read_bundle,
    read_calibration,
)
from vltok.io.bundle_weights import load_weights, not_finite
from vltok.io.cards import model_card
from vltok.io.descriptions import Description, summary
from vltok.io.hub import Hub
from vltok.io.migrations import present
from vltok.io.recipes import dump
from vltok.version import __version__


def save_tokenizer(
    tokenizer: Tokenizer,
    path: str | os.PathLike,
    card: str = "",
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a tokenizer as a bundle, whole or not at all; a bundle that is there already is replaced.

    Args:
        tokenizer: Whose weights to write.
        path: The folder to write.
        card: What the model card says about it, in Markdown: how it was trained, on what.
        metrics: Measured figures: plain values by name.
        provenance: What made it, as plain values: `by`, `recipe`, the figures' `protocol`.

    Raises:
        UserError: The folder holds something else than a bundle, a weight is not a finite number, or nobody could load
            the bundle: see `vltok.io.descriptions.Description.of`.
    """
    _save(tokenizer, "tokenizer", path, card, metrics, provenance, {})


def save_prior(
    prior: Prior,
    path: str | os.PathLike,
    tokenizer: str,
    tokenizer_places: Sequence[str] = (),
    card: str = "",
    metrics: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a prior as a bundle, whole or not at all; a bundle that is there already is replaced.

    Args:
        prior: Whose weights to write.
        path: The folder to write.
        tokenizer: The fingerprint of the tokenizer whose codes it models.
        tokenizer_places: Where that one's bundle is: `vltok.io.places.places_of`.
        card: What the model card says about it, in Markdown: how it was trained, on what.
        metrics: Measured figures: plain values by name.
        class_names: The names of its classes, where they have any.
        provenance: What made it, as plain values: `by`, `recipe`, the figures' `protocol`.

    Raises:
        UserError: The folder holds something else than a bundle, a weight is not a finite number, the prior is what
            one of any grid became for images of one, or nobody could load the bundle: see
            `vltok.io.descriptions.Description.of`.
    """
    belongs: dict[str, Any] = {"tokenizer": {"fingerprint": tokenizer, "places": list(tokenizer_places)}}
    if class_names is not None:
        belongs["classes"] = list(class_names)
    _save(prior, "prior", path, card, metrics, provenance, belongs)


def load_tokenizer(
    place: str | os.PathLike,
    device: torch.device | str = "cpu",
    *,
    trust: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Tokenizer:
    """Build the tokenizer of a bundle, in evaluation mode.

    Args:
        place: A bundle's folder, or where there is none of that name, a repository `user/name` on the Hugging Face
            Hub, or `user/name@revision`.
        device: Where to put it.
        trust: Whether the bundle may name any Python class or function, and places to fetch from, besides registered
            components: they run as a program does.
        revision: A branch, a tag or a commit of the repository.
        token: For a repository that not everybody may read; by default what `hf auth login` or `HF_TOKEN` says.
        cache_dir: Where downloads are kept; by default where `HF_HUB_CACHE` says.
        local_files_only: Whether to take what was downloaded before, and ask no network.

    Raises:
        UserError: There is no such bundle, it is damaged, of another version or another kind, a distribution that
            it needs is not installed, or it names what needs `trust`.
    """
    return _load(place, "tokenizer", device, trust, Hub(revision, token, cache_dir, local_files_only))


def configuration(place: str | os.PathLike, trust: bool = False) -> tuple[Kind, dict[str, Any]]:
    """What a bundle holds, and what that is built from, with dotted paths for names.

    Raises:
        UserError: As `load_tokenizer`, but for what is wrong with the weights.
    """
    folder, content = read_bundle(place, None)
    kind = content["kind"]
    try:
        return kind, Description.read(content, trust).tree[kind]
    except UserError as error:
        raise UserError(f"bundle '{folder}': {error}") from error


def load_prior(
    place: str | os.PathLike,
    device: torch.device | str = "cpu",
    *,
    trust: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Prior:
    """Build the prior of a bundle, in evaluation mode; `vltok.find_tokenizer` says which tokenizer decodes its draws.

    Args:
        place: As in `load_tokenizer`, and so are the others.
        device: Where to put it.
        trust: Whether the bundle may name more than registered components.
        revision: A branch, a tag or a commit of the repository.
        token: For a repository that not everybody may read.
        cache_dir: Where downloads are kept.
        local_files_only: Whether to ask no network.

    Raises:
        UserError: As `load_tokenizer`.
    """
    return _load(place, "prior", device, trust, Hub(revision, token, cache_dir, local_files_only))


def fingerprint(place: str | os.PathLike) -> str:
    """A hash of a bundle's weights and configuration, by which codes name the tokenizer that they belong to.

    It stays the same wherever the bundle is copied to, and whatever its card says.

    Raises:
        UserError: As `load_tokenizer`, as far as `config.yaml` is concerned.
    """
    return fingerprint_of(read_bundle(place, "tokenizer")[1], "tokenizer")


def class_names(place: str | os.PathLike) -> tuple[str, ...] | None:
    """The names of the classes of a prior's bundle, or None where it tells none.

    Raises:
        UserError: There is no such bundle.
    """
    names = read_bundle(place, "prior")[1].get("classes")
    return None if names is None else tuple(names)


def trained_grids(place: str | os.PathLike) -> tuple[tuple[int, int], ...]:
    """The grids of regions that a prior of any grid was trained on, as its bundle tells them; none where it does not.

    Raises:
        UserError: There is no such bundle.
    """
    protocol = read_bundle(place, "prior")[1].get("provenance", {}).get("protocol", {})
    return tuple((rows, columns) for rows, columns in protocol.get("sequences", {}).get("grids", ()))


def prior_fingerprint(place: str | os.PathLike) -> str:
    """The same of a prior's bundle.

    Raises:
        UserError: As `load_prior`, as far as `config.yaml` is concerned.
    """
    return fingerprint_of(read_bundle(place, "prior")[1], "prior")


def _save(
    model: Tokenizer | Prior,
    kind: Kind,
    path: str | os.PathLike,
    card: str,
    metrics: Mapping[str, Any] | None,
    provenance: Mapping[str, Any] | None,
    others: Mapping[str, Any],
) -> None:
    """Write a bundle, with other keys in its `config.yaml`."""
    path = Path(path)
    if path.exists() and not (path / CONFIG).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"'{path}' exists and is no bundle; it is left as it is: choose another folder")
    if (strange := not_finite(model)) is not None:
        raise UserError(
            f"weight {strange} holds numbers that are not finite: training has diverged; nothing is written"
        )
    description = Description.of(model, kind)
    again = description.build()
    if again.spec.any_grid and not model.spec.any_grid and isinstance(model, Prior):
        raise UserError(
            f"this prior is of images of {model.spec.regions} regions alone, as its on_grid made it: save the one of "
            "any grid that it was made of, whose weights it shares"
        )
    tree = description.named
    with folder_written_whole(path) as folder:
        save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
        if (problem := load_weights(again, folder / WEIGHTS)) is not None:
            raise UserError(
                f"the {kind}'s weights do not fit what it was built from ({problem}): it was changed since; a part can "
                "be replaced by another of the same interface, whose own arguments count then"
            )
        content = {
            "format": present(),
            "kind": kind,
            "vltok": __version__,
            kind: tree,
            "requires": description.distributions(),
            "weights": {"sha256": sha256_of(folder / WEIGHTS), "size": (folder / WEIGHTS).stat().st_size},
            **others,
            "summary": summary(model),
            "figures": dict(metrics or {}),
            "provenance": dict(provenance or {}),
        }
        content = json.loads(json.dumps(content))  # figures may be numbers of numpy
        (folder / CONFIG).write_text(dump(content), encoding="utf-8")
        length = "fixed-length" if len(model.spec.factors) == 1 else "variable-length"
        text = model_card(path.name, kind, tree, card, metrics or {}, (provenance or {}).get("protocol"), length)
        (folder / CARD).write_text(text, encoding="utf-8")
        if isinstance(model, Tokenizer) and model.calibration is not None:
            (folder / CALIBRATION).write_text(model.calibration.text(fingerprint_of(content, kind)), encoding="utf-8")
        # pictures may have been compressed with the tables
        measured = [name for name in (TABLES, CURVE) if (path / name).is_file()]
        if measured and _same(path, content, kind):
            for name in measured:
                shutil.copyfile(path / name, folder / name)


def _same(path: Path, content: Mapping[str, Any], kind: Kind) -> bool:
    """Whether a folder holds the very bundle that a configuration is of."""
    try:
        return fingerprint_of(read_bundle(path, kind)[1], kind) == fingerprint_of(content, kind)
    except UserError:
        return False


def options_of_prior(place: str | os.PathLike, *, trust: bool = False) -> type[SamplingOptions]:
    """The class of the options with which a bundle's prior draws; no weights are read.

    Raises:
        UserError: As `load_prior`, but for what is wrong with the weights.
    """
    folder, content = read_bundle(place, "prior")
    description = Description.read(content, trust)
    sampling = getattr(description.names.classes.get(("prior",)), "sampling", None)
    if sampling is None:
        path = description.tree["prior"]["class_path"]
        raise UserError(f"bundle '{folder}': {path} cannot be imported, or is no prior")
    return sampling


def _load(place: str | os.PathLike, kind: Kind, device: torch.device | str, trust: bool, hub: Hub) -> Any:
    folder, content = read_bundle(place, kind, hub)
    check_weights(folder / WEIGHTS, content["weights"])
    try:
        model = Description.read(content, trust).build()
    except UserError as error:
        raise UserError(f"bundle '{folder}': {error}") from error
    if (problem := load_weights(model, folder / WEIGHTS, content)) is not None:
        raise UserError(
            f"the weights of bundle '{folder}' do not fit what {CONFIG} describes ({problem}): undo changes to "
            f"{CONFIG}, or copy the bundle again; it was written by vltok {content['vltok']!r}, this is {__version__}"
        )
    if (strange := not_finite(model)) is not None:
        raise UserError(f"'{folder / WEIGHTS}' is damaged: {strange} holds numbers that are not finite")
    if isinstance(model, Tokenizer):
        model.calibration = read_calibration(folder, fingerprint_of(content, kind))
    return model.eval().to(device)
