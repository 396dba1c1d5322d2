"""Where a bundle is: a folder of this machine, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vltok.errors import UserError, first_line
from vltok.paths import read_path

#: Where `vltok fit` writes.
_RUNS = "runs"
_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w.][\w./-]*))?")


@dataclass(frozen=True)
class Hub:
    """How the Hub is asked. What is left out is as its own environment variables say, such as `HF_HUB_OFFLINE`.

    Attributes:
        revision: A branch, a tag or a commit; ``user/name@revision`` says the same.
        token: For repositories that not everybody may read.
        cache_dir: Where downloads are kept.
        local_files_only: Whether to take what was downloaded before, and ask no network.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | os.PathLike | None = None
    local_files_only: bool = False

    def fetch(self, name: str, files: Sequence[str]) -> Path:
        """The folder with the files of a repository, fetched where they are not on this machine.

        Args:
            name: ``user/name`` or ``user/name@revision``.
            files: The files' names; no other is fetched.

        Raises:
            UserError: The Hub does not give it, or cannot be asked.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

        repository, revision = _parts(name)
        if revision and self.revision not in (None, revision):
            raise UserError(f"'{name}' names another revision than revision='{self.revision}': give one of them")
        try:
            folder = snapshot_download(
                repository,
                revision=revision or self.revision,
                token=self.token,
                cache_dir=None if self.cache_dir is None else Path(self.cache_dir),
                local_files_only=self.local_files_only,
                allow_patterns=list(files),
                library_name="vltok",
            )
        except GatedRepoError as error:
            raise UserError(f"'{name}' is gated: accept its terms on the Hugging Face Hub, and give a token") from error
        except RepositoryNotFoundError as error:
            raise UserError(
                f"there is no folder '{name}', and no such repository on the Hugging Face Hub; where it is private, "
                "give a token (HF_TOKEN)"
            ) from error
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"there is no folder '{name}', it was not downloaded before, and the Hugging Face Hub is not asked "
                "(HF_HUB_OFFLINE, local_files_only) or does not answer: give a folder that is here, or try again online"
            ) from error
        except Exception as error:  # the Hub's client raises its own errors and those of whatever carries them
            raise UserError(
                f"there is no folder '{name}', and the Hugging Face Hub does not give it: {first_line(error)}"
            ) from error
        return Path(folder)


def upload(name: str, files: Mapping[str, Path | bytes], private: bool | None, token: str | None, message: str) -> str:
    """Write files into a repository in one commit, and make the repository where there is none.

    Args:
        name: ``user/name``.
        files: What to write, by name.
        private: Whether a new repository is private; None for what the account says.
        token: By default what `hf auth login` or `HF_TOKEN` says.
        message: The commit's.

    Returns:
        The address of the commit.

    Raises:
        UserError: The Hub does not take it, or cannot be asked.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository, revision = _parts(name)
    if revision:
        raise UserError(f"'{name}' names a revision: a bundle is written to the main branch, give '{repository}'")
    api = HfApi(token=token, library_name="vltok")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(place, content) for place, content in files.items()]
        return api.create_commit(repository, added, commit_message=message).commit_url
    except Exception as error:  # the Hub's client raises its own errors and those of whatever carries them
        told = {401: "it knows no token that is valid: 'hf auth login', or give one (HF_TOKEN)"}
        told[403] = "the token may not write there: it needs the role 'write', and the name must be your own"
        status = getattr(getattr(error, "response", None), "status_code", 0)
        raise UserError(
            f"the Hugging Face Hub does not take '{name}': {told.get(status) or first_line(error)}"
        ) from error


def is_hub_name(place: str) -> bool:
    """Whether a place reads as a repository on the Hub: ``user/name`` or ``user/name@revision``."""
    return _NAME.fullmatch(place) is not None


def at_commit(name: str, folder: Path) -> str:
    """The name of a repository at the very commit whose files lie in a folder that `Hub.fetch` gave."""
    return f"{_parts(name)[0]}@{folder.name}"


def find(place: str | os.PathLike, hub: Hub, files: Sequence[str]) -> Path:
    """The folder of a bundle, fetched from the Hub where it is not on this machine.

    A path that was misspelt is not asked for: what lies in a folder that is here is no repository.

    Raises:
        UserError: There is no such folder, and the Hub does not give it.
    """
    path, name = read_path(place), os.fspath(place)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"there is no bundle '{name}': it is a file")
    if not isinstance(place, str) or not is_hub_name(place):
        raise UserError(f"there is no bundle '{name}': no such folder{_nearest(path)}")
    if "@" not in name and (path.parent.is_dir() or path.parts[0] == _RUNS):
        here = f"there is no folder '{_RUNS}' here"
        if path.parent.is_dir():
            here = f"'{path.parent}' is a folder here that has none of this name"
        raise UserError(
            f"there is no bundle '{name}': {here}{_nearest(path)}; a repository on the Hugging Face Hub would be "
            f"'{name}@main'"
        )
    return hub.fetch(place, files)


def _parts(name: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"'{name}' is no repository's name, such as user/name or user/name@revision")
    return match["repository"], match["revision"]


def _nearest(path: Path) -> str:
    """A hint at a folder beside a misspelt one."""
    try:
        beside = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    return f"; did you mean '{path.parent / near[0]}'?" if near else ""
