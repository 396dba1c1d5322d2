"""The average of a tokenizer's weights: what it is, where it stands, and how it survives a checkpoint."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from vltok.errors import UserError
from vltok.losses.adversarial import PatchGAN
from vltok.training import ExponentialMovingAverage, TokenizerTraining


class Recorder(Callback):
    """Keeps the trained weights after each step, and those that validation saw."""

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(pl_module.tokenizer.into.weight.detach().clone())

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated.append(pl_module.tokenizer.into.weight.detach().clone())
        assert not any(module.training for module in pl_module.tokenizer.modules())


def build(tokenizer, **options) -> TokenizerTraining:
    torch.manual_seed(0)
    return TokenizerTraining(copy.deepcopy(tokenizer), learning_rate=1e-2, scale_learning_rate=False, **options)


def test_the_average_follows_the_weights_and_is_left_as_the_tokenizer(fit, tokenizer, loader):
    recorder, training = Recorder(), build(tokenizer)
    callbacks = [ExponentialMovingAverage(decay=0.9, warmup=False), recorder]
    fit(training, validation=loader(), callbacks=callbacks, max_epochs=1)
    expected = recorder.trained[0]
    for weight in recorder.trained[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(training.tokenizer.into.weight, expected)
    for seen in recorder.validated:
        torch.testing.assert_close(seen, expected)
    assert not torch.allclose(recorder.trained[-1], expected)


def test_training_goes_on_with_the_trained_weights(fit, tokenizer, loader):
    trained = []
    for callbacks in ([], [ExponentialMovingAverage()]):
        recorder = Recorder()
        fit(build(tokenizer), validation=loader(), callbacks=[*callbacks, recorder], max_epochs=3)
        trained.append(recorder.trained)
    for without, with_average in zip(*trained, strict=True):
        assert torch.equal(without, with_average)


def test_warm_up_forgets_the_first_weights(fit, tokenizer):
    ends = []
    for warmup in (False, True):
        recorder, training = Recorder(), build(tokenizer)
        fit(training, callbacks=[ExponentialMovingAverage(decay=0.999, warmup=warmup), recorder], max_epochs=4)
        ends.append((training.tokenizer.into.weight - recorder.trained[-1]).norm())
    assert ends[1] < 0.6 * ends[0]


def test_accumulated_batches_count_as_one_step(fit, tokenizer):
    average = ExponentialMovingAverage()
    fit(build(tokenizer), callbacks=[average], max_epochs=2, accumulate_grad_batches=2)
    assert average.state_dict()["updates"] == 4


def test_only_the_tokenizer_is_averaged(fit, tokenizer):
    average = ExponentialMovingAverage()
    fit(build(tokenizer, discriminator=PatchGAN(8, 2)), callbacks=[average], max_steps=1)
    assert average.state_dict()["average"].keys() == tokenizer.state_dict().keys()


@pytest.mark.parametrize("save_last", [False, True])
def test_a_checkpoint_holds_both_and_training_resumes_exactly(fit, tokenizer, tmp_path, loader, save_last):
    def train(epochs: int, name: str, ckpt_path=None) -> tuple[TokenizerTraining, Recorder]:
        training, recorder = build(tokenizer), Recorder()
        # with save_last the checkpoint is written when training ends, while the average stands in
        saving = ModelCheckpoint(tmp_path / name, filename="end", save_top_k=0 if save_last else 1, save_last=save_last)
        fit(
            training,
            validation=loader(),
            callbacks=[ExponentialMovingAverage(decay=0.9), saving, recorder],
            enable_checkpointing=True,
            max_epochs=epochs,
            ckpt_path=ckpt_path,
        )
        return training, recorder

    whole, steps = train(2, "whole")
    half, half_steps = train(1, "half")
    path = tmp_path / "half" / ("last.ckpt" if save_last else "end.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(state["tokenizer.into.weight"], half_steps.trained[-1])
    resumed, resumed_steps = train(2, "resumed", path)
    assert torch.equal(resumed_steps.trained[-1], steps.trained[-1])
    for name, value in whole.tokenizer.state_dict().items():
        assert torch.equal(value, resumed.tokenizer.state_dict()[name]), name
    # a training that was over already gives the average as well
    over, _ = train(1, "over", path)
    assert torch.equal(over.tokenizer.into.weight, half.tokenizer.into.weight)


def test_a_second_fit_goes_on_with_the_trained_weights(fit, tokenizer):
    training, average, recorder = build(tokenizer), ExponentialMovingAverage(decay=0.9), Recorder()
    fit(training, callbacks=[average, recorder], max_steps=2)
    averaged = training.tokenizer.into.weight.detach().clone()
    fit(training, callbacks=[average, recorder], max_steps=1)
    step = (recorder.trained[2] - recorder.trained[1]).abs().max()
    assert 0 < step < 0.011  # one step of Adam is at most the learning rate
    assert not torch.equal(training.tokenizer.into.weight, averaged)


def test_a_decay_out_of_range_is_an_error():
    with pytest.raises(UserError, match="decay"):
        ExponentialMovingAverage(decay=1.0)


def test_an_average_that_is_not_finite_is_not_stored(fit, tokenizer):
    average, training = ExponentialMovingAverage(), build(tokenizer)
    trainer = fit(training, callbacks=[average], max_steps=2)
    with torch.no_grad():
        training.tokenizer.into.weight[0] = torch.nan  # the average stands here once training is over
    with pytest.raises(UserError, match=r"weights are NaN or infinite after step 2 \(into\.weight\)"):
        average.on_save_checkpoint(trainer, training, {"state_dict": {}})
