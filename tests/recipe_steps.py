"""A training step of a recipe of the paper at its full size, on whatever device."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torchvision
import yaml
from torch import nn

import vltok
from vltok.codes import Codes, CodeSpec
from vltok.io.recipe_files import with_bases
from vltok.io.recipes import read
from vltok.losses.perceptual import LPIPS, VGG16_CUTS
from vltok.pictures.images import ImageBatch
from vltok.training import PriorTraining, TokenizerTraining
from vltok.training.objective import Objective
from vltok.verbs.training_recipe import TrainingRecipe

RECIPES = Path(__file__).parents[1] / "recipes"
#: Those of the paper's sizes.
PAPER_SIZE = [path for path in sorted(RECIPES.glob("*.yaml")) if not path.name.startswith("quickstart")]


@functools.cache
def recipe_of(path: Path) -> dict[str, Any]:
    """The whole of a recipe, with what its bases say; a prior's lacks what follows from the codes."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        TrainingRecipe.of_arguments(["--config", str(path), "--print_config"])
    return yaml.safe_load(text.getvalue())


def spec_of(path: Path) -> CodeSpec:
    """What the codes are that a prior's recipe names: those of the run of a tokenizer's recipe."""
    tokenizer = recipe_of(tokenizer_of(path))
    with torch.device("meta"):
        spec = vltok.build(tokenizer, "model.tokenizer").spec
    side = tokenizer["data"]["init_args"]["size"] // spec.factors[0]
    return dataclasses.replace(spec, regions=(side, side))


def tokenizer_of(path: Path) -> Path:
    """The recipe of the tokenizer whose codes a prior's recipe names."""
    run = Path(recipe_of(path)["data"]["init_args"]["root"]).parts[1].removesuffix("_codes")
    return RECIPES / f"{run}.yaml"


def objective(path: Path, device: str) -> Objective:
    """What a recipe trains, with fresh weights, the perceptual network's too."""
    options = recipe_of(path)["model"]["init_args"]
    options = {**options, "betas": tuple(options["betas"])}
    with torch.device(device):
        if trains_prior(path):
            spec = {
                f"model.prior.spec.{key}": value for key, value in dataclasses.asdict(spec_of(path)).items() if value
            }
            return PriorTraining(**options | {"prior": vltok.build(path, "model.prior", spec)})
        parts = {part: vltok.build(path, f"model.{part}") for part in ("tokenizer", "perceptual", "discriminator")}
        if isinstance(parts["perceptual"], LPIPS):
            fill(parts["perceptual"])
        return TokenizerTraining(**options | parts)


def fill(lpips: LPIPS) -> None:
    """What `LPIPS.load` gets from elsewhere, with weights as they are made."""
    layers = torchvision.models.vgg16(weights=None, init_weights=False).features
    lpips.slices.extend(layers[start:end] for start, end in itertools.pairwise(VGG16_CUTS))
    lpips.heads.extend(nn.Parameter(torch.zeros(channels)) for channels in (64, 128, 256, 512, 512))
    lpips.requires_grad_(False)


def trains_prior(path: Path) -> bool:
    """Whether a recipe trains a prior rather than a tokenizer."""
    return "prior" in read(with_bases(path, read)[0])["model"]["init_args"]


def size_of(path: Path) -> int:
    """The images of a step of a recipe, or its tokens."""
    return recipe_of(path)["data"]["init_args"]["token_budget" if trains_prior(path) else "batch_size"]


def batch_of(path: Path, size: int | None = None) -> ImageBatch | Codes:
    """A batch of a recipe on the host: images, or codes of images of its mean length.

    Args:
        path: The recipe.
        size: Images, or tokens, in place of the recipe's.
    """
    size = size or size_of(path)
    if not trains_prior(path):
        side = recipe_of(path)["data"]["init_args"]["size"]
        return ImageBatch(torch.rand(size, 3, side, side) * 2 - 1, None, [])
    spec = spec_of(path)
    budget = recipe_of(tokenizer_of(path))["model"]["init_args"]["tokenizer"]["init_args"]["budget"]
    shares = {spec.factors[0]: 1.0} if budget is None else budget["init_args"]["ratios"]
    regions = spec.regions[0] * spec.regions[1]
    # each image has the same number of regions of each granularity, at places of its own
    counts = torch.tensor([round(shares[factor] * regions) for factor in spec.factors])
    grains = torch.repeat_interleave(torch.arange(len(counts)), counts)
    length = int((counts * torch.tensor(spec.codes_per_region)).sum())
    images = size // (length + 2 * spec.granularities)
    return Codes(
        torch.randint(spec.codebook_size, (images * length,)),
        torch.full((images,), length),
        torch.stack([grains[torch.randperm(regions)].view(spec.regions) for _ in range(images)]),
        torch.zeros(images, dtype=torch.long),
    )


def train(training: Objective, batch: ImageBatch | Codes, device: str, half: bool = True, steps: int = 2) -> None:
    """As many steps as asked for, in the order in which Lightning takes them, in bfloat16 or float32."""
    training.trainer = SimpleNamespace(global_step=0, world_size=1, precision_plugin=None)
    optimizer = training.configure_optimizers()
    training.trainer.optimizers = [optimizer]
    training.train()
    with mock.patch.object(type(training), "log_dict"), mock.patch.object(type(training), "log"):
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=half):
                loss = training.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
