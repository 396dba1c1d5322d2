"""Drawings of codes: each is made of real `Codes`, or by a real part of vltok."""

from collections.abc import Iterator, Sequence

import torch

import vltok
from documenting.panels import cell, colors, drawing, row, word
from vltok.codes import Codes, CodeSpec
from vltok.priors.orderings import CoarseToFine

#: Two by three regions, two of which are fine.
GRAINS = [[0, 1, 1], [0, 0, 0]]
SPEC = CodeSpec(64, (8, 16), (2, 3))
#: The side of a cell of the finest grid, in pixels.
SIDE = 38


def granularities(*factors: int) -> str:
    """One region at each granularity."""
    spec = CodeSpec(64, factors)
    panels = []
    for factor, side, codes, color in zip(spec.factors, spec.sides, spec.codes_per_region, colors(spec), strict=True):
        step = 150 / side
        shapes = [
            cell(2 + column * step, 2 + line * step, step - 2, step - 2, color)
            for line in range(side)
            for column in range(side)
        ]
        count = "1 code" if codes == 1 else f"{codes} codes"
        panels.append(drawing(shapes, (152, 152), f"factor {factor}: {count}"))
    return row(*panels)


def packed() -> str:
    """The picture of the packed codes of one image: which code lies where."""
    codes = _codes()
    ids = [f"c{index}" for index in range(len(codes.ids))]
    return row(
        drawing(_laid(codes, SPEC, ids), _size(SPEC), "the codes where they lie in the image"),
        drawing(_strip(ids, codes.granularities(SPEC).tolist()), (12 * 29 + 2, 32), f"ids [t], t = {len(ids)}"),
        drawing(_grid(GRAINS), (3 * 32 + 2, 2 * 32 + 2), "grains [h w], 0 is the coarsest"),
    )


def orders() -> str:
    """When each prior draws each code of one image."""
    codes, panels = _codes(), []
    for name in ("dq-transformer", "raster-scan", "global-local"):
        panels.append(_order(name, codes, SPEC))
    fixed = CodeSpec(64, (16,), (2, 3))
    flat = Codes(torch.arange(6), torch.tensor([6]), torch.zeros(1, 2, 3, dtype=torch.long))
    return row(*panels, _order("sequence", flat, fixed))


def tracks() -> str:
    """The two tracks that DQ-Transformer reads, of an image of two by two regions of which one is fine."""
    spec = CodeSpec(64, (8, 16), (2, 2))
    grains = torch.tensor([[[0, 1], [0, 0]]])
    codes = Codes.from_code_map(torch.arange(16).view(1, 4, 4), grains, spec)
    sequences = CoarseToFine(spec)(codes)
    names = {spec.content_start: "sos", spec.content_end: "eos"}
    number = iter(range(len(codes.ids)))
    contents = [names[token] if token in names else f"c{next(number)}" for token in sequences.contents.tolist()]
    tokens = list(zip(contents, sequences.positions.tolist(), sequences.granularities.tolist(), strict=True))
    places = [token if token in ("sos", "eos") else str(place) for token, place, _ in tokens]
    ids = [f"c{index}" for index in range(len(codes.ids))]
    panels = [drawing(_laid(codes, spec, ids), _size(spec), "an image of seven codes")]
    for granularity, name in enumerate(("coarse", "fine")):
        chosen = [index for index, token in enumerate(tokens) if token[2] == granularity]
        shapes = [word(0, 15, "position", "left"), word(0, 49, "content", "left")]
        for column, index in enumerate(chosen):
            for line, label in enumerate((places[index], contents[index])):
                color = "" if label in ("sos", "eos") else colors(spec)[granularity]
                shapes.append(cell(62 + column * 36, 2 + line * 34, 34, 28, color, label))
        panels.append(drawing(shapes, (64 + len(chosen) * 36, 66), f"its {name} part: a place, then its code"))
    return row(*panels)


