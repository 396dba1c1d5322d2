import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vltok.codes import Codes, Ratios
from vltok.errors import UserError
from vltok.interfaces import Budget, Decoder, Encoder, Gate, Quantized, Quantizer
from vltok.tokenizers import gates
from vltok.tokenizers.budgets import CodeLengthBudget, RatioBudget
from vltok.tokenizers.decoders import PixelShuffleDecoder, VQGANDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder, VQGANEncoder
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.gates import EntropyGate, FeatureGate, FixedGate, RandomGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer, VectorQuantizer
from vltok.tokenizers.surprise_gate import SurpriseGate

WIDTH = 32
SETS = [(8,), (4, 8), (4, 8, 16), (2, 4, 8, 16)]


def even(factors: tuple[int, ...]) -> dict[int, float]:
    return {factor: 1 / len(factors) for factor in factors}


def gate_of(name: str, factors: tuple[int, ...]) -> Gate:
    thresholds = [0.7 * k for k in range(1, len(factors))]
    return {
        "feature": lambda: FeatureGate(WIDTH, len(factors)),
        "entropy": lambda: EntropyGate(even(factors), thresholds),
        "gain": lambda: GainGate(WIDTH, even(factors)),
        "surprise": lambda: SurpriseGate(WIDTH, 64, even(factors)),
        "random": lambda: RandomGate(even(factors)),
        "fixed": lambda: FixedGate(len(factors) - 1, len(factors)),
    }[name]()


def tiny(
    factors: tuple[int, ...] = (4, 8),
    gate: Gate | str = "feature",
    quantizer: Quantizer | None = None,
    budget: Budget | None = None,
) -> DQVAE:
    return DQVAE(
        PatchEncoder(list(factors), width=WIDTH, blocks=1, channels=WIDTH),
        gate_of(gate, factors) if isinstance(gate, str) else gate,
        quantizer or EMAVectorQuantizer(64, 8),
        PixelShuffleDecoder(min(factors), channels=WIDTH, width=WIDTH, blocks=1),
        budget,
    )


