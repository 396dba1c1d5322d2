"""Every registered prior holds the contract, and the contract finds what is broken."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vltok.code_maps import require_ids
from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing, Drawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions
from vltok.drawing.sampling import LogitWatch, drawn, filtered
from vltok.interfaces import Prior, PriorLoss
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.registry import components
from vltok.testing import (
    AnyGridContract,
    ConditionalPriorContract,
    DescribedPriorContract,
    EmbeddedPriorContract,
    PriorContract,
)

from ..tiny_priors import tiny_prior, tiny_text_encoder

pytestmark = pytest.mark.usefixtures("unchecked")

#: Two regions of 1 or 4 codes; two of 1, 4 or 16, of which there is but one code; six of 1; and up to six on no grid.
DUAL: dict[str, Any] = {"codebook_size": 2, "factors": (2, 1), "regions": (1, 2)}
TRIPLE = {**DUAL, "codebook_size": 1, "factors": (4, 2, 1)}
SINGLE = {**DUAL, "factors": (1,), "regions": (2, 3)}
NO_GRID = {"codebook_size": 2, "factors": ()}
#: A region of 1 or 4 codes, or three of 1, of two ids each.
TWO_IDS = {**DUAL, "regions": (1, 1), "codebooks": 2}
SINGLE_OF_TWO_IDS = {**SINGLE, "regions": (1, 3), "codebooks": 2}
#: The same, of images of any grid.
ANY_DUAL, ANY_SINGLE = {**DUAL, "regions": None}, {**SINGLE_OF_TWO_IDS, "regions": None}


class TestDQTransformer(PriorContract):
    def build(self):
        return tiny_prior(DQTransformer, **DUAL)


class TestDQTransformerOfThreeGranularities(PriorContract):
    def build(self):
        return tiny_prior(DQTransformer, **TRIPLE)


class TestDQTransformerOfSeveralCodebooks(PriorContract):
    def build(self):
        return tiny_prior(DQTransformer, **TWO_IDS)


class TestDQTransformerOfAnyGrid(AnyGridContract):
    def build(self):
        return tiny_prior(DQTransformer, **ANY_DUAL)


class TestDQTransformerOfClasses(ConditionalPriorContract):
    def build(self, classes, label_dropout):
        return tiny_prior(DQTransformer, **DUAL, classes=classes, label_dropout=label_dropout)


class TestDQTransformerOfTexts(DescribedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(DQTransformer, **DUAL, text_encoder=tiny_text_encoder(), label_dropout=label_dropout)


class TestDQTransformerOfEmbeddings(EmbeddedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(DQTransformer, **DUAL, embedding_size=3, label_dropout=label_dropout)


class TestRasterScan(PriorContract):
    def build(self):
        return tiny_prior(RasterScan, **DUAL)


class TestRasterScanOfThreeGranularities(PriorContract):
    def build(self):
        return tiny_prior(RasterScan, **TRIPLE)


class TestRasterScanOfOneGranularityAndSeveralCodebooks(PriorContract):
    def build(self):
        return tiny_prior(RasterScan, **SINGLE_OF_TWO_IDS)


class TestRasterScanOfAnyGrid(AnyGridContract):
    def build(self):
        return tiny_prior(RasterScan, **ANY_DUAL)


class TestRasterScanOfClasses(ConditionalPriorContract):
    def build(self, classes, label_dropout):
        return tiny_prior(RasterScan, **DUAL, classes=classes, label_dropout=label_dropout)


class TestRasterScanOfTexts(DescribedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(RasterScan, **DUAL, text_encoder=tiny_text_encoder(), label_dropout=label_dropout)


class TestRasterScanOfEmbeddings(EmbeddedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(RasterScan, **DUAL, embedding_size=3, label_dropout=label_dropout)


class TestGlobalLocal(PriorContract):
    def build(self):
        return tiny_prior(GlobalLocal, **DUAL)


class TestGlobalLocalOfThreeGranularities(PriorContract):
    def build(self):
        return tiny_prior(GlobalLocal, **TRIPLE)


class TestGlobalLocalOfSeveralCodebooks(PriorContract):
    def build(self):
        return tiny_prior(GlobalLocal, **TWO_IDS)


class TestGlobalLocalOfAnyGrid(AnyGridContract):
    def build(self):
        return tiny_prior(GlobalLocal, **ANY_DUAL)


class TestGlobalLocalOfClasses(ConditionalPriorContract):
    def build(self, classes, label_dropout):
        return tiny_prior(GlobalLocal, **DUAL, classes=classes, label_dropout=label_dropout)


class TestGlobalLocalOfTexts(DescribedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(GlobalLocal, **DUAL, text_encoder=tiny_text_encoder(), label_dropout=label_dropout)


class TestGlobalLocalOfEmbeddings(EmbeddedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(GlobalLocal, **DUAL, embedding_size=3, label_dropout=label_dropout)


class TestSequence(PriorContract):
    def build(self):
        return tiny_prior(SequencePrior, **NO_GRID)


class TestSequenceOfClasses(ConditionalPriorContract):
    def build(self, classes, label_dropout):
        return tiny_prior(SequencePrior, **NO_GRID, classes=classes, label_dropout=label_dropout)


class TestSequenceOnAGrid(PriorContract):
    def build(self):
        return tiny_prior(SequencePrior, **SINGLE)


class TestSequenceOnAnyGrid(AnyGridContract):
    def build(self):
        return tiny_prior(SequencePrior, **ANY_SINGLE)


class TestSequenceOnAGridOfClasses(ConditionalPriorContract):
    def build(self, classes, label_dropout):
        return tiny_prior(SequencePrior, **SINGLE_OF_TWO_IDS, classes=classes, label_dropout=label_dropout)


class TestSequenceOfTexts(DescribedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(SequencePrior, **NO_GRID, text_encoder=tiny_text_encoder(), label_dropout=label_dropout)


class TestSequenceOfEmbeddings(EmbeddedPriorContract):
    def build(self, label_dropout):
        return tiny_prior(SequencePrior, **NO_GRID, embedding_size=3, label_dropout=label_dropout)


def test_every_registered_prior_is_held_to_every_contract():
    registered = {component.load() for component in components("prior") if component.distribution == "vltok"}
    unconditional = {type(contract().build()) for contract in PriorContract.__subclasses__()}
    conditional = {type(contract().build(2, 0.0)) for contract in ConditionalPriorContract.__subclasses__()}
    described = {type(contract().build(0.0)) for contract in DescribedPriorContract.__subclasses__()}
    of_any_grid = {type(contract().build()) for contract in AnyGridContract.__subclasses__()}
    embedded = {type(contract().build(0.0)) for contract in EmbeddedPriorContract.__subclasses__()}
    assert unconditional - {Bag} == conditional == described == embedded == of_any_grid == registered


class Bag(Prior):
    """Codes of 1D tokenizers, drawn one by one without a look at the others, until the bag is empty.

    Args:
        looks_ahead: Whether it reads off what it should predict.
        mixes: Whether an image's loss depends on the others of its batch.
        ignores_seed: Whether every seed draws the same.
        forgets: Whether it draws as if it had learned nothing.
    """

    def __init__(
        self, looks_ahead: bool = False, mixes: bool = False, ignores_seed: bool = False, forgets: bool = False
    ) -> None:
        super().__init__()
        self.conditioning = Conditioning()
        self.looks_ahead, self.mixes, self.ignores_seed, self.forgets = looks_ahead, mixes, ignores_seed, forgets
        self.lengths = nn.Parameter(torch.zeros(3))
        self.contents = nn.Parameter(torch.zeros(2))
        self.copying = nn.Parameter(torch.zeros(()))

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(2, max_length=3)

    def loss(self, codes: Codes) -> PriorLoss:
        require_ids(codes.ids, self.spec)
        contents = self.contents.expand(codes.ids.numel(), -1) + 0 * self.copying
        if self.looks_ahead:
            contents = contents + self.copying * F.one_hot(codes.ids, 2)
        if self.mixes:
            contents = contents + codes.ids.float().mean()[None, None] * torch.tensor([0.0, 1.0])
        parts = {
            "length": F.cross_entropy(self.lengths.expand(len(codes), -1), codes.lengths - 1),
            "content": F.cross_entropy(contents, codes.ids),
        }
        return PriorLoss(
            sum(parts.values()),
            {name: part.detach() for name, part in parts.items()},
            {"length": torch.tensor(len(codes))},
        )

    def drawing(self, sampling: SamplingOptions) -> BatchDrawing:
        return BatchDrawing(partial(self._draw, sampling.top_k))

    def _draw(self, top: int | None, images: WantedImages) -> Codes:
        if self.ignores_seed:
            images = replace(images, streams=images.numbers)
        watch = LogitWatch()
        lengths, contents = (
            watch.finite(parameter.float() * (not self.forgets)) for parameter in (self.lengths, self.contents)
        )
        watch.require_numbers()
        noise = images.uniforms(4)
        length = drawn(filtered(lengths.expand(len(images), -1), 1.0, top, 1.0), noise[:, 0]) + 1
        kept = filtered(contents.expand(3 * len(images), -1), 1.0, top, 1.0)
        ids = drawn(kept, noise[:, 1:].flatten()).view(-1, 3)
        return Codes(ids[torch.arange(3, device=length.device) < length[:, None]], length)


class TestBag(PriorContract):
    def build(self):
        return Bag()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("looks_ahead", "test_no_code_is_seen_before_it_is_predicted"),
        ("forgets", "test_images_are_drawn_as_often_as_they_are_likely"),
        ("mixes", "test_images_of_a_batch_do_not_meet"),
        ("ignores_seed", "test_a_generator_draws_other_images_each_time"),
        ("ignores_seed", "test_images_depend_on_seed_and_number_alone"),
    ],
)
def test_the_contract_finds_a_prior_that(fault, test):
    class Broken(TestBag):
        def build(self):
            return Bag(**{fault: True})

    with pytest.raises(AssertionError):
        getattr(Broken(), test)()


@pytest.mark.parametrize("change", [{"weight": torch.tensor(3)}, {"total": torch.tensor(3.0)}])
def test_the_contract_finds_a_loss_that_does_not_count_its_tokens(change):
    class Adding(TestBag):
        def build(self):
            prior = Bag()
            loss = prior.loss
            prior.loss = lambda codes: replace(
                loss(codes), **{name: value * (len(codes) if name == "total" else 1) for name, value in change.items()}
            )
            return prior

    with pytest.raises(AssertionError):
        Adding().test_its_loss_is_a_mean_whose_weight_counts_tokens()


def test_the_contract_finds_a_prior_that_reads_what_it_does_not_know():
    class Reading(TestBag):
        def build(self):
            prior = Bag()
            loss = prior.loss
            prior.loss = lambda codes: replace(
                loss(codes), total=loss(codes).total + (0 if codes.labels is None else codes.labels.sum())
            )
            return prior

    with pytest.raises(AssertionError):
        Reading().test_conditions_that_it_does_not_know_change_nothing()


class Blind(Drawing):
    """Draws whatever class or text is asked for as another's."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing

    def finished(self, images: WantedImages, batch_size: int):
        first = images.conditions[:1].expand_as(images.conditions)
        return self.drawing.finished(replace(images, labels=0 * images.labels, conditions=first), batch_size)


