import huggingface_hub.constants
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.io.importers.vqgan_layout import encoder_arguments, encoder_modules, rename
from vltok.nn.spatial_attention import SpatialAttention
from vltok.tokenizers.decoders import VQGANDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder, TimmEncoder, VQGANEncoder
from vltok.tokenizers.gates import FeatureGate
from vltok.tokenizers.quantizers import VectorQuantizer

FACTORS = [[8], [8, 4], [2, 8, 4], [1, 2, 4, 8]]


def small_vqgan(factors, multipliers=(1, 1, 2, 2), attention_factors=(8,), **arguments):
    return VQGANEncoder(factors, 8, multipliers, 1, attention_factors, channels=6, **arguments)


def check(encoder, factors, height, width) -> None:
    """Shapes from coarse to fine, and a gradient for every parameter."""
    features = encoder(torch.randn(2, 3, height, width))
    expected = [(2, encoder.channels, height // factor, width // factor) for factor in sorted(factors, reverse=True)]
    assert [tuple(feature.shape) for feature in features] == expected
    assert encoder.factors == tuple(sorted(factors, reverse=True))
    sum(feature.square().mean() for feature in features).backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("make", [small_vqgan, lambda factors: PatchEncoder(factors, 8, 1, channels=6)])
def test_any_number_of_factors_on_any_size_that_the_coarsest_divides(make, factors) -> None:
    check(make(factors), factors, 24, 40)


@pytest.mark.parametrize("multipliers", [(4, 2, 2, 1), (1, 3, 1, 2)])
def test_multipliers_may_decrease(multipliers) -> None:
    check(small_vqgan([2, 4, 8], multipliers), [2, 4, 8], 16, 8)


def test_attention_follows_every_block_of_the_levels_asked_for() -> None:
    encoder = VQGANEncoder([4], 8, [1, 1, 1], blocks=2, attention_factors=[2], channels=6)
    attentions = [sum(isinstance(part, SpatialAttention) for part in level.modules()) for level in encoder.levels]
    assert attentions == [0, 2, 0]


def test_dropout_acts_in_training_only() -> None:
    encoder, images = small_vqgan([8], dropout=0.5), torch.randn(1, 3, 16, 16)
    assert not torch.equal(encoder(images)[0], encoder(images)[0])
    encoder.eval()
    assert torch.equal(encoder(images)[0], encoder(images)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VQGANEncoder([]), "factors must name at least one"),
        (lambda: PatchEncoder([]), "factors must name at least one"),
        (lambda: PatchEncoder([4, 6]), "6 is none of 4"),
        (lambda: PatchEncoder([8, 8]), "8 is none of 8"),
        (lambda: VQGANEncoder([12]), "factor 12 is no power of two"),
        (lambda: VQGANEncoder([8, 16], multipliers=[1, 1, 2]), r"multipliers \[1, 1, 2\] has 3 entries"),
        (lambda: VQGANEncoder([4, 8], multipliers=[1, 1, 2, 2]), r"attention_factors names \[16\]"),
    ],
)
def test_what_does_not_fit_is_named(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("make", [small_vqgan, PatchEncoder, lambda factors: TimmEncoder("test_resnet", factors)])
def test_sides_must_be_multiples_of_the_coarsest_factor(make) -> None:
    with pytest.raises(UserError, match="images of 16 × 20 do not divide into regions of 8 × 8"):
        make([4, 8])(torch.randn(1, 3, 16, 20))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(2, 3), max_size=2), st.integers(1, 3), st.integers(1, 3))
def test_patches_may_have_any_side(finest, ratios, rows, columns) -> None:
    factors = [finest]
    for ratio in ratios:
        factors.append(factors[-1] * ratio)
    check(PatchEncoder(factors, 4, 1, channels=3), factors, factors[-1] * rows, factors[-1] * columns)


@pytest.mark.parametrize("name", ["dual_encoder_feat_1fc", "dual_encoder_feat_2fc", "triple_encoder_feat_2fc"])
def test_features_equal_the_originals(parity, name) -> None:
    tensors, config = parity(name)
    names = [name for name in ("coarse", "median", "fine") if f"out.h_{name}" in tensors]
    features = original_encoder(tensors, config, names)(tensors["in.x"])
    for feature, name in zip(features, names, strict=True):
        torch.testing.assert_close(feature, tensors[f"out.h_{name}"], rtol=1e-4, atol=1e-4)


