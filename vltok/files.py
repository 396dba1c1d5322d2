"""Files that are written whole or not at all, their names, and their checksums."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from vltok.errors import UserError
from vltok.paths import new_path

#: What Windows keeps for devices, whatever follows a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
#: What some file systems do not take, or what a terminal would obey.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff<>:"/\\|?*]')
_LONGEST_NAME = 120
#: The names of the files by which a process is alone in a folder: the second where the file system has no locks.
LOCK, HELD = ".writing.lock", ".writing.held"
HELD_ENDING = ".held"
#: How file systems say that they have no locks: Lustre, NFS without its lock service, and what FUSE mounts.
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: How long a file that another program has open is waited for, in seconds between one try and the next.
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, through: str | os.PathLike | None = None) -> Iterator[Path]:
    """Yield a temporary path, which takes the place of `path` when the block ends without an error.

    A crash at any moment leaves either the old file or the new one, never a part of either; when the process is killed,
    the temporary file stays behind.

    Args:
        path: What is written.
        through: The folder of the temporary file, on the same file system; that of `path` by default.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        descriptor, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix[:8], dir=through or path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with _named(path):
            yield temporary
            # mkstemp makes private files; a finished one gets the permissions that open() would have given
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            flush(temporary)
            move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    replaced = temporary.with_name(temporary.name + ".replaced")
    try:
        with _named(path):
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    flush(file)
            if path.exists():
                move(path, replaced)
            try:
                move(temporary, path)
            except OSError:
                if replaced.exists():
                    replaced.rename(path)
                raise
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(path: Path, place: Path) -> None:
    """Rename a folder, or a file, over another one too; on Windows, wait for a program that has it open.

    Raises:
        PermissionError: It is still open, or may not be renamed.
    """
    for seconds in _WAITS:
        try:
            path.replace(place)
            return
        except PermissionError:
            time.sleep(seconds)
    try:
        path.replace(place)
    except PermissionError as error:
        reason = f"{error.strerror}; where another program has it open, close that and run the command again"
        raise PermissionError(error.errno, reason, str(place)) from error


def flush(path: Path) -> None:
    """Put a file's content on the disk."""
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def _prefix(path: Path) -> str:
    """How the names of temporary files start; a name that is as long as names may be leaves no room for more."""
    return f".{path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else path.name[:24]}."


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error say what was to be written: the system names no file, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).name.startswith(_prefix(path)):
            error.filename = str(path)
        raise


def check_folder(option: str, folder: str | os.PathLike) -> Path:
    """See that a folder is there, or can be made, and takes files; before hours go into what it is to receive.

    Args:
        option: What the user gives it by.
        folder: The folder, as the user wrote it; nothing is made.

    Raises:
        UserError: It is a file or lies below one, or it may not be written.
    """
    if "\0" in os.fspath(folder):
        raise UserError(f"{option} {os.fspath(folder)!r} is no name of a folder")
    path = new_path(option, folder)
    nearest = path
    while True:
        try:
            nearest.lstat()
            break
        except (FileNotFoundError, NotADirectoryError):
            nearest = nearest.absolute().parent
        except OSError as error:
            raise UserError(f"{option} '{folder}' cannot be a folder: {error.strerror}") from error
    if not nearest.is_dir():
        below = "" if nearest == path else f"lies below '{nearest}', which "
        raise UserError(f"{option} '{folder}' {below}is a file: name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{option} '{folder}' cannot be written, for '{nearest}' is read-only: name another folder")
    return path


def acquire(path: Path, seconds: float = 0) -> filelock.BaseFileLock:
    """A lock that is held; where the file system has none, a file beside it is the lock.

    Args:
        path: The lock's file.
        seconds: How long to wait for another process; -1 for as long as it takes.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    lock: filelock.BaseFileLock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        lock = filelock.SoftFileLock(path.with_suffix(HELD_ENDING))
        lock.acquire(timeout=seconds)
    return lock


@contextlib.contextmanager
def held(path: Path, seconds: float = 0) -> Iterator[None]:
    """Hold a lock inside the block, whose file is gone afterwards; the arguments are those of `acquire`.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    lock = acquire(path, seconds)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows removes no open file; there the lock does so itself
            path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def alone_in(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Make a folder, and keep other processes that ask for it out of it inside the block.

    Where nothing comes of the block, no folder is left that it has made.

    Args:
        folder: Which one.
        seconds: How long to wait for another process that is in it.

    Raises:
        UserError: Another process is in it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(held(folder / LOCK, seconds))
        except filelock.Timeout as error:
            raise UserError(
                f"another process is writing to '{folder}': wait until it has ended, or name another folder"
            ) from error
        try:
            yield
        finally:
            lock.close()
            with contextlib.suppress(OSError):  # it holds something
                for place in made:
                    place.rmdir()


def is_device(name: str) -> bool:
    """Whether Windows keeps a name for a device, so that no file can have it."""
    return _DEVICES.fullmatch(name) is not None


def safe_name(name: str) -> str:
    """A text as the name of a file or a folder on any system: short, without separators, no device, not hidden.

    Names that differ may become the same. It is empty where nothing of the text can be kept.
    """
    name = _UNSAFE.sub("_", name).strip(" ").rstrip(". ").lstrip(".")
    if is_device(name):
        name = f"_{name}"
    if len(name.encode()) > _LONGEST_NAME:
        # which of two long names it is must not be lost
        encoded = name.encode()
        digest = hashlib.sha256(encoded).hexdigest()[:16]
        name = f"{encoded[: _LONGEST_NAME - 17].decode('utf-8', 'ignore')}-{digest}"
    return name


def sha256_of(path: Path) -> str:
    """A file's checksum, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            digest.update(block)
    return digest.hexdigest()
