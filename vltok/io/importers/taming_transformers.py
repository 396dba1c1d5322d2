"""Checkpoints of taming-transformers and of latent-diffusion: VQGAN."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.vqgan_layout import dropout, shape, vqgan

_CODEBOOK, _GUMBEL = "quantize.embedding.weight", "quantize.embed.weight"


class TamingTransformers(Importer):
    """VQGAN checkpoints of taming-transformers, with a codebook that is trained by gradient or by Gumbel-softmax, and
    the first stages of latent-diffusion that have a codebook.

    Their code: https://github.com/CompVis/taming-transformers, https://github.com/CompVis/latent-diffusion
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By the codebook, and the names of the encoder's levels."""
        return bool({_CODEBOOK, _GUMBEL} & state.keys()) and "encoder.down.0.block.0.conv1.weight" in state

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE with one factor; the perceptual network and the discriminator are left out."""
        trunk = dropout(config.get("model", config), "params", "ddconfig", "dropout")
        if _GUMBEL in state:
            size, dimension = shape(state, _GUMBEL)
            quantizer = {"class_path": "gumbel", "init_args": {"size": size, "dimension": dimension}}
            names = {"quantize.proj": "quantizer.score", _GUMBEL: "quantizer.codebook"}
        else:
            size, dimension = shape(state, _CODEBOOK)
            quantizer = {"class_path": "vq", "init_args": {"size": size, "dimension": dimension, "commitment": 0.25}}
            names = {_CODEBOOK: "quantizer.codebook"}
        return vqgan(state, quantizer, names, **trunk)