def pictures(batch: int = 2, height: int = 48, width: int = 32) -> torch.Tensor:
    """Crops of a photograph, in [-1, 1]; the first is flat on the left."""
    photograph = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0) / 127.5 - 1
    crops = [photograph[:, 40 * k : 40 * k + height, 60 * k : 60 * k + width] for k in range(batch)]
    images = torch.stack(crops) if crops else torch.zeros(0, 3, height, width)
    images[:1, :, :, : width // 2] = 0
    return images


GATES_OF_SETS = [
    (gate, factors)
    for factors in SETS
    for gate in ("feature", "gain", "surprise", "entropy", "random", "fixed")
    if len(factors) > 1 or gate not in ("gain", "surprise")
]


@pytest.mark.parametrize("quantizer", [VectorQuantizer, EMAVectorQuantizer])
@pytest.mark.parametrize(("gate", "factors"), GATES_OF_SETS)
def test_decoding_codes_gives_the_reconstruction_bit_for_bit(factors, gate, quantizer) -> None:
    tokenizer = tiny(factors, gate, quantizer(64, 8))
    images = pictures()
    tokenizer(images)  # a step of training moves the codebook to the data
    tokenizer.eval()
    with torch.no_grad():
        output = tokenizer(images)
    codes = tokenizer.encode(images).validate(tokenizer.spec)
    assert codes.equal(output.codes)
    assert torch.equal(tokenizer.decode(codes), output.reconstruction)
    assert tokenizer.spec.factors == tuple(sorted(factors, reverse=True))


@pytest.mark.parametrize("factors", SETS)
def test_gradients_reach_every_parameter(factors) -> None:
    tokenizer = tiny(factors, quantizer=VectorQuantizer(64, 8), budget=RatioBudget(even(factors)))
    images = pictures(4)
    output = tokenizer(images)
    assert set(output.losses) == {"quantization", "budget"}
    ((output.reconstruction - images).abs().mean() + sum(output.losses.values())).backward()
    used = output.codes.grains.unique().numel()
    assert used == len(factors)  # else a head would have no gradient
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not (name.startswith("gate") and len(factors) == 1):
            assert parameter.grad.abs().sum() > 0, name


def test_a_few_steps_on_a_photograph_make_it_better() -> None:
    tokenizer, images = tiny(gate="entropy"), pictures(4)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        output = tokenizer(images)
        error = (output.reconstruction - images).abs().mean()
        optimizer.zero_grad()
        (error + output.losses["quantization"]).backward()
        optimizer.step()
        errors.append(error.item())
    decoded = tokenizer.decode(tokenizer.encode(images))
    assert (decoded - images).abs().mean() < 0.7 * errors[0]
    assert "budget" not in output.losses


def test_encoding_decides_as_in_evaluation_and_updates_nothing() -> None:
    tokenizer, images = tiny(), pictures()
    tokenizer.decoder.eval()
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    modes = {name: part.training for name, part in tokenizer.named_modules()}
    codes, again = tokenizer.encode(images), tokenizer.encode(images)
    decoded = tokenizer.decode(codes)
    assert codes.equal(again) and not decoded.requires_grad
    assert all(torch.equal(state[name], value) for name, value in tokenizer.state_dict().items())
    assert {name: part.training for name, part in tokenizer.named_modules()} == modes
    tokenizer.eval()
    assert tokenizer.encode(images).equal(codes) and torch.equal(tokenizer.decode(codes), decoded)
    assert not any(part.training for part in tokenizer.modules())
    # in training, on the other hand, choices are drawn and the codebook moves
    tokenizer.train()
    assert not torch.equal(tokenizer(images).codes.grains, tokenizer(images).codes.grains)
    assert not torch.equal(tokenizer.quantizer.codebook, state["quantizer.codebook"])


def test_modes_come_back_after_an_error() -> None:
    tokenizer = tiny(gate=EntropyGate(even((4, 8))))
    with pytest.raises(UserError, match="no thresholds yet"):
        tokenizer.encode(pictures())
    assert tokenizer.training and tokenizer.gate.training


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(SETS), st.integers(0, 3), st.integers(2, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_images_of_any_size_and_codes_of_any_lengths(factors, batch, height, width, seed) -> None:
    tokenizer = tiny(factors).eval()
    side = tokenizer.divisor
    images = torch.rand(batch, 3, height * side, width * side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    codes = tokenizer.encode(images).validate(tokenizer.spec)
    assert codes.grains.shape == (batch, height, width)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == images.shape
    if batch:
        one_by_one = torch.cat([tokenizer.decode(image) for image in codes])
        torch.testing.assert_close(decoded, one_by_one, rtol=1e-4, atol=1e-4)


def test_lengths_mix_in_one_batch() -> None:
    tokenizer = tiny(gate="entropy").eval()
    codes = tokenizer.encode(torch.cat([torch.zeros(1, 3, 48, 32), pictures(2)]))
    assert codes.lengths[0] == 24 and codes.lengths.unique().numel() > 1
    assert tokenizer.decode(Codes.concatenate([codes[2], codes[0]])).shape == (2, 3, 48, 32)


class Fixed(Encoder):
    """Gives stored features."""

    def __init__(self, factors: tuple[int, ...], features: list[torch.Tensor]) -> None:
        super().__init__()
        self.stored = features
        self.of_factors = factors

    @property
    def factors(self) -> tuple[int, ...]:
        return self.of_factors

    @property
    def channels(self) -> int:
        return self.stored[0].shape[1]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.stored


class Pixels(Decoder):
    """Paints the first three channels, replicated."""

    def __init__(self, factor: int, width: int) -> None:
        super().__init__()
        self.of_factor, self.width = factor, width
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def channels(self) -> int:
        return self.width

    @property
    def factor(self) -> int:
        return self.of_factor

    @property
    def last_layer(self) -> torch.Tensor:
        return self.scale

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        copies = vectors[:, :3].repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return self.scale * copies


def identity(tokenizer: DQVAE) -> DQVAE:
    """The same with projections that change nothing."""
    for projection in (tokenizer.project_in, tokenizer.project_out):
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)
    return tokenizer


class Transparent(Quantizer):
    """Passes its vectors on, and remembers them with their weights."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.width = dimension

    @property
    def size(self) -> int:
        return 1

    @property
    def dimension(self) -> int:
        return self.width

    def forward(self, vectors: torch.Tensor, weights: torch.Tensor | None = None) -> Quantized:
        self.seen = (vectors, weights)
        return Quantized(torch.zeros_like(vectors[:, 0], dtype=torch.long), vectors, vectors.new_zeros(()))

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(ids.shape[0], self.width, *ids.shape[1:])


@pytest.mark.parametrize(
    ("name", "grains", "layers"),
    [
        ("dual_encoder_feat_1fc", ("coarse", "fine"), 1),
        ("dual_encoder_feat_2fc", ("coarse", "fine"), 2),
        ("triple_encoder_feat_2fc", ("coarse", "median", "fine"), 2),
    ],
)
def test_routed_features_and_weights_equal_the_originals(parity, monkeypatch, name, grains, layers) -> None:
    tensors, config = parity(name)
    routed = next(key for key in tensors if key.startswith("train.h_")).removeprefix("train.")
    features = [tensors[f"out.h_{grain}"].requires_grad_() for grain in grains]
    factors = tuple(8 * 2**k for k in reversed(range(len(grains))))
    groups = int(config["kwargs"]["router_config"]["params"]["normalization_type"].removeprefix("group-"))
    gate = FeatureGate(32, len(grains), layers, groups)
    state = {
        f"norms.{k}.{part}": tensors[f"sd.router.feature_norm_{grain}.{part}"]
        for k, grain in enumerate(grains)
        for part in ("weight", "bias")
    }
    for layer in ("0.", "2.") if layers == 2 else ("",):
        for part in ("weight", "bias"):
            state[f"score.{layer or '0.'}{part}"] = tensors[f"sd.router.gate.{layer}{part}"]
    gate.load_state_dict(state)
    tokenizer = identity(DQVAE(Fixed(factors, features), gate, Transparent(32), Pixels(8, 32)))
    side = features[0].shape[2] * factors[0]
    images = torch.zeros(features[0].shape[0], 3, side, side)
    tokenizer.eval()(images)
    vectors, weights = tokenizer.quantizer.seen
    torch.testing.assert_close(vectors, tensors[f"out.{routed}"], rtol=1e-4, atol=1e-4)
    assert torch.equal(weights, tensors["out.codebook_mask"])
    monkeypatch.setattr(gates, "gumbel_like", lambda _: tensors["train.gumbel_noise"].movedim(-1, 1))
    codes = tokenizer.train()(images).codes
    vectors, weights = tokenizer.quantizer.seen
    torch.testing.assert_close(vectors, tensors[f"train.{routed}"], rtol=1e-4, atol=1e-4)
    assert torch.equal(weights, tensors["train.codebook_mask"]) and torch.equal(codes.grains, tensors["train.indices"])
    # the gate's gradient, through the routed features alone, is that of the fixture less the budget's part
    (vectors * tensors[f"train.upstream_{routed}"]).sum().backward()
    assert gate.score[-1].weight.grad.abs().sum() > 0
    chosen = tensors["train.indices"]
    for k, feature in enumerate(features):
        times = feature.shape[2] // chosen.shape[1]
        here = (chosen == k).repeat_interleave(times, 1).repeat_interleave(times, 2)
        assert here.any() and (feature.grad.abs().sum(1)[here] > 0).all()


def test_every_code_counts_once_in_the_quantizer() -> None:
    tokenizer = tiny((4, 8, 16), "random", Transparent(8)).eval()
    codes = tokenizer(pictures()).codes
    weights = tokenizer.quantizer.seen[1]
    torch.testing.assert_close(weights.sum(dim=(1, 2, 3)), codes.lengths.float())


class Undecided(Quantizer):
    """Gives the copies of a vector different codes, as rounding may where a vector lies between two."""

    @property
    def size(self) -> int:
        return 1000

    @property
    def dimension(self) -> int:
        return 8

    def forward(self, vectors: torch.Tensor, weights: torch.Tensor | None = None) -> Quantized:
        ids = torch.arange(vectors[:, 0].numel()).view_as(vectors[:, 0])
        return Quantized(ids, self.lookup(ids) + vectors - vectors.detach(), vectors.new_zeros(()))

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[:, None].expand(-1, 8, -1, -1) / 1000


def test_copies_that_rounding_parts_are_decoded_as_one_code() -> None:
    tokenizer, images = tiny((4, 8), "random", Undecided()).eval(), pictures()
    output = tokenizer(images)
    torch.testing.assert_close(tokenizer.decode(output.codes), output.reconstruction, rtol=0, atol=0)
    output.reconstruction.sum().backward()
    assert tokenizer.project_in.weight.grad.abs().sum() > 0


def test_codes_of_a_region_are_where_its_features_are() -> None:
    """A picture of blocks comes back exactly when each block's color has a code."""
    factors, colors = (2, 4), torch.rand(16, 3)
    fine = torch.randint(16, (1, 4, 4))
    fine[:, :, :2] = fine[:, ::2, :2:2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    features = [colors[fine[:, ::2, ::2]].movedim(-1, 1), colors[fine].movedim(-1, 1)]
    quantizer = VectorQuantizer(16, 3)
    quantizer.codebook.data.copy_(colors)
    images = features[1].repeat_interleave(2, 2).repeat_interleave(2, 3) * 1.0
    gate = EntropyGate(even(factors), [0.4])
    tokenizer = identity(DQVAE(Fixed((4, 2), features), gate, quantizer, Pixels(2, 3))).eval()
    codes = tokenizer.encode(images)
    assert codes.grains[:, :, 0].max() == 0
    torch.testing.assert_close(tokenizer.decode(codes), images)


def test_the_papers_lengths() -> None:
    ratios = {8: 0.5, 16: 0.5}
    tokenizer = tiny((8, 16), budget=RatioBudget(ratios))
    assert tokenizer.expected_length(256, 256) == 640
    assert tokenizer.target_ratios == Ratios((16, 8), (0.5, 0.5))
    assert tokenizer.divisor == 16 and tokenizer.spec.regions is None
    assert tokenizer.last_layer is tokenizer.decoder.last_layer


@pytest.mark.parametrize(
    ("gate", "budget", "length", "ratios"),
    [
        (lambda: RandomGate({4: 0.25, 8: 0.75}), None, 16 * 1.75, (0.75, 0.25)),
        (lambda: EntropyGate({4: 0.25, 8: 0.75}), None, 16 * 1.75, (0.75, 0.25)),
        (lambda: FixedGate(0, 2), None, 16, (1.0, 0.0)),
        (lambda: FixedGate(1, 2), None, 64, (0.0, 1.0)),
        (lambda: FeatureGate(WIDTH, 2), None, None, None),
        (lambda: FeatureGate(WIDTH, 2), CodeLengthBudget(30.0, [4, 8]), 30, None),
        (lambda: FeatureGate(WIDTH, 2), RatioBudget({4: 0.5, 8: 0.5}), 40, (0.5, 0.5)),
    ],
)
def test_what_is_asked_of_the_tokenizer(gate, budget, length, ratios) -> None:
    tokenizer = tiny((4, 8), gate(), budget=budget)
    assert tokenizer.expected_length(32, 32) == length
    assert tokenizer.target_ratios == (None if ratios is None else Ratios((8, 4), ratios))


def test_a_budget_beside_a_gate_that_keeps_its_ratios_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"the budget has no effect: .* \{8: 0.75, 4: 0.25\} itself, .* 1.75 codes"):
        tokenizer = tiny((4, 8), EntropyGate({4: 0.25, 8: 0.75}), budget=CodeLengthBudget(30.0, [4, 8]))
    assert tokenizer.expected_length(32, 32) == 28
    assert tokenizer.target_ratios == Ratios((8, 4), (0.75, 0.25))


def test_a_fixed_gate_of_one_granularity_makes_a_vqgan() -> None:
    tokenizer = DQVAE(
        VQGANEncoder([4], width=32, multipliers=[1, 1, 1], blocks=1, attention_factors=[4], channels=16),
        FixedGate(),
        VectorQuantizer(32, 16),
        VQGANDecoder(4, width=32, multipliers=[1, 1, 1], blocks=1, attention_factors=[4], channels=16),
    ).eval()
    images = pictures()
    codes = tokenizer.encode(images)
    assert codes.lengths.tolist() == [96, 96] and tokenizer.expected_length(48, 32) == 96
    with torch.no_grad():
        assert torch.equal(tokenizer.decode(codes), tokenizer(images).reconstruction)


@pytest.mark.parametrize(
    ("height", "width", "near"), [(100, 64, "96 × 64"), (15, 31, "16 × 32"), (3, 16, "16 × 16"), (0, 16, "16 × 16")]
)
def test_images_that_do_not_divide(height, width, near) -> None:
    tokenizer = tiny((4, 8, 16))
    message = rf"{height} × {width} pixels do not fit: .* multiples of 16.*nearest size is {near}"
    images = torch.zeros(1, 3, height, width)
    for call in (tokenizer.encode, tokenizer, lambda _: tokenizer.expected_length(height, width)):
        with pytest.raises(UserError, match=message):
            call(images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny((4, 8), FeatureGate(WIDTH, 3)), r"decides among 3 granularities, but encoder\.factors \[8, 4\]"),
        (lambda: tiny((4, 8), RandomGate({4: 0.5, 16: 0.5})), r"gate\.ratios name factors \[16, 4\].*\[8, 4\]"),
        (lambda: tiny((4, 8), budget=RatioBudget({8: 0.5, 16: 0.5})), r"budget is for factors \[16, 8\].*\[8, 4\]"),
        (lambda: tiny((4, 8), budget=CodeLengthBudget(9.0, [4])), r"budget is for factors \[4\].*\[8, 4\]"),
        (
            lambda: tiny((4, 8), "random", budget=RatioBudget({4: 0.25, 8: 0.75})),
            r"gate\.ratios \{8: 0\.5, 4: 0\.5\} and budget\.ratios \{8: 0\.75, 4: 0\.25\} differ",
        ),
        (
            lambda: DQVAE(
                PatchEncoder([4, 8], width=WIDTH, channels=WIDTH),
                FixedGate(0, 2),
                VectorQuantizer(4, 4),
                PixelShuffleDecoder(8, channels=WIDTH, width=WIDTH),
            ),
            r"decoder\.factor is 8, but must be the finest of encoder\.factors \[8, 4\]",
        ),
    ],
)
def test_parts_that_do_not_fit(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_names_in_the_state_are_those_of_the_parts() -> None:
    state = tiny(gate="entropy", budget=RatioBudget(even((4, 8)))).state_dict()
    parts = {name.split(".")[0] for name in state}
    assert parts == {"encoder", "gate", "quantizer", "decoder", "project_in", "project_out"}


def test_autocast_gives_the_same_codes_from_both_paths() -> None:
    tokenizer, images = tiny(gate="entropy").eval(), pictures()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        output = tokenizer(images)
        codes = tokenizer.encode(images)
        assert codes.equal(output.codes)
        assert torch.equal(tokenizer.decode(codes), output.reconstruction)
