"""Checkpoints of taming-transformers: VQGAN."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vltok.errors import unknown
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry
from vltok.io.importers.vqgan_layout import decoder_modules, encoder_modules, rename, trunk_arguments


class TamingTransformers(Importer):
    """VQGAN checkpoints of taming-transformers, with a codebook that is trained by gradient.

    Their code: https://github.com/CompVis/taming-transformers
    """

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE with one factor."""
        model = config.get("model", config)
        target = entry(model, "target")
        known = ("taming.models.vqgan.VQModel", "taming.models.vqgan.VQNoDiscModel")
        if target not in known:
            raise unknown("importable taming-transformers model", target, known)
        params = entry(model, "params")
        shape = entry(params, "ddconfig")
        trunk = trunk_arguments(shape)
        levels, blocks = len(trunk["multipliers"]), trunk["blocks"]
        factor = 2 ** (levels - 1)
        trunk["channels"] = entry(shape, "z_channels")
        modules = {
            **encoder_modules(levels, blocks, [""]),
            **decoder_modules(levels, blocks),
            "quant_conv": "project_in",
            "post_quant_conv": "project_out",
        }
        tensors = {"quantize.embedding.weight": "quantizer.codebook"}
        renamed, dropped = rename(state, modules, tensors, ("loss.",))
        quantizer = {"size": entry(params, "n_embed"), "dimension": entry(params, "embed_dim"), "commitment": 0.25}
        return Imported(
            {
                "class_path": "dq-vae",
                "init_args": {
                    "encoder": {"class_path": "vqgan", "init_args": {"factors": [factor], **trunk}},
                    "gate": {"class_path": "fixed", "init_args": {"granularity": 0, "granularities": 1}},
                    "quantizer": {"class_path": "vq", "init_args": quantizer},
                    "decoder": {"class_path": "vqgan", "init_args": {"factor": factor, **trunk}},
                },
            },
            renamed,
            dropped,
        )
