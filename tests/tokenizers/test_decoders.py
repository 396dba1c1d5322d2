import pytest
import skimage.data
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.io.importers.vqgan_layout import decoder_arguments, decoder_modules, rename
from vltok.nn.spatial_attention import SpatialAttention
from vltok.tokenizers.decoders import PixelShuffleDecoder, PositionalDecoder, VQGANDecoder
from vltok.tokenizers.encoders import PatchEncoder


def small_vqgan(factor=4, multipliers=(1, 1, 2), attention_factors=(4,), **arguments):
    return VQGANDecoder(factor, 8, multipliers, 1, attention_factors, channels=6, **arguments)


def check(decoder, height, width) -> None:
    """The size of the images, and a gradient for every parameter."""
    images = decoder(torch.randn(2, decoder.channels, height, width))
    assert images.shape == (2, 3, height * decoder.factor, width * decoder.factor)
    images.square().mean().backward()
    assert [name for name, parameter in decoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    "make",
    [
        small_vqgan,
        lambda: small_vqgan(1, [2], []),
        lambda: small_vqgan(2, [3, 1], [1, 2]),
        lambda: PositionalDecoder(small_vqgan(), grid=4),
        lambda: PositionalDecoder(small_vqgan(), grid=4, learned=False),
        lambda: PositionalDecoder(PixelShuffleDecoder(3, 6, 8, 1), grid=1),
        lambda: PixelShuffleDecoder(5, channels=6, width=8, blocks=2),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(3, 5), (4, 4), (1, 2)])
def test_images_of_any_size(make, height, width) -> None:
    check(make(), height, width)


@pytest.mark.parametrize(
    "make", [small_vqgan, lambda: PositionalDecoder(small_vqgan(), 4), lambda: PixelShuffleDecoder(4, 6, 8, 1)]
)
def test_the_last_layer_gives_the_pixels(make) -> None:
    decoder, vectors = make(), torch.randn(1, 6, 2, 3)
    with torch.no_grad():
        before = decoder(vectors)
        decoder.last_layer.zero_()
        flat = decoder(vectors)  # its bias alone
        decoder.last_layer.fill_(1)
    assert flat.std(dim=(0, 2, 3)).max() < before.std()
    assert decoder.last_layer.requires_grad and not torch.equal(decoder(vectors), flat)


def test_attention_follows_every_block_of_the_levels_asked_for() -> None:
    decoder = VQGANDecoder(4, 8, [1, 1, 1], blocks=2, attention_factors=[2], channels=6)
    attentions = [sum(isinstance(part, SpatialAttention) for part in level.modules()) for level in decoder.levels]
    assert attentions == [0, 3, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VQGANDecoder(6), "factor 6 is no power of two"),
        (lambda: VQGANDecoder(16), r"multipliers \[1, 1, 2, 2\] has 4 entries, but factor 16 takes 5"),
        (lambda: VQGANDecoder(8, attention_factors=[16]), r"attention_factors names \[16\]"),
        (lambda: PixelShuffleDecoder(0), "factor must be at least 1, not 0"),
        (lambda: PositionalDecoder(PixelShuffleDecoder(4), grid=0), "grid must be at least 1, not 0"),
    ],
)
def test_what_does_not_fit_is_named(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_pixel_shuffle_takes_any_factor(factor, height, width) -> None:
    check(PixelShuffleDecoder(factor, channels=3, width=4, blocks=1), height, width)


def test_embeddings_stretch_to_other_grids_and_keep_their_ends() -> None:
    decoder = PositionalDecoder(PixelShuffleDecoder(4, 6, 8, 1), grid=5)
    own, larger = decoder.position_term(5, 5), decoder.position_term(9, 7)
    assert larger.shape == (1, 6, 9, 7)
    for row, column in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        torch.testing.assert_close(larger[..., row, column], own[..., row, column])
    halfway = (decoder.rows[1] + decoder.rows[2]) / 2  # row 3 of 9 lies between rows 1 and 2 of 5
    learned = decoder.position_term(9, 5) - PositionalDecoder.position_term(without_embeddings(decoder), 9, 5)
    torch.testing.assert_close(learned[0, :, 3, 0] - decoder.columns[0], halfway)


def without_embeddings(decoder) -> PositionalDecoder:
    plain = PositionalDecoder(decoder.decoder, grid=1, learned=False)
    plain.coordinates = decoder.coordinates
    return plain


def test_a_light_pair_learns_a_photograph() -> None:
    photograph = torch.from_numpy(skimage.data.astronaut()[:256, 128:384]).permute(2, 0, 1)[None] / 127.5 - 1
    images = F.avg_pool2d(photograph.float(), 4)
    encoder, decoder = PatchEncoder([4, 8], 16, 1, channels=16), PixelShuffleDecoder(4, channels=16, width=16, blocks=1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=4e-3)
    errors = []
    for _ in range(60):
        coarse, fine = encoder(images)
        error = (decoder(fine + F.interpolate(coarse, scale_factor=2.0)) - images).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.2 * images.var()


def test_images_and_gradients_equal_the_originals(parity) -> None:
    tensors, config = parity("decoder_plain")
    decoder = original_decoder(tensors, config)
    vectors = tensors["in.z"].requires_grad_()
    images = decoder(vectors)
    torch.testing.assert_close(images, tensors["out.x"], rtol=1e-4, atol=1e-4)
    (images * tensors["grad.upstream"]).sum().backward()
    gradients = {
        "grad.z": vectors,
        "grad.conv_in.bias": decoder.stem.bias,
        "grad.norm_out.weight": decoder.norm.weight,
        "grad.conv_out.weight": decoder.last_layer,
    }
    for name, of in gradients.items():
        torch.testing.assert_close(of.grad, tensors[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "learned"), [("decoder_positional", True), ("decoder_fourier", False)])
def test_positions_equal_the_originals(parity, name, learned) -> None:
    tensors, config = parity(name)
    decoder = PositionalDecoder(original_decoder(tensors, config), config["kwargs"]["latent_size"], learned)
    fourier = "position_bias_fourier" if learned else "position_bias"
    decoder.coordinates.load_state_dict(
        {leaf: tensors[f"sd.{fourier}.lff.ffm.conv.{leaf}"] for leaf in ("weight", "bias")}
    )
    if learned:
        decoder.rows.data = tensors["sd.position_bias_learned.row_embed.weight"]
        decoder.columns.data = tensors["sd.position_bias_learned.col_embed.weight"]
        term = tensors["out.fourier_term"] + tensors["out.learned_term"]
        side = term.shape[-1]
        torch.testing.assert_close(decoder.position_term(side, side), term, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoder(tensors["in.z"]), tensors["out.x"], rtol=1e-4, atol=1e-4)


def original_decoder(tensors, config) -> VQGANDecoder:
    state = {f"decoder.{key[3:]}": value for key, value in tensors.items() if key.startswith("sd.")}
    arguments = decoder_arguments(state)
    decoder = VQGANDecoder(**arguments)
    modules = decoder_modules(len(arguments["multipliers"]), arguments["blocks"])
    renamed, _ = rename(state, modules, ("decoder.position_bias",))
    decoder.load_state_dict({key.removeprefix("decoder."): value for key, value in renamed.items()})
    return decoder.eval()
