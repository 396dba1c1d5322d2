"""What the tests of the pages share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    from .browser import NoBrowser, open_page  # the other tests of this folder need none

    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open_page())
        except NoBrowser as error:
            pytest.skip(str(error))
        yield opened
