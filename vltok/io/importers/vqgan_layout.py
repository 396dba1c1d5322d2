"""The layout of VQGAN's trunks in the code of taming-transformers, which other projects took over.

Translates the arguments of its encoders and decoders, and the names of their modules.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vltok.errors import UserError
from vltok.io.importers.checkpoints import entry

_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
_ATTENTION = {"norm": "norm", "q": "query", "k": "key", "v": "value", "proj_out": "out"}


def trunk_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that encoders and decoders have in common: width, multipliers, blocks, attention and dropout.

    Raises:
        UserError: The trunk is of a kind that vltok has no counterpart of.
    """
    for key, only in {"in_channels": 3, "out_ch": 3, "resamp_with_conv": True, "double_z": False}.items():
        if params.get(key, only) != only:
            raise UserError(f"{key} is {params[key]}, of which vltok has no counterpart; it knows {only} only")
    multipliers = list(entry(params, "ch_mult"))
    # the sides at which there is attention, as factors; sides that no level has are ignored, as in the original
    factors = [2**level for level in range(len(multipliers))]
    sides = set(params.get("attn_resolutions", ()))
    return {
        "width": entry(params, "ch"),
        "multipliers": multipliers,
        "blocks": entry(params, "num_res_blocks"),
        "attention_factors": [factor for factor in factors if entry(params, "resolution") // factor in sides],
        "dropout": float(params.get("dropout", 0.0)),
    }


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
    state: Mapping[str, Tensor], modules: Mapping[str, str], tensors: Mapping[str, str], left_out: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Give tensors their new names.

    Args:
        state: Tensors by their original names.
        modules: Module names, original → new.
        tensors: Names of single tensors, original → new.
        left_out: Prefixes of the tensors to leave out.

    Returns:
        The renamed tensors, and the original names of those left out.

    Raises:
        UserError: A tensor that none of these names.
    """
    renamed, dropped, strange = {}, [], []
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if name in tensors:
            renamed[tensors[name]] = tensor
        elif module in modules:
            renamed[f"{modules[module]}.{leaf}"] = tensor
        elif name.startswith(left_out):
            dropped.append(name)
        else:
            strange.append(name)
    if strange:
        raise UserError(
            f"the checkpoint has {len(strange)} tensors that its configuration does not account for, such as "
            f"{', '.join(strange[:3])}: do the two belong together?"
        )
    return renamed, tuple(dropped)


def _level(old: str, new: str, blocks: int) -> dict[str, str]:
    names = {}
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
