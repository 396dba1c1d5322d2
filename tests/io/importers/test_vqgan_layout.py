import pytest
import torch

from vltok.errors import UserError
from vltok.io.importers.vqgan_layout import decoder_modules, rename, trunk_arguments

SHAPE = {"ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "resolution": 64, "attn_resolutions": [64, 16, 7]}


def test_sides_with_attention_become_factors() -> None:
    assert trunk_arguments(SHAPE) == {
        "width": 32,
        "multipliers": [1, 1, 2],
        "blocks": 1,
        "attention_factors": [1, 4],
        "dropout": 0.0,
    }


@pytest.mark.parametrize("entry", [{"in_channels": 1}, {"out_ch": 4}, {"resamp_with_conv": False}, {"double_z": True}])
def test_trunks_without_counterpart_are_refused(entry) -> None:
    with pytest.raises(UserError, match=f"{next(iter(entry))} is .*, of which vltok has no counterpart"):
        trunk_arguments(SHAPE | entry)


def test_a_decoders_levels_count_from_coarse_to_fine() -> None:
    names = decoder_modules(levels=3, blocks=1)
    assert names["decoder.up.2.block.1.conv1"] == "decoder.levels.0.blocks.1.conv1"
    assert names["decoder.up.0.attn.0.q"] == "decoder.levels.2.attentions.0.query"
    assert names["decoder.up.1.upsample.conv"] == "decoder.upsamples.1.conv"


def test_every_tensor_is_renamed_left_out_or_refused() -> None:
    state = {name: torch.ones(1) for name in ("a.weight", "a.bias", "b", "loss.c", "d.weight")}
    with pytest.raises(UserError, match=r"1 tensors that its configuration does not account for, such as d\.weight"):
        rename(state, {"a": "x.y"}, {"b": "z"}, ("loss.",))
    renamed, dropped = rename(state, {"a": "x.y", "d": "w"}, {"b": "z"}, ("loss.",))
    assert set(renamed) == {"x.y.weight", "x.y.bias", "z", "w.weight"} and dropped == ("loss.c",)
