"""The report in a real browser: pictures are picked, the slider slides, and what is shown is checked."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from markupsafe import escape
from playwright.sync_api import Page

from vltok.codes import Codes, CodeSpec
from vltok.evaluation.curves import length_histograms
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.records import Record
from vltok.evaluation.report import report_html
from vltok.evaluation.values import Value
from vltok.figures.examples import Example
from vltok.measures.meanings import meaning

SPEC = CodeSpec(codebook_size=300, factors=(4, 8))


def examples() -> list[Example]:
    """Three photographs, each with more fine regions than the one before."""
    found = []
    for place, name in enumerate(("astronaut", "coffee", "chelsea")):
        image = torch.from_numpy(getattr(skimage.data, name)()[100:116, 150:166].copy()).movedim(-1, 0)
        grains = torch.tensor([0] * (3 - place) + [1] * (1 + place)).view(1, 2, 2)
        code_map = torch.arange(16).view(1, 4, 4) + 20 * place
        codes = Codes.from_code_map(code_map, grains, SPEC)
        figures = {"psnr": 20.5 + place, "length": float(codes.lengths)}
        found.append(Example(f"<{name}>", image, image // 2, codes, figures, fixed=image // 3))
    return found


def record(kind: str = "tokenizer") -> Record:
    codes = {"length": {"histogram": {"7": 2, "13": 1}}}
    protocol = {"data": {"pixels": "a", "split": "val", "size": 16, "images": 3}}
    return Record(kind, {"path": "my/bundle"}, {"psnr": Value(21.5, 21.0, 22.0)}, codes, protocol, {"vltok": "0"})


def test_the_file_needs_nothing_else() -> None:
    page = report_html(record(), examples(), SPEC)
    assert "{{" not in page
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    for source in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert source.startswith(("data:", "#")), source
    assert "<p>PSNR 21.50 dB.</p>" in page and "my/bundle" in page and '<th scope="row">split</th><td>val</td>' in page
    assert 'aria-label="95% confidence interval 21.00 to 22.00' in page and meaning("psnr").text in page
    # keys are text, whatever stands in them
    assert "<astronaut>" not in page and page.count("</script>") == 3


def test_the_protocol_is_told_in_words() -> None:
    protocol = {
        **record().protocol,
        "crops": "crops (1.0, 4.0) 0 64",
        "features": None,
        "drawn": {"sampling": {"top_k": 5}},
    }
    protocol["data"] = {**protocol["data"], "pixels": "0123456789abcdef" * 4}
    told = dataclasses.replace(
        record(), protocol=protocol, environment={"vltok": "0", "data": {"crops": "random squares"}}
    )
    page = report_html(told, examples(), SPEC)
    assert '<th scope="row">pixels</th><td>SHA-256 01234567…</td>' in page and "<td>random squares</td>" in page
    assert ">side of a picture, in pixels</th><td>16</td>" in page and "(1.0, 4.0)" not in page
    assert "features" not in page.partition("<summary>Protocol")[2].partition("</details>")[0]
    assert ">drawn: sampling: top k</th><td>5</td>" in page


def test_a_histogram_of_one_tokenizer_needs_no_legend() -> None:
    assert length_histograms({"": record()}).legends == []
    both = dataclasses.replace(record(), codes={"drawn": record().codes, "data": record().codes})
    (legend,) = length_histograms({"": both}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["drawn", "data"]


def test_names_are_text_whatever_they_hold() -> None:
    path = '{{data}} {{values}} <script>alert(1)</script> " onload="a \udcff.png'
    hostile = dataclasses.replace(
        record(),
        subject={"path": path},
        protocol={**record().protocol, path: path},
        values={"psnr": Value(1.0), path: Value(2.0)},
    )
    shown = [dataclasses.replace(example, key=path) for example in examples()]
    page = report_html(hostile, shown, SPEC)
    page.encode("utf-8")
    text = str(escape(path)).replace("\udcff", "\\udcff")
    assert f"<title>tokenizer {text}</title>" in page and f"<h1>tokenizer {text}</h1>" in page
    assert f'<th scope="row" role="rowheader">{text}</th><td class="number" role="cell">2</td>' in page
    assert page.count("<script") == 3 and page.count("</script>") == 3
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert [picture["key"] for picture in json.loads(data)] == [path] * 3


def test_curves_of_the_same_tokenizer_stand_on_its_page() -> None:
    images = {
        "length": np.array([7.0, 13.0, 10.0]),
        "l1": np.array([0.1, 0.3, 0.2]),
        "psnr": np.array([20.0, 21.0, 23.0]),
    }
    here = dataclasses.replace(record(), values={**record().values, "file_bits_per_pixel": Value(0.5)})
    point = {"psnr": 20.0, "file_bits_per_pixel": 0.4, "bits_per_pixel": 0.5}
    rates = RateMeans([point], point, {"<jpeg>": [point]}, "7 <held-out> pictures")
    page = report_html(here, [], SPEC, images, rates)
    for told in ("7 &lt;held-out&gt; pictures", "&lt;jpeg&gt;", "measured on this page", "rank correlation 1.00"):
        assert told in page
    assert page.count('<svg class="plot"') == 3 and "90% lie from 20.10 to 22.80" in page


@pytest.fixture
def page(browser_page: Page, tmp_path: Path) -> Page:
    (tmp_path / "report.html").write_text(report_html(record(), examples(), SPEC), encoding="utf-8")
    browser_page.goto(f"file://{tmp_path / 'report.html'}")
    return browser_page


def shown(page: Page, element: str) -> str:
    """The source of a picture that has loaded."""
    picture = page.locator(f"#{element}")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    return picture.get_attribute("src")


def test_the_first_picture_is_shown(page: Page) -> None:
    assert page.locator("#key").inner_text() == "<astronaut>"
    assert page.locator("#place").inner_text() == "1 of 3"
    assert "PSNR 20.50 dB" in page.locator("#chips").inner_text()
    assert page.locator("#length").inner_text() == "7"
    assert len(page.locator("#codes").inner_text().split()) == 7
    assert len({shown(page, element) for element in ("image", "result", "map", "fixed", "error")}) == 5
    assert shown(page, "overlay") == shown(page, "map")


def test_a_picture_is_picked(page: Page) -> None:
    before = [shown(page, element) for element in ("image", "result", "map", "fixed", "error")]
    page.locator("#thumbnails button").nth(2).click()
    assert page.locator("#key").inner_text() == "<chelsea>"
    assert page.locator("#length").inner_text() == "13"
    assert page.locator("#codes").inner_text().split()[0] == str(examples()[2].codes.ids[0].item())
    after = [shown(page, element) for element in ("image", "result", "map", "fixed", "error")]
    assert all(first != second for first, second in zip(before, after, strict=True))
    assert page.locator("#thumbnails button[aria-pressed=true]").count() == 1


def test_arrow_keys_move_between_pictures(page: Page) -> None:
    for key, expected in (
        ("Right", "<coffee>"),
        ("Right", "<chelsea>"),
        ("Right", "<astronaut>"),
        ("Left", "<chelsea>"),
    ):
        page.keyboard.press(f"Arrow{key}")
        assert page.locator("#key").inner_text() == expected


def test_the_slider_fades_the_coding_map(page: Page) -> None:
    overlay = page.locator("#overlay")
    assert overlay.evaluate("image => getComputedStyle(image).opacity") == "0.5"
    with_map = page.locator("#pane-image .pane").screenshot()
    page.locator("#opacity").fill("0")
    assert overlay.evaluate("image => getComputedStyle(image).opacity") == "0"
    assert page.locator("#pane-image .pane").screenshot() != with_map
    # on the slider, the arrows slide
    page.locator("#opacity").press("ArrowRight")
    assert overlay.evaluate("image => getComputedStyle(image).opacity") == "0.01"
    assert page.locator("#key").inner_text() == "<astronaut>"


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [("codec", {"pane-map", "pane-fixed", "code-part"}), ("prior", {"pane-result", "pane-fixed", "pane-error"})],
)
def test_what_there_is_not_is_not_shown(browser_page: Page, tmp_path: Path, kind: str, hidden: set[str]) -> None:
    bare = []
    for example in examples():
        image = None if kind == "prior" else example.image
        codes = None if kind == "codec" else example.codes
        bare.append(Example(example.key, image, example.result, codes, example.figures))
    page = report_html(record("tokenizer"), bare, None if kind == "codec" else SPEC)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    browser_page.goto(f"file://{tmp_path / 'report.html'}")
    parts = ("pane-image", "pane-result", "pane-map", "pane-fixed", "pane-error", "code-part")
    assert {part for part in parts if not browser_page.locator(f"#{part}").is_visible()} == hidden
