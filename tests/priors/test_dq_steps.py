from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.priors.test_dq_transformer import small
from vltok.codes import Codes
from vltok.drawing.sampling import drawn, seed_of, streams, uniforms
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.nn.attention import Packing
from vltok.priors.dq_steps import CoarseToFineSteps
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.orderings import Sequences
from vltok.priors.stepwise import StepwiseDrawing

# granularity, position, content
Token = tuple[int, int, int]
SEED = seed_of(torch.Generator().manual_seed(0))


def lively(deviation: float = 0.4, **changes) -> DQTransformer:
    """A small prior whose distribution is far from uniform, the more so the more its weights deviate from 0."""
    prior = small(**changes).eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=deviation)
    return prior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def legal_positions(prior: DQTransformer, granularity: int, tokens: list[Token]) -> list[int]:
    """Algorithm 1's mask in plain Python, from the tokens (granularity, position, content) so far."""
    spec = prior.spec
    width, side = spec.regions[1], spec.sides

    def region(k: int, place: int) -> int:
        row, column = divmod(place, width * side[k])
        return row // side[k] * width + column // side[k]

    placed = [(k, place) for k, place, _ in tokens if place < spec.positions(k)]
    owners = {region(k, place): k for k, place in placed}
    legal = [
        place
        for place in range(spec.positions(granularity))
        if owners.get(region(granularity, place), granularity) == granularity and (granularity, place) not in placed
    ]
    sizes = Counter(region(k, place) for k, place in placed)
    complete = all(sizes[name] == spec.codes_per_region[k] for name, k in owners.items())
    if granularity < spec.granularities - 1 and complete:
        legal.append(spec.position_end(granularity))
    return legal