def test_chosen_features_equal_the_originals(parity) -> None:
    tensors, config = parity("triple_encoder_feat_1fc")  # of which only the choice of three maps was recorded
    features = original_encoder(tensors, config, ["coarse", "median", "fine"])(tensors["in.x"])
    grains = tensors["out.indices"].repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    chosen = torch.zeros_like(features[2])
    for granularity, feature in enumerate(features):
        times = 4 // 2**granularity
        replicated = feature.repeat_interleave(times, 2).repeat_interleave(times, 3)
        chosen = torch.where(grains == granularity, replicated, chosen)
    torch.testing.assert_close(chosen, tensors["out.h_triple"], rtol=1e-4, atol=1e-4)


def original_encoder(tensors, config, names) -> VQGANEncoder:
    state = {f"encoder.{key[3:]}": value for key, value in tensors.items() if key.startswith("sd.")}
    heads = [f"_{name}" for name in names]
    arguments = encoder_arguments(state, heads)
    coarsest = 2 ** (len(arguments["multipliers"]) - 1)
    factors = [coarsest // 2**granularity for granularity in range(len(names))]
    encoder = VQGANEncoder(factors, **arguments)
    modules = encoder_modules(len(arguments["multipliers"]), arguments["blocks"], heads)
    renamed, _ = rename(state, modules, ("encoder.router.",))
    encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in renamed.items()})
    return encoder.eval()


def test_the_papers_model_has_the_papers_size() -> None:
    with torch.device("meta"):
        model = DQVAE(VQGANEncoder([8, 16]), FeatureGate(256, 2), VectorQuantizer(1024, 256), VQGANDecoder(8))
    size = sum(parameter.numel() for parameter in model.parameters())
    assert 47e6 < size < 49e6  # the paper's 47.5 M


@pytest.mark.parametrize(
    ("backbone", "factors"),
    [
        ("test_resnet", [16, 8]),
        ("test_resnet.r160_in1k", [4, 32]),
        ("test_efficientnet", [4, 8, 16]),
        ("test_convnext", [4, 8]),
        ("test_vit", [16]),
    ],
)
def test_any_timm_backbone_gives_its_own_factors(backbone, factors) -> None:
    check(TimmEncoder(backbone, factors, channels=6), factors, 64, 96)


def test_windowed_backbones_take_any_size() -> None:
    check(TimmEncoder("swin_tiny_patch4_window7_224", [8, 16], channels=6), [8, 16], 64, 96)


def test_images_are_normalised_as_the_backbone_was_trained() -> None:
    encoder = TimmEncoder("test_resnet", [8])
    mean, deviation = (torch.tensor(timm.get_pretrained_cfg("test_resnet").to_dict()[key]) for key in ("mean", "std"))
    images = torch.rand(3, 4, 4)
    expected = (images - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close((2 * images - 1) * encoder.scale + encoder.shift, expected)


def test_a_backbone_of_one_size_says_so_and_can_be_given_another() -> None:
    with pytest.raises(UserError, match=r"takes images of 224 × 224 only, not 64 × 64; set the encoder's image_size"):
        TimmEncoder("xcit_nano_12_p16_224", [16])(torch.randn(1, 3, 64, 64))
    check(TimmEncoder("xcit_nano_12_p16_224", [16], image_size=64), [16], 64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet10", [8]), "no timm backbone is called 'resnet10'; near are: resnet10t"),
        (("zzzz", [8]), r"no timm backbone is called 'zzzz'; timm\.list_models"),
        (("test_resnet", [8, 64]), r"factors names \[64\], but backbone 'test_resnet' offers \[2, 4, 8, 16, 32\]"),
        (("resnet18.no_such_tag", [8]), "Invalid pretrained tag"),
        (("test_resnet", [8], 16, False, 64), "img_size"),
    ],
)
def test_a_backbone_that_does_not_fit_is_named(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        TimmEncoder(*arguments)


def test_missing_weights_are_named_with_the_way_around(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"timm/resnet18\.a1_in1k .*pretrained: false"):
        TimmEncoder("resnet18", [8], pretrained=True)
