import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.tokenizers import gates
from vltok.tokenizers.gates import EntropyGate, FeatureGate, FixedGate, RandomGate, gumbel_like

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
NAMES = {2: ("coarse", "fine"), 3: ("coarse", "median", "fine")}


def pyramid(granularities: int, batch: int = 2, channels: int = 32, regions: tuple[int, int] = (4, 3)) -> list:
    """Feature maps, each twice as fine as the one before."""
    return [
        torch.randn(batch, channels, regions[0] * 2**k, regions[1] * 2**k, requires_grad=True)
        for k in range(granularities)
    ]


def pictures(batch: int = 2, height: int = 64, width: int = 48) -> torch.Tensor:
    return torch.rand(batch, 3, height, width) * 2 - 1


def original(tensors: dict, config: dict, granularities: int) -> tuple[FeatureGate, list[torch.Tensor]]:
    """The original's router as a gate, and the features that it saw."""
    params = config["kwargs"]["router_config"]["params"]
    layers = 1 if params["gate_type"].startswith("1") else 2
    groups = int(params["normalization_type"].removeprefix("group-"))
    gate = FeatureGate(config["kwargs"]["z_channels"], granularities, layers, groups)
    state = {}
    for name in ("weight", "bias"):
        for k, grain in enumerate(NAMES[granularities]):
            state[f"norms.{k}.{name}"] = tensors[f"sd.router.feature_norm_{grain}.{name}"]
        for layer in [""] if layers == 1 else ["0.", "2."]:
            state[f"score.{layer or '0.'}{name}"] = tensors[f"sd.router.gate.{layer}{name}"]
    gate.load_state_dict(state)
    return gate, [tensors[f"out.h_{grain}"] for grain in NAMES[granularities]]


ROUTERS = [("dual_encoder_feat_1fc", 2), ("dual_encoder_feat_2fc", 2), ("triple_encoder_feat_2fc", 3)]


@pytest.mark.parametrize(("name", "granularities"), ROUTERS)
def test_logits_and_choices_equal_the_originals(parity, name, granularities) -> None:
    tensors, config = parity(name)
    gate, features = original(tensors, config, granularities)
    decision = gate.eval()(features, tensors["in.x"])
    torch.testing.assert_close(decision.logits, tensors["out.gate_logits"], **CLOSE)
    assert torch.equal(decision.grains, tensors["out.indices"])
    expected = torch.nn.functional.one_hot(decision.grains, granularities).movedim(-1, 1).float()
    assert torch.equal(decision.assignment, expected) and torch.equal(decision.weights, expected)


@pytest.mark.parametrize(("name", "granularities"), ROUTERS)
def test_drawn_choices_and_gradients_equal_the_originals(parity, monkeypatch, name, granularities) -> None:
    tensors, config = parity(name)
    gate, features = original(tensors, config, granularities)
    noise = tensors["train.gumbel_noise"].movedim(-1, 1)
    monkeypatch.setattr(gates, "gumbel_like", lambda _: noise)
    decision = gate.train()(features, tensors["in.x"])
    assert torch.equal(decision.grains, tensors["train.indices"])
    torch.testing.assert_close(decision.assignment, tensors["train.gate"], **CLOSE)
    routed = 0
    for k, feature in enumerate(features):
        times = features[-1].shape[2] // feature.shape[2]
        copies = feature.repeat_interleave(times, 2).repeat_interleave(times, 3)
        side = features[-1].shape[2] // features[0].shape[2]
        weights = decision.weights[:, k, None].repeat_interleave(side, 2).repeat_interleave(side, 3)
        routed = routed + weights * copies
    output = next(key for key in tensors if key.startswith("train.upstream_h"))
    torch.testing.assert_close(routed, tensors[output.replace("upstream_", "")], **CLOSE)
    loss = (routed * tensors[output]).sum() + (decision.assignment * tensors["train.upstream_gate"]).sum()
    torch.testing.assert_close(loss, tensors["train.loss"], **CLOSE)
    loose = {"rtol": 1e-3, "atol": 1e-4}
    (of_logits,) = torch.autograd.grad(loss, decision.logits, retain_graph=True)
    torch.testing.assert_close(of_logits.movedim(1, -1), tensors["train.grad_router_logits"], **loose)
    loss.backward()
    found = {
        f"norms.{k}.{part}": f"feature_norm_{grain}.{part}"
        for k, grain in enumerate(NAMES[granularities])
        for part in ("weight", "bias")
    }
    layers = {"0.": ""} if "train.grad.router.gate.weight" in tensors else {"0.": "0.", "2.": "2."}
    found |= {
        f"score.{mine}{part}": f"gate.{theirs}{part}" for mine, theirs in layers.items() for part in ("weight", "bias")
    }
    given = [key for key in tensors if key.startswith("train.grad.router.")]
    compared = {mine: key for mine, key in found.items() if f"train.grad.router.{key}" in given}
    assert len(compared) == len(given) >= 4
    for mine, key in compared.items():
        gradient = gate.get_parameter(mine).grad
        torch.testing.assert_close(gradient, tensors[f"train.grad.router.{key}"], **loose)


