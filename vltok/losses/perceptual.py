"""Perceptual distances between images. They have no dropout, and nothing in them is trained."""

from __future__ import annotations

import http.client
import itertools
import pickle
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import timm
import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from vltok.errors import UserError, first_line
from vltok.interfaces import Perceptual
from vltok.nn.backbones import feature_network

#: Where VGG16's layers are cut: behind relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
VGG16_CUTS = (0, 4, 9, 16, 23, 30)

_IN_RECIPES = "do without it by 'perceptual: none' (or 'perceptual: timm') in the recipe's model"


class LPIPS(Perceptual):
    """The learned perceptual image patch similarity, VGG16 variant: features of VGG16, weighed by learned heads.

    The heads are those that torchmetrics carries; the backbone is torchvision's, which it downloads once, or finds as
    ``vgg16-397923af.pth`` in ``$TORCH_HOME/hub/checkpoints``. Zhang et al. 2018, https://arxiv.org/abs/1801.03924.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.ModuleList()
        self.heads = nn.ParameterList()
        # ImageNet's mean and deviation for images in [-1, 1], as the heads were trained with
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def load(self) -> None:
        """Get VGG16's weights and the heads.

        Raises:
            UserError: VGG16's weights are neither on this machine nor to be had from the network, or are damaged.
        """
        self.load_or(_IN_RECIPES)

    def load_or(self, otherwise: str) -> None:
        """The same.

        Args:
            otherwise: What a user does without the weights; errors name it.

        Raises:
            UserError: As `load`.
        """
        if len(self.slices):
            return
        layers = _vgg16_features(otherwise)
        self.slices.extend(layers[start:end] for start, end in itertools.pairwise(VGG16_CUTS))
        self.heads.extend(_lpips_heads())
        self.requires_grad_(False).to(self.shift.device)

    def forward(self, reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """The mean distance over the batch; 0 for equal images."""
        with torch.no_grad():
            targets = self._features(images)
        distances = [
            # no einsum: autocast would carry it out in half a precision
            (_unit(feature).sub(_unit(target)).square() * head[:, None, None]).sum(1).mean()
            for feature, target, head in zip(self._features(reconstructions), targets, self.heads, strict=True)
        ]
        return torch.stack(distances).sum()

    def _features(self, images: Tensor) -> list[Tensor]:
        features = (images - self.shift) / self.scale
        found = []
        for layers in self.slices:
            features = layers(features)
            found.append(features)
        return found


class TimmPerceptual(Perceptual):
    """The distance between the features of any timm backbone that offers `features_only`.

    At each stage, features are brought to length 1 along their channels; the squared distance is averaged over places,
    images and stages, so that it lies in [0, 4]. LPIPS without its learned heads.

    Args:
        backbone: The name of a timm model, such as ``convnext_tiny.dinov3_lvd1689m`` or ``vgg16.tv_in1k``.
        pretrained: Whether to load timm's weights for it; random features are only of use in tests.
        stages: Which of its stages count, as indices from fine to coarse; None for all.

    Raises:
        UserError: timm has no such backbone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, pretrained: bool = True, stages: Sequence[int] | None = None) -> None:
        super().__init__()
        if not timm.is_model(backbone):
            raise UserError(
                f"timm has no backbone '{backbone}'; timm.list_models('*{backbone.split('_')[0]}*') lists those like it"
            )
        self.backbone = backbone
        self.pretrained = pretrained
        self.stages = stages
        # what timm builds for features has no type that says so
        self.network: Any = None

    def load(self) -> None:
        """Build the backbone, and get its weights.

        Raises:
            UserError: The backbone offers no such features, or its weights are not to be had.
        """
        if self.network is not None:
            return
        chosen = {} if self.stages is None else {"out_indices": tuple(self.stages)}
        try:
            network = feature_network(self.backbone, pretrained=self.pretrained, **chosen)
        except Exception as error:  # timm and the Hub raise whatever their HTTP client and loader raise
            raise UserError(
                f"the features{' and weights' if self.pretrained else ''} of timm's '{self.backbone}' cannot be had "
                f"({type(error).__name__}: {first_line(error)}): choose another 'backbone' or 'stages', get the "
                "weights where there is a network (they are kept in $HF_HOME/hub), or set 'perceptual: none'"
            ) from error
        self.network = network.requires_grad_(False).eval()
        self._channels_axis = 1 if str(network.output_fmt) == "NCHW" else -1
        for name in ("mean", "std"):
            values = torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """The mean distance over the batch; 0 for equal images."""
        # a frozen network stays in evaluation mode even if what holds it was told to train
        if self.network.training:
            self.network.eval()
        with torch.no_grad():
            targets = self._features(images)
        axis = self._channels_axis
        distances = [
            _unit(feature, axis).sub(_unit(target, axis)).square().sum(axis).mean()
            for feature, target in zip(self._features(reconstructions), targets, strict=True)
        ]
        return torch.stack(distances).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        return self.network(((images + 1) / 2 - self.mean) / self.std)


class NoPerceptual(Perceptual):
    """No perceptual distance: always 0."""

    def load(self) -> None:
        """Nothing is needed."""

    def forward(self, reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """Zero."""
        return reconstructions.new_zeros((), dtype=torch.float32)


def each_distance(
    perceptual: Perceptual,
) -> Callable[[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]], Float[Tensor, " b"]]:
    """The distance of each image, of a network whose loss is a mean over its batch."""
    return torch.vmap(lambda decoded, original: perceptual(decoded[None], original[None]))


def _unit(features: Tensor, axis: int = 1) -> Tensor:
    """Features of length 1 along their channels, in single precision: half a precision loses small differences."""
    features = features.float()
    return features * (features.square().sum(axis, keepdim=True) + 1e-8).rsqrt()


def _vgg16_features(otherwise: str) -> nn.Sequential:
    """The convolutional layers of VGG16 with torchvision's ImageNet weights."""
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    name = weights.url.rpartition("/")[2]
    folder = f"{torch.hub.get_dir()}/checkpoints"
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"LPIPS needs the weights of VGG16: {name} is not in {folder} and cannot be downloaded "
            f"({first_line(error)}); put {weights.url} there, or {otherwise}"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{folder}/{name}, the weights of VGG16 that LPIPS needs, is damaged ({first_line(error)}): "
            f"delete it and get {weights.url} again, or {otherwise}"
        ) from error
    # on the meta device, because the classifier, which is not needed, is nine tenths of VGG16
    with torch.device("meta"):
        layers = torchvision.models.vgg16(init_weights=False).features
    prefix = "features."
    layers.load_state_dict(
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, assign=True
    )
    return layers


def _lpips_heads() -> list[nn.Parameter]:
    """The weight of each channel at each cut, `[c]`, as torchmetrics carries them."""
    path = files("torchmetrics.functional.image") / "lpips_models" / "vgg.pth"
    with path.open("rb") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    return [nn.Parameter(state[f"lin{cut}.model.1.weight"].flatten()) for cut in range(len(VGG16_CUTS) - 1)]
