"""The distance of feature maps: against its definition, and on photographs that are coded worse and worse."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from vltok.evaluation.features import feature_network
from vltok.measures.feature_distance import feature_distance


def coded(picture: Image.Image, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """A photograph, and what three qualities of JPEG leave of it."""
    picture = Image.fromarray(skimage.data.chelsea()).crop((120, 60, 216, 156))
    exact = torch.from_numpy(np.array(picture)).movedim(-1, 0)
    return torch.stack([exact, *(coded(picture, quality) for quality in (80, 30, 5))])


def test_it_agrees_with_its_definition():
    torch.manual_seed(0)
    pairs = [(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)), (torch.randn(2, 6, 2, 2), torch.randn(2, 6, 2, 2))]
    found = feature_distance(*zip(*pairs, strict=True))
    # of vectors of length 1, the squared distance is 2 - 2 cos
    stages = [(2 - 2 * cosine_similarity(left, right, dim=1)).mean(dim=(1, 2)) for left, right in pairs]
    assert torch.allclose(found, (stages[0] + stages[1]) / 2, atol=1e-6)


def test_what_is_coded_worse_lies_farther(pictures):
    network = feature_network("efficientnet-lite0")
    original = network(pictures[:1].expand(4, -1, -1, -1))
    found = feature_distance(network(pictures).maps, original.maps)
    assert found[0] < 1e-6
    assert 0 < found[1] < found[2] < found[3] < 4
