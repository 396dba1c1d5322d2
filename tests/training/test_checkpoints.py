"""Checkpoints are written whole or not at all, and a damaged one is known for what it is."""

import errno
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import CheckpointIO

from vltok.errors import UserError
from vltok.training.checkpoints import WholeCheckpoints, heal_checkpoint, previous_of, read_checkpoint


def checkpoint(step: int, numbers: int = 1000) -> dict[str, Any]:
    """What Lightning would write."""
    weights = {"weight": torch.full((numbers,), float(step)), "bias": torch.zeros(3)}
    parts: dict[str, Any] = {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "callbacks": {}}
    return {"state_dict": weights, "global_step": step, "epoch": 0, **parts}


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """A checkpoint of step 2, after one of step 1."""
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        WholeCheckpoints().save_checkpoint(checkpoint(step), path)
    return path


def step_of(path: Path) -> int:
    content = read_checkpoint(path)
    assert content["state_dict"]["weight"].eq(content["global_step"]).all()
    return content["global_step"]


def test_the_one_before_stays(last: Path) -> None:
    assert isinstance(WholeCheckpoints(), CheckpointIO)
    assert (step_of(last), step_of(previous_of(last))) == (2, 1)
    WholeCheckpoints().save_checkpoint(checkpoint(3), last)
    assert (step_of(last), step_of(previous_of(last))) == (3, 2)
    assert sorted(last.parent.iterdir()) == sorted([last, previous_of(last)])
    WholeCheckpoints().remove_checkpoint(last)
    assert not list(last.parent.iterdir())


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_all_is_as_it_was(last: Path, small_disk: None) -> None:
    with pytest.raises(UserError, match=r"last.ckpt' cannot be written: File too large; the one before it is left"):
        WholeCheckpoints().save_checkpoint(checkpoint(3, numbers=100_000), last)
    assert (step_of(last), step_of(previous_of(last))) == (2, 1)
    assert sorted(last.parent.iterdir()) == sorted([last, previous_of(last)])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/last.ckpt' cannot be written: (Not a directory|File exists)"):
        WholeCheckpoints().save_checkpoint(checkpoint(1), tmp_path / "file" / "last.ckpt")


def _save_and_die(path: Path, calls: int) -> None:
    """Save, and be killed before so many calls that change names or contents of files have been made."""

    def watch(event: str, arguments: tuple) -> None:
        nonlocal calls
        if event in ("os.rename", "os.remove") or (event == "open" and arguments[1] not in ("r", "rb")):
            calls -= 1
            if calls < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    WholeCheckpoints().save_checkpoint(checkpoint(3), path)


def test_a_killed_process_leaves_a_whole_one(last: Path) -> None:
    for calls in range(10):
        for path in last.parent.iterdir():
            path.unlink()
        for step in (1, 2):
            WholeCheckpoints().save_checkpoint(checkpoint(step), last)
        process = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(last, calls))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        if last.exists():
            assert heal_checkpoint(last)["global_step"] in (2, 3)
        else:
            with pytest.warns(UserWarning, match="going on from the one before it, of step 2"):
                assert heal_checkpoint(last)["global_step"] == 2
        assert step_of(last) in (2, 3)
        assert set(last.parent.iterdir()) <= {last, previous_of(last)}
    assert calls > 3 and step_of(last) == 3


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rot(path: Path) -> None:
    """One bit of a tensor."""
    content = bytearray(path.read_bytes())
    at = content.find(torch.full((4,), 2.0).numpy().tobytes())
    content[at + 40] ^= 1
    path.write_bytes(content)


def garble(path: Path) -> None:
    path.write_bytes(b"\x80\x02 no checkpoint " * 99)


def hold_other_things(path: Path) -> None:
    torch.save([1, 2], path)


class Harmful:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch harm",))


def hold_code(path: Path) -> None:
    torch.save({**checkpoint(2), "callbacks": Harmful()}, path)


DAMAGE = pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged: it is cut short"),
        (empty, "is damaged: it is cut short"),
        (rot, "is damaged: .* is not what was written"),
        (garble, "is damaged"),
        (hold_other_things, "is no checkpoint of a training: it lacks state_dict"),
        (hold_code, "holds more than tensors and plain values"),
        (os.remove, "there is no .*last.ckpt"),
    ],
)


@DAMAGE
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(
    last: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(last)
    with pytest.warns(UserWarning, match=rf"{message}.*; going on from the one before it, of step 1"):
        assert heal_checkpoint(last)["global_step"] == 1
    # it has taken the place, so that the next one that is written keeps it, not the damaged one
    assert [step_of(path) for path in last.parent.iterdir()] == [1]


@DAMAGE
def test_where_all_are_damaged_it_is_said_in_one_line(
    last: Path, damage: Callable[[Path], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(last.parent)
    previous_of(last).unlink()
    damage(last)
    before = sorted(last.parent.iterdir())
    with pytest.raises(UserError, match=message) as raised:
        heal_checkpoint(last)
    assert "\n" not in str(raised.value)
    assert sorted(last.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("pathlib.Path.open", PermissionError(errno.EACCES, "Permission denied"), "cannot be read: Permission denied"),
        ("pathlib.Path.open", OSError(errno.EMFILE, "Too many open files"), "cannot be read: Too many open files"),
        ("torch.load", RuntimeError("DefaultCPUAllocator: can't allocate memory"), "can't allocate memory"),
        ("torch.load", MemoryError("too little"), "too little"),
    ],
)
def test_one_that_is_whole_but_cannot_be_read_now_is_left_where_it_is(
    last: Path, where: str, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises((UserError, RuntimeError, MemoryError), match=message):
            heal_checkpoint(last)
    assert (step_of(last), step_of(previous_of(last))) == (2, 1)
