"""The adversarial part of training a tokenizer, as VQGAN has it: Esser et al. 2021, https://arxiv.org/abs/2012.09841."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vltok.errors import UserError
from vltok.interfaces import Discriminator
from vltok.nn.norms import BatchNorm
from vltok.processes import mean_over_processes


class PatchGAN(Discriminator):
    """The patch discriminator of pix2pix: a logit for each patch of 70 × 70 pixels (at three layers), every 8 pixels.

    Isola et al. 2017, https://arxiv.org/abs/1611.07004, with batch norm (over the images of all processes), as VQGAN
    uses it.

    Args:
        width: Channels of the first layer; they double with each layer, up to eightfold.
        layers: Number of layers that halve the picture; a picture needs sides of at least 3 · 2^layers pixels.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise UserError(f"patchgan needs a width and layers of at least 1, not {width} and {layers}")
        self._smallest = 3 * 2**layers
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for layer in range(1, layers + 1):
            wider = width * min(2**layer, 8)
            blocks += [
                nn.Conv2d(channels, wider, 4, stride=2 if layer < layers else 1, padding=1, bias=False),
                BatchNorm(wider),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels = wider
        blocks.append(nn.Conv2d(channels, 1, 4, stride=1, padding=1))
        self.main = nn.Sequential(*blocks)
        for name, parameter in self.main.named_parameters():
            if name.endswith("weight"):  # of a convolution, or of a norm
                nn.init.normal_(parameter, 0.0 if parameter.ndim > 1 else 1.0, 0.02)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 _ _"]:
        """A logit for each patch: high for real ones.

        Raises:
            UserError: The images are too small for any patch.
        """
        if min(images.shape[2:]) < self._smallest:
            raise UserError(
                f"patchgan needs images of at least {self._smallest} pixels a side, not "
                f"{images.shape[2]} x {images.shape[3]}: set fewer 'layers', or 'discriminator: null'"
            )
        return self.main(images)


def hinge_generator_loss(fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """What the tokenizer minimises: the negative mean logit of its reconstructions."""
    return -fake.float().mean()


def hinge_discriminator_loss(real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """What the discriminator minimises: half of the two hinges, which want real logits above 1 and others below −1."""
    return (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()) / 2


def gradient_at(pixels: Float[Tensor, "b 3 H W"], loss: Float[Tensor, ""]) -> Float[Tensor, "b 3 H W"]:
    """The gradient of a loss at the pixels from which it was computed, in single precision; its graph stays.

    Args:
        pixels: Reconstructions, which need a gradient.
        loss: A mean over them.
    """
    # A power of two, which changes no digit, keeps the gradients of single pixels in the range of half precision.
    scale = 2.0**12
    return torch.autograd.grad(loss * scale, pixels, retain_graph=True)[0].float() / scale


def adaptive_weight(
    reconstruction: Float[Tensor, "b 3 H W"],
    reconstruction_gradient: Float[Tensor, "b 3 H W"],
    adversarial_gradient: Float[Tensor, "b 3 H W"],
    last_layer: Tensor,
    weight: float = 1.0,
    maximum: float | None = 0.75,
) -> Float[Tensor, ""]:
    """The weight that lets the adversarial loss pull at the last layer as hard as the reconstruction loss.

    ‖∇ reconstruction‖ / (‖∇ adversarial‖ + 1e-4), clamped to [0, 1e4], times `weight`, at most `maximum` (VQGAN,
    eq. 7; the maximum is DQ-VAE's). No gradient flows through it. It is the same on all processes: the gradients are
    those of their losses' mean.

    Args:
        reconstruction: What the last layer gave.
        reconstruction_gradient: The gradient at it of the pixel and perceptual losses, weighted.
        adversarial_gradient: The gradient at it of the generator's side of the adversarial loss.
        last_layer: The weight of the layer that gives the pixels.
        weight: Multiplies the ratio.
        maximum: The most that the result may be, or None.
    """
    scale = 2.0**12  # see `gradient_at`
    gradients = [
        torch.autograd.grad(reconstruction, last_layer, (gradient * scale).to(reconstruction.dtype), retain_graph=True)[
            0
        ].float()
        for gradient in (reconstruction_gradient, adversarial_gradient)
    ]
    norms = mean_over_processes(torch.stack(gradients)).flatten(1).norm(dim=1) / scale
    balanced = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach() * weight
    return balanced if maximum is None else balanced.clamp(max=maximum)


def with_gradient(
    value: Float[Tensor, ""], pixels: Float[Tensor, "b 3 H W"], gradient: Float[Tensor, "b 3 H W"]
) -> Float[Tensor, ""]:
    """A loss whose gradient at the pixels is known already, so that nothing is run backwards for it again.

    Args:
        value: What it comes to.
        pixels: Reconstructions.
        gradient: Its gradient at them.
    """
    product = (pixels.float() * gradient).sum()
    return value.detach() + (product - product.detach())
