import pytest
import torch
from torch.testing import assert_close

from vltok.drawing.sampling import Guidance, LogitWatch, drawn, filtered, seed_of, streams, uniforms
from vltok.errors import UserError


@pytest.mark.parametrize("k", [1, 5, 20])
def test_top_k_equals_the_originals(k, parity):
    tensors, _ = parity("misc")
    assert torch.equal(filtered(tensors["in.logits"], 1.0, k, 1.0), tensors[f"top_k.{k}"])


@pytest.mark.parametrize("p", ["0.1", "0.5", "0.9", "1.0"])
def test_top_p_equals_the_originals(p, parity):
    tensors, _ = parity("misc")
    kept = filtered(tensors["in.probs"].log(), 1.0, None, float(p)).softmax(-1)
    assert_close(kept, tensors[f"top_p.{p}"])


def test_top_k_beyond_the_vocabulary_keeps_all():
    logits = torch.randn(2, 5)
    assert torch.equal(filtered(logits, 1.0, 9, 1.0), logits)


def test_filters_never_bring_back_what_is_forbidden():
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 0.0]])
    assert filtered(logits, 0.5, 3, 0.99)[0].tolist() == [-torch.inf, 0.0, -torch.inf, -2.0]
    assert filtered(logits, 1.0, 3, 1e-6)[0].tolist() == [-torch.inf, 1.0, -torch.inf, -torch.inf]


def test_draws_follow_the_distribution_and_never_take_what_is_forbidden():
    logits = torch.tensor([-torch.inf, 0.3, -torch.inf, 1.2, -0.5, -torch.inf]).expand(40_000, -1)
    tokens = drawn(logits, uniforms(streams(7, torch.arange(40_000)), torch.zeros(40_000, dtype=torch.long)))
    shares = tokens.bincount(minlength=6) / len(tokens)
    assert_close(shares, logits[0].softmax(-1), rtol=0, atol=0.01)
    assert not shares[[0, 2, 5]].any()


def test_draws_at_the_ends_of_the_interval_are_legal():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    ends = torch.tensor([0.0, 1 - 2.0**-32], dtype=torch.float64)
    assert drawn(logits, ends).tolist() == [1, 2]


def test_uniforms_depend_on_seed_image_and_count_alone():
    images, draws = torch.arange(6), torch.tensor([0, 0, 0, 3, 3, 3])
    numbers = uniforms(streams(1, images), draws)
    assert torch.equal(numbers[[4, 1]], uniforms(streams(1, torch.tensor([4, 1])), torch.tensor([3, 0])))
    assert not torch.isin(uniforms(streams(2, images), draws), numbers).any()


def test_uniforms_are_uniform_and_uncorrelated():
    images, draws = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    numbers = uniforms(streams(0, images.flatten()), draws.flatten()).view(200, 200)
    assert 0 <= numbers.min() < numbers.max() < 1
    counts = torch.histc(numbers.float(), 100, 0, 1)
    # chi-square with 99 degrees of freedom: below 160 in all but one of 10 000 cases
    assert ((counts - 400) ** 2 / 400).sum() < 160
    centred = numbers - 0.5
    for neighbours in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(neighbours.mean() * 12) < 0.03


def test_a_generator_gives_another_seed_each_time_and_can_be_repeated():
    generator = torch.Generator().manual_seed(3)
    seeds = [seed_of(generator), seed_of(generator)]
    generator.manual_seed(3)
    assert seeds == [seed_of(generator), seed_of(generator)]
    assert seeds[0] != seeds[1]


def test_guidance_leads_from_the_row_without_the_class_to_the_one_with_it():
    guidance = Guidance(3.0)
    assert guidance.labels(torch.tensor([4, 2]), 9).tolist() == [4, 2, 9, 9]
    assert guidance.rows(torch.tensor([1, 0])).tolist() == [1, 0, 1, 0]
    assert guidance.kept(torch.tensor([1]), 2).tolist() == [1, 3]
    logits = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.0, 2.0], [5.0, 5.0]])
    assert guidance.logits(logits).tolist() == [[3.0, -4.0], [5.0, 5.0]]


def test_without_guidance_there_is_one_row_for_each_image():
    guidance, labels = Guidance(1.0), torch.tensor([4, 2])
    assert guidance.labels(labels, None) is guidance.rows(labels) is guidance.kept(labels, 2) is labels


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 1e-46, 1e-300])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e38])
def test_a_temperature_near_zero_leaves_the_likeliest(temperature, scale):
    logits = torch.tensor([[0.3, -torch.inf, 1.2, -0.5]]) * scale
    kept = filtered(logits, temperature, None, 1.0)
    assert drawn(kept.expand(2, -1), torch.tensor([0.0, 1 - 2.0**-32], dtype=torch.float64)).tolist() == [2, 2]


@pytest.mark.parametrize("temperature", [1e38, 1e300])
def test_a_temperature_without_end_leaves_what_is_legal(temperature):
    kept = filtered(torch.tensor([[0.3, -torch.inf, 1.2]]), temperature, None, 1.0)
    assert_close(kept.softmax(-1), torch.tensor([[0.5, 0.0, 0.5]]))


def test_the_likeliest_stays_however_small_top_p_is():
    kept = filtered(torch.tensor([[0.0, 3.0, 1.0]]), 1.0, None, 1e-300)
    assert kept[0].tolist() == [-torch.inf, 3.0, -torch.inf]


@pytest.mark.parametrize("scale", [-1e300, -1.0, 0.0, 2.0, 1e38, 1e300])
def test_guided_logits_are_finite_whatever_the_prior_says(scale):
    hostile = torch.tensor([0.0, 1e38, -1e38, 3e38, torch.inf, -torch.inf])
    pairs = torch.cartesian_prod(hostile, hostile).T
    guidance = Guidance(scale)
    assert guidance.logits(pairs).isfinite().all()
    guidance.watch.require_numbers()


def test_logits_that_are_no_numbers_are_told_of_when_asked():
    watch = LogitWatch()
    watch.require_numbers()
    assert watch.finite(torch.tensor([1.0, torch.inf])).isfinite().all()
    watch.require_numbers()
    assert watch.finite(torch.tensor([1.0, torch.nan])).tolist() == [1.0, 0.0]
    watch.finite(torch.tensor([1.0, 2.0]))
    with pytest.raises(UserError, match=r"^the prior's logits are no numbers"):
        watch.require_numbers()
