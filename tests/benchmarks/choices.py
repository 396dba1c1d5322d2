"""Where the choice of a gate pays: the same tokenizers, whose finer codes go to other places.

Two tokenizers differ in more than their gates: training ends elsewhere with each seed. So each tokenizer stands here
under its own gate, under image entropy, and under random places, at equal mean lengths.

    python -m tests.benchmarks.choices runs/anyrate/r4_0.5/seed-*/bundle --out recipes

measures them on held-out crops of the embedded photographs, prints the table, and draws `choices.svg` and
`error_length.svg`. With `--fixed BUNDLES`, tokenizers of fixed length stand beside them, and `lengths.svg` is drawn:
PSNR over the mean code length of all.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import vltok
from vltok.evaluation.ablation_results import Spread
from vltok.evaluation.curves import errors_of_lengths
from vltok.figures.plots import COLORS, in_our_looks, name_lines, new_plot, save_plot
from vltok.measures.pixels import psnr
from vltok.pictures.photos import Photos
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.gates import EntropyGate, RandomGate

OWN, ENTROPY, RANDOM = "its own gate", "image entropy", "random places"
#: How far mean lengths lie between the shortest and the longest code: of two granularities, shares of fine regions.
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
PICTURES = 96


@dataclass(frozen=True)
class Choice:
    """What came of one choice of places at one mean length.

    Attributes:
        psnr: The mean over the pictures, in dB.
        lengths: The code length of each picture.
        errors: The mean squared error of each, of pixels in [0, 1].
    """

    psnr: float
    lengths: Sequence[float]
    errors: Sequence[float]


#: By choice and share.
Choices = Mapping[str, Mapping[float, Choice]]


@torch.inference_mode()
def measure(bundle: str, size: int = 64, pictures: int = PICTURES) -> Choices:
    """Encode held-out crops under each choice.

    Args:
        bundle: Of a DQ-VAE with several factors.
        size: Of a crop, in pixels.
        pictures: How many.
    """
    tokenizer = vltok.load_tokenizer(bundle)
    assert isinstance(tokenizer, DQVAE)
    factors = tokenizer.spec.factors
    coarse, fine = factors[0], factors[-1]
    # the rates that are asked for rank regions, whatever the ratios and the thresholds
    equal = {factor: 1 / len(factors) for factor in factors}
    thresholds = [float(number) for number in range(len(factors) - 1)]
    torch.manual_seed(0)
    gates = {OWN: tokenizer.gate, ENTROPY: EntropyGate(equal, thresholds), RANDOM: RandomGate(equal)}
    images = crops(size, pictures)
    regions, codes = (size // coarse) ** 2, (coarse // fine) ** 2
    found: dict[str, dict[float, Choice]] = {}
    for name, gate in gates.items():
        tokenizer.gate = gate
        tokenizer.eval()
        for share in SHARES:
            encoded = tokenizer.encode(images, f"mean-codes={regions * (1 + share * (codes - 1))}")
            found.setdefault(name, {})[share] = chosen(images, encoded, tokenizer.decode(encoded))
    return found


@torch.inference_mode()
def measure_fixed(bundle: str, size: int = 64, pictures: int = PICTURES) -> Choice:
    """The same of a tokenizer of fixed length, which has nothing to choose."""
    tokenizer = vltok.load_tokenizer(bundle)
    images = crops(size, pictures)
    encoded = tokenizer.encode(images)
    return chosen(images, encoded, tokenizer.decode(encoded))


def crops(size: int, pictures: int) -> Float[Tensor, "b c h w"]:
    """Held-out crops of the embedded photographs."""
    data = Photos(size=size, val_crops=pictures, batch_size=pictures, workers=0)
    return torch.cat([batch.images for batch in data.val_dataloader()])


def chosen(images: Float[Tensor, "b c h w"], codes: vltok.Codes, decoded: Float[Tensor, "b c h w"]) -> Choice:
    """What codes cost, and what is lost with them."""
    decoded = decoded.clamp(-1, 1)
    errors = ((decoded - images) / 2).square().mean(dim=(1, 2, 3))
    return Choice(psnr(decoded, images).mean().item(), codes.lengths.double().tolist(), errors.tolist())


def table(measured: Sequence[Choices]) -> str:
    """PSNR of each choice over the shares, mean ± standard deviation over the tokenizers, as Markdown."""
    lines = [f"| PSNR, dB | {' | '.join(f'r = {share:g}' for share in SHARES)} |", "| --- |" + " --- |" * len(SHARES)]
    for name in measured[0]:
        cells = (shown([choices[name][share].psnr for choices in measured], ".2f") for share in SHARES)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@in_our_looks()
def curves(measured: Sequence[Choices]) -> Figure:
    """How much each choice is better than random places in the same tokenizer, over the share of fine regions."""
    figure, (axes,) = new_plot("share of fine regions, r", "PSNR above random places [dB] ↑")
    for name, mark in ((OWN, "o"), (ENTROPY, "s")):
        points = [
            spread([choices[name][share].psnr - choices[RANDOM][share].psnr for choices in measured])
            for share in SHARES
        ]
        means = [point.mean for point in points]
        axes.errorbar(
            SHARES,
            means,
            yerr=[point.deviation or 0 for point in points],
            label=name,
            marker=mark,
            markersize=5,
            linewidth=1.2,
        )
    axes.set_ylim(bottom=0)
    name_lines(figure)
    return figure


@in_our_looks()
def over_lengths(measured: Sequence[Choices], fixed: Sequence[Choice]) -> Figure:
    """PSNR over the mean code length, means over the tokenizers; those of fixed length are points."""
    figure, (axes,) = new_plot("mean code length ↓", "PSNR [dB] ↑")
    for name, mark in ((OWN, "o"), (ENTROPY, "s"), (RANDOM, "^")):
        points = [
            (statistics.fmean(same[0].lengths), statistics.fmean(choice.psnr for choice in same))
            for same in ([choices[name][share] for choices in measured] for share in SHARES)
        ]
        axes.plot(*zip(*points, strict=True), label=name, marker=mark, markersize=5, linewidth=1.2)
    points = [(length, statistics.fmean(figures)) for length, figures in of_lengths(fixed).items()]
    axes.plot(
        *zip(*points, strict=True), "D", color=COLORS[5], label="fixed length, each trained for its own", markersize=6
    )
    name_lines(figure)
    return figure


def of_lengths(fixed: Sequence[Choice]) -> dict[float, list[float]]:
    """PSNR of the tokenizers of each fixed length."""
    ordered = sorted(fixed, key=lambda choice: choice.lengths[0])
    groups = itertools.groupby(ordered, key=lambda choice: choice.lengths[0])
    return {length: [choice.psnr for choice in same] for length, same in groups}


def errors(measured: Choices, share: float = 0.5) -> Figure | None:
    """The error of each picture over its code length, under each choice."""
    return errors_of_lengths(
        {
            name: {"length": choices[share].lengths, "mse": choices[share].errors}
            for name, choices in measured.items()
            if name != RANDOM  # where all pictures have equally many
        },
        "mse",
    )


def shown(values: Sequence[float], form: str) -> str:
    """Their mean, ± the standard deviation where there are several."""
    return spread(values).shown(form, len(values))


def spread(values: Sequence[float]) -> Spread:
    """Their spread, of at least one."""
    found = Spread.of(values)
    assert found is not None
    return found


def main() -> None:
    """Measure, print the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--fixed", nargs="+", default=[], metavar="BUNDLE")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    measured = [measure(bundle, options.size) for bundle in options.bundles]
    print(table(measured))
    if options.fixed:
        fixed = [measure_fixed(bundle, options.size) for bundle in options.fixed]
        for length, figures in of_lengths(fixed).items():
            print(f"fixed length, {length:g} codes: {shown(figures, '.2f')} dB")
        save_plot(over_lengths(measured, fixed), options.out / "lengths.svg")
        return
    save_plot(curves(measured), options.out / "choices.svg")
    scatter = errors(measured[0])
    if scatter is not None:
        save_plot(scatter, options.out / "error_length.svg")


if __name__ == "__main__":
    main()