def test_a_gate_without_norm_equals_the_originals(parity) -> None:
    """The fixture holds the encoder's output only; the logits follow from it by the one linear layer."""
    tensors, config = parity("triple_encoder_feat_1fc")
    assert config["kwargs"]["router_config"]["params"]["normalization_type"] == "none"
    gate = FeatureGate(32, 3, norm_groups=None)
    gate.load_state_dict({f"score.0.{part}": tensors[f"sd.router.gate.{part}"] for part in ("weight", "bias")})
    assert all(isinstance(norm, torch.nn.Identity) for norm in gate.norms)


def test_the_reconstructions_gradient_enters_through_the_chosen_score_alone() -> None:
    """Eq. (6): d weights[chosen] = d softmax[chosen]; the other weights have no gradient."""
    gate = FeatureGate(32, 3).train()
    decision = gate(pyramid(3), pictures())
    chosen = torch.nn.functional.one_hot(decision.grains, 3).movedim(-1, 1)
    upstream = torch.randn_like(decision.weights)
    by_weights = torch.autograd.grad((decision.weights * upstream).sum(), decision.logits, retain_graph=True)[0]
    by_chosen = torch.autograd.grad((decision.assignment * upstream * chosen).sum(), decision.logits)[0]
    torch.testing.assert_close(by_weights, by_chosen)
    assert by_weights.abs().sum() > 0
    assert torch.equal(decision.weights, chosen.float()) and torch.equal(decision.assignment, chosen.float())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_assignments_gradient_is_that_of_the_softmax(monkeypatch, temperature) -> None:
    gate = FeatureGate(32, 3, temperature=temperature).train()
    noise = torch.randn(2, 3, 4, 3)
    monkeypatch.setattr(gates, "gumbel_like", lambda _: noise)
    decision = gate(pyramid(3), pictures())
    upstream = torch.randn_like(decision.assignment)
    soft = ((decision.logits + noise) / temperature).softmax(dim=1)
    expected = torch.autograd.grad((soft * upstream).sum(), decision.logits, retain_graph=True)[0]
    found = torch.autograd.grad((decision.assignment * upstream).sum(), decision.logits)[0]
    torch.testing.assert_close(found, expected)
    assert torch.equal(decision.grains, soft.argmax(dim=1))


def test_mixture_lets_the_gradient_in_through_all_scores() -> None:
    decision = FeatureGate(32, 3, estimator="mixture").train()(pyramid(3), pictures())
    upstream = torch.randn_like(decision.weights)
    by_weights = torch.autograd.grad((decision.weights * upstream).sum(), decision.logits, retain_graph=True)[0]
    by_scores = torch.autograd.grad((decision.assignment * upstream).sum(), decision.logits)[0]
    torch.testing.assert_close(by_weights, by_scores)
    assert torch.equal(decision.weights, torch.nn.functional.one_hot(decision.grains, 3).movedim(-1, 1).float())


