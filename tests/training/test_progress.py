"""Progress in plain lines."""

import pytest

from vltok.errors import UserError
from vltok.training import PlainProgress, TokenizerTraining
from vltok.training.progress import StepSize


def test_lines_carry_the_figures(fit, tokenizer, loader, capsys):
    fit(
        TokenizerTraining(tokenizer),
        validation=loader(),
        callbacks=[PlainProgress(every_n_seconds=1e-6)],
        enable_progress_bar=True,
        max_epochs=2,
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2 * (4 + 1)
    for name in ("loss", "psnr", "code_length", "ratio_8", "ratio_4", "codebook_usage"):
        assert f" {name} " in lines[3] and f" val_{name} " in lines[4]
        assert f" val_{name} " not in lines[8]
    assert lines[0].startswith("epoch 0  step 1  ")


def test_lines_come_now_and_then(fit, tokenizer, capsys):
    fit(
        TokenizerTraining(tokenizer),
        callbacks=[PlainProgress(every_n_seconds=3600.0)],
        enable_progress_bar=True,
        max_epochs=3,
    )
    assert capsys.readouterr().out.count("epoch") == 1


def test_it_can_be_silenced(fit, tokenizer, capsys):
    progress = PlainProgress(every_n_seconds=1e-6)
    progress.disable()
    fit(TokenizerTraining(tokenizer), callbacks=[progress], enable_progress_bar=True, max_steps=2)
    assert "epoch" not in capsys.readouterr().out
    progress.enable()
    fit(TokenizerTraining(tokenizer), callbacks=[progress], enable_progress_bar=True, max_steps=2)
    assert "epoch" in capsys.readouterr().out


def test_a_time_that_is_not_positive_is_an_error():
    with pytest.raises(UserError, match="every_n_seconds"):
        PlainProgress(every_n_seconds=0.0)


def test_the_images_of_a_step_and_their_learning_rate_are_told_once(fit, tokenizer, loader):
    told = []
    images = len(next(iter(loader())))
    fit(TokenizerTraining(tokenizer), callbacks=[StepSize(told.append)], accumulate_grad_batches=2, max_epochs=1)
    rate = f"{2 * images * 4.5e-6:.4g}"
    assert told == [f"{2 * images} images a step ({images} × 2 batches); the learning rate rises to {rate}"]