def packing(*lengths: int) -> str:
    """Sequences of some lengths, padded and packed."""
    codes = Codes(torch.zeros(sum(lengths), dtype=torch.long), torch.tensor(lengths))
    fills, scale = ("#2f6f9f", "#a8561c", "#4a7c3a", "#9a4a6c"), 340 / sum(lengths)
    padded, longest = [], max(lengths)
    for line, (length, fill) in enumerate(zip(lengths, fills, strict=False)):
        y = 2 + line * 26
        padded.append(cell(0, y, length * scale, 22, fill, length))
        if length < longest:
            padded.append(cell(length * scale + 1, y, (longest - length) * scale - 1, 22))
    starts = codes.cu_seqlens.tolist()
    joined = [
        cell(start * scale, 2, length * scale - 1, 22, fill, length)
        for start, length, fill in zip(starts, lengths, fills, strict=False)
    ]
    joined += [word(min(max(start * scale, 8), 330), 38, start) for start in starts]
    share = 1 - sum(lengths) / (longest * len(lengths))
    return row(
        drawing(padded, (longest * scale + 2, 26 * len(lengths) + 2), f"padded: {share:.0%} of the tokens are nothing"),
        drawing(joined, (342, 48), "packed, with cu_seqlens below: no token is nothing"),
    )


def _codes() -> Codes:
    return Codes.from_code_map(torch.arange(24).view(1, 4, 6), torch.tensor([GRAINS]), SPEC)


def _order(name: str, codes: Codes, spec: CodeSpec) -> str:
    """The panel of a prior, which is asked when it draws what."""
    arguments = {"codebook_size": 64, "factors": list(spec.factors), "regions": list(spec.regions or ())}
    prior = vltok.build({"class_path": name, "init_args": {**arguments, "width": 8, "heads": 1}})
    steps = [step + 1 for step in prior.drawing_order(codes).tolist()]
    return drawing([*_laid(codes, spec, steps), _path(codes, spec, steps)], _size(spec), name)


def _size(spec: CodeSpec) -> tuple[float, float]:
    down, across = spec.grid
    return across * 2 * SIDE + 2, down * 2 * SIDE + 2


def _places(codes: Codes, spec: CodeSpec) -> Iterator[tuple[float, float, float, int]]:
    """Left, top, side and granularity of each code."""
    across = spec.grid[1]
    granularities, positions = (values.tolist() for values in (codes.granularities(spec), codes.positions(spec)))
    for granularity, position in zip(granularities, positions, strict=True):
        side = 2 * SIDE / spec.sides[granularity]
        line, column = divmod(position, across * spec.sides[granularity])
        yield 2 + column * side, 2 + line * side, side, granularity


def _laid(codes: Codes, spec: CodeSpec, labels: Sequence[object]) -> list[str]:
    """Each code where it lies, with its label."""
    found = zip(_places(codes, spec), labels, strict=True)
    return [cell(x, y, side - 2, side - 2, colors(spec)[k], label) for (x, y, side, k), label in found]


def _path(codes: Codes, spec: CodeSpec, steps: Sequence[int]) -> str:
    """A line through the codes in the order of their steps."""
    by_step = sorted(zip(steps, _places(codes, spec), strict=True))
    points = " ".join(f"{x + side / 2 - 1:g},{y + side / 2 + 10:g}" for _, (x, y, side, _) in by_step)
    return f'<polyline class="path" points="{points}"/>'


def _strip(labels: Sequence[str], granularities: Sequence[int]) -> list[str]:
    return [
        cell(1 + column * 29, 2, 27, 27, colors(SPEC)[granularity], label)
        for column, (label, granularity) in enumerate(zip(labels, granularities, strict=True))
    ]


def _grid(grains: Sequence[Sequence[int]]) -> list[str]:
    return [
        cell(1 + column * 32, 1 + line * 32, 30, 30, colors(SPEC)[grain], grain)
        for line, grains_of_line in enumerate(grains)
        for column, grain in enumerate(grains_of_line)
    ]
