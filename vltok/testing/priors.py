"""What every prior must hold."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Codable, Inpaints, Kept, Prior, SamplingConfig
from vltok.priors.stepwise import STEPS_BETWEEN_LOOKS
from vltok.testing.modules import assert_state, snapshot
from vltok.testing.other_device import Cuda, another_device, tolerance
from vltok.testing.outcomes import every_image, key_of, likelihoods, nats, random_codes
from vltok.testing.pretended_device import PretendedDevice


class PriorContract(ABC):
    """Tests of a prior, which a test class inherits. It builds one that is tiny: all images that its codes could make
    are listed, and there may be 2000 of them; two regions of 1 or 4 codes out of 2 make 324.

    Attributes:
        read_backs: How often a step of training may make the host wait for a GPU; None for as often as it likes, in
            drawing too.
    """

    read_backs: int | None = 0

    @abstractmethod
    def build(self) -> Prior:
        """A tiny prior without classes, with fresh weights."""

    def test_it_says_what_its_codes_are(self):
        prior = self.build()
        assert isinstance(prior.spec, CodeSpec)
        assert prior.classes is None

    def test_its_loss_names_what_it_is_made_of(self):
        prior = self.build()
        loss = prior.loss(random_codes(prior.spec, 8))
        assert loss.total.dim() == 0 and loss.total.isfinite()
        assert loss.parts and all(part.isfinite() and part >= 0 for part in loss.parts.values())
        assert not any(part.requires_grad for part in loss.parts.values())
        assert set(loss.counts) <= set(loss.parts) and all(count > 0 for count in loss.counts.values())

    def test_its_loss_is_a_mean_whose_weight_counts_tokens(self):
        """Of twice the images it is the same, and counts twice: batches of several processes are weighed by that."""
        prior = self.build().eval()
        codes = random_codes(prior.spec, 5)
        once, twice = prior.loss(codes), prior.loss(Codes.concatenate([codes, codes]))
        torch.testing.assert_close(twice.total, once.total)
        assert (once.weight is None) == (twice.weight is None)
        if once.weight is not None:
            torch.testing.assert_close(twice.weight, 2 * once.weight)

    def test_conditions_that_it_does_not_know_change_nothing(self):
        prior = self.build().eval()
        codes = random_codes(prior.spec, 4, classes=2)
        told = replace(codes, texts=("a", "b", "", "c"), embeddings=torch.rand(4, 3))
        torch.testing.assert_close(prior.loss(told).total, prior.loss(replace(codes, labels=None)).total)

    def test_every_parameter_gets_a_gradient(self):
        prior = self.build().train()
        prior.loss(random_codes(prior.spec, 32)).total.backward()
        without = [name for name, parameter in prior.named_parameters() if parameter.grad is None]
        assert not without

    def test_its_choices_make_the_image_again_where_it_tells_them(self):
        prior = self.build().eval()
        if not isinstance(prior, Codable):
            return
        for image in random_codes(prior.spec, 3):
            choices = iter(prior.choices(image))
            told: list[float] = []

            def choose(logits: Tensor, section: int, choices=choices, told=told) -> int:
                chosen = next(choices)
                told.append(logits.log_softmax(0)[chosen].item())
                return chosen

            codes, known = prior.walk(choose)
            assert codes.equal(image) and known.all() and all(log > -math.inf for log in told)
            codes, known = prior.walk(lambda logits, section: None)
            codes.validate(prior.spec)
            assert not known.any(), "no choice was known"

    def test_images_of_a_batch_do_not_meet(self):
        prior = self.build().eval()
        codes = random_codes(prior.spec, 6)
        together = nats(prior.loss(codes), codes)
        torch.testing.assert_close(together, sum(nats(prior.loss(image), image) for image in codes))

    def test_no_code_is_seen_before_it_is_predicted(self):
        """Trained on all images that there could be, a prior that looks ahead finds each of them likely. What a loss
        that is no likelihood comes to, nobody knows."""
        prior = self.build()
        outcomes = every_image(prior.spec)
        if not _tells_likelihoods(prior):
            return
        _train(prior, outcomes, steps=20)
        assert likelihoods(prior, outcomes).sum() < 1 + 1e-3

    def test_training_makes_images_likelier(self):
        prior = self.build().eval()
        codes = random_codes(prior.spec, 1)
        before = nats(prior.loss(codes), codes)
        _train(prior, codes, steps=60)
        assert nats(prior.loss(codes), codes) < 0.8 * before

    def test_images_are_drawn_as_often_as_they_are_likely(self):
        """At least: choices that lead to no image have a likelihood too, but are never drawn. Without likelihoods,
        those that were learned, or most of them, are drawn far more often than chance would."""
        with torch.random.fork_rng(devices=[]):  # whatever was drawn before, the same weights learn the same way
            torch.manual_seed(0)
            _assert_drawn_as_often_as_likely(self.build())

    def test_every_draw_decodes(self):
        prior = self.build()
        codes = prior.sample(20, SamplingConfig(), _seeded())
        assert len(codes.validate(prior.spec)) == 20
        assert codes.labels is None and not codes.ids.requires_grad

    def test_every_draw_decodes_whatever_the_weights(self):
        prior = self.build().eval()
        for deviation in (0.0, 3.0, 1e4):
            _scatter(prior, deviation)
            for options in ({}, {"temperature": 1e-300}, {"temperature": 1e300}, {"top_k": 1}, {"top_p": 1e-50}):
                assert len(prior.sample(8, SamplingConfig(**options), _seeded()).validate(prior.spec)) == 8

    def test_weights_that_are_no_numbers_are_told_of(self):
        prior = self.build().eval()
        _scatter(prior, torch.nan)
        with pytest.raises(UserError):
            prior.sample(3, SamplingConfig(), _seeded())

    def test_the_precision_around_a_draw_is_not_its_own(self):
        """As where a callback draws while training runs in mixed precision."""
        prior = self.build().train()
        expected = prior.sample(6, SamplingConfig(), _seeded())
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype):
                assert prior.sample(6, SamplingConfig(), _seeded()).equal(expected)
        prior.to(torch.bfloat16).sample(6, SamplingConfig(), _seeded()).validate(prior.spec)

    def test_images_depend_on_seed_and_number_alone(self):
        prior = self.build()
        expected = prior.sample(9, SamplingConfig(), _seeded())
        for batch_size in (1, 4, 9, 20):
            finished: list[int] = []
            codes = prior.sample(9, SamplingConfig(), _seeded(), batch_size, progress=finished.append)
            assert codes.equal(expected)
            assert sum(finished) == 9
        assert prior.sample(4, SamplingConfig(), _seeded(), first_image=3).equal(expected[3:7])
        assert not prior.sample(9, SamplingConfig(), _seeded(1)).equal(expected)

    def test_a_generator_draws_other_images_each_time(self):
        prior, generator = self.build(), _seeded()
        first = prior.sample(9, SamplingConfig(), generator)
        assert not prior.sample(9, SamplingConfig(), generator).equal(first)
        torch.manual_seed(0)
        first = prior.sample(9, SamplingConfig())
        torch.manual_seed(0)
        assert prior.sample(9, SamplingConfig()).equal(first)

    def test_drawing_leaves_the_prior_as_it_is(self):
        prior = self.build()
        before = snapshot(prior)
        drawn, random_numbers = {}, torch.get_rng_state()
        for mode in (True, False):
            drawn[mode] = prior.train(mode).sample(6, SamplingConfig(), _seeded())
            assert all(part.training is mode for part in prior.modules())
        assert torch.get_rng_state().equal(random_numbers), "drawing took numbers of another generator than its own"
        assert drawn[True].equal(drawn[False])
        prior.sample(2, SamplingConfig(precision="bfloat16"), _seeded()).validate(prior.spec)
        assert_state(prior, before)

    def test_the_likeliest_image_is_one(self):
        prior = self.build()
        _train(prior, random_codes(prior.spec, 1), steps=10)  # no two tokens are as likely
        drawn = _drawn_or_refused(prior, position_top_k=1, top_k=1) or prior.sample(5, SamplingConfig(top_k=1))
        assert {key_of(image) for image in drawn} == {key_of(drawn[0])}

    def test_a_length_that_is_asked_for_is_met_or_refused(self):
        prior = self.build()
        lengths = random_codes(prior.spec, 20).lengths
        for length in lengths.unique().tolist():
            codes = _drawn_or_refused(prior, codes=length)
            assert codes is None or codes.lengths.tolist() == [length] * 5
            codes = _drawn_or_refused(prior, max_codes=length)
            assert codes is None or codes.lengths.max() <= length
        for factor in prior.spec.factors:
            codes = _drawn_or_refused(prior, ratios={factor: 1.0})
            assert codes is None or (codes.require_grains() == prior.spec.factors.index(factor)).all()

    def test_what_is_kept_of_an_image_stays(self):
        prior = self.build().eval()
        image = random_codes(prior.spec, 1)
        if image.grains is None:
            return
        if not isinstance(prior, Inpaints):
            with pytest.raises(UserError, match="keep"):
                prior.sample(1, SamplingConfig(), kept=Kept.grain_map(image.grains[0], prior.spec))
            return
        grains, code_map = image.require_grains(), image.to_code_map(prior.spec)
        side = prior.spec.sides[-1]
        for share in (0.0, 0.5, 1.0):
            regions = torch.rand(grains.shape[1:], generator=_seeded()) < share
            kept = Kept.regions(image, regions)
            drawn = prior.sample(12, SamplingConfig(), _seeded(), kept=kept).validate(prior.spec)
            assert (drawn.require_grains()[:, regions] == grains[:, regions]).all()
            cells = regions.repeat_interleave(side, 0).repeat_interleave(side, 1)
            assert (drawn.to_code_map(prior.spec)[:, cells] == code_map[:, cells]).all()
            assert drawn.equal(prior.sample(12, SamplingConfig(), _seeded(), batch_size=5, kept=kept))
            if not share:
                assert drawn.equal(prior.sample(12, SamplingConfig(), _seeded()))
        kept = Kept.grain_map(grains[0], prior.spec)
        drawn = prior.sample(12, SamplingConfig(), _seeded(), kept=kept).validate(prior.spec)
        assert (drawn.require_grains() == grains).all()
        assert (
            prior.spec.codebook_size == 1 or (drawn.to_code_map(prior.spec) != drawn[0].to_code_map(prior.spec)).any()
        )
        if _drawn_or_refused(prior, codes=int(image.lengths)) is not None:
            with pytest.raises(UserError, match="kept"):
                prior.sample(1, SamplingConfig(codes=int(image.lengths)), kept=kept)

    def test_learning_on_another_device_waits_for_nothing(self):
        prior = self.build()
        codes = random_codes(prior.spec, 8)
        expected = prior.eval().loss(codes).total
        with another_device() as device:
            there = codes.to(device.name)
            found = prior.to(device.name).loss(there).total.cpu()
            torch.testing.assert_close(found, expected, **tolerance(device))
            device.forget()
            prior.train().loss(there).total.backward()
            _assert_few_waits(device, self.read_backs)

    def test_drawing_on_another_device_seldom_waits(self):
        """Not for every token: once in `STEPS_BETWEEN_LOOKS`, and where images end."""
        prior = self.build().eval()
        length = int(random_codes(prior.spec, 1).lengths)
        with another_device() as device:
            prior.to(device.name)
            device.forget()
            codes = prior.sample(3, SamplingConfig(), _seeded())
            looks = 1 + prior.spec.longest_length // STEPS_BETWEEN_LOOKS
            if self.read_backs is not None:
                assert len(device.read_backs) <= 4 + 2 * looks, f"read back to the host: {'; '.join(device.read_backs)}"
            codes.validate(prior.spec)
            _drawn_or_refused(prior, codes=length)
            prior.sample(1, SamplingConfig(precision="bfloat16", top_k=2, top_p=0.9), _seeded())

    def test_its_weights_can_be_kept(self):
        prior, other = self.build().eval(), self.build().eval()
        _train(prior, random_codes(prior.spec, 4), steps=1)
        other.load_state_dict(prior.eval().state_dict())
        codes = random_codes(prior.spec, 4)
        torch.testing.assert_close(other.loss(codes).total, prior.loss(codes).total)

    def test_codes_of_another_number_of_ids_are_refused(self):
        prior = self.build()
        for codebooks in {1, 2, 3} - {prior.spec.codebooks}:
            with pytest.raises(UserError, match="ids"):
                prior.loss(random_codes(replace(prior.spec, codebooks=codebooks), 4))

    def test_what_cannot_be_drawn_is_refused(self):
        prior = self.build()
        with pytest.raises(UserError):
            prior.sample(0, SamplingConfig())
        with pytest.raises(UserError, match="batch_size"):
            prior.sample(2, SamplingConfig(), batch_size=0)
        with pytest.raises(UserError, match="class"):
            prior.sample(torch.tensor([0]), SamplingConfig())


class ConditionalPriorContract(ABC):
    """Tests of a prior with classes, which a test class inherits.

    Attributes:
        read_backs: See `PriorContract`.
    """

    read_backs: int | None = 0

    @abstractmethod
    def build(self, classes: int, label_dropout: float) -> Prior:
        """A tiny prior with fresh weights, which knows so many classes and hides them from training so often."""

    def test_classes_are_learned(self):
        prior = self.build(2, 0.0)
        codes = random_codes(prior.spec, 2, classes=2)
        other = Codes(codes.ids, codes.lengths, codes.grains, codes.labels.flip(0))
        _train(prior, codes, steps=100)
        assert prior.classes == 2
        assert nats(prior.loss(codes), codes) < 0.7 * nats(prior.loss(other), other)
        _assert_drawn_as_asked(prior, codes, torch.arange(24) % 2)

    def test_labels_are_hidden_in_training_alone(self):
        prior = self.build(2, 0.5).eval()
        _assert_measures_alike(prior, random_codes(prior.spec, 8, classes=2))

    def test_labels_are_kept(self):
        prior = self.build(3, 0.0)
        labels = torch.tensor([2, 0, 2, 1])
        codes = prior.sample(labels, SamplingConfig(), _seeded(), batch_size=2)
        assert codes.labels.tolist() == labels.tolist()
        assert codes.equal(prior.sample(labels, SamplingConfig(), _seeded()))

    def test_labels_that_are_hidden_teach_nothing(self):
        prior = self.build(2, 1.0).train()
        codes = random_codes(prior.spec, 4, classes=2)
        other = Codes(codes.ids, codes.lengths, codes.grains, codes.labels.flip(0))
        totals = []
        for batch in (codes, other):
            torch.manual_seed(0)
            totals.append(prior.loss(batch).total)
        assert totals[0] == totals[1]

    def test_guidance_leads_from_no_class_to_the_class(self):
        prior = self.build(3, 0.1)
        labels = torch.tensor([1, 2, 0])
        guided = prior.sample(labels, SamplingConfig(guidance=2.0), _seeded()).validate(prior.spec)
        assert guided.labels.tolist() == labels.tolist()
        assert guided.equal(prior.sample(labels, SamplingConfig(guidance=2.0), _seeded(), batch_size=2))
        # at 0 nothing of the class is left
        unguided = prior.sample(labels, SamplingConfig(guidance=0.0), _seeded())
        assert unguided.ids.equal(prior.sample(3, SamplingConfig(), _seeded()).ids)

    def test_classes_are_learned_and_guide_on_another_device(self):
        prior = self.build(3, 0.1)
        with another_device() as device:
            prior.to(device.name)
            codes = random_codes(prior.spec, 4, classes=3).to(device.name)
            device.forget()
            prior.train().loss(codes).total.backward()
            _assert_few_waits(device, self.read_backs)
            guided = prior.sample(torch.tensor([1, 2, 0]), SamplingConfig(guidance=2.0), _seeded(), batch_size=2)
            assert guided.validate(prior.spec).labels.tolist() == [1, 2, 0]

    def test_what_cannot_be_learned_or_drawn_is_refused(self):
        prior = self.build(3, 0.0)
        codes = random_codes(prior.spec, 2)
        for labels in (None, torch.tensor([0, -1]), torch.tensor([3, 0])):
            with pytest.raises(UserError, match="label"):
                prior.loss(Codes(codes.ids, codes.lengths, codes.grains, labels))
        for labels in (torch.tensor([3]), torch.tensor([-1]), 2):
            with pytest.raises(UserError, match="labels"):
                prior.sample(labels, SamplingConfig())
        with pytest.raises(UserError, match="guidance"):
            prior.sample(torch.tensor([0]), SamplingConfig(guidance=2.0))


class ConditionedPriorContract(ABC):
    """Tests of a prior that reads what an image is conditioned on: see those that inherit it.

    Attributes:
        read_backs: See `PriorContract`.
        kind: What it reads, as `Codes` calls it.
        four: Of four images; of texts, the second is empty.
    """

    read_backs: int | None = 0
    kind: ClassVar[str]
    four: ClassVar[Any]

    @abstractmethod
    def build(self, label_dropout: float) -> Prior:
        """A tiny prior with fresh weights, which reads such and hides them from training so often."""

    def test_conditions_are_learned(self):
        prior = self.build(0.0)
        codes = self._codes(prior, [0, 2])
        _train(prior, codes, steps=80)
        other = replace(codes, **{self.kind: getattr(codes[[1, 0]], self.kind)})
        assert nats(prior.loss(codes), codes) < 0.7 * nats(prior.loss(other), other)
        _assert_drawn_as_asked(prior, codes, getattr(codes[[0, 1] * 12], self.kind))

    def test_conditions_are_hidden_in_training_alone(self):
        prior = self.build(0.5).eval()
        _assert_measures_alike(prior, self._codes(prior, [0, 1, 2, 3] * 2))

    def test_every_parameter_gets_a_gradient(self):
        prior = self.build(0.5).train()
        prior.loss(self._codes(prior, [0, 1, 2, 3] * 8)).total.backward()
        trained = {name: parameter for name, parameter in prior.named_parameters() if parameter.requires_grad}
        assert not [name for name, parameter in trained.items() if parameter.grad is None]

    def test_images_of_a_batch_do_not_meet(self):
        prior = self.build(0.0).eval()
        codes = self._codes(prior)
        together = nats(prior.loss(codes), codes)
        torch.testing.assert_close(together, sum(nats(prior.loss(image), image) for image in codes))

    def test_conditions_are_kept_whatever_the_batches_and_the_mode(self):
        prior = self.build(0.0).train()
        codes = prior.sample(self.four, SamplingConfig(), _seeded(), batch_size=2).validate(prior.spec)
        self._assert_kept(codes)
        assert codes.equal(prior.eval().sample(self.four, SamplingConfig(), _seeded()))
        prior.sample(self.four, SamplingConfig(precision="bfloat16"), _seeded()).validate(prior.spec)

    def test_conditions_that_are_hidden_teach_nothing(self):
        prior = self.build(1.0).train()
        codes = self._codes(prior)
        totals = []
        for batch in (codes, replace(codes, **{self.kind: getattr(codes[[3, 2, 1, 0]], self.kind)})):
            torch.manual_seed(0)
            totals.append(prior.loss(batch).total)
        torch.testing.assert_close(*totals)

    def test_guidance_leads_from_nothing_to_the_condition(self):
        prior = self.build(0.1)
        guided = prior.sample(self.four, SamplingConfig(guidance=2.0), _seeded()).validate(prior.spec)
        assert guided.equal(prior.sample(self.four, SamplingConfig(guidance=2.0), _seeded(), batch_size=2))
        # at 0 nothing of the condition is left
        expected = prior.sample(4, SamplingConfig(), _seeded()).ids
        assert prior.sample(self.four, SamplingConfig(guidance=0.0), _seeded()).ids.equal(expected)

    def test_conditions_are_learned_and_guide_on_another_device(self):
        prior = self.build(0.1)
        with another_device() as device:
            prior.to(device.name)
            codes = self._codes(prior).to(device.name)
            device.forget()
            prior.train().loss(codes).total.backward()
            _assert_few_waits(device, self.read_backs)
            guided = prior.sample(self.four, SamplingConfig(guidance=2.0), _seeded(), batch_size=2)
            self._assert_kept(guided.validate(prior.spec).to("cpu"))

    def test_what_cannot_be_learned_or_drawn_is_refused(self):
        prior = self.build(0.0)
        with pytest.raises(UserError, match=self.kind):
            prior.loss(random_codes(prior.spec, 2))
        with pytest.raises(UserError, match="classes"):
            prior.sample(torch.tensor([0]), SamplingConfig())
        texts = ["\ud800"] if self.kind == "texts" else ["a"]
        for wanted in (texts, torch.zeros(1, 2), torch.full((1, 3), torch.nan), torch.zeros(0, 3)):
            with pytest.raises(UserError, match=r"text|embeddings"):
                prior.sample(wanted, SamplingConfig())
        for options in (SamplingConfig(), SamplingConfig(guidance=2.0)):
            with pytest.raises(UserError, match=self.kind.removesuffix("s")):
                prior.sample(2, options)

    def _codes(self, prior: Prior, chosen: Sequence[int] = (0, 1, 2, 3)) -> Codes:
        """Codes of images of these conditions."""
        four = replace(random_codes(prior.spec, 4), **{self.kind: self.four})
        return replace(random_codes(prior.spec, len(chosen)), **{self.kind: getattr(four[list(chosen)], self.kind)})

    def _assert_kept(self, codes: Codes) -> None:
        assert codes.equal(replace(codes, **{self.kind: self.four}))


class DescribedPriorContract(ConditionedPriorContract):
    """Tests of a prior that reads texts, which a test class inherits: it gives `ConditionedPriorContract.build`."""

    kind = "texts"
    four = ("a cat", "", "two dogs \N{EM DASH} or thr\N{LATIN SMALL LETTER E WITH DIAERESIS}e " * 3, "b")

    def test_it_says_that_it_reads_texts(self):
        prior = self.build(0.1)
        assert prior.conditioning.described and prior.classes is None
        # an empty one is none
        expected = prior.sample(4, SamplingConfig(), _seeded()).ids
        assert prior.sample([""] * 4, SamplingConfig(), _seeded()).ids.equal(expected)


class EmbeddedPriorContract(ConditionedPriorContract):
    """Tests of a prior that reads embeddings of three numbers, which a test class inherits: it gives
    `ConditionedPriorContract.build`.
    """

    kind = "embeddings"
    four = torch.tensor([[0.3, -1.2, 0.0], [0.0, 0.0, 0.0], [-0.7, 0.4, 1.5], [20.0, 3.0, -9.0]])

    def test_it_says_that_it_reads_embeddings(self):
        prior = self.build(0.0)
        assert prior.conditioning.embedding_size == 3 and prior.classes is None and not prior.conditioning.described


def _tells_likelihoods(prior: Prior) -> bool:
    return prior.loss(random_codes(prior.spec, 1)).likelihood


def _assert_drawn_as_often_as_likely(prior: Prior) -> None:
    outcomes = every_image(prior.spec)
    chosen = torch.randperm(len(outcomes), generator=_seeded())[:5]
    if not _tells_likelihoods(prior):
        _train(prior, outcomes[chosen], steps=300)
        learned = {key_of(image) for image in outcomes[chosen]}
        often = Counter(map(key_of, prior.sample(200, SamplingConfig(), _seeded())))
        assert sum(often[key] for key in learned) > 40 and len(learned & often.keys()) >= 3
        return
    _train(prior, outcomes[chosen], steps=30)
    count = 2000
    expected = count * likelihoods(prior, outcomes)
    found = Counter(map(key_of, prior.sample(count, SamplingConfig(), _seeded())))
    drawn = torch.tensor([found[key_of(image)] for image in outcomes])
    assert drawn.sum() == count
    assert ((expected - drawn) / (expected + 1).sqrt()).max() < 5


def _assert_drawn_as_asked(prior: Prior, codes: Codes, wanted: Tensor | Sequence[str]) -> None:
    """See that a prior which has learned two images draws each for its own condition, asked for in turn."""
    drawn = [key_of(image) for image in prior.sample(wanted, SamplingConfig(), _seeded(), batch_size=5)]
    asked, other = [[key_of(image) for image in pair] * (len(drawn) // 2) for pair in (codes, codes[[1, 0]])]
    own, swapped = (sum(map(operator.eq, drawn, keys)) for keys in (asked, other))
    assert own >= swapped + 10, f"of {len(drawn)} images, {own} are as asked for, and {swapped} as for the other"


def _assert_measures_alike(prior: Prior, codes: Codes) -> None:
    totals = []
    for seed in range(4):
        torch.manual_seed(seed)
        totals.append(prior.loss(codes).total)
    assert all(total == totals[0] for total in totals), "measuring depends on chance"


def _assert_few_waits(device: Cuda | PretendedDevice, read_backs: int | None) -> None:
    if read_backs is not None:
        assert len(device.read_backs) <= read_backs, f"read back to the host: {'; '.join(device.read_backs)}"
        assert not device.uploads, f"copied to the device: {'; '.join(device.uploads)}"


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def _scatter(prior: Prior, deviation: float) -> None:
    """Give a prior weights that are that far from 0."""
    torch.manual_seed(0)
    for parameter in prior.parameters():
        parameter.copy_(deviation * torch.randn_like(parameter))


def _train(prior: Prior, codes: Codes, steps: int) -> None:
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    prior.train()
    for _ in range(steps):
        optimizer.zero_grad()
        prior.loss(codes).total.backward()
        optimizer.step()
    prior.eval()


def _drawn_or_refused(prior: Prior, **options) -> Codes | None:
    """Five images, or None where the prior says that it does not know the first of the options."""
    try:
        return prior.sample(5, SamplingConfig(**options), _seeded()).validate(prior.spec)
    except UserError as error:
        assert next(iter(options)) in str(error)
        return None
