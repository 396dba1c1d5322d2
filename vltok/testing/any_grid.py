"""What every prior of any grid must hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import pytest
import torch

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import AnyGrid, Codable, Inpaints, Kept, Prior, SamplingConfig
from vltok.testing.other_device import another_device, tolerance
from vltok.testing.outcomes import every_image, likelihoods, nats, random_codes

#: Of the same number of regions, so that rows and columns alone tell them apart; and one that is larger.
_GRIDS = ((1, 2), (2, 1))
_LARGER = (2, 3)


class AnyGridContract(ABC):
    """Tests of a prior of any grid (`AnyGrid`), which a test class inherits. It builds one that is tiny: all images of
    two regions are listed.

    Attributes:
        read_backs: See `PriorContract`.
    """

    read_backs: int | None = 0

    @abstractmethod
    def build(self) -> Prior:
        """A tiny prior without classes, with fresh weights, whose spec names no grid."""

    def test_it_is_the_same_prior_on_every_grid(self):
        prior = self.build()
        assert isinstance(prior, AnyGrid) and prior.spec.any_grid
        own = {id(parameter) for parameter in prior.parameters()}
        for grid in (*_GRIDS, _LARGER):
            there = prior.on_grid(grid)
            assert there.spec == replace(prior.spec, regions=grid) and prior.spec.any_grid
            assert {id(parameter) for parameter in there.parameters()} <= own
            assert there.conditioning == prior.conditioning
            with pytest.raises(UserError, match="regions"):
                there.sample(1, SamplingConfig(regions=(grid[0] + 1, grid[1])))

    def test_every_parameter_gets_a_gradient(self):
        prior = self.build().train()
        prior.loss(_random(prior, _LARGER, 16)).total.backward()
        without = [name for name, parameter in prior.named_parameters() if parameter.grad is None]
        assert not without

    def test_it_learns_what_images_of_each_grid_are_like(self):
        prior = self.build()
        first, second = (_alike(prior, grid, id) for grid, id in zip(_GRIDS, (0, 1), strict=True))
        _train(prior, [first, second], steps=100)
        for own, other in ((first, _alike(prior, _GRIDS[0], 1)), (second, _alike(prior, _GRIDS[1], 0))):
            assert nats(prior.loss(own), own) < 0.8 * nats(prior.loss(other), other)
        if prior.loss(first).likelihood:
            for grid in _GRIDS:
                assert likelihoods(prior, every_image(replace(prior.spec, regions=grid))).sum() < 1 + 1e-3

    def test_images_of_a_batch_do_not_meet(self):
        prior = self.build().eval()
        codes = _random(prior, _LARGER, 4)
        together = nats(prior.loss(codes), codes)
        torch.testing.assert_close(together, sum(nats(prior.loss(image), image) for image in codes))

    def test_images_of_any_grid_are_drawn(self):
        """Of one that is larger than those that were trained on, too."""
        prior = self.build()
        _train(prior, [_random(prior, grid, 4) for grid in _GRIDS], steps=2)
        for grid in (*_GRIDS, _LARGER):
            sampling, spec = SamplingConfig(regions=grid), replace(prior.spec, regions=grid)
            codes = prior.sample(6, sampling, _seeded()).validate(spec)
            assert codes.equal(prior.sample(6, sampling, _seeded(), batch_size=4))
            assert prior.train().sample(6, sampling, _seeded()).equal(codes)
            prior.sample(2, replace(sampling, precision="bfloat16", top_k=2), _seeded()).validate(spec)
            _train(prior, [_random(prior, grid, 4)], steps=1)
        with pytest.raises(UserError, match="regions"):
            prior.sample(1, SamplingConfig())

    def test_a_length_that_is_asked_for_is_met_or_refused(self):
        prior = self.build()
        length = int(_random(prior, _LARGER, 1).lengths)
        try:
            codes = prior.sample(4, SamplingConfig(regions=_LARGER, codes=length), _seeded())
        except UserError as error:
            assert "codes" in str(error)
        else:
            assert codes.lengths.tolist() == [length] * 4

    def test_what_is_kept_of_an_image_stays_and_says_its_grid(self):
        prior = self.build().eval()
        if not isinstance(prior, Inpaints):
            return
        image = _random(prior, _LARGER, 1)
        regions = torch.rand(_LARGER, generator=_seeded()) < 0.5
        kept = Kept.regions(image, regions)
        drawn = prior.sample(8, SamplingConfig(), _seeded(), kept=kept).validate(replace(prior.spec, regions=_LARGER))
        assert (drawn.require_grains()[:, regions] == image.require_grains()[:, regions]).all()
        with pytest.raises(UserError, match="regions"):
            prior.sample(1, SamplingConfig(regions=_GRIDS[0]), kept=kept)

    def test_its_choices_make_the_image_again_where_it_tells_them(self):
        prior = self.build().eval()
        if not isinstance(prior, Codable):
            return
        for grid in (*_GRIDS, _LARGER):
            image = _random(prior, grid, 1)
            choices, there = iter(prior.choices(image)), prior.on_grid(grid)
            assert isinstance(there, Codable)
            codes, known = there.walk(lambda logits, section, choices=choices: next(choices))
            assert codes.equal(image) and known.all()

    def test_learning_on_another_device_waits_for_nothing(self):
        """Once a batch of each grid has been seen."""
        prior = self.build()
        batches = [_random(prior, grid, 4) for grid in _GRIDS]
        expected = [prior.eval().loss(codes).total for codes in batches]
        with another_device() as device:
            prior.to(device.name)
            there = [codes.to(device.name) for codes in batches]
            for codes, total in zip(there, expected, strict=True):
                torch.testing.assert_close(prior.loss(codes).total.cpu(), total, **tolerance(device))
            device.forget()
            for codes in there:
                prior.train().loss(codes).total.backward()
            if self.read_backs is not None:
                assert len(device.read_backs) <= 2 * self.read_backs and not device.uploads
            prior.sample(2, SamplingConfig(regions=_LARGER), _seeded()).validate(replace(prior.spec, regions=_LARGER))


def _random(prior: Prior, grid: tuple[int, int], images: int) -> Codes:
    return random_codes(replace(prior.spec, regions=grid), images)


def _alike(prior: Prior, grid: tuple[int, int], id: int) -> Codes:
    """Two images of the coarsest granularity, each of whose ids is the same one."""
    codes = _random(prior, grid, 2)
    length = prior.spec.codes_per_region[0] * grid[0] * grid[1]
    ids = torch.full((2 * length, *prior.spec.id_shape), min(id, prior.spec.codebook_size - 1))
    return Codes(ids, torch.full((2,), length), torch.zeros_like(codes.require_grains()))


def _train(prior: Prior, batches: list[Codes], steps: int) -> None:
    """Train on several batches in each step, and leave the prior in evaluation mode."""
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    prior.train()
    for _ in range(steps):
        optimizer.zero_grad()
        for codes in batches:
            prior.loss(codes).total.backward()
        optimizer.step()
    prior.eval()


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
