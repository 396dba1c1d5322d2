"""Pictures of a training, for its loggers."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vltok.errors import UserError
from vltok.figures.grids import reconstruction_grid
from vltok.training import PictureLogger, TokenizerTraining
from vltok.training.curves import CurveLogger
from vltok.training.pictures import draw_coded


def test_a_picture_shows_what_a_tokenizer_makes_of_images(tokenizer, images):
    picture = draw_coded(tokenizer, images[:3])
    codes = tokenizer.encode(images[:3])
    assert picture == reconstruction_grid(images[:3], tokenizer.decode(codes), codes, tokenizer.spec)


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


class Board(Logger):
    """Shows pictures as Weights & Biases does."""

    name, version = "board", "0"

    def __init__(self):
        super().__init__()
        self.shown = []

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, *args, **kwargs): ...

    def log_image(self, key, images, step=None):
        self.shown.append((key, [image.mode for image in images], step))


class Plain(Logger):
    """Knows figures alone."""

    name, version = "plain", "0"

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, *args, **kwargs): ...


def test_every_logger_gets_the_pictures(fit, tokenizer, loader, tmp_path):
    board, table = Board(), CSVLogger(tmp_path / "table", name="", version="")
    fit(
        TokenizerTraining(tokenizer),
        validation=loader(),
        callbacks=[PictureLogger(count=1, every_n_steps=2)],
        logger=[board, table, Plain(), CurveLogger(tmp_path)],
        max_steps=4,
    )
    assert board.shown == [
        ("pictures/training", ["RGB"], 2),
        ("pictures/training", ["RGB"], 4),
        ("pictures/validation", ["RGB"], 4),
    ]
    for folder in (tmp_path / "table", tmp_path / "logs"):
        names = sorted(path.name for path in (folder / "pictures").iterdir())
        assert names == ["training-0000002.png", "training-0000004.png", "validation-0000004.png"]
        with Image.open(folder / "pictures" / names[0]) as picture:
            assert picture.mode == "RGB" and len(picture.getcolors(2**20)) > 100
    assert {path.name for path in tmp_path.iterdir()} == {"table", "logs", "metrics.csv"}


def test_numbers_below_one_are_errors():
    with pytest.raises(UserError, match="every_n_steps"):
        PictureLogger(every_n_steps=0)
