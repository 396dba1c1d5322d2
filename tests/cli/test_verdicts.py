"""Errors as lines: what the system refuses, what memory lacks, what others' code raises."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from vltok.cli.verdicts import verdict
from vltok.errors import UserError


def _raised(call) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("error", "verb", "expected"),
    [
        (UserError("wrong\n key"), "fit", "error: wrong key"),
        (UserError("no '\x1b]0;title\x07'"), "fit", "error: no '�]0;title�'"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/config.yaml"), "fit", "disk of 'runs/a/config.yaml'"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "fit", "error: the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "fit", "error: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "pack", "error: 'out': Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "fit", "ulimit -n"),
        (RuntimeError("can't start new thread"), "tokenize", "ulimit -u"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "fit", "lower data.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "sample", "lower --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "evaluate", "lower --batch-size"),
        (UserError("data cannot be loaded: can't allocate memory"), "fit", "lower data.batch_size"),
        (MemoryError(), "reconstruct", "lower --tile"),
        (
            RuntimeError("Caught KeyError in DataLoader worker process 0.\nOriginal:\n  File\nKeyError: 'a'\n"),
            "fit",
            "error: a process that loads data failed: KeyError: 'a';",
        ),
        (
            RuntimeError(
                "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
            ),
            "fit",
            "error: the GPU stopped (CUDA error: device-side assert triggered): go on",
        ),
        (KeyboardInterrupt("by SIGTERM"), "pack", "interrupted: by SIGTERM"),
    ],
)
def test_what_is_said(error: BaseException, verb: str, expected: str) -> None:
    line, code = verdict(error, verb)
    assert expected in line and "unexpected" not in line and code in (1, 130)


def test_every_verb_that_computes_has_a_setting_for_its_memory() -> None:
    for verb in ("fit", "ablate", "evaluate", "reconstruct", "tokenize", "detokenize", "sample", "pack"):
        assert "what is done at once" not in verdict(MemoryError(), verb)[0]


def test_errors_of_others_code_name_the_place(tmp_path: Path) -> None:
    path = tmp_path / "my_part.py"
    path.write_text("def fails():\n    return torch.zeros(2).view(3)\n")
    names = {"torch": torch, "__name__": "my_part"}
    exec(compile(path.read_text(), path, "exec"), names)
    line, _ = verdict(_raised(names["fails"]), "fit")
    assert line.startswith("error: my_part.py, line 2, raised RuntimeError") and "unexpected" not in line


def test_errors_of_vltok_itself_are_unexpected(monkeypatch: pytest.MonkeyPatch) -> None:
    from vltok import files

    monkeypatch.setattr(files.hashlib, "sha256", None)
    line, code = verdict(_raised(lambda: files.sha256_of(Path(os.devnull))), "fit")
    assert line.startswith("unexpected: TypeError") and code == 1
