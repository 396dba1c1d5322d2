"""The discriminator and its losses, against the original implementation's numbers."""

import pytest
import torch
from torch.nn import functional as F

from vltok.errors import UserError
from vltok.losses.adversarial import (
    PatchGAN,
    adaptive_weight,
    gradient_at,
    hinge_discriminator_loss,
    hinge_generator_loss,
    with_gradient,
)


def balance(reconstruction, distance, adversarial, last_layer, *options, **limits):
    """The adaptive weight of two losses."""
    gradients = (gradient_at(reconstruction, loss) for loss in (distance, adversarial))
    return adaptive_weight(reconstruction, *gradients, last_layer, *options, **limits)


def build(tensors: dict, config: dict) -> PatchGAN:
    discriminator = PatchGAN(width=config["ndf"], layers=config["n_layers"])
    discriminator.load_state_dict({key[3:]: value for key, value in tensors.items() if key.startswith("sd.")})
    return discriminator


def test_logits_agree_with_the_original(parity):
    tensors, config = parity("discriminator")
    discriminator = build(tensors, config).eval()
    for side in ("real", "fake"):
        expected = tensors[f"out.eval_logits_{side}"]
        torch.testing.assert_close(discriminator(tensors[f"in.{side}"]), expected, rtol=1e-4, atol=1e-4)
    discriminator.train()
    trained = discriminator(tensors["in.real"])
    torch.testing.assert_close(trained, tensors["out.train_logits_real"], rtol=1e-4, atol=1e-4)
    prefix = "out.after_train_forward."
    after = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    assert after
    for key, value in after.items():
        torch.testing.assert_close(discriminator.state_dict()[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("cap", "weight"), [(0.75, 1.0), (None, 0.8)])
def test_hinge_losses_agree_with_the_original(parity, cap, weight):
    tensors, config = parity("discriminator")
    discriminator = build(tensors, config).eval()
    expected = {
        key.split(".", 2)[-1].removeprefix("75."): value
        for key, value in tensors.items()
        if key.startswith(f"hinge.max{cap}.")
    }
    last_layer = tensors["last_layer.weight"].requires_grad_()
    real = tensors["in.real"]
    reconstruction = F.conv2d(tensors["in.feat"], last_layer, tensors["last_layer.bias"], padding=1)
    pixel = (real - reconstruction).abs().mean()
    adversarial = hinge_generator_loss(discriminator(reconstruction))
    balanced = balance(reconstruction, pixel, adversarial, last_layer, weight, cap)
    total = pixel + balanced * adversarial + config["codebook_loss"] + expected["budget_loss"]
    discriminator_loss = hinge_discriminator_loss(discriminator(real), discriminator(reconstruction.detach()))
    for name, value in {
        "nll_loss": pixel,
        "g_loss": adversarial,
        "d_weight": balanced,
        "total_loss": total,
        "disc_loss": discriminator_loss,
    }.items():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_the_weight_is_clamped_and_carries_no_gradient():
    last_layer = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
    pixels = last_layer.view(1, 3, 1, 1) * 1.0
    strong, weak = pixels.sum() * 1e3, pixels.sum() * 1e-9
    assert balance(pixels, strong, weak, last_layer, maximum=0.75).item() == 0.75
    assert balance(pixels, strong, weak, last_layer, maximum=None).item() == 1e4
    assert balance(pixels, weak, strong, last_layer).item() == pytest.approx(1e-12, rel=1e-3)
    equal = balance(pixels, pixels.sum(), pixels.sum(), last_layer, weight=0.5, maximum=None)
    assert equal.item() == pytest.approx(0.5 * 3**0.5 / (3**0.5 + 1e-4), rel=1e-5)
    assert not equal.requires_grad
    assert last_layer.grad is None


def test_the_weight_survives_half_precision():
    """Gradients of single pixels of a large batch underflow in half precision unless they are scaled."""
    last_layer = torch.ones(1, requires_grad=True)
    reconstruction = (last_layer * torch.ones(1, 3, 1000, 2000)).half()
    pixel = reconstruction.float().mean()
    balanced = balance(reconstruction, pixel, pixel * 2, last_layer, maximum=None)
    assert balanced.item() == pytest.approx(0.5, rel=0.05)


def test_a_loss_with_a_gradient_that_is_known_equals_the_loss():
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = (features.tanh() ** 2).mean()
    expected = torch.autograd.grad(loss, features)[0]
    pixels = features.tanh()
    copied = pixels.detach().requires_grad_()
    known = with_gradient((copied**2).mean(), pixels, gradient_at(copied, (copied**2).mean()))
    assert known.item() == loss.item()
    torch.testing.assert_close(torch.autograd.grad(known, features)[0], expected)


def test_the_hinges():
    real, fake = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[-3.0, 1.0]]]])
    assert hinge_generator_loss(fake).item() == 1.0
    assert hinge_discriminator_loss(real, fake).item() == (0.5 + 1.0) / 2


def test_every_parameter_gets_a_gradient():
    discriminator = PatchGAN(width=8, layers=2)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    # shifted, so that the two sides do not cancel out at the last bias
    hinge_discriminator_loss(discriminator(images), discriminator(-images) - 5).backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_weights_start_as_vqgans():
    state = PatchGAN().state_dict()
    assert state["main.8.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert state["main.9.weight"].mean().item() == pytest.approx(1.0, abs=0.01)
    assert state["main.11.weight"].shape == (1, 512, 4, 4)


def test_small_images_are_an_error():
    assert PatchGAN(width=8)(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(UserError, match=r"at least 24 pixels.*23 x 64.*layers"):
        PatchGAN(width=8)(torch.zeros(1, 3, 23, 64))
    with pytest.raises(UserError, match="at least 1"):
        PatchGAN(layers=0)
