"""Checkpoints of the paper's own code: the first stage of DynamicVectorQuantization."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.errors import UserError, unknown
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry, optional
from vltok.io.importers.vqgan_layout import (
    decoder_arguments,
    decoder_modules,
    dropout,
    encoder_arguments,
    encoder_modules,
    rename,
    shape,
)

#: What the modules of each granularity are called, from coarse to fine.
_GRANULARITIES = ("coarse", "median", "fine")
_ROUTER = ("encoderconfig", "params", "router_config")
_FEATURE_ROUTERS = ("DualGrainFeatureRouter", "TripleGrainFeatureRouter")
_ENTROPY_ROUTER = "DualGrainFixedEntropyRouter"
_CODEBOOK = "quantize.codebook.weight"
#: What the original calls its gates, and the layers and the activation that they have.
_GATES = {"1layer-fc": (1, "silu"), "2layer-fc-SiLu": (2, "silu"), "2layer-fc-ReLu": (2, "relu")}
#: Where a kind of position keeps its Fourier features and its embeddings; other kinds have no effect.
_POSITIONS = {
    "fourier+learned": ("decoder.position_bias_fourier", "decoder.position_bias_learned"),
    "fourier": ("decoder.position_bias", None),
}


class DynamicVectorQuantization(Importer):
    """DQ-VAE checkpoints of the paper's authors, with two or three granularities, routed by features or by entropy.

    Their code: https://github.com/CrossmodalGroup/DynamicVectorQuantization
    """

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """By the codebook, and the encoder's heads."""
        return _CODEBOOK in state and "encoder.conv_out_coarse.weight" in state

    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate to a DQ-VAE; the perceptual network and the discriminator are left out."""
        given = entry(config.get("model", config), "params") if config else {}
        names = [name for name in _GRANULARITIES if f"encoder.conv_out_{name}.weight" in state]
        encoder = encoder_arguments(state, [f"_{name}" for name in names])
        coarsest = 2 ** (len(encoder["multipliers"]) - 1)
        factors = sorted(coarsest // 2**granularity for granularity in range(len(names)))
        gate, gate_modules, gate_state, assumed = _gate(given, state, factors, names, folder)
        decoder, decoder_names, without_effect = _decoder(given, state)
        quantizer = _quantizer(given, state)
        modules = {
            **encoder_modules(len(encoder["multipliers"]), encoder["blocks"], [f"_{name}" for name in names]),
            **gate_modules,
            **decoder_names,
            "quant_conv": "project_in",
            "post_quant_conv": "project_out",
            _CODEBOOK: "quantizer.codebook",
            "quantize.codebook.cluster_size_ema": "quantizer.counts",
            "quantize.codebook.embed_ema": "quantizer.sums",
        }
        renamed, dropped = rename(state, modules, ("loss.", *without_effect))
        # its last row stands for padding, and is never chosen
        renamed["quantizer.codebook"] = renamed["quantizer.codebook"][: quantizer["init_args"]["size"]]
        encoder |= {"factors": factors, **dropout(given, "encoderconfig", "params", "dropout")}
        parts = {
            "encoder": {"class_path": "vqgan", "init_args": encoder},
            "gate": gate,
            "quantizer": quantizer,
            "decoder": decoder,
        }
        return Imported(
            {"class_path": "dq-vae", "init_args": parts},
            {**renamed, **gate_state},
            dropped,
            original_names={ours: theirs for theirs, ours in modules.items()},
            assumed=assumed,
        )


def _gate(
    given: Mapping[str, Any], state: Mapping[str, Tensor], factors: list[int], names: list[str], folder: Path
) -> tuple[dict[str, Any], dict[str, str], dict[str, Tensor], tuple[str, ...]]:
    """The gate's configuration, its modules' names, the tensors that it has beyond the checkpoint's, assumptions."""
    learned = [name for name in state if name.startswith("encoder.router.")]
    if not given and not learned:
        raise UserError(
            "the checkpoint's regions are routed by entropy, and the threshold stands in files beside it: give the "
            "configuration (--config), below whose folder, or one above it, the table of thresholds is"
        )
    router = entry(given, *_ROUTER) if given else {}
    kind, arguments = _class(entry(router, "target")) if given else _FEATURE_ROUTERS[0], router.get("params", {})
    if kind == _ENTROPY_ROUTER:
        share = float(entry(arguments, "fine_grain_ratito"))
        threshold = _threshold(Path(str(entry(arguments, "json_path"))), folder, share)
        # The published tables were made with bins in [0, 1]; the code counts in [-1, 1] since July 2023.
        ratios = dict(zip(factors, (share, 1 - share), strict=True))
        gate = {"class_path": "entropy", "init_args": {"ratios": ratios, "bins": [0.0, 1.0]}}
        return gate, {}, {"gate.thresholds": torch.tensor([threshold])}, ()
    if kind not in _FEATURE_ROUTERS:
        raise unknown("importable DynamicVectorQuantization router", kind, (*_FEATURE_ROUTERS, _ENTROPY_ROUTER))
    two = "encoder.router.gate.0.weight" in state
    gate_type = arguments.get("gate_type", "2layer-fc-SiLu" if two else "1layer-fc")
    if gate_type not in _GATES:
        raise unknown("importable gate_type", gate_type, _GATES)
    layers, activation = _GATES[gate_type]
    if layers != 1 + two:
        raise UserError(f"gate_type is {gate_type}, but the checkpoint's gate has {1 + two} layers")
    width = shape(state, "encoder.router.gate.0.weight" if two else "encoder.router.gate.weight")[1]
    normed = "encoder.router.feature_norm_coarse.weight" in state
    norm = arguments.get("normalization_type", "group-32" if normed else "none")
    gate_arguments = {
        "channels": width // len(names),
        "granularities": len(names),
        "layers": layers,
        "activation": activation,
        "norm_groups": None if norm == "none" else int(norm.rpartition("-")[2]),
    }
    placed = {".0": "0", ".2": "2"} if two else {"": "0"}
    modules = {f"encoder.router.gate{theirs}": f"gate.score.{ours}" for theirs, ours in placed.items()}
    for granularity, name in enumerate(names):
        modules[f"encoder.router.feature_norm_{name}"] = f"gate.norms.{granularity}"
    assumed = [
        *(["gate_type is 2layer-fc-SiLu (it may be 2layer-fc-ReLu)"] if two else []),
        *(["normalization_type is group-32"] if normed else []),
    ]
    return {"class_path": "feature", "init_args": gate_arguments}, modules, {}, () if given else tuple(assumed)


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


