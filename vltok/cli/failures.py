"""What a command says where some of what it was given could not be done."""

from __future__ import annotations

from collections.abc import Collection

from vltok.errors import UserError


def require_all(failed: Collection[str], done: int, what: str) -> None:
    """See that nothing failed.

    Args:
        failed: The paths or names of what did.
        done: How many did not.
        what: What they are, and what could not be done with them.

    Raises:
        UserError: Something failed.
    """
    if failed:
        paths = ", ".join(f"'{path}'" for path in failed)
        raise UserError(f"{len(failed)} of {len(failed) + done} {what}: {paths}")