def predict(prior: DQTransformer, rows: list[list[Token]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of each row's last token, by the whole model without a cache: its position from the tokens before it, and
    its content from those and its position."""
    granularities, positions, contents = (
        torch.tensor([token[index] for row in rows for token in row]) for index in range(3)
    )
    packing = Packing(torch.tensor([len(row) for row in rows]))
    with torch.no_grad():
        found = prior(Sequences(contents, positions, granularities, packing))
    last = torch.tensor(found.targets.packing.lengths).cumsum(0) - 1
    return found.positions[last], found.contents[last, : prior.spec.codebook_size]


def start(prior: DQTransformer, granularity: int) -> Token:
    return granularity, prior.spec.position_start(granularity), prior.spec.content_start


def end(prior: DQTransformer, granularity: int) -> Token:
    return granularity, prior.spec.position_end(granularity), prior.spec.content_end


def algorithm_1(prior: DQTransformer, images: int, generator: torch.Generator) -> list[list[Token]]:
    """Algorithm 1 as it stands: granularity by granularity, all images together, everything computed anew."""
    rows: list[list[Token]] = [[] for _ in range(images)]
    for granularity in range(prior.spec.granularities):
        rows = [[*row, start(prior, granularity)] for row in rows]
        running = list(range(images))
        while running:
            logits, _ = predict(prior, [[*rows[row], (granularity, 0, 0)] for row in running])
            mask = torch.full_like(logits, -torch.inf)
            for index, row in enumerate(running):
                legal = legal_positions(prior, granularity, rows[row])
                mask[index, legal or [prior.spec.position_end(granularity)]] = 0
            places = (logits + mask).softmax(-1).multinomial(1, generator=generator)[:, 0].tolist()
            _, logits = predict(
                prior, [[*rows[row], (granularity, place, 0)] for row, place in zip(running, places, strict=True)]
            )
            contents = logits.softmax(-1).multinomial(1, generator=generator)[:, 0].tolist()
            for row, place, content in zip(running, places, contents, strict=True):
                ended = place == prior.spec.position_end(granularity)
                rows[row].append(end(prior, granularity) if ended else (granularity, place, content))
            running = [row for row in running if rows[row][-1] != end(prior, granularity)]
    return rows


def codes_of(prior: DQTransformer, rows: list[list[Token]]) -> Codes:
    granularities, positions, contents = (
        torch.tensor([token[index] for row in rows for token in row]) for index in range(3)
    )
    packing = Packing(torch.tensor([len(row) for row in rows]))
    return prior.ordering.codes(Sequences(contents, positions, granularities, packing))


def outcome(image: Codes) -> tuple:
    return tuple(image.grains.flatten().tolist()), tuple(image.ids.tolist())


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_draws_have_the_exact_probabilities_of_a_tiny_prior():
    prior = lively(codebook_size=2, regions=[1, 1])
    exact: dict[tuple, float] = defaultdict(float)
    # every way to draw an image, all those of one length at a time
    first, _ = predict(prior, [[start(prior, 0), (0, 0, 0)]])
    shares = first[0, [0, prior.spec.position_end(0)]].softmax(-1).tolist()
    paths = [([start(prior, 0), (0, 0, content)], shares[0]) for content in (0, 1)]
    _, contents = predict(prior, [paths[0][0]])
    for tokens, share in paths:
        exact[outcome(codes_of(prior, [tokens])[0])] = share * contents[0].softmax(-1)[tokens[-1][2]].item()
    paths = [([start(prior, 0), end(prior, 0), start(prior, 1)], shares[1])]
    for _ in range(4):
        positions, _ = predict(prior, [[*tokens, (1, 0, 0)] for tokens, _ in paths])
        placed = []
        for (tokens, share), logits in zip(paths, positions, strict=True):
            legal = legal_positions(prior, 1, tokens)
            weights = logits[legal].softmax(-1).tolist()
            placed += [(tokens, place, share * weight) for place, weight in zip(legal, weights, strict=True)]
        _, contents = predict(prior, [[*tokens, (1, place, 0)] for tokens, place, _ in placed])
        paths = [
            ([*tokens, (1, place, content)], share * weight)
            for (tokens, place, share), logits in zip(placed, contents, strict=True)
            for content, weight in enumerate(logits.softmax(-1).tolist())
        ]
    for image, (_, share) in zip(codes_of(prior, [tokens for tokens, _ in paths]), paths, strict=True):
        exact[outcome(image)] += share
    assert len(exact) == 2 + 2**4
    assert sum(exact.values()) == pytest.approx(1)
    count = 4000
    found = Counter(map(outcome, prior.sample(count, SamplingConfig(), seeded())))
    # chi-square of 17 degrees of freedom: below 46 in all but one of 5000 cases
    assert sum((found[key] - count * share) ** 2 / (count * share) for key, share in exact.items()) < 46


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_draws_have_the_distribution_of_algorithm_1():
    prior = lively(0.2, codebook_size=2, factors=[4, 2, 1], regions=[1, 2], layers=(1, 1))
    count = 300

    def kinds(images: Codes) -> Counter:
        """The grain map, with whether the first code is 0 and most codes are."""
        return Counter(
            (outcome(image)[0], image.ids[0].item(), image.ids.float().mean().item() < 0.5) for image in images
        )

    theirs = kinds(codes_of(prior, algorithm_1(prior, count, seeded(1))))
    ours = kinds(prior.sample(4 * count, SamplingConfig(), seeded(2), batch_size=200))
    frequent = [key for key in theirs | ours if theirs[key] + ours[key] / 4 >= 10]
    assert len(frequent) >= 8
    # two-sample chi-square: its standard deviation is √(2 · degrees of freedom)
    statistic = sum(
        (theirs[key] - ours[key] / 4) ** 2 / ((theirs[key] + ours[key]) / 5) / (1 + 1 / 4) for key in frequent
    )
    assert statistic < len(frequent) + 4 * (2 * len(frequent)) ** 0.5


@contextmanager
def observed(prior: DQTransformer, observe) -> Iterator[None]:
    """While a function sees every step of drawing."""
    with pytest.MonkeyPatch.context() as patch:
        steps = partial(CoarseToFineSteps, prior)
        patch.setattr(prior, "drawing", lambda sampling: StepwiseDrawing(steps(sampling), observe), raising=False)
        yield


def traced(prior: DQTransformer, images: int, sampling: SamplingConfig, seed: int = 0, **options):
    """What is drawn, and each image's tokens."""
    rows: dict[int, list[Token]] = defaultdict(lambda: [start(prior, 0)])

    def observe(numbers, state) -> None:
        columns = (numbers, state.granularity, state.position, state.content)
        for image, *token in zip(*(column.tolist() for column in columns), strict=True):
            if token[1] == prior.spec.position_start(token[0]):
                token[2] = prior.spec.content_start
            rows[image].append(tuple(token))

    with observed(prior, observe):
        codes = prior.sample(images, sampling, seeded(seed), **options)
    # what is drawn after an image is finished does not count
    for image, length in enumerate(codes.lengths.tolist()):
        ends = [n for n, token in enumerate(rows[image]) if token[2] < prior.spec.codebook_size]
        rows[image] = rows[image][: ends[length - 1] + 1]
    return codes, [rows[image] for image in range(images)]


@pytest.mark.parametrize("factors", [[1], [2, 1], [4, 2, 1]], ids=str)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_cached_logits_equal_those_of_the_whole_model(factors, batch_size):
    prior = lively(factors=factors, regions=[2, 1])
    seen: list[torch.Tensor] = []
    heads = (prior.position_head, prior.content_head)
    hooks = [head.register_forward_hook(lambda module, inputs, output: seen.append(output)) for head in heads]
    order: list[list[int]] = []
    images = 5
    with observed(prior, lambda numbers, state: order.append(numbers.tolist())):
        prior.sample(images, SamplingConfig(), seeded(), batch_size)
    for hook in hooks:
        hook.remove()
    _, rows = traced(prior, images, SamplingConfig(), batch_size=batch_size)
    cached = defaultdict(list)
    for step, batch in enumerate(order):
        for row, image in enumerate(batch):
            cached[image].append((seen[2 * step][row], seen[2 * step + 1][row]))
    for image, tokens in enumerate(rows):
        for length in range(2, len(tokens) + 1):
            position, content = predict(prior, [tokens[:length]])
            ours = cached[image][length - 2]
            assert_close(ours[0], position[0], rtol=1e-4, atol=1e-4)
            assert_close(ours[1][: content.shape[1]], content[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factors", [[1], [2, 1], [4, 2, 1]], ids=str)
@pytest.mark.parametrize("positions", ["sampled", "implied"])
@pytest.mark.parametrize("order", ["row-first", "region-first"])
def test_every_draw_decodes_and_every_position_is_legal(factors, positions, order):
    prior = lively(factors=factors, order=order)
    codes, rows = traced(prior, 6, SamplingConfig(positions=positions))
    codes.validate(prior.spec)
    for tokens, image in zip(rows, codes, strict=True):
        for n, (granularity, position, _) in enumerate(tokens):
            if position != prior.spec.position_start(granularity):
                assert position in legal_positions(prior, granularity, tokens[:n])
        finest = [token for token in tokens if token[0] == prior.spec.granularities - 1]
        walked = prior.ordering(image)
        in_order = walked.positions[walked.granularities == prior.spec.granularities - 1].tolist()
        assert positions == "sampled" or [token[1] for token in finest] == in_order[: len(finest)]


@settings(max_examples=15, deadline=None)
@given(
    factors=st.sampled_from([[1], [2, 1], [3, 1], [4, 2, 1]]),
    regions=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    seed=st.integers(0, 2**31),
)
@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_draws_survive_the_round_trip_through_sequences(factors, regions, seed):
    prior = lively(factors=factors, regions=list(regions), layers=(1, 1))
    codes = prior.sample(3, SamplingConfig(), seeded(seed)).validate(prior.spec)
    assert prior.ordering.codes(prior.ordering(codes)).equal(codes)


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_images_do_not_depend_on_the_batch_they_are_drawn_in():
    prior = lively().double()
    expected = prior.sample(9, SamplingConfig(), seeded(5))
    for batch_size in (1, 2, 4, 20):
        progress: list[int] = []
        codes = prior.sample(9, SamplingConfig(), seeded(5), batch_size=batch_size, progress=progress.append)
        assert codes.equal(expected)
        assert sum(progress) == 9
    assert prior.sample(4, SamplingConfig(), seeded(5), first_image=3).equal(expected[3:7])
    assert not prior.sample(9, SamplingConfig(), seeded(6)).equal(expected)


def test_one_generator_gives_new_images_each_time():
    prior, generator = lively(), seeded()
    first = prior.sample(4, SamplingConfig(), generator)
    assert not prior.sample(4, SamplingConfig(), generator).equal(first)


@pytest.mark.parametrize("codes", [6, 9, 12, 24])
def test_an_exact_number_of_codes_is_met(codes):
    drawn = lively().sample(8, SamplingConfig(codes=codes), seeded())
    assert drawn.lengths.tolist() == [codes] * 8


def test_an_upper_bound_is_kept_and_reached():
    free = lively().sample(32, SamplingConfig(), seeded()).lengths
    # lengths are multiples of 3: 6 regions of 1 or 4 codes
    bounded = lively().sample(32, SamplingConfig(max_codes=14), seeded()).lengths
    assert free.max() > 14
    assert bounded.max() == 12


@pytest.mark.parametrize(
    ("ratios", "counts"), [({2: 0.5, 1: 0.5}, [3, 3]), ({2: 0.9, 1: 0.1}, [5, 1]), ({1: 1.0}, [0, 6])]
)
def test_ratios_are_met_exactly(ratios, counts):
    drawn = lively().sample(8, SamplingConfig(ratios=ratios), seeded())
    assert [grains.flatten().bincount(minlength=2).tolist() for grains in drawn.grains] == [counts] * 8


def test_three_granularities_meet_a_length_in_several_ways():
    prior = lively(0.1, factors=[4, 2, 1])
    drawn = prior.sample(40, SamplingConfig(codes=24), seeded())
    assert drawn.lengths.tolist() == [24] * 40
    mixes = {tuple(grains.flatten().bincount(minlength=3).tolist()) for grains in drawn.grains}
    assert mixes == {(0, 6, 0), (4, 1, 1)}


def test_greedy_draws_are_alike():
    drawn = lively().sample(3, SamplingConfig(top_k=1, position_top_k=1), seeded())
    assert drawn[0].equal(drawn[1])


def test_classes_are_drawn_and_kept():
    prior = lively(classes=4)
    drawn = prior.sample(torch.tensor([3, 0, 3]), SamplingConfig(top_k=1, position_top_k=1), seeded(), batch_size=2)
    assert drawn.labels.tolist() == [3, 0, 3]
    assert drawn[0].equal(drawn[2])
    assert not drawn[0].ids.equal(drawn[1].ids)


def test_guidance_extrapolates_from_the_unconditional_logits():
    prior = lively(classes=4, label_dropout=0.1)
    labels = torch.tensor([1, 2])
    draws = {
        guidance: prior.sample(labels, SamplingConfig(guidance=guidance, codes=12), seeded(3))
        for guidance in (0.0, 1.0, 1.0 + 1e-6, 3.0)
    }
    # 1 is the conditional model, 0 the unconditional one
    assert draws[1.0].equal(draws[1.0 + 1e-6])
    unconditional = prior.sample(2, SamplingConfig(codes=12), seeded(3))
    assert draws[0.0].ids.equal(unconditional.ids)
    assert unconditional.labels is None
    assert not draws[3.0].ids.equal(draws[1.0].ids)


def test_guided_draws_do_not_depend_on_the_batch():
    prior = lively(classes=4, label_dropout=0.1).double()
    labels = torch.tensor([1, 2, 0, 3, 1])
    sampling = SamplingConfig(guidance=2.0)
    expected = prior.sample(labels, sampling, seeded())
    assert prior.sample(labels, sampling, seeded(), batch_size=2).equal(expected)


def test_bfloat16_leaves_the_prior_as_it_is_and_draws_alike():
    prior = lively()
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    greedy = {"top_k": 1, "position_top_k": 1}
    single = prior.sample(1, SamplingConfig(**greedy), seeded())
    half = prior.sample(1, SamplingConfig(**greedy, precision="bfloat16"), seeded()).validate(prior.spec)
    assert half.ids[:3].tolist() == single.ids[:3].tolist()
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())


def test_sampling_uses_no_dropout_and_no_gradient():
    prior = lively(dropout=0.5).train()
    greedy = SamplingConfig(top_k=1, position_top_k=1)
    codes = prior.sample(2, greedy, seeded())
    assert codes.equal(prior.eval().sample(2, greedy, seeded()))
    assert not codes.ids.requires_grad


def test_tokens_are_drawn_with_the_streams_of_their_images():
    prior = lively().double()
    _, rows = traced(prior, 3, SamplingConfig(temperature=0.7, top_k=5))
    for image, tokens in enumerate(rows):
        for n in range(1, len(tokens)):
            granularity, place, content = tokens[n]
            if content < prior.spec.codebook_size:
                _, logits = predict(prior, [[*tokens[:n], (granularity, place, 0)]])
                kept = logits / 0.7
                kept[kept < kept.topk(5).values[:, -1:]] = -torch.inf
                number = uniforms(streams(SEED, torch.tensor([image])), torch.tensor([2 * (n - 1) + 1]))
                assert drawn(kept, number).item() == content


def test_errors_name_the_remedy():
    prior, conditional = lively(), lively(classes=4)
    for call, message in [
        (lambda: prior.sample(0, SamplingConfig()), "at least 1"),
        (lambda: prior.sample(2, SamplingConfig(), batch_size=0), "batch_size"),
        (lambda: prior.sample(torch.tensor([1]), SamplingConfig()), "no classes"),
        (lambda: prior.sample(2, SamplingConfig(guidance=2.0)), "label_dropout"),
        (lambda: conditional.sample(2, SamplingConfig()), "labels from 0 to 3"),
        (lambda: conditional.sample(torch.tensor([4]), SamplingConfig()), "from 0 to 3"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
    for wrong in ({"temperature": 0.0}, {"top_k": 0}, {"position_top_p": 1.5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            SamplingConfig(**wrong)
