"""Tokenizers of one factor as models of diffusers: the way back of `vltok.io.importers.diffusers`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from vltok.errors import UserError
from vltok.io.descriptions import Description
from vltok.io.exporters.base import Exporter
from vltok.io.importers.vqgan_layout import decoder_modules, encoder_modules

#: The parts that diffusers has counterparts of, by their registered names.
_PARTS = {"encoder": "vqgan", "gate": "fixed", "quantizer": "vq", "decoder": "vqgan"}
#: Patterns of taming-transformers' module names, and what diffusers calls the modules.
_NAMES = [
    (r"\bdown\.(\d+)\.", r"down_blocks.\1."),
    (r"\.block\.(\d+)", r".resnets.\1"),
    (r"\.attn\.(\d+)", r".attentions.\1"),
    (r"\bmid\.block_1", "mid_block.resnets.0"),
    (r"\bmid\.block_2", "mid_block.resnets.1"),
    (r"\bmid\.attn_1", "mid_block.attentions.0"),
    (r"\b(up|down)sample\.", r"\1samplers.0."),
    (r"\bnin_shortcut\b", "conv_shortcut"),
    (r"\bnorm_out\b", "conv_norm_out"),
    (r"(attentions\.\d+)\.norm\b", r"\1.group_norm"),
    (r"(attentions\.\d+)\.([qkv])\b", r"\1.to_\2"),
    (r"(attentions\.\d+)\.proj_out\b", r"\1.to_out.0"),
]


class Diffusers(Exporter):
    """Folders that `diffusers.VQModel.from_pretrained` loads, of tokenizers of one factor whose parts are `vqgan` and
    `vq`."""

    kind = "tokenizer"

    def write(self, model: nn.Module, bundle: Mapping[str, Any], folder: Path) -> None:
        """Write config.json and diffusion_pytorch_model.safetensors."""
        # the model tells what its bundle may leave out: arguments that were added since
        described = _described(Description.of(model, self.kind).named)
        levels = len(described["block_out_channels"])
        blocks = described["layers_per_block"]
        modules = {
            **encoder_modules(levels, blocks, [""]),
            **decoder_modules(levels, blocks),
            "quant_conv": "project_in",
            "post_quant_conv": "project_out",
        }
        theirs = {ours: _name(original, levels) for original, ours in modules.items()}
        tensors = {}
        for name, value in model.state_dict().items():
            module, _, leaf = name.rpartition(".")
            if name == "quantizer.codebook":
                tensors["quantize.embedding.weight"] = value.contiguous()
                continue
            renamed = f"{theirs[module]}.{leaf}"
            # attention's convolutions of single places are linear layers there
            linear = re.search(r"attentions\.\d+\.to_\w+(\.0)?\.weight$", renamed)
            tensors[renamed] = (value[:, :, 0, 0] if linear else value).contiguous()
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a `VQModel`."""
    parts = config["init_args"]
    for part, only in _PARTS.items():
        found = parts.get(part, {}).get("class_path", "none")
        if config["class_path"] != "dq-vae" or found != only:
            found = found if config["class_path"] == "dq-vae" else f"a part of {config['class_path']}"
            raise UserError(f"diffusers has no counterpart of this tokenizer: {part} is {found}, and must be {only}")
    encoder, decoder = parts["encoder"]["init_args"], parts["decoder"]["init_args"]
    if len(encoder["factors"]) != 1:
        raise UserError(f"diffusers knows codes of one factor only, and this tokenizer has {encoder['factors']}")
    for what in ("blocks", "channels", "dropout", "middle_attention", "norm_groups"):
        if encoder[what] != decoder[what] or (what == "dropout" and encoder[what]):
            raise UserError(
                f"diffusers knows no {what} of {encoder[what]} in the encoder and {decoder[what]} in the decoder"
            )
    widths, others = ([each["width"] * by for by in each["multipliers"]] for each in (encoder, decoder))
    if widths != others or encoder["width"] != widths[0]:
        raise UserError(f"diffusers knows equal widths of encoder and decoder only, not {widths} and {others}")
    groups = {math.gcd(width, encoder["norm_groups"]) for width in widths}
    if len(groups) != 1:
        raise UserError(f"diffusers knows one number of norm groups, and widths {widths} have {sorted(groups)}")
    attended = [[2**level in each["attention_factors"] for level in range(len(widths))] for each in (encoder, decoder)]
    quantizer = parts["quantizer"]["init_args"]
    return {
        "_class_name": "VQModel",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": [f"{'Attn' * each}DownEncoderBlock2D" for each in attended[0]],
        "in_channels": 3,
        "latent_channels": encoder["channels"],
        "layers_per_block": encoder["blocks"],
        "mid_block_add_attention": encoder["middle_attention"],
        "norm_num_groups": groups.pop(),
        "norm_type": "group",
        "num_vq_embeddings": quantizer["size"],
        "out_channels": 3,
        "up_block_types": [f"{'Attn' * each}UpDecoderBlock2D" for each in reversed(attended[1])],
        "vq_embed_dim": quantizer["dimension"],
    }


def _name(module: str, levels: int) -> str:
    # decoders count from coarse to fine there, and from fine to coarse here
    name = re.sub(r"\bup\.(\d+)\.", lambda found: f"up_blocks.{levels - 1 - int(found[1])}.", module)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
