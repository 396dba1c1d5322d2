import pytest
import torch

from vltok.errors import UserError
from vltok.io.importers.vqgan_layout import decoder_arguments, decoder_modules, encoder_arguments, rename


def trunks(**changes) -> dict[str, torch.Tensor]:
    """The tensors from which the sizes of two small trunks follow, some changed or (None) left out."""
    state = {"encoder.conv_in.weight": torch.empty(32, 3, 3, 3), "encoder.conv_out.weight": torch.empty(4, 64, 3, 3)}
    state |= {"decoder.conv_in.weight": torch.empty(64, 4, 3, 3), "decoder.conv_out.weight": torch.empty(3, 32, 3, 3)}
    for level, channels in enumerate((32, 32, 64)):
        for block in range(2):
            state[f"decoder.up.{level}.block.{block}.conv2.weight"] = torch.empty(channels, channels, 3, 3)
        state[f"encoder.down.{level}.block.0.conv2.weight"] = torch.empty(channels, channels, 3, 3)
        if level:
            state[f"decoder.up.{level}.upsample.conv.weight"] = torch.empty(channels, channels, 3, 3)
            state[f"encoder.down.{level - 1}.downsample.conv.weight"] = torch.empty(32, 32, 3, 3)
    state["encoder.down.0.attn.0.norm.weight"] = state["encoder.down.2.attn.0.norm.weight"] = torch.empty(32)
    state |= {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in state.items() if value is not None}


def test_sizes_follow_from_shapes() -> None:
    common = {"width": 32, "multipliers": [1, 1, 2], "blocks": 1, "channels": 4, "middle_attention": False}
    assert encoder_arguments(trunks()) == {**common, "attention_factors": [1, 4]}
    assert decoder_arguments(trunks()) == {**common, "attention_factors": [], "factor": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder__conv_in__weight": torch.empty(32, 1, 3, 3)}, "images of 1 channels"),
        ({"decoder__conv_out__weight": torch.empty(6, 32, 3, 3)}, "images of 6 channels"),
        ({"encoder__down__0__downsample__conv__weight": None}, r"no tensor 'encoder\.down\.0\.downsample"),
        ({"decoder__up__2__upsample__conv__weight": None}, r"no tensor 'decoder\.up\.2\.upsample"),
        ({"encoder__down__1__block__0__conv2__weight": torch.empty(48, 32, 3, 3)}, "no multiples of its first 32"),
    ],
)
def test_trunks_without_counterpart_are_refused(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        encoder_arguments(trunks(**changes)), decoder_arguments(trunks(**changes))


def test_a_decoders_levels_count_from_coarse_to_fine() -> None:
    names = decoder_modules(levels=3, blocks=1)
    assert names["decoder.up.2.block.1.conv1"] == "decoder.levels.0.blocks.1.conv1"
    assert names["decoder.up.0.attn.0.q"] == "decoder.levels.2.attentions.0.query"
    assert names["decoder.up.1.upsample.conv"] == "decoder.upsamples.1.conv"


def test_every_tensor_is_renamed_left_out_or_refused() -> None:
    state = {name: torch.ones(1) for name in ("a.weight", "a.bias", "b", "loss.c", "d.weight")}
    with pytest.raises(UserError, match=r"1 tensors that such a model has not, such as d\.weight"):
        rename(state, {"a": "x.y", "b": "z"}, ("loss.",))
    renamed, dropped = rename(state, {"a": "x.y", "d": "w", "b": "z"}, ("loss.",))
    assert set(renamed) == {"x.y.weight", "x.y.bias", "z", "w.weight"} and dropped == ("loss.c",)