def _quantizer(given: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    kind = _class(entry(given, "vqconfig", "target")) if given else "VectorQuantize2"
    if kind != "VectorQuantize2":
        raise unknown("importable DynamicVectorQuantization quantizer", kind, ["VectorQuantize2"])
    rows, dimension = shape(state, _CODEBOOK)
    told = optional(given, "vqconfig", "params") or {}
    arguments = {
        "size": rows - 1,
        "dimension": dimension,
        "commitment": told.get("commitment_beta", 0.25),
        "decay": told.get("decay", 0.99),
        "restart": told.get("restart_unused_codes", True),
    }
    return {"class_path": "ema-vq", "init_args": arguments}


def _decoder(
    given: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """The decoder's configuration, the names of its modules and tensors, and prefixes without effect."""
    arguments = decoder_arguments(state) | dropout(given, "decoderconfig", "params", "dropout")
    levels, blocks = len(arguments["multipliers"]), arguments["blocks"]
    decoder = {"class_path": "vqgan", "init_args": arguments}
    places = (place for place in _POSITIONS.values() if f"{place[0]}.lff.ffm.conv.weight" in state)
    fourier, learned = next(places, (None, None))
    if fourier is None:
        return decoder, decoder_modules(levels, blocks), ("decoder.position_bias.",)
    names = decoder_modules(levels, blocks, "decoder.decoder") | {f"{fourier}.lff.ffm.conv": "decoder.coordinates"}
    grid = optional(given, "decoderconfig", "params", "latent_size") or 32
    if learned is not None:
        names |= {f"{learned}.row_embed.weight": "decoder.rows", f"{learned}.col_embed.weight": "decoder.columns"}
        grid = shape(state, f"{learned}.row_embed.weight")[0]
    positional = {"decoder": decoder, "grid": grid, "learned": learned is not None}
    return {"class_path": "positional", "init_args": positional}, names, ()


def _class(target: str) -> str:
    return target.rpartition(".")[2]