def test_soft_steps_decode_mixtures_and_end() -> None:
    gate, features, images = FeatureGate(32, 2, soft_steps=2), pyramid(2), pictures()
    soft = [gate(features, images).weights for _ in range(3)]
    for weights in soft[:2]:
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 4, 3))
        assert (weights.amax(dim=1) < 1).all() and weights.requires_grad
    assert set(soft[2].unique().tolist()) == {0, 1}


def test_the_temperature_falls_and_goes_on_where_a_checkpoint_was(monkeypatch) -> None:
    noise = torch.randn(2, 2, 4, 3)
    monkeypatch.setattr(gates, "gumbel_like", lambda _: noise)
    features, images = pyramid(2), pictures()

    def slope(gate: FeatureGate) -> torch.Tensor:
        decision = gate(features, images)
        return torch.autograd.grad(decision.assignment[:, 1].sum(), decision.logits)[0]

    gate = FeatureGate(32, 2, temperature=2.0, final_temperature=0.5, anneal_steps=4)
    for step in range(7):
        if step == 2:
            state = gate.state_dict()
            gate = FeatureGate(32, 2, temperature=2.0, final_temperature=0.5, anneal_steps=4)
            gate.load_state_dict(state)
        constant = FeatureGate(32, 2, temperature=max(2 * 0.25 ** (step / 4), 0.5))
        constant.load_state_dict({name: value for name, value in gate.state_dict().items() if name != "steps"})
        torch.testing.assert_close(slope(gate), slope(constant))
    gate.eval()(features, images)
    assert gate.steps == 7  # steps of training alone count


def test_without_noise_training_decides_as_evaluation_does() -> None:
    gate, features, images = FeatureGate(32, 3, noise=0.0), pyramid(3), pictures()
    torch.testing.assert_close(gate.train()(features, images).grains, gate.eval()(features, images).grains)


def test_noise_is_scaled(monkeypatch) -> None:
    noise = torch.randn(2, 3, 4, 3)
    monkeypatch.setattr(gates, "gumbel_like", lambda _: noise)
    decision = FeatureGate(32, 3, noise=0.3).train()(pyramid(3), pictures())
    assert torch.equal(decision.grains, (decision.logits + 0.3 * noise).argmax(dim=1))


def test_without_a_schedule_the_state_is_that_of_the_layers() -> None:
    assert "steps" not in FeatureGate(32, 2).state_dict()


def test_training_draws_and_evaluation_decides() -> None:
    gate, features, images = FeatureGate(32, 2), pyramid(2), pictures()
    draws = [gate(features, images).grains for _ in range(2)]
    assert not torch.equal(*draws)
    gate.eval()
    decisions = [gate(features, images) for _ in range(2)]
    assert torch.equal(decisions[0].grains, decisions[1].grains)
    assert torch.equal(decisions[0].grains, decisions[0].logits.argmax(dim=1))
    assert not decisions[0].assignment.requires_grad and not decisions[0].weights.requires_grad


def test_drawn_choices_follow_the_softmax_of_the_logits() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(200_000, 3)
    drawn = torch.bincount((logits + gumbel_like(logits)).argmax(dim=1)) / 200_000
    torch.testing.assert_close(drawn, logits[0].softmax(dim=0), rtol=0, atol=0.005)
    noise = gumbel_like(torch.empty(200_000))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)


@pytest.mark.parametrize("norm_groups", [8, None])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("granularities", [1, 2, 4])
def test_every_parameter_of_the_feature_gate_gets_a_gradient(granularities, layers, norm_groups) -> None:
    gate, features = FeatureGate(32, granularities, layers, norm_groups), pyramid(granularities)
    decision = gate(features, pictures())
    (decision.weights * torch.randn_like(decision.weights)).sum().backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None, name
        # with one granularity there is nothing to learn
        assert (parameter.grad.abs().sum() > 0) == (granularities > 1), name


def test_choices_among_near_equal_logits_are_taken_in_float32() -> None:
    gate = FeatureGate(32, 2, norm_groups=None).eval()
    decision = gate(features := pyramid(2), pictures())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = gate(features, pictures())
    assert under_autocast.logits.dtype == under_autocast.assignment.dtype == torch.float32
    assert torch.equal(under_autocast.logits, decision.logits)


