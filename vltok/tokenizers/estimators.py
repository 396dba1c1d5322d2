"""Estimators of a drawn choice's gradient: how what the reconstruction teaches enters the scores of a gate.

Each takes the choice as one-hot and the scores of which it is the largest, and gives the weights of the features: the
choice in value, with a path for the gradient to the scores. Shapes are `[b k h w]`, k granularity.
"""

from jaxtyping import Float
from torch import Tensor

from vltok.tokenizers.straight_through import straight_through


def selected(choice: Float[Tensor, "b k h w"], scores: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Eq. (6): of the scores, the chosen one's alone is a path.

    It says whether the chosen feature should be larger or smaller, not whether another one would have been better.
    """
    return choice * straight_through(choice, scores)


def mixture(choice: Float[Tensor, "b k h w"], scores: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """The straight-through estimator: the gradient is that of the features' mixture by all scores.

    It compares the features of all granularities, to first order around the chosen one
    (https://arxiv.org/abs/1308.3432, section 4; with Gumbel noise https://arxiv.org/abs/1611.01144).
    """
    return straight_through(choice, scores)


#: What a recipe may name.
ESTIMATORS = {"selected": selected, "mixture": mixture}
