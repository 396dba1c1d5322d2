"""Training tokenizers and priors with Lightning."""

from vltok.training.objective import Objective
from vltok.training.pictures import PictureLogger
from vltok.training.prior import PriorTraining
from vltok.training.progress import PlainProgress
from vltok.training.tokenizer import TokenizerTraining
from vltok.training.weight_averaging import ExponentialMovingAverage

__all__ = [
    "ExponentialMovingAverage",
    "Objective",
    "PictureLogger",
    "PlainProgress",
    "PriorTraining",
    "TokenizerTraining",
]