@pytest.mark.parametrize("contract", [TestSequenceOfClasses, TestSequenceOfTexts])
def test_the_contract_finds_a_prior_that_draws_for_anybody(contract):
    class Broken(contract):
        def build(self, *arguments):
            prior = super().build(*arguments)
            drawing = prior.drawing
            prior.drawing = lambda sampling: Blind(drawing(sampling))
            return prior

    with pytest.raises(AssertionError, match="are as asked for"):
        getattr(
            Broken(), "test_classes_are_learned" if "Classes" in contract.__name__ else "test_conditions_are_learned"
        )()


@pytest.mark.parametrize("contract", [TestSequenceOfClasses, TestSequenceOfTexts])
def test_the_contract_finds_a_prior_that_hides_where_it_is_measured(contract):
    class Broken(contract):
        def build(self, *arguments):
            prior = super().build(*arguments)
            of_codes = prior.conditioning.of_codes
            object.__setattr__(prior.conditioning, "of_codes", lambda codes, training: of_codes(codes, True))
            reader = prior.condition_reader
            nn.init.normal_(prior.step_embedding.weight if reader is None else reader.nothing)
            return prior

    name = "labels" if "Classes" in contract.__name__ else "conditions"
    with pytest.raises(AssertionError, match="depends on chance"):
        getattr(Broken(), f"test_{name}_are_hidden_in_training_alone")()


def test_the_contract_finds_a_loss_that_lies_about_its_counts():
    class Miscounting(TestBag):
        def build(self):
            prior = Bag()
            loss = prior.loss
            prior.loss = lambda codes: replace(loss(codes), counts={"length": torch.tensor(1)})
            return prior

    with pytest.raises(AssertionError):
        Miscounting().test_images_of_a_batch_do_not_meet()


def test_a_prior_that_is_too_large_is_named():
    class Large(PriorContract):
        def build(self):
            return tiny_prior(SequencePrior, **{**SINGLE, "codebook_size": 64})

    with pytest.raises(AssertionError, match="smaller"):
        Large().test_no_code_is_seen_before_it_is_predicted()
