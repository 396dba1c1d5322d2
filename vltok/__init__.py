"""vltok: variable-length image tokenizers and the autoregressive priors that generate their codes."""

import importlib

from vltok.version import __version__

# Imported on first use (PEP 562): `vltok --help` must not pay for torch.
_LAZY = {
    "Codes": "vltok.codes",
    "CodeSpec": "vltok.codes",
    "Ratios": "vltok.codes",
    "Prior": "vltok.interfaces",
    "SamplingConfig": "vltok.interfaces",
    "Tokenizer": "vltok.interfaces",
    "TokenizerOutput": "vltok.interfaces",
    "find_tokenizer": "vltok.io.places",
    "load_prior": "vltok.io.bundles",
    "load_tokenizer": "vltok.io.bundles",
    "save_prior": "vltok.io.bundles",
    "save_tokenizer": "vltok.io.bundles",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'vltok' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
