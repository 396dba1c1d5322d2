"""Contract tests: what every component of a kind must hold, for the tests of whoever writes one.

```python
from vltok.testing import PriorContract

class TestMyPrior(PriorContract):
    def build(self):
        return MyPrior(codebook_size=2, factors=(2, 1), regions=(1, 2), width=16)
```
"""

import pytest

# before the import, so that a failed assertion shows its values
pytest.register_assert_rewrite("vltok.testing.priors")

from vltok.testing.priors import ConditionalPriorContract, PriorContract, random_codes  # noqa: E402

__all__ = ["ConditionalPriorContract", "PriorContract", "random_codes"]
