import pytest
import torch

from vltok.errors import UserError
from vltok.io.importers.diffusers import Diffusers

from .foreign import vq_model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers_per_block": 2, "vq_embed_dim": None},
        {"mid_block_add_attention": False, "norm_num_groups": 16},
        {
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        },
        {
            "block_out_channels": (32,),
            "down_block_types": ("DownEncoderBlock2D",),
            "up_block_types": ("UpDecoderBlock2D",),
        },
    ],
)
@pytest.mark.parametrize("safe", [True, False])
def test_codes_and_pictures_are_those_of_diffusers(tmp_path, build, changes, safe) -> None:
    model = vq_model(**changes)
    model.save_pretrained(tmp_path, safe_serialization=safe)
    (file,) = tmp_path.glob("diffusion_pytorch_model.*")
    imported = Diffusers().read(file, tmp_path / "config.json")
    tokenizer = build(imported.config)
    tokenizer.load_state_dict(imported.state)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images).latents
        _, _, (_, _, ids) = model.quantize(latents)
        pictures = model.decode(latents).sample
    codes = tokenizer.eval().encode(images)
    assert codes.to_code_map(tokenizer.spec).flatten().equal(ids)
    torch.testing.assert_close(tokenizer.decode(codes), pictures, rtol=0, atol=1e-5 * pictures.abs().max().item())


def test_names_of_older_versions(tmp_path, build) -> None:
    model = vq_model()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, value in model.state_dict().items():
        for new, old in older.items():
            name = name.replace(new, old) if "attentions" in name else name
        state[name] = value
    expected = Diffusers().convert({}, model.state_dict(), tmp_path).state
    found = Diffusers().convert({}, state, tmp_path).state
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn is 'gelu'"),
        ({"norm_num_groups": 24}, "norm_num_groups is 24, which does not divide a width of 32"),
    ],
)
def test_what_has_no_counterpart_is_named(tmp_path, changes, message) -> None:
    model = vq_model()
    with pytest.raises(UserError, match=message):
        Diffusers().convert({**model.config, **changes}, model.state_dict(), tmp_path)
