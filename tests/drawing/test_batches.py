"""A prior's author gives batches; splitting, streams, labels, order and progress are the library's."""

import pytest
import torch
from torch import nn

from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError
from vltok.interfaces import Prior, PriorLoss, SamplingConfig

SPEC = CodeSpec(100, max_length=1)


class Labelling(Prior):
    """Draws one code for each image: its number."""

    def __init__(self) -> None:
        super().__init__()
        self.conditioning = Conditioning(3, label_dropout=0.5)
        self.scale = nn.Parameter(torch.ones(()))
        self.batches: list[list[int]] = []

    @property
    def spec(self) -> CodeSpec:
        return SPEC

    def loss(self, codes: Codes) -> PriorLoss:
        return PriorLoss(self.scale, {})

    def drawing(self, sampling: SamplingOptions) -> BatchDrawing:
        return BatchDrawing(self._draw)

    def _draw(self, images: WantedImages) -> Codes:
        assert not torch.is_grad_enabled()
        self.batches.append(images.labels.tolist())
        return Codes(images.numbers, torch.ones_like(images.numbers))


def test_a_batch_drawing_is_given_numbers_and_labels_in_batches() -> None:
    prior, progress = Labelling(), []
    labels = torch.tensor([2, 0, 1, 1, 2])
    codes = prior.sample(labels, SamplingConfig(), batch_size=2, first_image=10, progress=progress.append)
    assert codes.ids.tolist() == [10, 11, 12, 13, 14]
    assert codes.labels.tolist() == labels.tolist()
    assert prior.batches == [[2, 0], [1, 1], [2]]
    assert progress == [2, 2, 1]
    assert prior.sample(2, SamplingConfig()).labels is None
    assert prior.batches[-1] == [3, 3]


def test_a_stream_gives_the_same_numbers_in_any_batch() -> None:
    images = WantedImages(
        torch.arange(3), torch.tensor([500, 60, 7]), torch.zeros(3, dtype=torch.long), torch.zeros(3, 0)
    )
    numbers = images.uniforms(4)
    assert numbers.shape == (3, 4) and numbers.unique().numel() == 12
    assert images[1:2].uniforms(4).equal(numbers[1:2])


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_drawn_is_refused_before_anything_is() -> None:
    prior = Labelling()
    for options, message in (({"batch_size": 0}, "batch_size"), ({"first_image": True}, "first_image")):
        with pytest.raises(UserError, match=message):
            prior.sample(2, SamplingConfig(), **options)
    with pytest.raises(UserError, match="labels must be"):
        prior.sample(torch.tensor([3]), SamplingConfig())
    assert not prior.batches
