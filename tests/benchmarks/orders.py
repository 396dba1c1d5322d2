"""How priors of several orders learn: bits and drawn images as training grows, of the same codes or of others.

    python -m tests.benchmarks.orders recipes/quickstart_prior.yaml recipes/quickstart_raster_scan.yaml --seeds 0 1 \\
        --out runs/orders --plots recipes

trains each recipe with each seed, evaluates it at a quarter, half, three quarters and the end of its steps, prints the
tables, and draws `orders_steps_560.svg` and `orders_draws_560.svg`. What was trained or evaluated before is not done
again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import vltok
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value
from vltok.figures.plots import in_our_looks, name_lines, new_plot, save_plot
from vltok.interfaces import Prior
from vltok.io import yaml_text

from .choices import shown

_QUARTERS = 4


@dataclass(frozen=True)
class Stage:
    """What a prior has learned after some of its steps.

    Attributes:
        steps: How many it was trained for.
        bits: An image of unseen codes takes.
        positions: How many of these say where codes lie; 0 for an order that says it by itself.
        distance: Of drawn images to held-out pictures: the kernel distance.
    """

    steps: int
    bits: float
    positions: float
    distance: float

    @classmethod
    def of(cls, steps: int, values: Mapping[str, Value], network: str) -> Stage:
        """Read what `vltok.evaluate` measured with a feature network."""
        nats = {name: value.value for name, value in values.items() if name.endswith("_per_code")}
        nats.pop("bits_per_code")
        bits = values["bits_per_image"].value
        share = 1 - nats["content_per_code"] / sum(nats.values())
        return cls(steps, bits, bits * share, values[f"kernel_distance/{network}"].value)


#: By recipe, the stages of each seed.
Stages = Mapping[str, Sequence[Sequence[Stage]]]


def train(recipe: Path, steps: int, seed: int, out: Path, overrides: Mapping[str, Any]) -> None:
    """Train a prior for so many steps, and keep what it was after each quarter of them."""
    keep = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": str(out / "stages"),
            "filename": "{step}",
            "every_n_train_steps": steps // _QUARTERS,
            "save_top_k": -1,
            "save_weights_only": True,
        },
    }
    length = {"max_steps": steps, "max_epochs": -1, "max_time": None, "check_val_every_n_epoch": 1000}
    changes = {f"trainer.{name}": value for name, value in length.items()}
    changes |= {"seed_everything": seed, "trainer.callbacks": [keep], **overrides}
    vltok.fit(recipe, out=out, overrides=changes, overwrite=True, progress=print)


def stages(run: Path, data: Mapping[str, Any], count: int, network: str) -> Iterator[Stage]:
    """Evaluate a run's prior at each stage that was kept.

    Args:
        run: The run folder.
        data: The pictures, as of `vltok.evaluate`.
        count: How many images to draw.
        network: Gives the features of their distance to the pictures.
    """
    kept = {int(path.stem.partition("=")[2]): path for path in (run / "stages").glob("*.ckpt")}
    for steps, path in sorted(kept.items()):
        folder = run / "measured" / str(steps)
        if not (folder / "metrics.json").exists():
            prior = at_stage(run / "bundle", path)
            tokenizer = vltok.find_tokenizer(run / "bundle")
            vltok.evaluate(tokenizer, data, prior=prior, features=network, count=count, batch_size=100, out=folder)
        yield Stage.of(steps, Record.read(folder).values, network)


def at_stage(bundle: Path, checkpoint: Path) -> Prior:
    """The prior of a bundle with the weights that its training had at a checkpoint."""
    prior = vltok.load_prior(bundle)
    assert isinstance(prior, torch.nn.Module)
    weights = torch.load(checkpoint, weights_only=False)["state_dict"]  # our own file
    prior.load_state_dict({name.removeprefix("prior."): weights[name] for name in weights if name.startswith("prior.")})
    return prior


def table(measured: Stages) -> str:
    """Bits and kernel distances over the steps, mean ± standard deviation over the seeds, as Markdown."""
    steps = [stage.steps for stage in next(iter(measured.values()))[0]]
    lines = [
        f"| prior, figure | {' | '.join(f'{count} steps' for count in steps)} |",
        "| --- |" + " --- |" * len(steps),
    ]
    figures = (("bits an image", "bits", ".0f"), ("of these, positions", "positions", ".0f"))
    for name, (text, key, form) in itertools.product(measured, (*figures, ("kernel distance", "distance", ".3f"))):
        rows = zip(*([getattr(stage, key) for stage in seed] for seed in measured[name]), strict=True)
        cells = [shown(row, form) for row in rows]
        lines.append(f"| `{name}`: {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


@in_our_looks()
def curves(measured: Stages, x: str, y: str, axes_of: tuple[str, str]) -> Figure:
    """One line a prior, through its stages: means over the seeds.

    Args:
        measured: The stages.
        x: An attribute of a stage.
        y: Another one.
        axes_of: What the axes are called.
    """
    figure, (axes,) = new_plot(*axes_of)
    for name, seeds in measured.items():
        points = [
            [statistics.fmean(getattr(stage, key) for stage in same) for key in (x, y)]
            for same in zip(*seeds, strict=True)
        ]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=5, linewidth=1.2, label=name)
    name_lines(figure)
    return figure


def main() -> None:
    """Train, measure, print the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=560)
    parser.add_argument("--count", type=int, default=300, help="images that are drawn")
    parser.add_argument("--pictures", type=int, default=300, help="held-out crops")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--features", default="efficientnet-lite0")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="laid over every recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plots", type=Path)
    options = parser.parse_args()
    overrides = {key: yaml_text.load(value) for key, _, value in (text.partition("=") for text in options.set)}
    data = {"class_path": "photos", "init_args": {"size": options.size, "val_crops": options.pictures, "workers": 0}}
    measured: dict[str, list[list[Stage]]] = {}
    for seed, recipe in itertools.product(options.seeds, options.recipes):
        run = options.out / recipe.stem / f"seed-{seed}"
        if not (run / "bundle").exists():
            train(recipe, options.steps, seed, run, overrides)
        measured.setdefault(recipe.stem, []).append(list(stages(run, data, options.count, options.features)))
        print(table(measured), flush=True)
    if options.plots is not None:
        over_steps = curves(measured, "steps", "bits", ("steps", "bits an image ↓"))
        save_plot(over_steps, options.plots / f"orders_steps_{options.steps}.svg")
        drawn = curves(measured, "bits", "distance", ("bits an image ↓", "kernel distance of drawn images ↓"))
        save_plot(drawn, options.plots / f"orders_draws_{options.steps}.svg")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
