"""Models of diffusers: VQModel."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.vqgan_layout import count, shape, vqgan
from vltok.nn.norms import GROUPS

_CODEBOOK = "quantize.embedding.weight"
#: Patterns of module names, and what taming-transformers calls the modules.
_NAMES = [
    (r"(down)_blocks\.(\d+)\.", r"\1.\2."),
    (r"resnets\.", "block."),
    (r"attentions\.", "attn."),
    (r"(down|up)samplers\.0\.", r"\1sample."),
    (r"mid_block\.block\.0\.", "mid.block_1."),
    (r"mid_block\.block\.1\.", "mid.block_2."),
    (r"mid_block\.attn\.0\.", "mid.attn_1."),
    (r"conv_norm_out\.", "norm_out."),
    (r"conv_shortcut\.", "nin_shortcut."),
    (r"group_norm\.", "norm."),
    # the second names are those of diffusers before 0.12
    (r"(attn(?:_1|\.\d+))\.(?:to_(q|k|v)|(q|k|v)(?:uery|ey|alue))\.", r"\1.\2\3."),
    (r"(?:to_out\.0|proj_attn)\.", "proj_out."),
]
#: What a VQModel must be built with, where its configuration says so.
_ONLY = {"act_fn": "silu", "norm_type": "group", "in_channels": 3, "out_channels": 3}


class Diffusers(Importer):
    """Folders of `diffusers.VQModel`: config.json and diffusion_pytorch_model.safetensors.

    Its code: https://github.com/huggingface/diffusers
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By the codebook, and the names of the encoder's levels."""
        return _CODEBOOK in state and "encoder.down_blocks.0.resnets.0.conv1.weight" in state

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE with one factor."""
        for key, only in _ONLY.items():
            if config.get(key, only) != only:
                raise UserError(f"{key} is {config[key]!r}, of which vltok has no counterpart; it knows {only!r} only")
        size, dimension = shape(state, _CODEBOOK)
        quantizer = {"class_path": "vq", "init_args": {"size": size, "dimension": dimension, "commitment": 0.25}}
        levels = count(state, "decoder.up_blocks.")
        originals = {_taming_name(name, levels): name for name in state}
        renamed = {ours: _as_convolution(ours, state[theirs]) for ours, theirs in originals.items()}
        widths = {len(value) for name, value in renamed.items() if "norm" in name}
        groups = config.get("norm_num_groups", GROUPS)
        if odd := sorted(width for width in widths if width % groups):
            raise UserError(f"norm_num_groups is {groups}, which does not divide a width of {odd[0]}")
        trunk = {} if groups == GROUPS else {"norm_groups": groups}
        imported = vqgan(renamed, quantizer, {_CODEBOOK: "quantizer.codebook"}, **trunk)
        return replace(imported, dropped=tuple(originals[name] for name in imported.dropped))


def _taming_name(name: str, levels: int) -> str:
    # decoders count from coarse to fine here, and from fine to coarse there
    name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _as_convolution(name: str, value: Tensor) -> Tensor:
    """Attention's linear layers as convolutions of single places, which they are."""
    return value[:, :, None, None] if re.search(r"\.attn.*\.(q|k|v|proj_out)\.weight$", name) else value
