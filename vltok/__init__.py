"""vltok: variable-length image tokenizers and the autoregressive priors that generate their codes."""

import importlib
from typing import TYPE_CHECKING, Any

from vltok.version import __version__

if TYPE_CHECKING:  # what editors and type checkers see; tests hold it equal to `_LAZY`
    from vltok.codes import Codes as Codes
    from vltok.codes import CodeSpec as CodeSpec
    from vltok.codes import Ratios as Ratios
    from vltok.drawing.config import SamplingConfig as SamplingConfig
    from vltok.interfaces import Prior as Prior
    from vltok.interfaces import Tokenizer as Tokenizer
    from vltok.interfaces import TokenizerOutput as TokenizerOutput
    from vltok.io.bundles import fingerprint as fingerprint
    from vltok.io.bundles import load_prior as load_prior
    from vltok.io.bundles import load_tokenizer as load_tokenizer
    from vltok.io.bundles import save_prior as save_prior
    from vltok.io.bundles import save_tokenizer as save_tokenizer
    from vltok.io.places import find_tokenizer as find_tokenizer
    from vltok.io.places import places_of as places_of
    from vltok.io.recipe_files import recipe_text as recipe_text
    from vltok.io.recipe_files import shipped_recipes as shipped_recipes
    from vltok.pictures.single import load_image as load_image
    from vltok.rates import Rate as Rate
    from vltok.tokenizers.rate import RateEncoder as RateEncoder
    from vltok.verbs.ablating import ablate as ablate
    from vltok.verbs.build import build as build
    from vltok.verbs.compare import compare as compare
    from vltok.verbs.compress import compress as compress
    from vltok.verbs.decompress import decompress as decompress
    from vltok.verbs.detokenize import detokenize as detokenize
    from vltok.verbs.doctor import doctor as doctor
    from vltok.verbs.evaluate import evaluate as evaluate
    from vltok.verbs.export import export as export
    from vltok.verbs.fitting import fit as fit
    from vltok.verbs.import_model import import_model as import_model
    from vltok.verbs.info import info as info
    from vltok.verbs.merge import merge as merge
    from vltok.verbs.new import new as new
    from vltok.verbs.pack import pack as pack
    from vltok.verbs.plugins import plugins as plugins
    from vltok.verbs.push import push as push
    from vltok.verbs.rate import rate as rate
    from vltok.verbs.reconstruct import reconstruct as reconstruct
    from vltok.verbs.sample import sample as sample
    from vltok.verbs.tokenize import tokenize as tokenize

# Imported on first use (PEP 562): `vltok --help` must not pay for torch.
_NAMES = {
    "vltok.codes": ["Codes", "CodeSpec", "Ratios"],
    "vltok.drawing.config": ["SamplingConfig"],
    "vltok.interfaces": ["Prior", "Tokenizer", "TokenizerOutput"],
    "vltok.io.bundles": ["fingerprint", "load_prior", "load_tokenizer", "save_prior", "save_tokenizer"],
    "vltok.io.places": ["find_tokenizer", "places_of"],
    "vltok.io.recipe_files": ["recipe_text", "shipped_recipes"],
    "vltok.pictures.single": ["load_image"],
    "vltok.rates": ["Rate"],
    "vltok.tokenizers.rate": ["RateEncoder"],
    "vltok.verbs.ablating": ["ablate"],
    "vltok.verbs.build": ["build"],
    "vltok.verbs.compare": ["compare"],
    "vltok.verbs.compress": ["compress"],
    "vltok.verbs.decompress": ["decompress"],
    "vltok.verbs.detokenize": ["detokenize"],
    "vltok.verbs.doctor": ["doctor"],
    "vltok.verbs.evaluate": ["evaluate"],
    "vltok.verbs.export": ["export"],
    "vltok.verbs.fitting": ["fit"],
    "vltok.verbs.import_model": ["import_model"],
    "vltok.verbs.info": ["info"],
    "vltok.verbs.merge": ["merge"],
    "vltok.verbs.new": ["new"],
    "vltok.verbs.pack": ["pack"],
    "vltok.verbs.plugins": ["plugins"],
    "vltok.verbs.push": ["push"],
    "vltok.verbs.rate": ["rate"],
    "vltok.verbs.reconstruct": ["reconstruct"],
    "vltok.verbs.sample": ["sample"],
    "vltok.verbs.tokenize": ["tokenize"],
}
_LAZY = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vltok' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        from vltok.errors import UserError
        from vltok.extras import remedy

        if missing := remedy(error):
            raise UserError(f"vltok.{name}: {missing}") from error
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