def all_gates(granularities: int) -> list:
    factors = [2 ** (granularities + 1 - k) for k in range(granularities)]
    ratios = {factor: 1 / granularities for factor in factors}
    return [
        FeatureGate(32, granularities),
        RandomGate(ratios),
        FixedGate(granularities - 1, granularities),
        EntropyGate(ratios, [0.5 * k for k in range(1, granularities)]),
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("granularities", [1, 2, 3, 4])
def test_every_decision_is_one_hot(granularities, training) -> None:
    side = 2 ** (granularities + 1)
    for batch in (0, 1, 3):
        for gate in all_gates(granularities):
            features, images = pyramid(granularities, batch), pictures(batch, 4 * side, 3 * side)
            decision = gate.train(training)(features, images)
            assert gate.granularities == granularities
            assert decision.grains.shape == (batch, 4, 3) and decision.grains.dtype == torch.long
            expected = torch.nn.functional.one_hot(decision.grains, granularities).movedim(-1, 1).float()
            assert torch.equal(decision.assignment, expected) and torch.equal(decision.weights, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_random_places_keep_the_ratios_in_every_image(parts, height, width, training) -> None:
    total = sum(parts)
    if not total:
        return
    ratios = {2 ** (k + 1): part / total for k, part in enumerate(parts)}
    gate = RandomGate(ratios).train(training)
    grains = gate([torch.zeros(3, 4, height, width)], torch.zeros(3, 3, 8, 8)).grains
    counts = torch.stack([(grains == k).sum(dim=(1, 2)) for k in range(len(parts))], dim=1)
    assert counts.sum(dim=1).tolist() == [height * width] * 3
    assert (counts == counts[0]).all()
    exact = torch.tensor(gate.ratios.shares) * height * width
    assert ((counts[0] - exact).abs() < 1 + 1e-4).all()


def test_random_places_are_fresh_in_training_and_fixed_otherwise() -> None:
    gate = RandomGate({8: 0.5, 16: 0.5}, seed=3)
    features, images = [torch.zeros(4, 1, 8, 8)], torch.zeros(4, 3, 8, 8)
    drawn = gate(features, images).grains
    assert not torch.equal(drawn, gate(features, images).grains)
    assert not torch.equal(drawn[0], drawn[1])
    gate.eval()
    fixed = gate(features, images).grains
    torch.manual_seed(99)
    assert torch.equal(gate([features[0][:1]], images[:1]).grains[0], fixed[2])
    other = RandomGate({8: 0.5, 16: 0.5}, seed=4).eval()
    assert not torch.equal(other(features, images).grains, fixed)


def test_random_places_are_uniform() -> None:
    gate = RandomGate({8: 0.25, 16: 0.75})
    grains = gate([torch.zeros(20_000, 1, 2, 4)], torch.zeros(20_000, 3, 1, 1)).grains.float()
    torch.testing.assert_close(grains.mean(dim=0), torch.full((2, 4), 0.25), rtol=0, atol=0.02)


def test_entropy_choices_equal_the_originals(parity) -> None:
    tensors, _ = parity("entropy")
    gate = EntropyGate({8: 0.5, 16: 0.5}, [tensors["in.threshold"].item()])
    decision = gate([], tensors["in.x"])
    assert torch.equal(decision.assignment.movedim(1, -1).long(), tensors["out.gate_patch16"])
    tensors, _ = parity("e2e_dual_entropy")
    decision = EntropyGate({8: 0.5, 16: 0.5}, [tensors["in.threshold"].item()])([], tensors["in.x"])
    assert torch.equal(decision.grains, tensors["out.grain_indices"])
    assert torch.equal(decision.assignment.long(), tensors["out.gate"])


def photographs() -> torch.Tensor:
    crops = [skimage.data.astronaut()[:256, :256], skimage.data.coffee()[:256, :256], skimage.data.rocket()[:256, :256]]
    return torch.stack([torch.from_numpy(crop.copy()).movedim(-1, 0) for crop in crops]) / 127.5 - 1


@pytest.mark.parametrize("ratios", [{8: 0.5, 16: 0.5}, {8: 0.2, 16: 0.3, 32: 0.5}, {4: 0.1, 8: 0.2, 16: 0.3, 32: 0.4}])
def test_calibrated_on_photographs_the_entropy_gate_keeps_the_ratios(ratios) -> None:
    gate, images = EntropyGate(ratios), photographs()
    assert not gate.calibrated
    gate.calibrate(images.split(1))
    assert gate.calibrated
    decision = gate([], images)
    found = decision.assignment.mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, torch.tensor(gate.ratios.shares), rtol=0, atol=0.01)
    # detail gets the finer granularity: contrast rises from one to the next
    region = gate.ratios.factors[0]
    contrast = images.mean(dim=1).unfold(1, region, region).unfold(2, region, region).flatten(3).std(dim=3)
    means = [contrast[decision.grains == k].mean().item() for k in range(len(ratios))]
    assert means == sorted(means)


def test_thresholds_are_stored_with_the_model() -> None:
    gate, fresh = EntropyGate({8: 0.5, 16: 0.5}), EntropyGate({8: 0.5, 16: 0.5})
    gate.calibrate([photographs()])
    assert set(gate.state_dict()) == {"thresholds"}
    fresh.load_state_dict(gate.state_dict())
    assert fresh.calibrated and torch.equal(fresh([], photographs()).grains, gate([], photographs()).grains)


def test_an_uncalibrated_entropy_gate_says_what_to_do() -> None:
    gate = EntropyGate({8: 0.5, 16: 0.5})
    untrained = EntropyGate({8: 0.5, 16: 0.5}).state_dict()
    with pytest.raises(UserError, match=r"no thresholds yet.*calibrate.*gate\.thresholds"):
        gate([], photographs())
    gate.calibrate([photographs()])
    gate([], photographs())
    gate.load_state_dict(untrained)  # what was true before is asked again
    with pytest.raises(UserError, match="no thresholds yet"):
        gate([], photographs())


def test_with_one_granularity_there_is_nothing_to_calibrate() -> None:
    gate = EntropyGate({16: 1.0})
    assert gate.calibrated and gate([], photographs()).grains.abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureGate(48, 2, norm_groups=32), r"gate\.norm_groups must divide gate\.channels = 48"),
        (lambda: FeatureGate(32, 0), r"gate\.granularities must lie between 1 and 64"),
        (lambda: FeatureGate(32, 2, temperature=0.0), r"gate\.temperature must be positive"),
        (lambda: FeatureGate(32, 2, final_temperature=0.0, anneal_steps=9), r"gate\.final_temperature must be pos"),
        (lambda: FeatureGate(32, 2, final_temperature=0.5), r"final_temperature and gate\.anneal_steps go together"),
        (lambda: FeatureGate(32, 2, anneal_steps=5), r"final_temperature and gate\.anneal_steps go together"),
        (lambda: FeatureGate(32, 2, soft_steps=-1), r"gate\.soft_steps must be at least 0, not -1"),
        (lambda: FeatureGate(32, 2, noise=-0.5), r"gate\.noise must be at least 0, not -0\.5"),
        (lambda: FixedGate(2, 2), r"gate\.granularity must be one of 0…1, not 2"),
        (lambda: RandomGate({8: 0.5}), "sum to 1"),
        (lambda: EntropyGate({8: 0.5, 16: 0.5}, [0.1, 0.2]), r"gate\.thresholds must be 1 ascending"),
        (lambda: EntropyGate({4: 0.5, 8: 0.25, 16: 0.25}, [0.2, 0.1]), r"gate\.thresholds must be 2 ascending"),
        (lambda: FeatureGate(64, 2)(pyramid(2), pictures()), r"gate\.channels is 64, but the encoder's .* have 32"),
    ],
)
def test_bad_arguments(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_so_many_granularities_are_a_mistake():
    """A count without bounds would be built until the memory is full."""
    with pytest.raises(UserError, match=r"gate.granularities must lie between 1 and 64, not 18446744073709551616"):
        FeatureGate(8, 2**64)
