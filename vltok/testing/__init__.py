"""Contract tests: what every component of a kind must hold, for the tests of whoever writes one.

```python
from vltok.testing import PriorContract

class TestMyPrior(PriorContract):
    def build(self):
        return MyPrior(codebook_size=2, factors=(2, 1), regions=(1, 2), width=16)
```

Importing this needs pytest.
"""

import pytest

# before the imports, so that a failed assertion shows its values
_MODULES = ("budgets", "decoders", "encoders", "gates", "modules", "priors", "quantizers", "tokenizers")
pytest.register_assert_rewrite(*(f"vltok.testing.{name}" for name in _MODULES))

from vltok.testing.budgets import BudgetContract  # noqa: E402
from vltok.testing.decoders import DecoderContract  # noqa: E402
from vltok.testing.encoders import EncoderContract  # noqa: E402
from vltok.testing.gates import GateContract  # noqa: E402
from vltok.testing.modules import pictures  # noqa: E402
from vltok.testing.priors import ConditionalPriorContract, PriorContract, random_codes  # noqa: E402
from vltok.testing.quantizers import QuantizerContract  # noqa: E402
from vltok.testing.tokenizers import TokenizerContract  # noqa: E402

__all__ = [
    "BudgetContract",
    "ConditionalPriorContract",
    "DecoderContract",
    "EncoderContract",
    "GateContract",
    "PriorContract",
    "QuantizerContract",
    "TokenizerContract",
    "pictures",
    "random_codes",
]
