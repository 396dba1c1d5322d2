import itertools
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.sequences.data import CodeData

from .code_exports import export_codes, export_samples, mixed_samples, random_codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes")
    export_codes(path, random_codes(97), shard_size=10)
    return path


class Recorder(pl.LightningModule):
    """Trains one number, and remembers which samples it met; it may break down in the middle of an epoch."""

    def __init__(self, breakdown: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = True
        self.weight = nn.Parameter(torch.zeros(()))
        self.breakdown = breakdown
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, codes: Codes, _: int) -> torch.Tensor:
        if len(self.seen) == self.breakdown:
            raise KeyError("the machine is taken away")
        self.seen.append(codes.labels.tolist())
        return self.weight * codes.ids.float().mean()

    def validation_step(self, codes: Codes, _: int) -> None:
        self.validated += codes.labels.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Recorder, data: CodeData, folder: Path, **arguments) -> None:
    checkpoints = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=5)
    pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[checkpoints],
    ).fit(module, data, **arguments)


def test_lightning_resumes_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path) -> None:
    def data() -> CodeData:
        return CodeData(str(folder), token_budget=200, workers=0)

    undisturbed = Recorder()
    fit(undisturbed, data(), tmp_path / "undisturbed")
    epoch = len(data().train_dataloader())
    assert len(undisturbed.seen) == 3 * epoch
    assert sorted(itertools.chain(*undisturbed.seen[:epoch])) == list(range(97))
    broken = Recorder(breakdown=epoch + 4)
    with pytest.raises(KeyError, match="taken away"):
        fit(broken, data(), tmp_path / "broken")
    done = (epoch + 4) // 5 * 5
    assert done > epoch and done % epoch
    resumed = Recorder()
    fit(resumed, data(), tmp_path / "broken", ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    assert broken.seen[:done] + resumed.seen == undisturbed.seen


def test_validation_codes_are_met_in_order(folder: Path, tmp_path: Path) -> None:
    export_codes(tmp_path / "validation", random_codes(11, seed=1))
    data = CodeData(str(folder), validation=str(tmp_path / "validation"), batch_size=30, workers=0)
    module = Recorder()
    fit(module, data, tmp_path)
    assert module.validated == 3 * list(range(11))
    assert data.training.facts.spec.regions == (2, 3)
    assert data.training.facts.classes[2] == "class 2"


def test_validation_codes_of_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(11), tokenizer="5" * 64)
    with pytest.raises(UserError, match="not of one tokenizer"):
        CodeData(str(folder), validation=str(tmp_path), batch_size=3).val_dataloader()


def test_validation_codes_of_other_classes_are_refused(tmp_path: Path) -> None:
    for name, classes in (("train", 2), ("val", 5)):
        export_codes(tmp_path / name, random_codes(5), classes=classes)
    with pytest.raises(UserError, match=r"data\.validation: .* number 2 is 'class 2' here and none there"):
        _ = CodeData(str(tmp_path / "train"), str(tmp_path / "val")).held_out


def test_codes_of_several_grids_are_validated_on_those_of_any(tmp_path: Path) -> None:
    export_samples(tmp_path / "train", mixed_samples(12, [(2, 3), (3, 2)]))
    export_codes(tmp_path / "val", random_codes(5, grid=(3, 2)), classes=12)
    data = CodeData(str(tmp_path / "train"), str(tmp_path / "val"), batch_size=4, workers=0)
    assert data.held_out.facts.spec == data.training.facts.spec and data.held_out.facts.grids == ((3, 2),)
    assert {tuple(codes.grains.shape[1:]) for codes in data.train_dataloader()} == {(2, 3), (3, 2)}
    with pytest.raises(UserError, match="not of one tokenizer and size"):
        CodeData(str(tmp_path / "val"), str(tmp_path / "train"), batch_size=4).val_dataloader()
