"""Causal language models of transformers, with a vocabulary of codes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vltok.errors import UserError, unknown

# What follows from the codes, and so is no option.
_OURS = {
    "vocab_size": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    # encoders such as BERT look ahead without it
    "is_decoder": True,
}
# What a configuration says of its file rather than of the model.
_OF_FILES = ("_name_or_path", "architectures", "dtype", "model_type", "transformers_version")


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al., 2021, https://arxiv.org/abs/2106.09685), by peft.

    Attributes:
        rank: Of each adapter; at least 1.
        alpha: An adapter's output counts alpha / rank times; positive.
        dropout: Dropout of what adapters read, in [0, 1).
        targets: The names of the layers that get one, such as ``[q_proj, v_proj]``; all linear layers but the head
            where None.

    Raises:
        UserError: A value outside its range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora.rank must be at least 1, not {self.rank}")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha must be positive, not {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout must lie in [0, 1), not {self.dropout}")


def from_architecture(architecture: str, options: Mapping[str, Any], vocabulary: int, longest: int) -> PreTrainedModel:
    """A fresh model.

    Args:
        architecture: Its type, as transformers calls it.
        options: Of its configuration.
        vocabulary: The number of tokens.
        longest: The most tokens that it reads.

    Raises:
        UserError: There is no such architecture, it has no such option, or no model can have such values.
    """
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise unknown("architecture of a causal language model", architecture, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    config_class = type(AutoConfig.for_model(architecture))
    _check_options(architecture, options, config_class)
    given = {_own_name(config_class, name): value for name, value in options.items()}
    limit = _own_name(config_class, "max_position_embeddings")
    if limit in _known_options(config_class):
        given.setdefault(limit, longest + 1)
    try:
        config = config_class(**{**_OURS, "vocab_size": vocabulary, **given})
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # configurations check their values with errors of many kinds
        raise UserError(f"options: no {architecture} can be built: {_line(error)}") from error
    return _prepared(model, longest)


def from_pretrained(
    name: str, options: Mapping[str, Any], vocabulary: int, longest: int, kept: int = 0
) -> PreTrainedModel:
    """A pretrained model with embeddings of another vocabulary, drawn with the mean and the spread of its own.

    Args:
        name: A folder, or an id on the Hugging Face Hub.
        options: What to change in its configuration.
        vocabulary: The number of tokens.
        longest: The most tokens that it reads.
        kept: How many of its own tokens stay, the first ones.

    Raises:
        UserError: It is not to be had as safetensors, lacks weights, has no such option, or reads too few tokens.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)  # code is never fetched
    except Exception as error:  # the Hub's client raises errors of its own, and those of whatever carries them
        raise UserError(f"pretrained is '{name}', whose configuration is not to be had: {_line(error)}") from error
    _check_options(config.model_type, options, type(config))
    try:
        config.update({**_OURS, "vocab_size": config.vocab_size, **options})
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(f"pretrained is '{name}', of which no model can be built: {_line(error)}") from error
    head = {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    replaced = {key for key, parameter in model.named_parameters() if id(parameter) in head}
    if lacking := sorted(set(found["missing_keys"]) - replaced):
        raise UserError(
            f"pretrained is '{name}', which lacks {len(lacking)} weights of a {model.config.model_type} language "
            f"model, such as {lacking[0]}: name the model that was trained on text"
        )
    _replace_vocabulary(model, vocabulary, kept)
    return _prepared(model, longest)


def settings_of(model: PreTrainedModel) -> tuple[str, dict[str, Any]]:
    """The architecture of a model, and the options that build one like it."""
    known = _known_options(type(model.config))
    left_out = {*_OURS, *_OF_FILES}
    every = json.loads(model.config.to_json_string(use_diff=True))
    return model.config.model_type, {key: value for key, value in every.items() if key in known - left_out}


def require_causal(model: PreTrainedModel) -> None:
    """See that a model does not look ahead: the likelihoods of one that does are none.

    Raises:
        UserError: It does.
    """
    if model.device.type == "meta":  # nothing can be computed
        return
    with torch.no_grad(), evaluating(model):
        first, second = model(input_ids=torch.tensor([[0, 0], [0, 1]], device=model.device), use_cache=False).logits
    if not torch.allclose(first[0], second[0], rtol=1e-3, atol=1e-4):
        raise UserError(
            f"architecture {model.config.model_type} looks at tokens that it has to predict: choose another"
        )


def adapt(model: PreTrainedModel, lora: LoRA) -> None:
    """Add adapters to a model, and let nothing else learn but them and the embeddings.

    Raises:
        UserError: peft is not installed, or the model has no such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'vltok-causal-lm[lora]'") from error
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if lora.targets is None else list(lora.targets),
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise UserError(f"lora.targets is {lora.targets}: {_line(error)}") from error
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        embeddings.requires_grad_(True)


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with its adapters merged into the layers that they adapt."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A"):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    return model


def _prepared(model: PreTrainedModel, longest: int) -> PreTrainedModel:
    """A model that reads so many tokens, and draws as it is told alone."""
    # those with relative positions may name no limit, or one that is none
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and 0 < limit < longest:
        raise UserError(
            f"this {model.config.model_type} reads up to {limit} tokens, but the longest sequence of these codes has "
            f"{longest}: choose another one, or set options: {{max_position_embeddings: {longest}}} if it can read more"
        )
    model.generation_config = GenerationConfig()
    return model


def _replace_vocabulary(model: PreTrainedModel, vocabulary: int, kept: int) -> None:
    """Give a model embeddings and a head for so many tokens: beyond those that are kept it knows nothing of them but
    what tokens are like."""
    getters = model.get_input_embeddings, model.get_output_embeddings
    kept = min(kept, len(model.get_input_embeddings().weight))
    alike = [(getter().weight.mean(0), getter().weight.std(0)) for getter in getters]
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        for getter, (mean, spread) in zip(getters, alike, strict=True):
            weight = getter().weight[kept:]
            weight.copy_(mean + spread * torch.randn_like(weight))
            bias = getattr(getter(), "bias", None)  # which few heads have
            if bias is not None:
                bias[kept:].zero_()


def _check_options(architecture: str, options: Mapping[str, Any], config_class: type[PreTrainedConfig]) -> None:
    """See that a configuration has some options, of which transformers takes any name.

    Raises:
        UserError: It has not, or they follow from the codes.
    """
    known = _known_options(config_class) - {*_OURS, *_OF_FILES}
    ours = {_own_name(config_class, name) for name in _OURS}
    for name in options:
        if _own_name(config_class, name) in ours:
            raise UserError(f"options: {name} follows from the codes: leave it out")
        if name not in known:
            raise unknown(f"option of {architecture}", name, sorted(known))


def _known_options(config_class: type[PreTrainedConfig]) -> set[str]:
    return {*config_class().to_dict(), *config_class.attribute_map}


def _own_name(config_class: type[PreTrainedConfig], name: str) -> str:
    """What a configuration calls an option that others call so: GPT-2's `hidden_size` is `n_embd`."""
    return config_class.attribute_map.get(name, name)


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
