"""Whatever logits a prior gives, its draws are legal and decode; and logits that are no numbers are told of."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vltok.errors import UserError
from vltok.interfaces import Prior, SamplingConfig
from vltok.nn.heads import Head
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import FixedGate
from vltok.tokenizers.quantizers import VectorQuantizer
from vltok.tokenizers.residual_quantizer import ResidualQuantizer

from ..tiny_priors import tiny_prior

CODES = 5
SIZES: dict[str, Any] = {
    "codebook_size": CODES,
    "regions": (1, 2),
    "width": 8,
    "heads": 1,
    "classes": 3,
    "label_dropout": 0.1,
}
TRIPLE, DUAL, SINGLE = (8, 4, 2), (4, 2), (2,)
TABLES = {"shared_content": False, "shared_position": True, "class_in_positions": True, "absolute_position": False}
PRIORS: dict[str, Callable[[], Prior]] = {
    "dq-transformer": lambda: tiny_prior(DQTransformer, **SIZES, factors=TRIPLE),
    "dq-transformer, region first": lambda: tiny_prior(
        DQTransformer, **SIZES, **TABLES, factors=DUAL, order="region-first"
    ),
    "dq-transformer, one factor": lambda: tiny_prior(DQTransformer, **SIZES, factors=SINGLE, codebooks=2),
    "raster-scan": lambda: tiny_prior(RasterScan, **SIZES, factors=TRIPLE, codebooks=2),
    "global-local": lambda: tiny_prior(GlobalLocal, **SIZES, factors=TRIPLE, codebooks=2),
    "fixed-raster": lambda: tiny_prior(SequencePrior, **{**SIZES, "regions": (2, 3)}, factors=SINGLE),
}
# Two regions of 1, 4 or 16 codes.
LENGTHS: dict[tuple[int, ...], list[dict[str, Any]]] = {
    TRIPLE: [
        *({"codes": codes} for codes in (2, 5, 8, 17, 20, 32)),
        *({"max_codes": codes} for codes in (2, 7, 20, 2**40)),
        *({"ratios": ratios} for ratios in ({2: 1.0}, {8: 0.5, 4: 0.5}, {8: 0.4, 4: 0.3, 2: 0.3})),
    ],
    DUAL: [{"codes": 5}, {"max_codes": 7}, {"ratios": {4: 0.5, 2: 0.5}}],
    SINGLE: [],
}
WAYS: list[dict[str, Any]] = [
    {"temperature": 1e-45, "position_temperature": 1e-300},
    {"temperature": 1e38, "position_temperature": 1e300},
    {"top_k": 1, "position_top_k": 1},
    {"top_k": 2, "position_top_k": 2**40, "temperature": 0.3},
    {"top_p": 1e-50, "position_top_p": 1e-50},
    {"top_p": 0.5, "position_top_p": 0.9, "position_temperature": 3.0},
    *({"guidance": scale} for scale in (0.0, -2.0, 3.0, 1e38, -1e300)),
    {"positions": "implied"},
    {"precision": "bfloat16", "guidance": 2.0},
]


class Hostile:
    """In place of what a head gives: each row is hostile in its own way."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, head: nn.Module, given: tuple, logits: Tensor) -> Tensor:
        noise = torch.randn(logits.shape, generator=self.generator)
        chosen = torch.randint(logits.shape[1], (len(logits), 1), generator=self.generator)
        one = torch.zeros_like(noise, dtype=torch.bool).scatter(1, chosen, True)
        ways = [
            10 * noise,
            3e38 * noise,  # some of them beyond the largest number
            torch.zeros_like(noise),
            torch.full_like(noise, -3e38),
            torch.full_like(noise, torch.inf),
            torch.full_like(noise, -torch.inf),
            1e4 * one,
            torch.zeros_like(noise).masked_fill(~one, -torch.inf),
            torch.zeros_like(noise).masked_fill(one, torch.inf),
            noise.sign() * torch.inf,
        ]
        rows = torch.arange(len(logits))
        return torch.stack(ways)[rows % len(ways), rows]


