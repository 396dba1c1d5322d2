"""The watch for losses and weights that are no longer finite."""

from types import SimpleNamespace

import pytest
import torch

from vltok.errors import UserError
from vltok.losses.perceptual import NoPerceptual
from vltok.training import TokenizerTraining
from vltok.training.finiteness import FiniteWatch, require_finite_weights

FINE, NAN, INFINITE = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))


def test_finite_losses_pass():
    watch = FiniteWatch()
    watch.require_finite()
    for step in range(3):
        watch.note(step, {"pixel": FINE, "loss": FINE * step})
    watch.require_finite()


def test_the_first_broken_step_is_named_with_its_losses():
    watch = FiniteWatch()
    watch.note(0, {"pixel": FINE, "budget": FINE, "loss": FINE})
    watch.note(1, {"pixel": FINE, "budget": INFINITE, "loss": INFINITE})
    watch.note(2, {"pixel": NAN, "budget": NAN, "loss": NAN})
    with pytest.raises(UserError, match=r"step 1 \(not finite: budget, loss\).*learning_rate"):
        watch.require_finite()


def test_losses_may_come_in_later():
    watch = FiniteWatch()
    watch.note(0, {"loss": FINE})
    watch.note(1, {"loss": NAN, "adversarial": NAN})
    watch.note(2, {"loss": NAN})
    with pytest.raises(UserError, match=r"step 1 \(not finite: loss, adversarial\)"):
        watch.require_finite()


def test_broken_weights_are_named():
    module = torch.nn.BatchNorm1d(2)
    module.register_buffer("thresholds", INFINITE.clone())
    require_finite_weights(module, step=3)
    module.weight.data[0] = float("inf")
    module.running_mean[1] = float("nan")
    with pytest.raises(UserError, match=r"after step 3 \(weight and 1 more\)"):
        require_finite_weights(module, step=3)


@pytest.mark.parametrize("scaler", [None, object()], ids=["float32", "16-mixed"])
def test_a_gradient_that_is_infinite_is_an_error_unless_its_scaler_skips_it(tokenizer, scaler):
    training = TokenizerTraining(tokenizer)
    training.trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), global_step=2, log_every_n_steps=50
    )
    optimizer = training.configure_optimizers()
    tokenizer.into.weight.grad = torch.full_like(tokenizer.into.weight, torch.inf)
    watch = FiniteWatch()
    if scaler is not None:
        watch.note_gradient(training, optimizer)
        watch.require_finite()
    else:
        with pytest.raises(UserError, match=r"step 2 \(not finite: gradient\)"):
            watch.note_gradient(training, optimizer)


@pytest.mark.parametrize("clipped", [None, 1.0])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(tokenizer, fit, precision, clipped):
    """Lightning lets a fused optimizer clip no gradients in mixed precision."""
    training = TokenizerTraining(tokenizer, NoPerceptual(), learning_rate=1e-3)
    trainer = fit(training, max_steps=2, precision=precision, gradient_clip_val=clipped)
    assert trainer.global_step == 2
    assert training.optimizers().defaults["fused"] == (precision == "32-true" or clipped is None)
