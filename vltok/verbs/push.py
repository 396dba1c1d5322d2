"""`vltok.push`: a bundle as a repository on the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.bundle_files import CARD, CONFIG, MEASURED, WEIGHTS, check_weights, fingerprint_of, read_bundle
from vltok.io.cards import published
from vltok.io.hub import Hub, is_hub_name, upload
from vltok.io.published_names import without_places

#: What a run folder has beside its bundle: pictures with their coding maps.
_PICTURES = ("reconstructions.png", "samples.png")


def push(
    bundle: str | os.PathLike,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    tokenizer: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    picture: str | os.PathLike | None = None,
) -> str:
    """Write a bundle into a repository on the Hugging Face Hub, in one commit.

    A repository that is not there yet is made. The token is that of `hf auth login`, or of the environment variable
    HF_TOKEN.

    Of files and folders that the bundle says it was made from, the names alone are published, not where they lie.

    Args:
        bundle: The bundle's folder.
        repository: ``user/name``.
        private: Whether a new repository is private; by default what the account says.
        token: By default what `hf auth login` or `HF_TOKEN` says.
        tokenizer: For a prior, the repository of its tokenizer, so that those who load it find that one.
        license: For the card: its identifier on the Hub, such as ``apache-2.0``.
        datasets: For the card: what it was trained on, as the Hub names data sets.
        picture: For the card: a PNG file; by default the coding maps that `vltok fit` left beside the bundle.

    Returns:
        The address of the commit.

    Raises:
        UserError: There is no such bundle, it is damaged, the tokenizer is another one, or the Hub does not take it.
    """
    if not is_hub_name(repository):
        raise UserError(f"'{repository}' is no repository's name, such as user/name")
    folder, content = read_bundle(bundle, None)
    check_weights(folder / WEIGHTS, content["weights"])
    picture = _picture(folder) if picture is None else Path(picture)
    if picture is not None and not picture.is_file():
        raise UserError(f"picture '{picture}' is not there")
    if content["kind"] == "prior":
        content = _with_places(content, tokenizer, token)
    elif tokenizer is not None:
        raise UserError(f"tokenizer is for priors: bundle '{folder}' is a tokenizer's")
    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    content["provenance"], card = without_places(content.get("provenance", {}), card)
    card = published(
        card, folder.resolve().name, repository, license, datasets, None if picture is None else picture.name
    )
    files: dict[str, Path | bytes] = {
        CONFIG: yaml_text.dump(content).encode(),
        WEIGHTS: folder / WEIGHTS,
        CARD: card.encode(),
        **{name: folder / name for name in MEASURED if (folder / name).is_file()},
        **({} if picture is None else {picture.name: picture}),
    }
    return upload(repository, files, private, token, f"Write a {content['kind']} of vltok")


def _picture(bundle: Path) -> Path | None:
    return next((bundle.parent / name for name in _PICTURES if (bundle.parent / name).is_file()), None)


def _with_places(content: Mapping[str, Any], tokenizer: str | None, token: str | None) -> dict[str, Any]:
    """The configuration of a prior's bundle without the folders of this machine, which nobody else has."""
    belongs = content["tokenizer"]
    places = [place for place in belongs["places"] if is_hub_name(place) and not place.startswith(".")]
    if tokenizer is not None:
        if (
            fingerprint_of(read_bundle(tokenizer, "tokenizer", Hub(token=token))[1], "tokenizer")
            != belongs["fingerprint"]
        ):
            raise UserError(f"tokenizer '{tokenizer}' is another one than that whose codes the prior draws")
        places = [tokenizer]
    return {**content, "tokenizer": {**belongs, "places": places}}
