"""Checkpoints of taming-transformers: the GPT over a VQGAN's codes, Net2NetTransformer."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry, optional
from vltok.io.importers.stack_gpt import blocks_of
from vltok.io.importers.taming_transformers import TamingTransformers
from vltok.io.importers.vqgan_layout import count, shape

_PREFIX, _FIRST_STAGE = "transformer.", "first_stage_model."
_TOKENS, _STEPS, _HEAD = "transformer.tok_emb.weight", "transformer.pos_emb", "transformer.head.weight"


class Net2Net(Importer):
    """GPTs of taming-transformers, conditioned on a class or on nothing, as `sequence`.

    Those conditioned on other codes, such as a depth map's, have no counterpart. Their code:
    https://github.com/CompVis/taming-transformers
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By the GPT's embeddings and head."""
        return {_TOKENS, _STEPS, _HEAD} <= state.keys() and f"{_PREFIX}blocks.0.attn.key.weight" in state

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a `sequence`; the VQGAN that the checkpoint carries along is its tokenizer.

        The original starts an image with a code: that of the class's number, or code 0. A row of its own is made of it.
        """
        params = entry(config.get("model", config), "params") if config else {}
        first = {name.removeprefix(_FIRST_STAGE): state[name] for name in state if name.startswith(_FIRST_STAGE)}
        if any(name.startswith("cond_stage_model.") for name in state):
            raise UserError("the GPT is conditioned on the codes of another picture, of which vltok has no counterpart")
        if not first:
            raise UserError("the checkpoint has no first_stage_model: which codes the GPT models cannot be told")
        tokenizer = TamingTransformers().convert(optional(params, "first_stage_config") or {}, first, folder)
        size = tokenizer.config["init_args"]["quantizer"]["init_args"]["size"]
        factors = tokenizer.config["init_args"]["encoder"]["init_args"]["factors"]
        vocabulary, width = shape(state, _TOKENS)
        if vocabulary < size:
            raise UserError(f"the GPT knows {vocabulary} codes, and its first stage has {size}")
        steps = shape(state, _STEPS)[1]
        side, classes, assumed = _shape_of(params, steps)
        # the rows of the special codes between, which no such prior reads
        special = state[_TOKENS].new_zeros(CodeSpec(size, tuple(factors), (side, side)).content_start - size, width)
        starts = state[_TOKENS][: classes or 1]
        layers = count(state, f"{_PREFIX}blocks.")
        heads = optional(params, "transformer_config", "params", "n_head")
        if heads is None:
            heads = 16
            assumed = (*assumed, "n_head is 16")
        own = {
            name.removeprefix(_PREFIX): value
            for name, value in state.items()
            if name.startswith(_PREFIX) and not name.endswith(".attn.mask")
        }
        converted = {
            "content_embedding.weight": torch.cat([own.pop("tok_emb.weight")[:size], special, starts]),
            "step_embedding.weight": own.pop("pos_emb")[0, : side * side],
            "content_head.norm.weight": own.pop("ln_f.weight"),
            "content_head.norm.bias": own.pop("ln_f.bias"),
            "content_head.linear.weight": own.pop("head.weight")[:size],
            **blocks_of(own, "blocks", "transformer.blocks", layers),
        }
        if own:
            raise UserError(f"the checkpoint has tensors that such a GPT has not, such as {', '.join(sorted(own)[:3])}")
        dropout = optional(params, "transformer_config", "params", "resid_pdrop") or 0.0
        arguments = {
            "spec": {"codebook_size": size, "factors": factors, "regions": [side, side]},
            "transformer": {"width": width, "heads": heads, "layers": layers, "dropout": dropout},
            "dropout": dropout,
            "classes": classes,
        }
        dropped = [name for name in state if name.endswith(".attn.mask") or not name.startswith(_PREFIX)]
        config = {"class_path": "sequence", "init_args": arguments}
        return Imported(config, converted, tuple(dropped), "prior", assumed=assumed, tokenizer=lambda: tokenizer)


def _shape_of(params: Mapping[str, Any], steps: int) -> tuple[int, int | None, tuple[str, ...]]:
    """The side of the grid of codes, the number of classes or None, and what of them was assumed."""
    condition = optional(params, "cond_stage_config")
    classes = optional(params, "cond_stage_config", "params", "n_classes")
    resolution = optional(params, "first_stage_config", "params", "ddconfig", "resolution")
    levels = optional(params, "first_stage_config", "params", "ddconfig", "ch_mult")
    assumed: tuple[str, ...] = ()
    if resolution and levels:
        side = resolution // 2 ** (len(levels) - 1)
    else:
        side = math.isqrt(steps)
        assumed = (f"pictures have {side} × {side} codes, the largest square of the {steps} steps",)
    if condition is None:
        assumed = (*assumed, "the model has no classes: give the configuration (--config) if it has")
    if side * side > steps:
        raise UserError(f"pictures of {side} × {side} codes do not fit the GPT's {steps} steps")
    return side, classes, assumed
