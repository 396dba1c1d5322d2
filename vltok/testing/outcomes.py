"""Codes for the contracts: drawn at random, or all that a spec allows, and how likely a prior finds them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.interfaces import Prior, PriorLoss

_MOST_OUTCOMES = 2000
# The grid of codes whose spec leaves it open.
_GRID = (1, 2)


def random_codes(spec: CodeSpec, images: int, seed: int = 0, classes: int | None = None) -> Codes:
    """Codes drawn at random.

    Args:
        spec: What they may be.
        images: How many images.
        seed: Other codes for another one.
        classes: If given, images get labels 0, 1, …, over and over.
    """
    generator = torch.Generator().manual_seed(seed)
    grains = None
    if spec.gridded:
        grains = torch.randint(spec.granularities, (images, *(spec.regions or _GRID)), generator=generator)
        lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    else:
        lengths = torch.randint(1, spec.longest_length + 1, (images,), generator=generator)
    ids = torch.randint(spec.codebook_size, (int(lengths.sum()), *spec.id_shape), generator=generator)
    return Codes(ids, lengths, grains, None if classes is None else torch.arange(images) % classes)


def key_of(image: Codes) -> tuple[tuple[int, ...], ...]:
    """What tells an image from others."""
    return () if image.grains is None else tuple(image.grains.flatten().tolist()), tuple(image.ids.flatten().tolist())


def nats(loss: PriorLoss, codes: Codes) -> Tensor:
    """What all codes of a batch cost."""
    return torch.stack([part * loss.counts.get(name, len(codes.ids)) for name, part in loss.parts.items()]).sum()


@torch.no_grad()
def likelihoods(prior: Prior, codes: Codes) -> Tensor:
    """The probability of each image."""
    return torch.stack([(-nats(prior.loss(image), image)).exp() for image in codes])


def every_image(spec: CodeSpec) -> Codes:
    """All images that a spec allows."""
    parts = []
    for grains, length in _layouts(spec):
        many = length * spec.codebooks
        assert spec.codebook_size**many <= _MOST_OUTCOMES, "build a smaller prior: its codes make too many images"
        ids = torch.tensor(list(itertools.product(range(spec.codebook_size), repeat=many)))
        parts.append(
            Codes(
                ids.view(-1, *spec.id_shape),
                torch.full((len(ids),), length),
                None if grains is None else grains.expand(len(ids), -1, -1),
            )
        )
    return Codes.concatenate(parts)


def _layouts(spec: CodeSpec) -> Iterator[tuple[Tensor | None, int]]:
    """Every grain map with its code length, or every length."""
    if not spec.gridded:
        yield from ((None, length) for length in range(1, spec.longest_length + 1))
        return
    grid = spec.regions or _GRID
    for granularities in itertools.product(range(spec.granularities), repeat=math.prod(grid)):
        length = sum(spec.codes_per_region[granularity] for granularity in granularities)
        yield torch.tensor(granularities).view(1, *grid), length
