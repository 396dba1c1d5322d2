"""The networks of timm."""

from typing import Any

import timm


def feature_network(name: str, **options: Any) -> Any:
    """A network of timm that gives feature maps, with a `feature_info` and a `pretrained_cfg`.

    Args:
        name: One of `timm.list_models()`.
        options: Those of `timm.create_model`.
    """
    return timm.create_model(name, features_only=True, **options)
