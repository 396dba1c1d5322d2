"""What every test of the plugin starts from."""

import pytest
import torch
from jaxtyping import install_import_hook


def pytest_configure() -> None:
    """Check the shapes in the plugin's signatures, here and only here."""
    install_import_hook("vltok_masked", "beartype.beartype")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
