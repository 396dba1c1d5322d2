"""Priors as models of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig

from vltok.errors import UserError
from vltok.io.exporters.base import Exporter
from vltok_causal_lm.language_models import without_adapters
from vltok_causal_lm.prior import CausalLM
from vltok_causal_lm.token_map import TokenMap


class Transformers(Exporter):
    """Folders that `AutoModelForCausalLM.from_pretrained` loads, of priors `causal-lm`; adapters are merged."""

    kind = "prior"

    def write(self, model: nn.Module, bundle: Mapping[str, Any], folder: Path) -> None:
        """Write config.json, generation_config.json, the weights as safetensors, and tokens.json."""
        if not isinstance(model, CausalLM):
            raise UserError(f"transformers has no counterpart of {bundle['prior']['class_path']}: it takes causal-lm")
        if model.text_tokens is not None:
            raise UserError("a prior causal-lm with texts cannot be exported to transformers: draw with vltok itself")
        tokens = TokenMap(model.spec, model.conditioning, bundle["tokenizer"]["fingerprint"])
        language_model = without_adapters(model.model)
        language_model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=tokens.most,
            bos_token_id=tokens.first_start,
            eos_token_id=tokens.last,
            pad_token_id=tokens.first_start,
        )
        language_model.save_pretrained(folder)
        tokens.save(folder)
