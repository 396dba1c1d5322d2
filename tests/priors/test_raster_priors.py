"""The priors that walk over regions in raster order: raster-scan, global-local, sequence."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import vltok
from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import Prior, SamplingConfig
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal, GlobalLocalSteps
from vltok.priors.raster_scan import RasterScan, RasterScanSteps
from vltok.priors.sequence import SequencePrior, SequenceSteps
from vltok.priors.stepwise import Steps, StepwiseDrawing
from vltok.testing import random_codes

from ..tiny_priors import tiny_prior

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS: dict[type[Prior], Callable[..., Steps]] = {
    RasterScan: RasterScanSteps,
    GlobalLocal: GlobalLocalSteps,
    SequencePrior: SequenceSteps,
}
LAYERS = {DQTransformer: (1, 2), RasterScan: (1, 2), GlobalLocal: (2, 1), SequencePrior: (2,)}
CASES = [
    (RasterScan, (2, 1)),
    (RasterScan, (4, 2, 1)),
    (RasterScan, (1,)),
    (GlobalLocal, (2, 1)),
    (GlobalLocal, (4, 2, 1)),
    (GlobalLocal, (1,)),
    (SequencePrior, (1,)),
    (SequencePrior, ()),
]


def small(kind: type[Prior], factors: tuple[int, ...] = (2, 1), **changes) -> Prior:
    return tiny_prior(kind, factors=factors, **{"layers": LAYERS[kind], **changes})


def lively(prior: Prior) -> Prior:
    """Weights that make a distribution far from uniform."""
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return prior.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recorded(
    prior: Prior, images: int, batch_size: int | None
) -> tuple[Codes, dict[int, dict[nn.Module, list[Tensor]]]]:
    """What is drawn, and what each head said of each image, call by call."""
    said: dict[int, dict[nn.Module, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    step: list[tuple[nn.Module, Tensor]] = []
    heads = [module for name, module in prior.named_children() if name.endswith("_head")]
    hooks = [head.register_forward_hook(lambda head, _, logits: step.append((head, logits))) for head in heads]

    def observe(numbers, state) -> None:
        for head, logits in step:
            for number, row in zip(numbers.tolist(), logits, strict=True):
                said[number][head].append(row)
        step.clear()

    steps = STEPS[type(prior)](prior, SamplingConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "drawing", lambda _: StepwiseDrawing(steps, observe))
        codes = prior.sample(images, SamplingConfig(), seeded(), batch_size)
    for hook in hooks:
        hook.remove()
    return codes, said


@torch.no_grad()
@pytest.mark.parametrize(("kind", "factors"), CASES, ids=str)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_cached_logits_equal_those_of_the_whole_model(kind, factors, batch_size):
    prior = lively(small(kind, factors))
    codes, said = recorded(prior, 5, batch_size)
    for number, image in enumerate(codes):
        contents = torch.stack(said[number][prior.content_head])
        predicted = prior(image)
        if kind is SequencePrior:
            assert_close(contents[: len(predicted[0])], predicted[0], rtol=1e-4, atol=1e-4)
        elif kind is RasterScan:
            assert_close(contents[: len(image.ids)], predicted.contents, rtol=1e-4, atol=1e-4)
            granularities = torch.stack(said[number][prior.position_head])[: len(image.ids)]
            assert_close(granularities, predicted.granularities, rtol=1e-4, atol=1e-4)
        else:
            granularities = torch.stack(said[number][prior.granularity_head])[: image.grains.numel()]
            assert_close(granularities, predicted.granularities, rtol=1e-4, atol=1e-4)
            # in every region as many as the finest granularity has, of which the first are the region's
            of_regions = contents.unflatten(0, (-1, prior.spec.codes_per_region[-1]))[: image.grains.numel()]
            counts = torch.tensor(prior.spec.codes_per_region)[image.grains.flatten()]
            own = torch.arange(of_regions.shape[1]) < counts[:, None]
            assert_close(of_regions[own], predicted.contents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "factors"), [*CASES, (DQTransformer, (2, 1))], ids=str)
@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_sixteen_images_are_learned_to_a_loss_near_zero(kind, factors):
    prior = small(kind, factors, width=32, classes=16, regions=(2, 2)).train()
    # each image has a class of its own, so that nothing about it is uncertain
    codes = random_codes(prior.spec, 16, classes=16)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=5e-3)
    for _ in range(150):
        loss = prior.loss(codes)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.total < 0.1
    drawn = prior.sample(codes.labels, SamplingConfig(), seeded()).validate(prior.spec)
    same = [ours.ids.equal(theirs.ids) for ours, theirs in zip(drawn, codes, strict=True)]
    assert sum(same) >= 12


@pytest.mark.parametrize(("kind", "factors"), CASES, ids=str)
@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"classes": 4, "label_dropout": 0.5}], ids=str)
def test_every_parameter_gets_a_gradient(kind, factors, options):
    prior = small(kind, factors, **options).train()
    prior.loss(random_codes(prior.spec, 8, classes=4)).total.backward()
    without = [name for name, parameter in prior.named_parameters() if not parameter.grad.any()]
    if len(factors) == 1:
        # one granularity leaves nothing to choose, and a region of one code none to read before another
        idle = ("position_head", "granularity_head", "content_embedding", "inside_embedding")
        without = [name for name in without if kind is SequencePrior or not name.startswith(idle)]
    assert not without


@pytest.mark.parametrize("kind", [RasterScan, GlobalLocal])
def test_lengths_are_met_exactly(kind):
    prior = lively(small(kind))
    for codes in (6, 9, 12, 24):
        assert prior.sample(8, SamplingConfig(codes=codes), seeded()).lengths.tolist() == [codes] * 8
    assert prior.sample(32, SamplingConfig(max_codes=14), seeded()).lengths.max() == 12
    drawn = prior.sample(8, SamplingConfig(ratios={2: 0.9, 1: 0.1}), seeded())
    assert [grains.flatten().bincount(minlength=2).tolist() for grains in drawn.grains] == [[5, 1]] * 8


def test_sequences_on_no_grid_have_the_lengths_that_are_asked_for():
    prior = lively(small(SequencePrior, ()))
    assert prior.sample(8, SamplingConfig(codes=4), seeded()).lengths.tolist() == [4] * 8
    assert set(prior.sample(64, SamplingConfig(max_codes=3), seeded()).lengths.tolist()) == {1, 2, 3}
    assert prior.sample(8, SamplingConfig(max_codes=2**70), seeded()).equal(prior.sample(8, SamplingConfig(), seeded()))
    # a code depends on how many there will be
    longer = [prior.sample(8, SamplingConfig(codes=codes, top_k=1), seeded()) for codes in (5, 6)]
    assert not longer[0].ids.view(8, 5).equal(longer[1].ids.view(8, 6)[:, :5])


def test_bundles_name_a_sequence_by_its_name_of_now(tmp_path):
    spec = {"codebook_size": 8, "factors": [8], "regions": [2, 2]}
    config = {"class_path": "fixed-raster", "init_args": {**spec, "width": 8, "heads": 2, "layers": 1}}
    prior = vltok.build(config)
    assert {name.partition(".")[0] for name in prior.state_dict()} == {
        "content_embedding",
        "step_embedding",
        "transformer",
        "content_head",
    }
    vltok.save_prior(prior, tmp_path, "0" * 64)
    assert "class_path: sequence" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(("kind", "factors"), [*CASES, (DQTransformer, (2, 1))])
def test_each_tells_the_order_of_its_codes(kind, factors):
    prior = small(kind, factors).eval()
    codes = random_codes(prior.spec, 3)
    steps = prior.drawing_order(codes).split(codes.lengths.tolist())
    assert [part.sort().values.tolist() for part in steps] == [list(range(length)) for length in codes.lengths]
    # it follows from the grain map alone
    changed = replace(codes, ids=(codes.ids + 1) % prior.spec.codebook_size)
    assert torch.equal(prior.drawing_order(changed), torch.cat(steps))


def test_only_the_granularity_of_a_region_costs_anything_in_raster_order():
    prior = small(RasterScan).eval()
    codes = random_codes(prior.spec, 3)
    loss = prior.loss(codes)
    assert loss.counts["position"] == 3 * 6 and loss.counts["content"] == codes.ids.numel()
    # untrained it is a fair choice between two
    assert_close(loss.parts["position"], torch.tensor(2.0).log(), rtol=0.02, atol=0)


def test_the_global_transformer_sees_a_region_as_a_sum():
    """Of two codes that change places within a region, later regions know nothing."""
    prior = lively(small(GlobalLocal)).double()
    grains = torch.ones(1, 2, 3, dtype=torch.long)
    # the two upper codes of the first region
    first, second = (torch.zeros(24, dtype=torch.long).index_fill(0, torch.tensor([place]), 3) for place in (0, 1))
    codes, swapped = (Codes(ids, torch.tensor([24]), grains) for ids in (first, second))
    ours, theirs = prior(codes), prior(swapped)
    assert_close(ours.granularities, theirs.granularities)
    assert_close(ours.contents[4:], theirs.contents[4:])
    assert not torch.allclose(ours.contents[1:4], theirs.contents[1:4])


@pytest.mark.parametrize(
    ("recipe", "base"),
    [
        ("ffhq_raster_scan", "ffhq_dq_transformer"),
        ("ffhq_global_local", "ffhq_dq_transformer"),
        ("imagenet_vqgan_gpt", "imagenet_dq_transformer"),
        ("quickstart_raster_scan", "quickstart_prior"),
        ("quickstart_global_local", "quickstart_prior"),
        ("quickstart_fixed_raster", "quickstart_prior"),
    ],
)
def test_recipes_match_the_dq_transformers_parameters(recipe, base):
    def parameters(name: str) -> int:
        # a recipe leaves out what follows from the codes
        size, factors, side = (512, [4, 8], 8) if name.startswith("quickstart") else (1024, [8, 16], 16)
        if name == "quickstart_fixed_raster":
            factors, side = [4], 16
        factors = [16] if name == "imagenet_vqgan_gpt" else factors
        spec = {"codebook_size": size, "factors": factors, "regions": [side, side]}
        with torch.device("meta"):
            prior = vltok.build(name, "model.prior", {f"model.prior.{key}": value for key, value in spec.items()})
        return sum(parameter.numel() for parameter in prior.parameters())

    assert parameters(recipe) == pytest.approx(parameters(base), rel=0.05)


def test_errors_name_the_remedy():
    with pytest.raises(UserError, match="raster-scan"):
        small(SequencePrior, (2, 1))
    for kind in (RasterScan, GlobalLocal):
        with pytest.raises(UserError, match="heads"):
            small(kind, heads=3)
        with pytest.raises(UserError, match="positions is implied"):
            small(kind).sample(1, SamplingConfig(positions="implied"))
        with pytest.raises(UserError, match="nearest is 6"):
            small(kind).sample(1, SamplingConfig(codes=7))
    for option in ({"codes": 6}, {"max_codes": 9}, {"ratios": {1: 1.0}}):
        with pytest.raises(
            UserError, match=rf"^{next(iter(option))} is .*, but a sequence on a grid has no such option: leave it out"
        ):
            small(SequencePrior, (1,)).sample(1, SamplingConfig(**option))
    with pytest.raises(UserError, match="position_top_k is 3, but a sequence on a grid has no such option"):
        small(SequencePrior, (1,)).sample(1, SamplingConfig(position_top_k=3))
    for option, named in (({"codes": 7}, "codes is 7"), ({"max_codes": 0}, "max_codes is 0")):
        with pytest.raises(UserError, match=f"{named}, but sequences have from 1 to 6 codes"):
            small(SequencePrior, ()).sample(1, SamplingConfig(**option))
    with pytest.raises(UserError, match=r"ratios is .*, but codes on no grid have no regions: give codes or max_codes"):
        small(SequencePrior, ()).sample(1, SamplingConfig(ratios={1: 1.0}))
