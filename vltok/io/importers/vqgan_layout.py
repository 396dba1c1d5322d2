"""VQGAN's trunks as taming-transformers names their modules; other projects took the layout over, some with new names.

A trunk's sizes follow from the shapes of its tensors, so that no configuration is needed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vltok.errors import UserError
from vltok.io.importers.base import Imported
from vltok.io.importers.checkpoints import optional

_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
_ATTENTION = {"norm": "norm", "q": "query", "k": "key", "v": "value", "proj_out": "out"}


def shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor of a checkpoint.

    Raises:
        UserError: It is not there.
    """
    if name not in state:
        raise UserError(f"the checkpoint has no tensor '{name}': it is incomplete, or of another model")
    return tuple(state[name].shape)


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules stand below a prefix, such as `encoder.down.`."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    return len([number for number in numbers if number.isdecimal()])


def encoder_arguments(state: Mapping[str, Tensor], heads: Iterable[str] = ("",)) -> dict[str, Any]:
    """What the encoder of a checkpoint is built with: width, multipliers, blocks, attention and channels.

    Args:
        state: The checkpoint's tensors.
        heads: What the names of each head's modules end in.

    Raises:
        UserError: A tensor is missing, or the encoder is of a kind that vltok has no counterpart of.
    """
    width, colours = shape(state, "encoder.conv_in.weight")[:2]
    if colours != 3:
        raise UserError(f"the encoder takes images of {colours} channels; vltok knows those of 3 only")
    levels, blocks = count(state, "encoder.down."), count(state, "encoder.down.0.block.")
    channels = [shape(state, f"encoder.down.{level}.block.0.conv2.weight")[0] for level in range(levels)]
    if any(each % width for each in channels):
        raise UserError(f"the encoder's levels have {channels} channels, which are no multiples of its first {width}")
    for level in range(levels - 1):
        shape(state, f"encoder.down.{level}.downsample.conv.weight")  # the original can halve by averages too
    outputs = {shape(state, f"encoder.conv_out{head}.weight")[0] for head in heads}
    return {
        **_middle_attention(state, "encoder.mid"),
        "width": width,
        "multipliers": [each // width for each in channels],
        "blocks": blocks,
        "attention_factors": _attention(state, "encoder.down", levels),
        "channels": outputs.pop(),
    }


def decoder_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same for the decoder, and its factor.

    Raises:
        UserError: As `encoder_arguments`.
    """
    levels, blocks = count(state, "decoder.up."), count(state, "decoder.up.0.block.")
    channels = [shape(state, f"decoder.up.{level}.block.0.conv2.weight")[0] for level in range(levels)]
    if (colours := shape(state, "decoder.conv_out.weight")[0]) != 3:
        raise UserError(f"the decoder gives images of {colours} channels; vltok knows those of 3 only")
    for level in range(1, levels):
        shape(state, f"decoder.up.{level}.upsample.conv.weight")
    width = math.gcd(*channels)
    return {
        **_middle_attention(state, "decoder.mid"),
        "factor": 2 ** (levels - 1),
        "width": width,
        "multipliers": [each // width for each in channels],
        "blocks": blocks - 1,
        "attention_factors": _attention(state, "decoder.up", levels),
        "channels": shape(state, "decoder.conv_in.weight")[1],
    }


def dropout(config: Mapping[str, Any], *keys: str) -> dict[str, float]:
    """The probability of dropout that a configuration names, for a training that goes on."""
    value = optional(config, *keys)
    return {"dropout": float(value)} if value else {}


def vqgan(state: Mapping[str, Tensor], quantizer: dict[str, Any], tensors: Mapping[str, str], **trunk: Any) -> Imported:
    """A whole VQGAN as a DQ-VAE with one factor.

    Args:
        state: The checkpoint's tensors, in taming-transformers' names.
        quantizer: The quantizer's configuration.
        tensors: The names of the quantizer's modules and tensors, original → vltok's.
        trunk: Further arguments of both trunks.

    Raises:
        UserError: A tensor is missing or not known, or a part is of a kind that vltok has no counterpart of.
    """
    encoder, decoder = encoder_arguments(state), decoder_arguments(state)
    levels = len(encoder["multipliers"])
    modules = {
        **encoder_modules(levels, encoder["blocks"], [""]),
        **decoder_modules(len(decoder["multipliers"]), decoder["blocks"]),
        "quant_conv": "project_in",
        "post_quant_conv": "project_out",
        **tensors,
    }
    renamed, dropped = rename(state, modules, ("loss.",))
    parts = {
        "encoder": {"class_path": "vqgan", "init_args": {"factors": [2 ** (levels - 1)], **encoder, **trunk}},
        "gate": {"class_path": "fixed", "init_args": {"granularity": 0, "granularities": 1}},
        "quantizer": quantizer,
        "decoder": {"class_path": "vqgan", "init_args": {**decoder, **trunk}},
    }
    names = {ours: theirs for theirs, ours in modules.items()}
    return Imported({"class_path": "dq-vae", "init_args": parts}, renamed, dropped, original_names=names)


def encoder_modules(levels: int, blocks: int, heads: Iterable[str]) -> dict[str, str]:
    """The modules of an encoder, original name → vltok's.

    Args:
        levels: Number of levels.
        blocks: Residual blocks of each level.
        heads: What the names of each head's modules end in, from coarse to fine.
    """
    names = {"encoder.conv_in": "encoder.stem"}
    for level in range(levels):
        names |= _level(f"encoder.down.{level}", f"encoder.levels.{level}", blocks)
        names[f"encoder.down.{level}.downsample.conv"] = f"encoder.downsamples.{level}.conv"
    for index, ending in enumerate(heads):
        names |= _middle(f"encoder.mid{ending}", f"encoder.heads.{index}.middle")
        names[f"encoder.norm_out{ending}"] = f"encoder.heads.{index}.norm"
        names[f"encoder.conv_out{ending}"] = f"encoder.heads.{index}.out"
    return names


def decoder_modules(levels: int, blocks: int, decoder: str = "decoder") -> dict[str, str]:
    """The modules of a decoder, original name → vltok's, whose levels count from coarse to fine.

    Args:
        levels: Number of levels.
        blocks: Residual blocks of each level, less one.
        decoder: Where the decoder stands in vltok's tokenizer.
    """
    names = {
        "decoder.conv_in": f"{decoder}.stem",
        "decoder.norm_out": f"{decoder}.norm",
        "decoder.conv_out": f"{decoder}.out",
        **_middle("decoder.mid", f"{decoder}.middle"),
    }
    for index, level in enumerate(reversed(range(levels))):
        names |= _level(f"decoder.up.{level}", f"{decoder}.levels.{index}", blocks + 1)
        names[f"decoder.up.{level}.upsample.conv"] = f"{decoder}.upsamples.{index}.conv"
    return names


def rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], left_out: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Give tensors their new names.

    Args:
        state: Tensors by their original names.
        names: Names of modules and of single tensors, original → new.
        left_out: Prefixes of the tensors to leave out.

    Returns:
        The renamed tensors, and the original names of those left out.

    Raises:
        UserError: A tensor that none of these names.
    """
    renamed, dropped, strange = {}, [], []
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if name in names:
            renamed[names[name]] = tensor
        elif module in names:
            renamed[f"{names[module]}.{leaf}"] = tensor
        elif name.startswith(left_out):
            dropped.append(name)
        else:
            strange.append(name)
    if strange:
        raise UserError(
            f"the checkpoint has {len(strange)} tensors that such a model has not, such as {', '.join(strange[:3])}"
        )
    return renamed, tuple(dropped)


def _attention(state: Mapping[str, Tensor], levels_at: str, levels: int) -> list[int]:
    return [2**level for level in range(levels) if f"{levels_at}.{level}.attn.0.norm.weight" in state]


def _middle_attention(state: Mapping[str, Tensor], middles_at: str) -> dict[str, bool]:
    """What a trunk without attention in its middle is built with; latent-diffusion and diffusers have such."""
    found = any(name.startswith(middles_at) and ".attn_1." in name for name in state)
    return {} if found else {"middle_attention": False}


def _level(old: str, new: str, blocks: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for block in range(blocks):
        names |= _children(f"{old}.block.{block}", f"{new}.blocks.{block}", _RESIDUAL)
        names |= _children(f"{old}.attn.{block}", f"{new}.attentions.{block}", _ATTENTION)
    return names


def _middle(old: str, new: str) -> dict[str, str]:
    return {
        **_children(f"{old}.block_1", f"{new}.first", _RESIDUAL),
        **_children(f"{old}.attn_1", f"{new}.attention", _ATTENTION),
        **_children(f"{old}.block_2", f"{new}.second", _RESIDUAL),
    }


def _children(old: str, new: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{old}.{theirs}": f"{new}.{ours}" for theirs, ours in names.items()}
