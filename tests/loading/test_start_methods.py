"""Workers that do not begin as copies of the training, as on macOS, Windows and from Python 3.14 on."""

from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

import vltok
from vltok.loading import workers
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos
from vltok.pictures.shards import WebDataset
from vltok.sequences.data import CodeData

from ..cli.exports import write_pictures

CODES = str(Path(__file__).parents[1] / "last_version" / "codes" / "webdataset")


class _Handed(Exception):
    """What a new process needs could be handed to it."""


def _hand(dataset: Any, worker_init_fn: Any, **options: Any) -> None:
    """Stands for a loader that starts its workers so; their first function holds a pipe, which is handed on its own."""
    ForkingPickler.dumps((dataset, worker_init_fn.func, options.get("collate_fn")))
    raise _Handed


def test_what_workers_are_given_can_be_handed_to_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pictures", 6)
    vltok.pack(tmp_path / "pictures", tmp_path / "%03d.tar", workers=0)
    few = {"size": 16, "batch_size": 2, "workers": 1}
    sources = (
        Photos(train_crops=4, val_crops=9, **few),
        Folder(str(tmp_path / "pictures"), val_share=0.5, **few),
        WebDataset(str(tmp_path / "*.tar"), val_share=0.5, **few),
        CodeData(CODES, validation=CODES, batch_size=2, workers=1),
    )
    monkeypatch.setattr(workers, "DataLoader", _hand)
    for source in sources:
        for batches in (source.train_dataloader, source.val_dataloader):
            with pytest.raises(_Handed):
                next(iter(batches()))
