"""Checkpoints of LlamaGen: its class-conditional GPTs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.vqgan_layout import count, rename, shape

_CLASSES, _CODES = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"
_TEXTS = "cls_embedding.cap_proj.fc1.weight"
_INNER = "layers.0.feed_forward.w1.weight"
#: Theirs → ours, within a block.
_BLOCK = {
    "attention_norm": "attention_norm",
    "attention.wqkv": "query_key_value",
    "attention.wo": "attention_out",
    "ffn_norm": "feedforward_norm",
    "feed_forward.w1": "feedforward.gate",
    "feed_forward.w3": "feedforward.value",
    "feed_forward.w2": "feedforward.out",
}
#: The widths of its models whose heads are not 64 wide, and their heads.
_HEADS = {3200: 32, 4096: 32}


class LlamaGenGPT(Importer):
    """Class-conditional GPTs of LlamaGen, as `sequence` with the transformer `llama`.

    Those conditioned on texts have no counterpart. Their code: https://github.com/FoundationVision/LlamaGen
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By its embeddings, and the names of its layers."""
        return _CODES in state and "layers.0.attention.wqkv.weight" in state and bool({_CLASSES, _TEXTS} & state.keys())

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a `sequence`; the original has no embeddings of steps, so that these are zero."""
        if _TEXTS in state:
            raise UserError("the GPT is conditioned on texts, of which vltok has no counterpart")
        size, width = shape(state, _CODES)
        rows = shape(state, _CLASSES)[0]
        told = {
            "n_head": _HEADS.get(width, width // 64),
            "block_size": 256,
            "downsample_size": 16,
            "num_classes": rows - 1,
        }
        assumed = tuple(f"{key} is {value}" for key, value in told.items() if key not in config)
        told |= {key: int(config[key]) for key in told if key in config}
        side, classes = round(told["block_size"] ** 0.5), told["num_classes"]
        if side**2 != told["block_size"]:
            raise UserError(f"block_size is {told['block_size']}, but must be a square: the codes of an image")
        if not 0 <= rows - classes <= 1:
            raise UserError(f"num_classes is {classes}, but the checkpoint has {rows} embeddings of classes")
        if shape(state, "layers.0.attention.wqkv.weight")[0] != 3 * width:
            raise UserError("the GPT's heads share keys and values, of which vltok has no counterpart")
        layers = count(state, "layers.")
        names = {"norm": "content_head.norm", "output": "content_head.linear"}
        for layer in range(layers):
            block = f"transformer.blocks.{layer}"
            names |= {f"layers.{layer}.{theirs}": f"{block}.{ours}" for theirs, ours in _BLOCK.items()}
        embedded = (_CODES, _CLASSES)
        converted, dropped = rename(state, names, (*embedded, "freqs_cis"))
        spec = CodeSpec(size, (told["downsample_size"],), (side, side))
        # the rows of the special codes between, which no such prior reads
        special = state[_CODES].new_zeros(spec.content_start - size, width)
        converted["content_embedding.weight"] = torch.cat([state[_CODES], special, state[_CLASSES]])
        converted["step_embedding.weight"] = state[_CODES].new_zeros(spec.longest_length, width)
        dropout = float(config.get("resid_dropout_p", 0.1))
        transformer = {
            "columns": side,
            "width": width,
            "heads": told["n_head"],
            "layers": layers,
            "feedforward": shape(state, _INNER)[0],
            "dropout": dropout,
            "base": float(config.get("rope_base", 10000)),
        }
        arguments = {
            "spec": {"codebook_size": size, "factors": [told["downsample_size"]], "regions": [side, side]},
            "transformer": {"class_path": "llama", "init_args": transformer},
            "dropout": dropout,
            "classes": classes,
            "label_dropout": float(config.get("class_dropout_prob", 0.1)) if rows > classes else 0.0,
        }
        left = tuple(name for name in dropped if name not in embedded)
        config = {"class_path": "sequence", "init_args": arguments}
        return Imported(
            config, converted, left, "prior", {ours: theirs for theirs, ours in names.items()}, assumed=assumed
        )
