"""Each estimator's gradient against finite differences, in float64, of the loss that it stands for.

The toy: features f_k, a choice k drawn by Gumbel noise on the logits, and the loss of the chosen feature, Σ_k w_k f_k.
Its expectation, Σ_k softmax(logits)_k · loss(f_k), needs no drawing.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vltok.tokenizers.estimators import ESTIMATORS, mixture, selected
from vltok.tokenizers.gates import gumbel_like

DRAWS = 200_000
LOGITS = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
#: Near each other, as the features of one region are; the last one is nearest to the target.
FEATURES = torch.tensor([[1.0, 0.2], [1.2, 0.1], [1.1, 0.5]], dtype=torch.float64)
TARGET = torch.tensor([1.1, 0.9], dtype=torch.float64)


def loss_of(feature: Tensor) -> Tensor:
    return (feature - TARGET).square().sum(dim=-1)


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    shifts = step * torch.eye(len(at), dtype=at.dtype)
    return torch.stack([(function(at + shift) - function(at - shift)) / (2 * step) for shift in shifts])


def expected_loss(logits: Tensor) -> Tensor:
    return logits.softmax(dim=0) @ loss_of(FEATURES)


def draw(logits: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The choices as one-hot, and the scores, `[n k]`."""
    scores = ((logits + noise) / temperature).softmax(dim=1)
    return F.one_hot(scores.argmax(dim=1), len(logits)).double(), scores


def gradient(estimator: Callable, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Of the mean loss over draws, through the estimator."""
    logits = LOGITS.clone().requires_grad_()
    choice, scores = draw(logits, noise, temperature)
    # the estimators take maps [b k h w]
    weights = estimator(choice[:, :, None, None], scores[:, :, None, None])[:, :, 0, 0]
    return torch.autograd.grad(loss_of(weights @ FEATURES).mean(), logits)[0]


@pytest.fixture
def noise() -> Tensor:
    return gumbel_like(torch.empty(DRAWS, 3, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_mixtures_gradient_is_that_of_the_loss_linearised_at_each_choice(noise, temperature) -> None:
    choice, _ = draw(LOGITS, noise, temperature)
    chosen = choice @ FEATURES
    slope = 2 * (chosen - TARGET)  # of the loss, at the chosen feature

    def linearised(logits: Tensor) -> Tensor:
        scores = draw(logits, noise, temperature)[1]
        return (loss_of(chosen) + ((scores @ FEATURES - chosen) * slope).sum(dim=1)).mean()

    torch.testing.assert_close(gradient(mixture, noise, temperature), finite_difference(linearised, LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_selecteds_gradient_is_that_of_scaling_the_chosen_feature(noise, temperature) -> None:
    choice, _ = draw(LOGITS, noise, temperature)
    chosen = choice @ FEATURES
    slope = 2 * (chosen - TARGET)

    def scaled(logits: Tensor) -> Tensor:
        score = (draw(logits, noise, temperature)[1] * choice).sum(dim=1, keepdim=True)
        return (score * chosen * slope).sum(dim=1).mean()

    torch.testing.assert_close(gradient(selected, noise, temperature), finite_difference(scaled, LOGITS))


def test_where_the_loss_is_nearly_linear_mixture_has_the_direction_of_the_expected_loss(noise) -> None:
    """It is biased: the slope at the chosen feature stands for the difference of two losses."""
    true = finite_difference(expected_loss, LOGITS)
    assert F.cosine_similarity(gradient(mixture, noise), true, dim=0) > 0.95
    assert F.cosine_similarity(gradient(selected, noise), true, dim=0) < 0.8


def test_selected_tells_features_apart_that_are_equally_good() -> None:
    """Why eq. (6) does not adapt: with equal features there is nothing to choose, and yet it pushes."""
    choice = F.one_hot(torch.tensor([0, 1]), 2).double()[:, :, None, None]
    found = {}
    for name, estimator in ESTIMATORS.items():
        logits = torch.zeros(2, 2, 1, 1, dtype=torch.float64, requires_grad=True)
        weights = estimator(choice, logits.softmax(dim=1))
        same = weights.sum(dim=1)  # both features are 1
        found[name] = torch.autograd.grad(same.sum(), logits)[0]
    assert found["mixture"].abs().max() < 1e-12
    # each draw pushes its own choice, whatever the alternative would have given
    assert found["selected"][0, 0] > 0.2 and found["selected"][1, 1] > 0.2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_value_is_the_choice(name) -> None:
    scores = torch.rand(2, 3, 4, 5, requires_grad=True).softmax(dim=1)
    choice = F.one_hot(scores.argmax(dim=1), 3).movedim(-1, 1).float()
    assert torch.equal(ESTIMATORS[name](choice, scores), choice)
