"""The gate that learns gains: what it is taught, how it allocates, and that it finds a planted optimum."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vltok.errors import UserError
from vltok.interfaces import Decoder, Encoder, GateDecision
from vltok.measures.gain import best_choice
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer, VectorQuantizer

DUAL = {4: 0.25, 8: 0.75}
TRIPLE = {4: 0.125, 8: 0.625, 16: 0.25}


def planted(granularities: int, batch: int = 16) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features whose amplitude says how much there is to see, and the errors that follow from it, `[b k h w]`."""
    detail = torch.rand(batch, 1, 6, 6) ** 2 * torch.rand(batch, 1, 1, 1)
    features = [
        torch.randn(batch, 8, 6 * 2**k, 6 * 2**k) * detail.repeat_interleave(2**k, 2).repeat_interleave(2**k, 3)
        for k in range(granularities)
    ]
    errors = torch.cat([10 * detail * 0.5**k + 2 * detail**2 * (k == 0) for k in range(granularities)], dim=1)
    return features, errors


def decide(gate: GainGate, features: list[torch.Tensor]) -> GateDecision:
    """It is shown pictures in which everything varies, so that the features alone count."""
    coarsest = gate.ratios.factors[0]
    side = coarsest * features[0].shape[2]
    return gate(features, 100 * torch.randn(len(features[0]), 3, side, side))


def teach(gate: GainGate, features: list[torch.Tensor], errors: torch.Tensor) -> torch.Tensor:
    """One step of training: choose, and see what the lessons cost."""
    lessons = gate.lessons(decide(gate, features).grains)
    return gate.teach(features, lessons, torch.stack([errors.gather(1, map_[:, None])[:, 0] for map_ in lessons]))


