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
pytest.register_assert_rewrite(
    *(f"vltok.testing.{name}" for name in ("budgets", "modules", "priors", "quantizers", "tokenizers"))
)

from vltok.testing.budgets import BudgetContract  # noqa: E402
from vltok.testing.modules import pictures  # noqa: E402
from vltok.testing.priors import ConditionalPriorContract, PriorContract, random_codes  # noqa: E402
from vltok.testing.quantizers import QuantizerContract  # noqa: E402
from vltok.testing.tokenizers import TokenizerContract  # noqa: E402

__all__ = [
    "BudgetContract",
    "ConditionalPriorContract",
    "PriorContract",
    "QuantizerContract",
    "TokenizerContract",
    "pictures",
    "random_codes",
]
