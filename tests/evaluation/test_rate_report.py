"""The page of a rate-distortion curve in a real browser: the slider slides, and what is shown is checked."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from playwright.sync_api import Page

from vltok.codes import Codes, CodeSpec
from vltok.evaluation.curves import rate_curve
from vltok.evaluation.rate_curves import CurvePoint, RateCurve
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.rate_report import rate_html
from vltok.figures.examples import Example

SPEC = CodeSpec(codebook_size=300, factors=(4, 8))
IMAGE = torch.from_numpy(skimage.data.chelsea()[100:116, 150:166].copy()).movedim(-1, 0)


def point(asked: dict[str, float], fine: int, key: str = "<cat>", spec: CodeSpec = SPEC) -> CurvePoint:
    """Two pictures, so many of whose four regions are fine."""
    length = 4.0 + 3 * fine
    images = {
        "psnr": np.array([20.0 + fine, 22.0 + fine]),
        "ssim": np.array([0.5, 0.7]),
        "mse": np.array([0.01, 0.02]),
        "file_bits_per_pixel": np.array([0.5, 0.7]) * length / 10,
        "length": np.array([length, length]),
        "bits_per_pixel": np.array([length, length]) / 30,
    }
    if spec.gridded:
        grains = torch.tensor([1] * fine + [0] * (4 - fine)).view(1, 2, 2)
        codes = Codes.from_code_map(torch.arange(16).view(1, 4, 4), grains, spec)
    else:
        codes = Codes(torch.arange(int(length)), torch.tensor([int(length)]))
    example = Example(key, IMAGE, IMAGE // (2 + fine), codes, {name: column[0] for name, column in images.items()})
    return CurvePoint(asked, images, [example])


def curve(key: str = "<cat>", spec: CodeSpec = SPEC, steered: bool = True) -> RateCurve:
    points = tuple(
        point({"length": 4.0 + 3 * fine, "threshold": -float(fine)}, fine, key, spec) for fine in (0, 1, 3, 4)
    )
    codecs = {"jpeg": tuple(point({"quality": 5.0 * fine}, fine) for fine in (1, 2, 3))}
    return RateCurve(points if steered else (), point({}, 2, key, spec), codecs, ("jpegxl",), (key, "other"))


def about(path: str) -> dict[str, Any]:
    data = {"kind": "folder", "root": "<my> pictures", "pictures": 40, "size": 16, "split": {"held_out": 0.05}}
    return {"tokenizer": {"path": path}, "data": data}


def html(found: RateCurve, bundle: str, spec: CodeSpec = SPEC) -> str:
    return rate_html(found, rate_curve(RateMeans.of(found), found.own.images), about(bundle), spec)


def test_the_file_needs_nothing_else() -> None:
    page = html(curve(), "my/<bundle>")
    assert "{{" not in page and not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "my/&lt;bundle&gt;" in page and "<cat>" not in page and page.count("</script>") == 3
    assert "Measured on folder &#39;&lt;my&gt; pictures&#39; (40 pictures): 2 held-out pictures of 16 × 16." in page
    assert "Not measured, for Pillow did not write them: jpegxl." in page


def test_names_are_text_whatever_they_hold() -> None:
    name = "{{data}} <script>alert(1)</script> \udcff.png"
    page = html(curve(name), name)
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 3


def opened(browser_page: Page, folder: Path, found: RateCurve, spec: CodeSpec = SPEC) -> Page:
    """The page, which no error has stopped."""
    errors: list[str] = []
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    (folder / "rate.html").write_text(html(found, "bundle", spec), encoding="utf-8")
    browser_page.goto(f"file://{folder / 'rate.html'}")
    assert errors == []
    return browser_page


def shown(page: Page, picture: int) -> str:
    """The source of a picture that has loaded."""
    image = page.locator("#pictures img").nth(picture)
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    return image.get_attribute("src")


def test_the_slider_slides_over_the_rate(browser_page: Page, tmp_path: Path) -> None:
    page = opened(browser_page, tmp_path, curve())
    seen = []
    for place, length in enumerate((4, 7, 13, 16)):
        page.locator("#rate").fill(str(place))
        figures = page.locator("#numbers").inner_text()
        assert f"asked for {length}.0 codes" in figures and f"PSNR {21 + (length - 4) // 3}.00 dB" in figures
        assert f"code length {length}.0 codes, " in page.locator("#pictures .own").inner_text()
        assert f"PSNR {20 + (length - 4) // 3}.00 dB, SSIM 0.500" in page.locator("#pictures .own").inner_text()
        seen.append([shown(page, picture) for picture in range(3)])
        seen[-1] += [page.locator("#marker").get_attribute(name) for name in ("cx", "cy")]
    images, *others = zip(*seen, strict=True)
    assert len(set(images)) == 1 and all(len(set(column)) == 4 for column in others)
    assert [float(value) for value in others[-2]] == sorted(float(value) for value in others[-2])
    page.locator("#rate").press("ArrowLeft")
    assert "asked for 13.0 codes" in page.locator("#numbers").inner_text()


def test_a_button_shows_its_own_choice(browser_page: Page, tmp_path: Path) -> None:
    page = opened(browser_page, tmp_path, curve())
    page.locator("#rate").fill("3")
    before = shown(page, 1)
    page.locator("#own").click()
    assert "its own choice" in page.locator("#numbers").inner_text()
    assert "code length 10.0 codes, " in page.locator("#pictures .own").inner_text() and shown(page, 1) != before
    assert page.locator("#own").get_attribute("aria-pressed") == "true"
    page.locator("#own").click()
    assert "asked for 16.0 codes" in page.locator("#numbers").inner_text() and shown(page, 1) == before


def test_it_fits_a_phone_and_the_dark(browser_page: Page, tmp_path: Path) -> None:
    page = opened(browser_page, tmp_path, curve("a-picture-of-a-long-name" * 5))
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 700})
    try:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1200, "height": 900})


def test_what_there_is_not_is_not_shown(browser_page: Page, tmp_path: Path) -> None:
    page = opened(browser_page, tmp_path, curve(steered=False))
    assert not page.locator("#row").is_visible()
    assert "its own choice" in page.locator("#numbers").inner_text()
    free = CodeSpec(300, max_length=16)
    page = opened(browser_page, tmp_path, curve(spec=free), free)
    assert page.locator("#pictures img").count() == 2 and page.locator("#row").is_visible()
