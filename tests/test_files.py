"""Files that are written whole or not at all, and their names."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.files import alone_in, check_folder, folder_written_whole, safe_name, written_whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_what_was_there_and_is_named(small_disk: Path) -> None:
    path = small_disk / "figures.json"
    path.write_text("old")
    with pytest.raises(OSError) as raised, written_whole(path) as temporary:
        temporary.write_bytes(bytes(1 << 20))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(OSError), folder_written_whole(small_disk / "bundle") as folder:
        (folder / "weights").write_bytes(bytes(1 << 20))
    assert [path.name for path in small_disk.iterdir()] == ["figures.json"]
    assert path.read_text() == "old"


def test_what_is_read_only_is_named_by_what_was_to_be_written(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for written in (written_whole, folder_written_whole):
        with pytest.raises(OSError) as raised, written(small_disk / "figures.json"):
            pass
        assert (raised.value.errno, raised.value.filename) == (errno.EROFS, str(small_disk / "figures.json"))


def test_what_cannot_be_a_folder_is_said_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "file", "is a file: name a folder"),
        (tmp_path / "file" / "a" / "b", f"lies below '{tmp_path / 'file'}', which is a file"),
        (tmp_path / ("a" * 300), "cannot be a folder: File name too long"),
        (tmp_path / "a\0b", "is no name of a folder"),
    ):
        with pytest.raises(UserError, match=r"^--out '.*") as raised:
            check_folder("--out", path)
        assert message in str(raised.value)
    assert check_folder("--out", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the superuser may write everywhere but to a read-only file system
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"cannot be written, for '{tmp_path}' is read-only"):
        check_folder("--out", tmp_path / "new")


def test_one_process_at_a_time_is_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    code = (
        "from pathlib import Path; from vltok.files import alone_in\n"
        f"with alone_in(Path({str(folder)!r})): print('in', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(UserError, match="another process is writing to"), alone_in(folder):
        pass
    process.kill()
    process.wait()
    # a process that was killed keeps nobody out
    with alone_in(folder):
        (folder / "result").write_text("")
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_where_nothing_comes_of_it_no_folder_is_left(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused"), alone_in(tmp_path / "a" / "b"):
        raise UserError("refused")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat.v1", "cat.v1"),
        ("Füße 猫", "Füße 猫"),
        ("", ""),
        ("..", ""),
        (".hidden", "hidden"),
        ("a/b\\c", "a_b_c"),
        ("a\0b\nc\x1b[2Jd", "a_b_c_[2Jd"),
        ("CON", "_CON"),
        ("nul.png", "_nul.png"),
        ("console", "console"),
        ("ends. . ", "ends"),
        ("a:b?c*", "a_b_c_"),
        ("\udcff", "_"),
        ("\u202egnp", "_gnp"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_long_names_are_cut_and_stay_apart() -> None:
    names = {safe_name("é" * 300 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name.encode()) <= 120 for name in names)


_FULL = """
import resource, sys
from vltok.files import folder_written_whole, written_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    if sys.argv[2] == "file":
        with written_whole(sys.argv[1]) as path:
            path.write_text("new")
    else:
        with folder_written_whole(sys.argv[1]) as path:
            (path / "file").write_text("new")
except OSError as error:
    print(error.filename)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_written_leaves_what_was_there_and_is_named(kind: str, tmp_path: Path) -> None:
    """No file may grow in a process of its own: the system refuses in the places where a full disk does."""
    place = tmp_path / "here"
    if kind == "folder":
        place.mkdir()
    old = place if kind == "file" else place / "file"
    old.write_text("old")
    command = [sys.executable, "-c", _FULL, str(place), kind]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert ended.stdout == f"{place}\n"
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [place]


def test_files_are_flushed_as_windows_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a file that was opened for reading cannot be flushed."""
    fcntl = pytest.importorskip("fcntl")
    flush, flushed = os.fsync, []

    def strict(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", strict)
    with written_whole(tmp_path / "file") as path:
        path.write_text("a")
    with folder_written_whole(tmp_path / "folder") as folder:
        (folder / "b").write_text("b")
    assert (tmp_path / "file").read_text() + (tmp_path / "folder" / "b").read_text() == "ab" and len(flushed) == 2


@pytest.mark.parametrize("refusal", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_will_do_also_after_a_killed_process(refusal: str, tmp_path: Path) -> None:
    """As Lustre is often mounted, and NFS where its lock service does not run."""
    script = (
        "import errno, fcntl, os, sys\n"
        f"def refuse(*_):\n    raise OSError(errno.{refusal}, 'refused')\n"
        "fcntl.flock = fcntl.lockf = refuse\n"
        "from pathlib import Path\n"
        "from vltok.errors import UserError\n"
        "from vltok.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n"
        "    try:\n        with alone_in(Path(sys.argv[1])): print('two')\n"
        "    except UserError: print('alone', flush=True)\n"
        "    os._exit(9) if sys.argv[2] == '9' else open(sys.argv[1] + '/result', 'w').close()\n"
    )
    for code in (9, 0):
        command = [sys.executable, "-c", script, str(tmp_path / "run"), str(code)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, "alone\n"), done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


@pytest.mark.parametrize("tries", [2, 99])
def test_what_a_program_has_open_is_waited_for(tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows renames nothing over an open file: a virus scanner has it for a moment, a viewer for long."""
    replace, left = Path.replace, tries

    def busy(path: Path, place: Path) -> None:
        nonlocal left
        if left:
            left -= 1
            raise PermissionError(errno.EACCES, "Access is denied", str(path), None, str(place))
        replace(path, place)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr("vltok.files.time.sleep", lambda seconds: None)
    written = written_whole(tmp_path / "file")
    if tries == 2:
        with written as path:
            path.write_text("a")
        assert (tmp_path / "file").read_text() == "a"
        return
    with pytest.raises(PermissionError, match="Access is denied; where another program has it open") as raised, written:
        pass
    assert raised.value.filename == str(tmp_path / "file") and not list(tmp_path.iterdir())


def test_the_file_of_a_lock_is_left_to_the_lock_where_no_open_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""

    def busy(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Access is denied", str(path))

    monkeypatch.setattr(Path, "unlink", busy)
    for _ in range(2):
        with alone_in(tmp_path / "out"):
            pass
