"""How the tests of contracts see that a contract finds what is broken."""

from collections.abc import Callable

import pytest

from vltok.errors import UserError


def assert_found(contract: type, test: str, build: Callable[[], object], *fixtures: object) -> None:
    """Check that a test of a contract passes on what it builds, and fails on what `build` gives."""
    getattr(contract(), test)(*fixtures)

    class Broken(contract):
        def build(self) -> object:
            return build()

    with pytest.raises((AssertionError, UserError, RuntimeError, TypeError, pytest.fail.Exception)):
        getattr(Broken(), test)(*fixtures)