def taught(ratios: dict[int, float], steps: int = 150, **arguments) -> GainGate:
    """A gate after some steps on planted features."""
    gate = GainGate(8, ratios, **arguments)
    optimizer = torch.optim.Adam(gate.parameters(), 1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        features, errors = planted(len(ratios))
        loss = teach(gate, features, errors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return gate.eval()


@pytest.mark.parametrize("ratios", [DUAL, TRIPLE])
def test_it_finds_the_planted_optimum_and_keeps_the_ratios(ratios) -> None:
    gate = taught(ratios)
    features, errors = planted(len(ratios), batch=256)
    grains = decide(gate, features).grains
    shares = torch.bincount(grains.flatten(), minlength=len(ratios)) / grains.numel()
    torch.testing.assert_close(shares, torch.tensor(gate.ratios.shares), rtol=0, atol=0.04)
    # images of more detail get more codes
    codes = (grains * 1.0).mean(dim=(1, 2))
    assert torch.corrcoef(torch.stack([codes, errors[:, 0].mean(dim=(1, 2))]))[0, 1] > 0.9
    table = errors.movedim(1, -1).flatten(0, 2).double()
    chosen = table.gather(1, grains.flatten()[:, None]).sum()
    counts = torch.bincount(grains.flatten(), minlength=len(ratios))
    best = table.numpy()[torch.arange(len(table)), best_choice(table.numpy(), counts.numpy())].sum()
    random = float(table.mean(dim=0) @ counts.double())
    assert (random - chosen) / (random - best) > 0.9


class Means(Encoder):
    """The mean luminance of each cell."""

    @property
    def factors(self) -> tuple[int, ...]:
        return (8, 4)

    @property
    def channels(self) -> int:
        return 1

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(images[:, :1], factor) for factor in self.factors]


class Cells(Decoder):
    """Each cell's pixels have its value."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    @property
    def channels(self) -> int:
        return 1

    @property
    def factor(self) -> int:
        return 4

    @property
    def last_layer(self) -> torch.Tensor:
        return self.gain

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.gain * vectors, scale_factor=4).expand(-1, 3, -1, -1)


def test_on_pictures_the_noise_gets_the_codes() -> None:
    """One region in four is of cells of random grey, the others are even: these gain nothing by finer codes."""
    tokenizer = DQVAE(Means(), GainGate(1, DUAL), VectorQuantizer(41, 1), Cells())
    tokenizer.quantizer.codebook.data.copy_(torch.linspace(-1, 1, 41)[:, None])
    for projection in (tokenizer.project_in, tokenizer.project_out):
        nn.init.ones_(projection.weight)
        nn.init.zeros_(projection.bias)
    optimizer = torch.optim.Adam(tokenizer.gate.parameters(), 1e-2)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        noisy = torch.zeros(16, 16).scatter(1, torch.rand(16, 16).argsort(dim=1)[:, :4], 1.0).view(16, 1, 4, 4)
        greys = F.interpolate(torch.rand(16, 1, 4, 4) * 2 - 1, scale_factor=2)
        cells = torch.where(F.interpolate(noisy, scale_factor=2) > 0, torch.rand(16, 1, 8, 8) * 2 - 1, greys)
        return F.interpolate(cells, scale_factor=4).expand(-1, 3, -1, -1), noisy[:, 0].long()

    for _ in range(150):
        optimizer.zero_grad()
        tokenizer(batch()[0]).losses["gate"].backward()
        optimizer.step()
    images, noisy = batch()
    grains = tokenizer.encode(images).grains
    assert (grains == noisy).float().mean() > 0.95


@pytest.mark.parametrize("ratios", [DUAL, TRIPLE])
def test_what_does_not_vary_within_a_code_gains_nothing_by_finer_codes(ratios) -> None:
    """Whatever the features promise: flat regions keep the coarsest code, and cells of even colour their own."""
    gate, (features, _) = taught(ratios), planted(len(ratios), batch=64)
    factors, steps = gate.ratios.factors, len(ratios) - 1
    side = features[0].shape[2]
    images = torch.randn(64, 3, side * factors[0], side * factors[0])
    even = torch.randn(64, 3, side * factors[0] // factors[1], side * factors[0] // factors[1])
    places = torch.arange(side * factors[0]) // factors[0]
    flat, celled = places[:, None] % 3 == 0, places[:, None] % 3 == 1
    images = torch.where(flat, images[:, :, :1, :1], images)
    images = torch.where(celled, F.interpolate(even, scale_factor=factors[1]), images)
    decision = gate(features, images)
    rows = torch.arange(side) % 3
    assert (decision.step_scores[:, :, rows == 0] < 1e-4).all()
    assert (decision.step_scores[:, 1:, rows == 1] < 1e-4).all() and decision.step_scores[:, 0, rows == 1].max() > 0.1
    assert (decision.grains[:, rows == 2] == steps).any() and (decision.grains[:, rows == 0] == 0).all()


def test_alternatives_leave_no_trace() -> None:
    """Codebook, dropout and modes are as without teaching; the encoder learns nothing from it."""
    images = torch.rand(4, 3, 32, 32) * 2 - 1

    def step(share: float) -> DQVAE:
        torch.manual_seed(0)
        tokenizer = DQVAE(
            PatchEncoder([4, 8], width=32, blocks=1, channels=32),
            GainGate(32, DUAL, taught_share=share),
            EMAVectorQuantizer(16, 8),
            PixelShuffleDecoder(4, channels=32, width=32, blocks=1),
        )
        tokenizer.decoder.eval()
        torch.manual_seed(1)
        output = tokenizer(images)
        (output.reconstruction.square().mean() + sum(output.losses.values())).backward()
        assert tokenizer.training and tokenizer.quantizer.training and not tokenizer.decoder.training
        return tokenizer

    little, much = step(0.25), step(1.0)
    for name, value in little.quantizer.state_dict().items():
        assert torch.equal(much.quantizer.state_dict()[name], value), name
    for part in ("encoder", "decoder", "project_in", "project_out"):
        for (name, first), second in zip(
            getattr(little, part).named_parameters(), getattr(much, part).parameters(), strict=True
        ):
            torch.testing.assert_close(first.grad, second.grad, msg=name)
    assert not torch.equal(little.gate.mean_gain, much.gate.mean_gain)  # but the gate saw more


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_of_the_tokenizer_gets_a_gradient(precision) -> None:
    """Under autocast too, whose cache of cast weights must not be filled without gradients."""
    tokenizer = DQVAE(
        PatchEncoder([4, 8], width=32, blocks=1, channels=32),
        GainGate(32, {4: 0.5, 8: 0.5}),
        EMAVectorQuantizer(16, 8),
        PixelShuffleDecoder(4, channels=32, width=32, blocks=1),
    )
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        output = tokenizer(images)
    assert set(output.losses) == {"quantization", "gate"}
    (output.reconstruction.float().square().mean() + sum(output.losses.values())).backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_in_training_each_batch_has_the_ratios() -> None:
    gate, (features, _) = GainGate(8, TRIPLE), planted(3)
    for _ in range(20):  # the prices of the batches before are where the search for those of this one starts
        grains = decide(gate, features).grains
    shares = torch.bincount(grains.flatten(), minlength=3) / grains.numel()
    torch.testing.assert_close(shares, torch.tensor(gate.ratios.shares), rtol=0, atol=0.01)


def test_it_decides_without_gradient_by_the_largest_value() -> None:
    features, _ = planted(3)
    decision = decide(GainGate(8, TRIPLE).eval(), features)
    assert torch.equal(decision.grains, decision.logits.argmax(dim=1))
    assert not decision.weights.requires_grad and not decision.logits.requires_grad


def test_what_it_learned_is_stored_with_the_model() -> None:
    gate, fresh = taught(DUAL, steps=30), GainGate(8, DUAL).eval()
    assert {"prices", "mean_gain", "steps"} < set(gate.state_dict())
    fresh.load_state_dict(gate.state_dict())
    features, _ = planted(2)
    assert torch.equal(decide(fresh, features).grains, decide(gate, features).grains)


def test_regions_without_any_gain_do_no_harm() -> None:
    gate = GainGate(8, DUAL)
    features = [torch.zeros(2, 8, 3, 3), torch.zeros(2, 8, 6, 6)]
    for _ in range(3):
        loss = teach(gate, features, torch.zeros(2, 2, 3, 3))
        loss.backward()
    assert loss.isfinite() and gate.prices.isfinite().all() and gate.mean_gain.min() > 0
    assert all(parameter.grad.isfinite().all() for parameter in gate.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GainGate(8, {8: 1.0}), r"gate\.ratios must be .* of at least two factors.*take the gate 'fixed'"),
        (lambda: GainGate(8, {4: 0.0, 8: 1.0}), r"gate\.ratios must be shares above 0"),
        (lambda: GainGate(8, {4: 0.5, 8: 0.4}), "sum to 1"),
        (lambda: GainGate(0, DUAL), r"gate\.channels must be at least 1, not 0"),
        (lambda: GainGate(8, DUAL, hidden=0), r"gate\.hidden must be at least 1, not 0"),
        (lambda: GainGate(8, DUAL, taught_share=0.0), r"gate\.taught_share must lie in \(0, 1\]"),
        (lambda: GainGate(8, DUAL, decay=1.0), r"gate\.decay must lie between 0 and 1"),
        (lambda: decide(GainGate(16, DUAL), planted(2)[0]), r"gate\.channels is 16, but the encoder's .* have 8"),
    ],
)
def test_bad_arguments(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_gate_that_draws_its_ratios_sees_all_between_and_keeps_its_own() -> None:
    gate = GainGate(8, DUAL, drawn=[{4: 0.05, 8: 0.95}, {4: 0.95, 8: 0.05}])
    shares = []
    for _ in range(100):
        features, errors = planted(2)
        grains = decide(gate, features).grains
        shares.append(grains.float().mean().item())
        teach(gate, features, errors).backward()
    seen = torch.tensor(shares).histc(9, 0.05, 0.95)
    assert seen.min() >= 5 and 0.45 < sum(shares) / len(shares) < 0.55
    gate.eval()
    assert decide(gate, planted(2, 64)[0]).grains.float().mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("drawn", [[{4: 0.5, 8: 0.5}], [{4: 0.5, 8: 0.5}, {8: 0.5, 16: 0.5}], []])
def test_ratios_to_draw_between_are_two(drawn) -> None:
    with pytest.raises(UserError, match=r"gate\.drawn must be two ratios of the factors"):
        GainGate(8, DUAL, drawn=drawn)
