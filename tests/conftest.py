"""What every test may ask for. Shapes in vltok's signatures are checked here, and only here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping

jaxtyping.install_import_hook("vltok", "beartype.beartype")

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

PARITY = Path(__file__).parents[2] / "shared" / "parity"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def parity() -> Callable[[str], tuple[dict[str, torch.Tensor], dict]]:
    """Read a fixture of the original implementation: its tensors, and its configuration."""
    if not PARITY.is_dir():
        pytest.skip(f"the original implementation's numbers are not at {PARITY}")

    def read(name: str) -> tuple[dict[str, torch.Tensor], dict]:
        path = PARITY / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        return load_file(path), json.loads(metadata["config"])

    return read


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Calls as users make them: nothing looks at the types of arguments but vltok itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
