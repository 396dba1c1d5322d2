"""A prior for vltok that wraps any Hugging Face causal language model."""

from vltok_causal_lm.language_models import LoRA
from vltok_causal_lm.prior import CausalLM
from vltok_causal_lm.texts import Texts
from vltok_causal_lm.token_map import LegalTokens, TokenMap

__all__ = ["CausalLM", "LegalTokens", "LoRA", "Texts", "TokenMap"]
