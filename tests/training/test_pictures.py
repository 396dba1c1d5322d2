"""Pictures for TensorBoard."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vltok.errors import UserError
from vltok.training import PictureLogger, TokenizerTraining
from vltok.training.pictures import draw_rows


def test_rows_show_input_reconstruction_coding_map_and_error_map(tokenizer, images):
    picture = draw_rows(tokenizer, images[:3])
    assert picture.shape == (3, 3 * 34 + 2, 4 * 34 + 2)
    assert picture.min() >= 0 and picture.max() <= 1
    torch.testing.assert_close(picture[:, 2:34, 2:34], (images[0] + 1) / 2)
    reconstruction = tokenizer.decode(tokenizer.encode(images[2:3]))[0].clamp(-1, 1)
    torch.testing.assert_close(picture[:, 70:102, 36:68], (reconstruction + 1) / 2)
    # a row for each image, and four different pictures in it
    tiles = picture[:, 2:34, :136].unfold(2, 32, 34)
    assert all(not torch.equal(tiles[:, :, left], tiles[:, :, right]) for left in range(4) for right in range(left))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pictures_are_logged_of_both_kinds_of_images(fit, tokenizer, loader, tmp_path, precision):
    logger = TensorBoardLogger(tmp_path, name="board", version=0)
    fit(
        TokenizerTraining(tokenizer),
        validation=loader(),
        callbacks=[PictureLogger(count=2, every_n_steps=3)],
        logger=[logger, CSVLogger(tmp_path)],
        max_epochs=2,
        accumulate_grad_batches=2,
        precision=precision,
    )
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    steps = {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]}
    assert steps == {"pictures/training": [3], "pictures/validation": [2, 4]}
    assert {"loss", "psnr", "ratio_8", "code_length", "codebook_usage", "learning_rate"} <= set(
        events.Tags()["scalars"]
    )


def test_drawing_leaves_the_training_as_it_is(fit, tokenizer, loader, tmp_path):
    import copy

    weights = []
    for callbacks in ([], [PictureLogger(every_n_steps=1)]):
        torch.manual_seed(0)
        training = TokenizerTraining(copy.deepcopy(tokenizer))
        logger = TensorBoardLogger(tmp_path, version=len(weights))
        fit(training, validation=loader(), callbacks=callbacks, logger=logger, max_epochs=2)
        weights.append(training.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_other_loggers_get_none(fit, tokenizer, tmp_path):
    logger = CSVLogger(tmp_path)
    fit(TokenizerTraining(tokenizer), callbacks=[PictureLogger(every_n_steps=1)], logger=logger, max_steps=2)
    assert not list(tmp_path.rglob("events*"))


def test_numbers_below_one_are_errors():
    with pytest.raises(UserError, match="every_n_steps"):
        PictureLogger(every_n_steps=0)
