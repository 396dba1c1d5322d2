"""Where a bundle was, so that what was made with it finds it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vltok.errors import UserError
from vltok.io.bundles import fingerprint, read_bundle


def places_of(bundle: str | os.PathLike, folder: str | os.PathLike) -> tuple[str, ...]:
    """Where a bundle is: a file in `folder` keeps this, to be read by `resolve`.

    Args:
        bundle: A folder, or a repository on the Hugging Face Hub.
        folder: Where the file stands that will refer to it.

    Returns:
        A folder's path from `folder`, which begins with ``./`` or ``../`` and outlives that both are moved, and its
        absolute path, which outlives that one of them is; or the name on the Hub.
    """
    if not Path(bundle).is_dir():
        return (os.fspath(bundle),)
    absolute = os.path.abspath(bundle)
    try:
        relative = os.path.relpath(absolute, folder)
    except ValueError:  # another drive
        return (absolute,)
    return (relative if relative.startswith("..") else os.path.join(".", relative), absolute)


def resolve(places: Sequence[str], folder: str | os.PathLike) -> list[str]:
    """What `places_of` gave, as it reads from here: paths that exist no more are left out, names on the Hub stay."""
    resolved = []
    for place in places:
        local = place.startswith(".") or os.path.isabs(place)
        path = os.path.normpath(os.path.join(folder, place)) if local else place
        if path not in resolved and (not local or os.path.isdir(path)):
            resolved.append(path)
    return resolved


def matching(wanted: str, bundles: Sequence[str | os.PathLike]) -> str | None:
    """The first tokenizer's bundle that has a fingerprint, or None where there is none among them."""
    for bundle in bundles:
        try:
            if fingerprint(bundle) == wanted:
                return os.fspath(bundle)
        except UserError:
            continue  # something else is there now
    return None


def find_tokenizer(prior: str | os.PathLike, given: str | os.PathLike | None = None) -> str:
    """The bundle of the tokenizer whose codes a prior models: a folder, or a name on the Hub.

    Args:
        prior: The prior's bundle.
        given: Where the tokenizer is, if not where the prior's bundle says.

    Raises:
        UserError: It is not there, or what is there is another tokenizer.
    """
    folder, content = read_bundle(prior, "prior")
    wanted, places = content["tokenizer"]["fingerprint"], content["tokenizer"]["places"]
    name = f"the tokenizer whose codes prior '{folder}' draws ({wanted[:12]}…)"
    if given is not None:
        if (other := fingerprint(given)) != wanted:
            raise UserError(f"--tokenizer '{given}' is another one ({other[:12]}…) than {name}")
        return os.fspath(given)
    found = matching(wanted, resolve(places, folder))
    if found is None:
        known = " or ".join(f"'{place}'" for place in places) or "any place that the bundle names"
        raise UserError(f"{name} is not at {known}: say where its bundle is with --tokenizer")
    return found
