"""Every registered perceptual distance holds the contract, and the contract finds what is broken."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vltok.interfaces import Perceptual
from vltok.losses.perceptual import LPIPS, NoPerceptual, TimmPerceptual
from vltok.registry import components
from vltok.testing import PerceptualContract

from .broken import assert_found


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory) -> str:
    """A folder for TORCH_HOME that holds VGG16's file, with random weights."""
    with torch.device("meta"):
        layers = torchvision.models.vgg16(init_weights=False).features
    generator = torch.Generator().manual_seed(0)
    state = {
        f"features.{name}": torch.empty(value.shape).normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        for name, value in layers.state_dict().items()
    }
    folder = tmp_path_factory.mktemp("torch-home")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, folder / "hub" / "checkpoints" / "vgg16-397923af.pth")
    return str(folder)


class TestLPIPS(PerceptualContract):
    image_size = (32, 32)

    @pytest.fixture(autouse=True)
    def _weights(self, torch_home, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", torch_home)

    def build(self):
        return LPIPS()


class TestTimmPerceptual(PerceptualContract):
    def build(self):
        return TimmPerceptual("test_resnet.r160_in1k", pretrained=False)


class TestNoPerceptual(PerceptualContract):
    def build(self):
        return NoPerceptual()


class Edges(Perceptual):
    """The difference between the edges of images.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.scale: nn.Parameter | None = None
        self.dropout = nn.Dropout(0.5 if fault == "dropping" else 0.0)

    def load(self) -> None:
        if self.scale is None or self.fault == "reloaded":
            scale = torch.rand(3, 1, 1) if self.fault == "reloaded" else torch.ones(3, 1, 1)
            self.scale = nn.Parameter(scale, requires_grad=self.fault == "trained")

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        edges = [self.dropout(self.scale * given.diff(dim=3)) for given in (reconstructions, images)]
        difference = (edges[0] - edges[1]).square().mean((1, 2, 3))
        if self.fault == "cut":
            difference = difference.detach()
        if self.fault == "offset":
            difference = difference + 0.1
        if self.fault == "summed":
            return difference.sum()
        return -difference.mean() if self.fault == "reversed" else difference.mean()


class TestEdges(PerceptualContract):
    def build(self):
        return Edges()


def test_every_registered_perceptual_distance_is_held_to_the_contract():
    registered = {component.load() for component in components("perceptual") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in PerceptualContract.__subclasses__()}
    assert held - {Edges} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("trained", "test_its_parameters_are_frozen"),
        ("offset", "test_equal_images_are_at_no_distance_and_others_farther_the_more_they_differ"),
        ("reversed", "test_equal_images_are_at_no_distance_and_others_farther_the_more_they_differ"),
        ("summed", "test_the_distance_is_the_mean_over_the_batch"),
        ("dropping", "test_it_is_the_same_in_training"),
        ("cut", "test_its_gradient_reaches_the_reconstructions"),
        ("reloaded", "test_loading_again_keeps_what_is_there"),
    ],
)
def test_the_contract_finds_a_distance_that_is(fault, test):
    assert_found(TestEdges, test, lambda: Edges(fault))
