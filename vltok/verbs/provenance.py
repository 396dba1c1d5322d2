"""What a bundle tells of the training that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def provenance_of_fit(
    recipe: Mapping[str, Any], protocol: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """What made a bundle: the recipe without the places of this machine that say nothing of the training.

    Args:
        recipe: The resolved recipe.
        protocol: What the figures depend on.
        environment: Where it was trained, and with which versions.
    """
    trainer = {key: value for key, value in recipe["trainer"].items() if value is not None and key != "logger"}
    kept = {key: value for key, value in recipe.items() if key != "out"} | {"trainer": trainer}
    return {"by": "vltok fit", "recipe": kept, "protocol": dict(protocol), "environment": dict(environment)}
