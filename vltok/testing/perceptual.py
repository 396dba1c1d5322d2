"""What every perceptual distance must hold."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from vltok.interfaces import Perceptual
from vltok.testing.modules import ModuleContract, assert_same, pictures


class PerceptualContract(ModuleContract[Perceptual]):
    """Tests of a perceptual distance, which a test class inherits.

    Attributes:
        image_size: The height and width of images to try.
    """

    image_size: tuple[int, int] = (64, 64)

    @abstractmethod
    def build(self) -> Perceptual:
        """A perceptual distance, whose weights `load` gets without a download; the same arguments each time."""

    def test_its_parameters_are_frozen(self):
        perceptual = self._loaded()
        learned = [name for name, parameter in perceptual.named_parameters() if parameter.requires_grad]
        assert not learned, f"parameters that would be trained: {', '.join(learned)}"

    def test_equal_images_are_at_no_distance_and_others_farther_the_more_they_differ(self):
        perceptual = self._loaded()
        images = self._images()
        noise = torch.randn(images.shape)
        distances = [perceptual(images + amount * noise, images) for amount in (0.0, 0.1, 0.4)]
        assert all(distance.dim() == 0 and distance.isfinite() for distance in distances)
        assert distances[0].abs() < 1e-5
        assert distances[0] <= distances[1] <= distances[2]

    def test_the_distance_is_the_mean_over_the_batch(self):
        perceptual = self._loaded()
        images, other = self._images(), self._images().flip(3)
        alone = [perceptual(one[None], two[None]) for one, two in zip(images, other, strict=True)]
        torch.testing.assert_close(perceptual(images, other), torch.stack(alone).mean(), rtol=1e-3, atol=1e-5)

    def test_it_is_the_same_in_training(self):
        perceptual = self._loaded().eval()
        images, other = self._images(), self._images().flip(3)
        expected = perceptual(images, other)
        torch.testing.assert_close(perceptual.train()(images, other), expected)

    def test_its_gradient_reaches_the_reconstructions(self):
        """Unless it measures nothing."""
        perceptual = self._loaded()
        reconstructions = self._images().flip(3).requires_grad_()
        distance = perceptual(reconstructions, self._images())
        if distance != 0:
            assert distance.requires_grad, "no gradient reaches the reconstructions"
            (gradient,) = torch.autograd.grad(distance, reconstructions)
            assert gradient.isfinite().all() and gradient.any()

    def test_loading_again_keeps_what_is_there(self):
        perceptual = self._loaded()
        before = self._respond(perceptual)
        perceptual.load()
        assert_same(self._respond(perceptual), before)

    def _loaded(self) -> Perceptual:
        perceptual = self.build()
        perceptual.load()
        return perceptual

    def _images(self) -> Tensor:
        return self._there(pictures(3, *self.image_size))

    def _respond(self, module: Perceptual) -> list[Tensor]:
        module.load()
        return [module(self._images().flip(3), self._images()).detach()]
