"""The plots and the page of a table of ablations."""

import re
from pathlib import Path
from xml.etree import ElementTree

from playwright.sync_api import Page

from vltok.evaluation.ablation_report import ablation_html, ablation_plots, write_report
from vltok.evaluation.ablation_results import AblationResults, AblationRow, Spread
from vltok.evaluation.ablations import Column
from vltok.evaluation.data_used import DataUsed

DATA = (DataUsed("folder", "<my> pictures", 775, "val", 48, 16),)
RATES = ("codes=10", "codes=20")


def spread(mean: float, deviation: float = 1.0) -> Spread:
    return Spread.of([mean - deviation, mean, mean + deviation])


def row(name: str, psnr: float, codes: float, images: bool = True) -> AblationRow:
    figures = {"psnr": spread(psnr), "evaluation.ssim": spread(psnr / 100, 0.01), "length_std": spread(3.0)}
    for place, rate in enumerate(RATES):
        figures |= {f"{rate} length": spread(codes + 10 * place), f"{rate} psnr": spread(psnr + place)}
    measured = {"length": [1.0, 2.0, 4.0], "l1": [0.1, 0.2, 0.3]} if images else {}
    where = {"training": spread(codes, 2.0), "evaluation": spread(codes + 1, 2.0)}
    return AblationRow(name, (0, 1, 2), figures, where, DATA, measured)


def results(*rows: AblationRow) -> AblationResults:
    keys = [
        "psnr",
        "evaluation.ssim",
        "length_std",
        *(f"{rate} {name}" for name in ("length", "psnr") for rate in RATES),
    ]
    rows = rows or (row("a", 20.0, 10.0), row("b", 22.0, 20.0), row("c", 21.0, 30.0))
    return AblationResults("Gates <at> rates", "a test", [Column(key) for key in keys], rows)


def drawn(table: AblationResults) -> dict[str, tuple]:
    return {name: (heading, figure) for name, heading, _, figure in ablation_plots(table)}


def test_quality_over_codes_with_its_spread_in_both_directions() -> None:
    plots = drawn(results())
    assert set(plots) == {"pareto_psnr", "pareto_ssim", "rates_psnr", "error_length"}
    heading, figure = plots["pareto_psnr"]
    (axes,) = figure.axes
    assert heading == "PSNR over codes"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("code length [codes] ↓", "PSNR [dB] ↑")
    *points, front = axes.lines
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points if line.get_marker() in "os^"] == [
        (10.0, 20.0),
        (20.0, 22.0),
        (30.0, 21.0),
    ]
    # 'c' has more codes and is worse than 'b'
    assert front.get_xydata().tolist() == [[10.0, 20.0], [20.0, 22.0]]
    across, up = axes.collections[:2]
    assert across.get_segments()[0].tolist() == [[8.0, 20.0], [12.0, 20.0]]
    assert up.get_segments()[0].tolist() == [[10.0, 19.0], [10.0, 21.0]]
    # of an evaluation, over the codes of the evaluation
    assert plots["pareto_ssim"][1].axes[0].lines[0].get_xdata()[0] == 11.0


def test_a_row_at_several_rates_is_a_curve() -> None:
    (axes,) = drawn(results())["rates_psnr"][1].axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert curves[0].get_xydata().tolist() == [[10.0, 20.0], [20.0, 21.0]] and len(curves) == 3


def test_errors_over_lengths_have_a_panel_a_row() -> None:
    figure = drawn(results(row("a", 20.0, 10.0), row("b", 21.0, 11.0, images=False), row("c", 22.0, 12.0)))[
        "error_length"
    ][1]
    seen = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in seen] == [f"{name}\nrank correlation 1.00" for name in "ac"]


def test_there_is_nothing_to_draw_of_one_length() -> None:
    same = drawn(results(row("a", 20.0, 10.0, images=False), row("b", 22.0, 10.0, images=False)))
    assert set(same) == {"rates_psnr"}


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    rows = [row("a", 20.0, 10.0), row("b", 22.0, 20.0, images=False)]
    table = AblationResults("Gates", "a test", [Column("psnr")], rows)
    paths = write_report(table, tmp_path)
    assert [path.name for path in paths] == ["pareto_psnr.svg", "error_length.svg", "report.html"]
    before = [path.read_bytes() for path in paths]
    for path in paths[:-1]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert [path.read_bytes() for path in write_report(table, tmp_path)] == before


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    names = ["{{rows}}", "<script>alert(1)</script>", "\udcff", "$\\frac", "_hidden", "x" * 200]
    table = results(*(row(name, 20.0, 10.0 + place, images=False) for place, name in enumerate(names)))
    write_report(table, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 1 and "Gates &lt;at&gt; rates" in page
    # the plots tell them all, too
    svg = (tmp_path / "rates_psnr.svg").read_text(encoding="utf-8")
    for name in ("{{rows}}", "&lt;script&gt;", "\\udcff", "$\\frac", " _hidden", "xxxx…xxxx"):
        assert name in svg


def test_the_page_needs_nothing_else_and_says_what_made_it(tmp_path: Path) -> None:
    evaluated = tmp_path / "a" / "seed-1" / "evaluation"
    evaluated.mkdir(parents=True)
    (evaluated / "report.html").touch()
    page = ablation_html(results(), [], tmp_path)
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    assert re.findall(r'(?:src|href)="([^#"][^"]*)"', page) == ["a/seed-1/evaluation/report.html"]
    assert "folder &#39;&lt;my&gt; pictures&#39; (775 pictures): 48 held-out pictures of 16 × 16" in page
    assert "over the seeds 0, 1, 2." in page and "<strong>22.00 ± 1.00</strong>" in page
    assert (
        'aria-label="mean ± standard deviation over the seeds, 19.00 to 21.00; all rows lie from 19.00 to 23.00"'
        in page
    )


def test_it_fits_a_phone_and_the_dark(browser_page: Page, tmp_path: Path) -> None:
    write_report(results(row("a-row-of-a-long-name" * 5, 20.0, 10.0), row("b", 22.0, 20.0)), tmp_path)
    browser_page.goto(f"file://{tmp_path / 'report.html'}")
    light = browser_page.locator("svg.plot text").first.evaluate("text => getComputedStyle(text).fill")
    browser_page.emulate_media(color_scheme="dark")
    browser_page.set_viewport_size({"width": 360, "height": 700})
    try:
        assert browser_page.locator("svg.plot text").first.evaluate("text => getComputedStyle(text).fill") != light
        assert browser_page.evaluate("document.documentElement.scrollWidth") == 360
        browser_page.emulate_media(media="print")
        assert browser_page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    finally:
        browser_page.emulate_media(color_scheme="light", media="screen")
        browser_page.set_viewport_size({"width": 1200, "height": 900})
