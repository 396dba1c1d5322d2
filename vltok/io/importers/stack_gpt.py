"""Checkpoints of the paper's own code: the second stage of DynamicVectorQuantization, StackGPT."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry
from vltok.io.importers.dynamic_vector_quantization import DynamicVectorQuantization
from vltok.io.importers.vqgan_layout import count

#: Theirs → ours, within a block; query, key and value become one matrix.
_BLOCK = {
    "ln1": "attention_norm",
    "attn.proj": "attention_out",
    "ln2": "feedforward_norm",
    "mlp.0": "feedforward_in",
    "mlp.2": "feedforward_out",
}
_QUERY_KEY_VALUE = ("attn.query", "attn.key", "attn.value")
_STACKS = ("position_transformer", "content_transformer")
_PREFIX = "transformer."
_FIRST_STAGE = "first_stage_model."


class StackGPT(Importer):
    """DQ-Transformer checkpoints of the paper's authors
    (https://github.com/CrossmodalGroup/DynamicVectorQuantization): two granularities, with classes or without."""

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By its two stacks of blocks."""
        return all(f"{_PREFIX}{stack}.0.ln1.weight" in state for stack in _STACKS)

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-Transformer; the first stage that the checkpoint carries along is left out."""
        if not config:
            raise UserError("a StackGPT's heads and grid stand in no tensor: give its configuration (--config)")
        params = entry(config.get("model", config), "params")
        levels = len(entry(params, "first_stage_config", "params", "encoderconfig", "params", "ch_mult"))
        classes = (
            entry(params, "class_cond_stage_config", "params", "n_classes")
            if "class_cond_stage_config" in params
            else None
        )
        arguments = prior_arguments(
            entry(params, "transformer_config", "params"),
            entry(params, "permuter_config", "params"),
            coarsest_factor=2 ** (levels - 1),
            classes=classes,
        )
        own = {
            name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if not name.startswith(_FIRST_STAGE)
        }
        # the finest granularity's places, with ⟨sos⟩ and ⟨eos⟩ of both granularities
        longest = entry(params, "permuter_config", "params", "fine_hw") ** 2 + 4
        converted = prior_state(own, longest)
        dropped = [name for name in state if name.endswith(".attn.mask") or not name.startswith(_PREFIX)]
        carried = {name.removeprefix(_FIRST_STAGE): state[name] for name in state if name.startswith(_FIRST_STAGE)}
        tokenizer = None
        if DynamicVectorQuantization().recognises(carried):
            first_stage = entry(params, "first_stage_config")
            tokenizer = functools.partial(DynamicVectorQuantization().convert, first_stage, carried, folder)
        config = {"class_path": "dq-transformer", "init_args": arguments}
        return Imported(config, converted, tuple(dropped), "prior", tokenizer=tokenizer)


def prior_arguments(
    transformer: Mapping[str, Any], permuter: Mapping[str, Any], coarsest_factor: int, classes: int | None
) -> dict[str, Any]:
    """What a `DQTransformer` is built with.

    Args:
        transformer: The arguments of the original's StackGPT.
        permuter: Those of its permuter.
        coarsest_factor: The first stage's largest downsampling factor.
        classes: The number of classes, or None.
    """
    coarse, fine = entry(permuter, "coarse_hw"), entry(permuter, "fine_hw")
    dropout = entry(transformer, "resid_pdrop")
    shape = {"width": entry(transformer, "n_embd"), "heads": entry(transformer, "n_head"), "dropout": dropout}
    return {
        "spec": {
            # the first of the special tokens, which follow the codebook
            "codebook_size": entry(permuter, "content_pad_code"),
            "factors": [coarsest_factor * coarse // fine, coarsest_factor],
            "regions": [coarse, coarse],
        },
        "position_transformer": {**shape, "layers": entry(transformer, "position_layer")},
        "content_transformer": {**shape, "layers": entry(transformer, "content_layer")},
        "dropout": dropout,
        "classes": classes,
        # the label is the ⟨sos⟩ of all its tracks
        "class_in_positions": classes is not None,
        "order": permuter.get("fine_position_order", "row-first"),
        "position_loss": "granularity-mean",
    }


def prior_state(state: Mapping[str, Tensor], longest: int) -> dict[str, Tensor]:
    """A StackGPT's state dict in a `DQTransformer`'s names.

    Args:
        state: The original's tensors by name.
        longest: The most tokens that a sequence can have; the original's table of steps is longer.

    Raises:
        UserError: A tensor is missing, or there is one that a StackGPT has not.
    """
    given = {name: tensor for name, tensor in state.items() if not name.endswith(".attn.mask")}
    try:
        coarse, fine = given.pop("content_coarse_pos_emb.weight"), given.pop("content_fine_pos_emb.weight")
        converted = {
            "content_embedding.weight": given.pop("content_emb.weight"),
            "position_embedding.weight": torch.cat([coarse, fine]),
            "granularity_embedding.weight": given.pop("seg_emb.weight"),
            "step_embedding.weight": given.pop("pos_emb")[0, :longest],
        }
        for track in ("position", "content"):
            for leaf in ("weight", "bias"):
                converted[f"{track}_head.norm.{leaf}"] = given.pop(f"{track}_head.0.{leaf}")
            converted[f"{track}_head.linear.weight"] = given.pop(f"{track}_head.1.weight")
        for stack in _STACKS:
            converted |= blocks_of(given, stack, f"{stack}.blocks", count(given, f"{stack}."))
    except KeyError as error:
        raise UserError(f"the checkpoint has no tensor {error}: is it a StackGPT's?") from error
    if given:
        raise UserError(f"the checkpoint has tensors that a StackGPT has not, such as {', '.join(sorted(given)[:3])}")
    return converted


def blocks_of(state: dict[str, Tensor], theirs: str, ours: str, layers: int) -> dict[str, Tensor]:
    """The blocks of a minGPT in the names of a `Transformer`'s; they are taken out of the state.

    Raises:
        KeyError: A tensor is missing.
    """
    converted = {}
    for layer in range(layers):
        for leaf in ("weight", "bias"):
            parts = [state.pop(f"{theirs}.{layer}.{part}.{leaf}") for part in _QUERY_KEY_VALUE]
            converted[f"{ours}.{layer}.query_key_value.{leaf}"] = torch.cat(parts)
            for part, name in _BLOCK.items():
                converted[f"{ours}.{layer}.{name}.{leaf}"] = state.pop(f"{theirs}.{layer}.{part}.{leaf}")
    return converted
