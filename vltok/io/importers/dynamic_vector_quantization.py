"""Checkpoints of the paper's own code: the first stage of DynamicVectorQuantization."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.errors import UserError, unknown
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry
from vltok.io.importers.vqgan_layout import decoder_modules, encoder_modules, rename, trunk_arguments

#: What the modules of each granularity are called, from coarse to fine.
_GRANULARITIES = {"DualGrainEncoder": ("coarse", "fine"), "TripleGrainEncoder": ("coarse", "median", "fine")}
_FEATURE_ROUTERS = ("DualGrainFeatureRouter", "TripleGrainFeatureRouter")
_ENTROPY_ROUTER = "DualGrainFixedEntropyRouter"
_LAYERS = {"1layer-fc": 1, "2layer-fc-SiLu": 2}
#: Where a kind of position keeps its Fourier features and its embeddings; the kinds that are not here have no effect.
_POSITIONS = {
    "fourier": ("position_bias", None),
    "fourier+learned": ("position_bias_fourier", "position_bias_learned"),
}


class DynamicVectorQuantization(Importer):
    """DQ-VAE checkpoints of the paper's authors, with two or three granularities, routed by features or by entropy.

    Their code: https://github.com/CrossmodalGroup/DynamicVectorQuantization
    """

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE; the perceptual network and the discriminator are left out."""
        params = entry(config.get("model", config), "params")
        encoder = _encoder(params)
        gate, gate_modules, gate_state = _gate(params, encoder["init_args"]["factors"], folder)
        decoder, decoder_names, decoder_tensors, without_effect = _decoder(params)
        quantizer = _quantizer(params)
        trunk = encoder["init_args"]
        modules = {
            **encoder_modules(len(trunk["multipliers"]), trunk["blocks"], [f"_{name}" for name in _names(params)]),
            **gate_modules,
            **decoder_names,
            "quant_conv": "project_in",
            "post_quant_conv": "project_out",
        }
        tensors = {
            **decoder_tensors,
            "quantize.codebook.weight": "quantizer.codebook",
            "quantize.codebook.cluster_size_ema": "quantizer.counts",
            "quantize.codebook.embed_ema": "quantizer.sums",
        }
        renamed, dropped = rename(state, modules, tensors, ("loss.", *without_effect))
        if "quantizer.codebook" in renamed:  # its last row stands for padding, and is never chosen
            renamed["quantizer.codebook"] = renamed["quantizer.codebook"][: quantizer["init_args"]["size"]]
        parts = {"encoder": encoder, "gate": gate, "quantizer": quantizer, "decoder": decoder}
        return Imported({"class_path": "dq-vae", "init_args": parts}, {**renamed, **gate_state}, dropped)


def _names(params: Mapping[str, Any]) -> tuple[str, ...]:
    kind = _class(entry(params, "encoderconfig", "target"))
    if kind not in _GRANULARITIES:
        raise unknown("importable DynamicVectorQuantization encoder", kind, _GRANULARITIES)
    return _GRANULARITIES[kind]


