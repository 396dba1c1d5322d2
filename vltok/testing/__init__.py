"""Contract tests: what every component of a kind must hold, for the tests of whoever writes one.

```python
from vltok.testing import PriorContract

class TestMyPrior(PriorContract):
    def build(self):
        return MyPrior(codebook_size=2, factors=(2, 1), regions=(1, 2), width=16)
```

Importing this needs pytest.
"""

import pkgutil

import pytest

# before the imports, so that a failed assertion shows its values
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from vltok.testing.any_grid import AnyGridContract  # noqa: E402
from vltok.testing.budgets import BudgetContract  # noqa: E402
from vltok.testing.data import CodeDataContract, DataContract, ImageDataContract  # noqa: E402
from vltok.testing.decoders import DecoderContract  # noqa: E402
from vltok.testing.discriminators import DiscriminatorContract  # noqa: E402
from vltok.testing.encoders import EncoderContract  # noqa: E402
from vltok.testing.exporters import ExporterContract  # noqa: E402
from vltok.testing.gates import GateContract  # noqa: E402
from vltok.testing.importers import ImporterContract  # noqa: E402
from vltok.testing.modules import pictures  # noqa: E402
from vltok.testing.outcomes import random_codes  # noqa: E402
from vltok.testing.perceptual import PerceptualContract  # noqa: E402
from vltok.testing.pretended_device import PretendedDevice  # noqa: E402
from vltok.testing.priors import ConditionalPriorContract, DescribedPriorContract, EmbeddedPriorContract, PriorContract  # noqa: E402
from vltok.testing.quantizers import QuantizerContract  # noqa: E402
from vltok.testing.recipes import BundleContract, RecipeContract  # noqa: E402
from vltok.testing.text_encoders import TextEncoderContract  # noqa: E402
from vltok.testing.tokenizers import TokenizerContract  # noqa: E402

__all__ = [
    "AnyGridContract",
    "BudgetContract",
    "BundleContract",
    "CodeDataContract",
    "ConditionalPriorContract",
    "DataContract",
    "DecoderContract",
    "DescribedPriorContract",
    "DiscriminatorContract",
    "EmbeddedPriorContract",
    "EncoderContract",
    "ExporterContract",
    "GateContract",
    "ImageDataContract",
    "ImporterContract",
    "PerceptualContract",
    "PretendedDevice",
    "PriorContract",
    "QuantizerContract",
    "RecipeContract",
    "TextEncoderContract",
    "TokenizerContract",
    "pictures",
    "random_codes",
]
