"""The weights of a bundle, filled into the model that its configuration describes."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from vltok.errors import UserError
from vltok.io.bundle_files import WEIGHTS
from vltok.io.migrations import present, tensor_names


def load_weights(model: nn.Module, path: Path, content: Mapping[str, Any] | None = None) -> str | None:
    """Fill a model with the weights of a file; why they do not fit it, or None where they do.

    Args:
        model: What to fill.
        path: The file.
        content: What the `config.yaml` of a bundle says that may have another format.

    Raises:
        UserError: The file is damaged.
    """
    try:
        if content is None or content["format"] == present():
            load_model(model, path, strict=True)
            return None
        state = load_file(path)
        names = tensor_names(content, list(state))
        with tempfile.TemporaryDirectory() as folder:  # what shares memory is known to load_model alone
            save_file({names[name]: value for name, value in state.items()}, Path(folder) / WEIGHTS)
            load_model(model, Path(folder) / WEIGHTS, strict=True)
    except SafetensorError as error:
        raise UserError(f"'{path}' is damaged or no safetensors file: {error}") from error
    except RuntimeError as error:
        # torch names every tensor in a paragraph of its own; the first ones say enough
        return textwrap.shorten(" ".join(str(error).splitlines()[1:]) or str(error), 200, placeholder=" …")
    return None


def not_finite(model: nn.Module) -> str | None:
    """The first parameter that holds a number that is not finite, if one does."""
    return next((name for name, value in model.named_parameters() if not value.isfinite().all()), None)
