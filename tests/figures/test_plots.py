"""What all plots share."""

import pytest

from vltok.figures.plots import COLORS, in_our_looks, inline_svg, label, name_lines, new_plot, places_of


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("page", ["#ffffff", "#161b22"])
def test_lines_are_seen_by_day_and_by_night(color: str, page: str) -> None:
    low, high = sorted([luminance(color), luminance(page)])
    assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", "a b"), ("_a", " _a"), ("\x1b[31m\udcff", "\\x1b[31m\\udcff"), ("x" * 60, "x" * 18 + "…" + "x" * 17)],
)
def test_labels_are_one_short_line(name: str, shown: str) -> None:
    assert label(name) == shown


@in_our_looks()
def test_a_plot_within_a_page_has_its_colours_and_no_more() -> None:
    figure, (axes,) = new_plot("codes", "PSNR")
    axes.plot([1, 2, 4], [20, 22, 23], "o-", label=label("<b>$x"))
    name_lines(figure)
    svg = inline_svg(figure, 'a "plot"')
    assert svg.startswith('<svg class="plot" viewBox="0 0 ') and 'aria-label="a &#34;plot&#34;"' in svg
    assert "fill: var(--ink)" in svg and "#1f2328" not in svg and "<style" not in svg and "<g id" not in svg
    assert "&lt;b&gt;$x" in svg and "<b>" not in svg


def test_where_points_lie_in_it() -> None:
    figure, (axes,) = new_plot("x", "y")
    axes.plot([0, 1], [0, 1], "o", gid="points")
    place = places_of(figure)
    (left, below), (right, above) = place(0, 0), place(1, 1)
    assert left < right < 345.6 and 0 < above < below < 231
