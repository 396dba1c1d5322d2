"""Checkpoints of LlamaGen: its tokenizers VQ-16 and VQ-8."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.vqgan_layout import count, shape, vqgan

_CODEBOOK, _USED = "quantize.embedding.weight", "quantize.codebook_used"
_MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}


class LlamaGen(Importer):
    """Tokenizers of LlamaGen, whose codes are compared on the unit sphere.

    Their code: https://github.com/FoundationVision/LlamaGen
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By the codebook, and the names of the encoder's levels."""
        return _CODEBOOK in state and "encoder.conv_blocks.0.res.0.conv1.weight" in state

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE with one factor; the record of the codes used last is left out."""
        levels = count(state, "decoder.conv_blocks.")
        originals = {_taming_name(name, levels): name for name in state if name != _USED}
        size, dimension = shape(state, _CODEBOOK)
        normalised = config.get("codebook_l2_norm")
        quantizer = {
            "class_path": "vq" if normalised is False else "cosine-vq",
            "init_args": {"size": size, "dimension": dimension, "commitment": 0.25},
        }
        renamed = {ours: state[theirs] for ours, theirs in originals.items()}
        imported = vqgan(renamed, quantizer, {_CODEBOOK: "quantizer.codebook"})
        assumed = () if normalised is not None else ("codebook_l2_norm is true, as in LlamaGen's own models",)
        return replace(imported, dropped=(_USED,) if _USED in state else (), assumed=assumed)


def _taming_name(name: str, levels: int) -> str:
    name = re.sub(r"^encoder\.conv_blocks\.", "encoder.down.", name)
    # decoders count from coarse to fine here, and from fine to coarse there
    name = re.sub(r"^decoder\.conv_blocks\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", name)
    name = re.sub(r"\.mid\.([012])\.", lambda found: f".mid.{_MIDDLE[found[1]]}.", name)
    return name.replace(".res.", ".block.")
