"""A headless Chromium, for the tests of the report; run as a command, it takes the picture of one.

python tests/evaluation/browser.py runs/quickstart_evaluation/report.html recipes/report.png
python tests/evaluation/browser.py runs/quickstart_rate/rate.html recipes/rate.png
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class NoBrowser(Exception):
    """There is none on this machine."""


@contextlib.contextmanager
def open_page(width: int = 1200, height: int = 900) -> Iterator[Page]:
    """A page without a network, in a window of this size.

    Raises:
        NoBrowser: There is no Chromium.
    """
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        if executable is None and not Path(playwright.chromium.executable_path).exists():
            raise NoBrowser("there is no Chromium on this machine: install it, or run 'playwright install chromium'")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser.new_context(offline=True, viewport={"width": width, "height": height}).new_page()
        browser.close()


def take_picture(report: Path, picture: Path) -> None:
    """Write the viewer of a report, at its second picture or its third rate, as a PNG."""
    with open_page(1280, 700) as page:
        page.goto(f"file://{report.resolve()}")
        if page.locator("#rate").count():
            page.set_viewport_size({"width": 900, "height": 1100})
            page.locator("#rate").fill("2")
        else:
            page.keyboard.press("ArrowRight")
        page.evaluate("Promise.all([...document.images].filter(image => image.src).map(image => image.decode()))")
        page.screenshot(path=picture)
    with Image.open(picture) as taken:
        taken.convert("RGB").save(picture, optimize=True)


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), Path(sys.argv[2]))
