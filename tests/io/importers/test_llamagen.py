"""The expected codes and pictures come from a plain implementation of LlamaGen's published architecture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vltok.io.importers.llamagen import LlamaGen

from .foreign import llamagen_state


class Plain:
    """LlamaGen's VQ model, written down as functions of its tensors."""

    def __init__(self, state: dict[str, Tensor], levels: int, blocks: int) -> None:
        self.state, self.levels, self.blocks = state, levels, blocks

    def convolution(self, name: str, x: Tensor, **given) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **given)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def residual(self, name: str, x: Tensor) -> Tensor:
        h = self.convolution(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.convolution(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), padding=1)
        return h + (self.convolution(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.state else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        normed = self.norm(f"{name}.norm", x)
        query, key, value = (self.convolution(f"{name}.{each}", normed).flatten(2) for each in "qkv")
        scores = torch.einsum("bci,bcj->bij", query, key) / x.shape[1] ** 0.5
        gathered = torch.einsum("bij,bcj->bci", scores.softmax(-1), value).view(x.shape)
        return x + self.convolution(f"{name}.proj_out", gathered)

    def middle(self, name: str, x: Tensor) -> Tensor:
        x = self.attention(f"{name}.mid.1", self.residual(f"{name}.mid.0", x))
        return self.residual(f"{name}.mid.2", x)

    def stage(self, name: str, x: Tensor, blocks: int, attention: bool) -> Tensor:
        for block in range(blocks):
            x = self.residual(f"{name}.res.{block}", x)
            x = self.attention(f"{name}.attn.{block}", x) if attention else x
        return x

    def encode(self, images: Tensor) -> Tensor:
        h = self.convolution("encoder.conv_in", images, padding=1)
        for level in range(self.levels):
            h = self.stage(f"encoder.conv_blocks.{level}", h, self.blocks, level == self.levels - 1)
            if level < self.levels - 1:
                h = self.convolution(f"encoder.conv_blocks.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
        h = self.middle("encoder", h)
        h = self.convolution("encoder.conv_out", F.silu(self.norm("encoder.norm_out", h)), padding=1)
        vectors = F.normalize(self.convolution("quant_conv", h), dim=1)
        return torch.einsum("bchw,vc->bvhw", vectors, self.codebook()).argmax(1)

    def codebook(self) -> Tensor:
        return F.normalize(self.state["quantize.embedding.weight"], dim=-1)

    def decode(self, ids: Tensor) -> Tensor:
        h = self.convolution("post_quant_conv", self.codebook()[ids].permute(0, 3, 1, 2))
        h = self.middle("decoder", self.convolution("decoder.conv_in", h, padding=1))
        for index in range(self.levels):
            h = self.stage(f"decoder.conv_blocks.{index}", h, self.blocks + 1, index == 0)
            if index < self.levels - 1:
                h = F.interpolate(h, scale_factor=2.0)
                h = self.convolution(f"decoder.conv_blocks.{index}.upsample.conv", h, padding=1)
        return self.convolution("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)), padding=1)


def test_codes_and_pictures_are_the_published_models(tmp_path, build) -> None:
    state = llamagen_state(multipliers=(1, 1, 2), blocks=2)
    torch.save({"model": {**state, "quantize.codebook_used": torch.zeros(65536)}, "steps": 3}, tmp_path / "vq.pt")
    imported = LlamaGen().read(tmp_path / "vq.pt")
    assert imported.dropped == ("quantize.codebook_used",)
    assert imported.assumed == ("codebook_l2_norm is true, as in LlamaGen's own models",)
    tokenizer = build(imported.config)
    tokenizer.load_state_dict(imported.state)
    plain = Plain(state, levels=3, blocks=2)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    codes = tokenizer.eval().encode(images)
    expected = plain.encode(images)
    assert codes.to_code_map(tokenizer.spec).equal(expected)
    torch.testing.assert_close(tokenizer.decode(codes), plain.decode(expected), rtol=1e-4, atol=1e-5)


def test_codes_that_are_not_normalised(tmp_path) -> None:
    imported = LlamaGen().convert({"codebook_l2_norm": False}, llamagen_state(), tmp_path)
    assert imported.config["init_args"]["quantizer"]["class_path"] == "vq" and not imported.assumed
