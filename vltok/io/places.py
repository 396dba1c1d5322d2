"""Where a bundle was, so that what was made with it finds it again."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vltok.errors import UserError
from vltok.io.bundle_files import fingerprint_of, read_bundle
from vltok.io.bundles import fingerprint
from vltok.io.hub import Hub, at_commit, is_hub_name
from vltok.paths import read_path


def places_of(bundle: str | os.PathLike, folder: str | os.PathLike) -> tuple[str, ...]:
    """Where a bundle is: a file in `folder` keeps this, to be read by `resolve`.

    Args:
        bundle: A folder, or a repository on the Hugging Face Hub.
        folder: Where the file stands that will refer to it.

    Returns:
        A folder's path from `folder`, which begins with ``./`` or ``../`` and outlives that both are moved, and its
        absolute path, which outlives that one of them is; or the name on the Hub.
    """
    if not read_path(bundle).is_dir():
        return (os.fspath(bundle),)
    absolute = os.path.abspath(read_path(bundle))
    try:
        relative = os.path.relpath(absolute, folder)
    except ValueError:  # another drive
        return (absolute,)
    return (relative if relative.startswith("..") else os.path.join(".", relative), absolute)


def resolve(places: Sequence[str], folder: str | os.PathLike) -> list[str]:
    """What `places_of` gave, as it reads from here: paths that exist no more are left out, names on the Hub stay.

    Another computer is no place: a name such as ``//server/share`` makes some systems log on to it.
    """
    resolved = []
    for place in places:
        local = place.startswith(".") or os.path.isabs(place)
        remote = place.replace("\\", "/").startswith("//")
        path = os.path.normpath(os.path.join(folder, place)) if local else place
        if path not in resolved and not remote and (os.path.isdir(path) if local else is_hub_name(path)):
            resolved.append(path)
    return resolved


def matching(wanted: str, bundles: Sequence[str | os.PathLike], download: bool = False) -> str | None:
    """The first tokenizer's bundle that has a fingerprint, or None where there is none among them.

    Args:
        wanted: The fingerprint.
        bundles: What `resolve` gave.
        download: Whether those on the Hub may be fetched; else what was downloaded before is looked at.

    Returns:
        A folder, or a name on the Hub with the commit that was looked at.
    """
    hub = Hub(local_files_only=not download)
    for bundle in bundles:
        try:
            folder, content = read_bundle(bundle, "tokenizer", hub)
        except UserError:
            continue  # something else is there now
        if fingerprint_of(content, "tokenizer") == wanted:
            return os.fspath(bundle) if os.path.isdir(bundle) else at_commit(os.fspath(bundle), folder)
    return None


def find_tokenizer(prior: str | os.PathLike, given: str | os.PathLike | None = None, *, trust: bool = False) -> str:
    """The bundle of the tokenizer whose codes a prior models: a folder, or a name on the Hub with its commit.

    Nothing of it is built; what it is follows from its fingerprint alone.

    Args:
        prior: The prior's bundle.
        given: Where the tokenizer is, if not where the prior's bundle says.
        trust: Whether a repository on the Hub that the prior's bundle names may be downloaded; without it, one that was
            downloaded before is found all the same.

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
    found = matching(wanted, resolve(places, folder), download=trust)
    if found is None:
        known = " or ".join(map(repr, places)) or "any place that the bundle names"
        remedy = "say where its bundle is with --tokenizer"
        if not trust and any(map(is_hub_name, places)):
            remedy += ", or allow what the bundle names to be downloaded with --trust (trust=True)"
        raise UserError(f"{name} is not at {known}: {remedy}")
    return found