class Broken:
    """Of what a head gives, one logit of the last row is no number from some call on."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, head: nn.Module, given: tuple, logits: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            logits[-1, -1] = torch.nan
        return logits


def heads(prior: Prior) -> list[Head]:
    return [head for head in prior.modules() if isinstance(head, Head)]


@functools.cache
def hostile(name: str) -> Prior:
    prior = PRIORS[name]()
    for head in heads(prior):
        head.register_forward_hook(Hostile())
    return prior.eval()


@functools.cache
def tokenizer_of(factors: tuple[int, ...], codebooks: int) -> DQVAE:
    quantizer = VectorQuantizer(CODES, 4)
    return DQVAE(
        PatchEncoder(list(factors), width=8, blocks=1, channels=8),
        FixedGate(0, len(factors)),
        quantizer if codebooks == 1 else ResidualQuantizer(quantizer, codebooks),
        PixelShuffleDecoder(min(factors), channels=8, width=8, blocks=1),
    )


def draw(prior: Prior, options: Mapping[str, Any], images: int) -> None:
    """Draw images, and see that they are as they were asked for and decode."""
    spec = prior.spec
    codes = prior.sample(torch.arange(images) % 3, SamplingConfig(**options), torch.Generator().manual_seed(0))
    assert len(codes.validate(spec)) == images
    if "codes" in options:
        assert codes.lengths.eq(options["codes"]).all()
    if "max_codes" in options:
        assert codes.lengths.max() <= options["max_codes"]
    if "ratios" in options:
        counts = torch.stack([(codes.grains == k).sum((1, 2)) for k in range(spec.granularities)], dim=1)
        assert (counts == counts[0]).all()
    decoded = tokenizer_of(spec.factors, spec.codebooks).decode(codes)
    height, width = (side * spec.factors[0] for side in spec.regions)
    assert decoded.shape == (images, 3, height, width) and decoded.isfinite().all()


def means(kind: str, option: Mapping[str, Any]) -> bool:
    """Whether an option means anything to a kind of prior."""
    if kind == "fixed-raster":
        return not any(name.startswith("position") for name in option)
    return "positions" not in option or kind.startswith("dq-transformer")


def asked(kind: str, times: int) -> list[dict[str, Any]]:
    """Every length and every way to draw that a kind of prior knows, in pairs, each at least so many times."""
    lengths = [{}, *LENGTHS[PRIORS[kind]().spec.factors]]
    ways = [{}, *(way for way in WAYS if means(kind, way))]
    pairs = times * max(len(lengths), len(ways))
    return [{**lengths[pair % len(lengths)], **ways[pair % len(ways)]} for pair in range(pairs)]


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
@pytest.mark.parametrize("kind", PRIORS)
def test_hostile_logits_give_legal_draws(kind):
    for options in asked(kind, 1):
        draw(hostile(kind), options, 20)


@pytest.mark.faults
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", PRIORS)
def test_a_hundred_thousand_hostile_draws_are_legal(kind):
    combinations = asked(kind, 3)
    for options in combinations:
        draw(hostile(kind), options, -(-100_000 // len(combinations)))


@pytest.mark.parametrize(("calls", "guidance"), [(0, 1.0), (1, 2.0)])
@pytest.mark.parametrize("kind", PRIORS)
def test_logits_that_are_no_numbers_end_the_draw_in_one_line(kind, calls, guidance):
    for place in range(len(heads(PRIORS[kind]()))):
        prior = PRIORS[kind]().eval()
        heads(prior)[place].register_forward_hook(Broken(calls))
        with pytest.raises(UserError, match=r"^the prior's logits are no numbers \(NaN\): .* draw in float32, or from"):
            prior.sample(torch.tensor([0, 1, 2]), SamplingConfig(guidance=guidance))


@pytest.mark.parametrize("kind", PRIORS)
def test_weights_that_are_no_numbers_end_the_draw_in_one_line(kind):
    prior = PRIORS[kind]()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match=r"^the prior's logits are no numbers"):
        prior.sample(torch.tensor([0, 1]), SamplingConfig())