def _encoder(params: Mapping[str, Any]) -> dict[str, Any]:
    shape = entry(params, "encoderconfig", "params")
    trunk = trunk_arguments(shape)
    coarsest = 2 ** (len(trunk["multipliers"]) - 1)
    factors = sorted(coarsest // 2**granularity for granularity in range(len(_names(params))))
    return {"class_path": "vqgan", "init_args": {"factors": factors, **trunk, "channels": entry(shape, "z_channels")}}


def _gate(
    params: Mapping[str, Any], factors: list[int], folder: Path
) -> tuple[dict[str, Any], dict[str, str], dict[str, Tensor]]:
    """The gate's configuration, its modules' names, and the tensors that it has beyond the checkpoint's."""
    router = entry(params, "encoderconfig", "params", "router_config")
    kind, given = _class(entry(router, "target")), entry(router, "params")
    if kind == _ENTROPY_ROUTER:
        share = float(entry(given, "fine_grain_ratito"))
        threshold = _threshold(Path(str(entry(given, "json_path"))), folder, share)
        # The published tables were made with bins in [0, 1]; the code counts in [-1, 1] since July 2023.
        arguments = {"ratios": dict(zip(factors, (share, 1 - share), strict=True)), "bins": [0.0, 1.0]}
        return {"class_path": "entropy", "init_args": arguments}, {}, {"gate.thresholds": torch.tensor([threshold])}
    if kind not in _FEATURE_ROUTERS:
        raise unknown("importable DynamicVectorQuantization router", kind, (*_FEATURE_ROUTERS, _ENTROPY_ROUTER))
    gate_type, norm = given.get("gate_type", "1layer-fc"), given.get("normalization_type", "none")
    if gate_type not in _LAYERS:
        raise unknown("importable gate_type", gate_type, _LAYERS)
    arguments = {
        "channels": entry(given, "num_channels"),
        "granularities": len(factors),
        "layers": _LAYERS[gate_type],
        "norm_groups": None if norm == "none" else int(norm.rpartition("-")[2]),
    }
    layers = {"": "0"} if _LAYERS[gate_type] == 1 else {".0": "0", ".2": "2"}
    modules = {f"encoder.router.gate{theirs}": f"gate.score.{ours}" for theirs, ours in layers.items()}
    for granularity, name in enumerate(_names(params)):
        modules[f"encoder.router.feature_norm_{name}"] = f"gate.norms.{granularity}"
    return {"class_path": "feature", "init_args": arguments}, modules, {}


def _threshold(path: Path, folder: Path, share: float) -> float:
    """The entropy above which a region is fine, from the original's table: percentiles of the training regions."""
    # the path counts from the top of the repository, in which the configuration lies somewhere deeper
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"the configuration names the table of thresholds '{path}', which is not a path in its repository"
        )
    found = next((place / path for place in (folder, *folder.parents) if (place / path).is_file()), None)
    if found is None:
        raise UserError(
            f"the configuration names the table of thresholds '{path}', but no folder from '{folder}' up has it"
        )
    key = str(int(100 - share * 100))
    try:
        return float(json.loads(found.read_text(encoding="utf-8"))[key])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{found}' is no table of thresholds with an entry '{key}'") from error


def _quantizer(params: Mapping[str, Any]) -> dict[str, Any]:
    kind = _class(entry(params, "vqconfig", "target"))
    if kind != "VectorQuantize2":
        raise unknown("importable DynamicVectorQuantization quantizer", kind, ["VectorQuantize2"])
    given = entry(params, "vqconfig", "params")
    arguments = {
        "size": entry(given, "codebook_size"),
        "dimension": entry(given, "codebook_dim"),
        "commitment": given.get("commitment_beta", 0.25),
        "decay": given.get("decay", 0.99),
        "restart": given.get("restart_unused_codes", True),
    }
    return {"class_path": "ema-vq", "init_args": arguments}


def _decoder(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, str], tuple[str, ...]]:
    """The decoder's configuration, the names of its modules and of single tensors, and prefixes without effect."""
    shape = entry(params, "decoderconfig", "params")
    trunk = trunk_arguments(shape)
    levels, blocks = len(trunk["multipliers"]), trunk["blocks"]
    arguments = {"factor": 2 ** (levels - 1), **trunk, "channels": entry(shape, "in_ch")}
    decoder = {"class_path": "vqgan", "init_args": arguments}
    position = shape.get("position_type")
    if position not in _POSITIONS:
        return decoder, decoder_modules(levels, blocks), {}, ("decoder.position_bias.",)
    fourier, learned = _POSITIONS[position]
    modules = {
        **decoder_modules(levels, blocks, "decoder.decoder"),
        f"decoder.{fourier}.lff.ffm.conv": "decoder.coordinates",
    }
    tensors = {
        f"decoder.{learned}.{theirs}.weight": f"decoder.{ours}"
        for theirs, ours in {"row_embed": "rows", "col_embed": "columns"}.items()
        if learned
    }
    grid = {"grid": shape.get("latent_size", 32), "learned": learned is not None}
    return {"class_path": "positional", "init_args": {"decoder": decoder, **grid}}, modules, tensors, ()


def _class(target: str) -> str:
    return target.rpartition(".")[2]
