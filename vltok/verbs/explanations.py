"""What an error means to the user, where it is one to act on. Imports no torch of its own."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from types import FrameType

from vltok.errors import UserError, of_memory
from vltok.extras import remedy

#: For each verb, the settings that its memory follows from.
_SETTINGS = {
    "fit": "data.batch_size (of codes, data.batch_size or data.token_budget), or data.workers",
    "ablate": "data.batch_size (of codes, data.batch_size or data.token_budget), or --jobs",
    "evaluate": "--batch-size or data.workers",
    "reconstruct": "--tile",
    "compress": "--tile",
    "tokenize": "--batch-size or data.workers",
    "detokenize": "--batch-size",
    "sample": "--batch-size",
    "pack": "--workers",
}
#: The extra of vltok that brings all that a verb needs; of the others, the one that brings what is missing is named.
_EXTRAS = dict.fromkeys(("fit", "ablate"), "train") | dict.fromkeys(("evaluate", "compare"), "evaluate")
#: What libraries written in other languages say of a full disk.
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
_LIBRARIES = ("site-packages", "dist-packages")


def explanation(error: BaseException, verb: str) -> str | None:
    """What a user reads of an error: what is wrong, and the remedy; None where it is a fault of vltok's own.

    Args:
        error: What stopped the verb.
        verb: Which one.
    """
    text = printable(error)
    found = _of_memory(error, verb)
    if isinstance(error, ModuleNotFoundError) and (missing := remedy(error, _EXTRAS.get(verb))):
        found = f"vltok {verb}: {missing}"
    if found is None and isinstance(error, UserError):
        found = text
    return found or _of_system(error, text) or _of_device(text) or _of_worker(str(error)) or _of_other_code(error, text)


def printable(error: BaseException) -> str:
    """The text of an error in a line: names that others chose may hold what a terminal obeys."""
    return "".join(letter if letter.isprintable() else "�" for letter in " ".join(str(error).split()))


def _of_memory(error: BaseException, verb: str) -> str | None:
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    if not (on_device or of_memory(error)):
        return None
    where = "the device has no memory left" if on_device else "there is no memory left"
    return f"{where}: lower {_SETTINGS.get(verb, 'what is done at once')}; what was finished stays"


def _of_system(error: BaseException, text: str) -> str | None:
    """Of what the operating system refused."""
    path = getattr(error, "filename", None)
    where = f" of '{path}'" if path else ""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(said in text for said in _DISK_FULL):
        return f"the disk{where} is full: free space and go on; what was finished stays"
    if "can't start new thread" in text or getattr(error, "errno", None) == errno.EAGAIN:
        return f"the system lets no more processes or threads start ({text}): raise its limit, as by ulimit -u"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open ({text}): raise the limit, as by ulimit -n 4096, or lower data.workers"
    if "No usable temporary directory" in text:
        return "no folder for temporary files can be written: set TMPDIR to one that can"
    if "uid not found" in text:
        return f"the user of this process has no name on this machine ({text}): set LOGNAME to any"
    if isinstance(error, OSError):
        return f"'{path}': {error.strerror}" if path else f"the system refused to read or write: {text}"
    return None


def _of_device(text: str) -> str | None:
    """Of what a GPU or its driver says; all that CUDA adds for programmers is left out."""
    said = text.partition(" CUDA kernel errors might be")[0].partition(" Search for ")[0]
    if not said.startswith(("CUDA error:", "CUDA driver", "NCCL", "cuDNN error", "CUBLAS", "HIP error:")):
        return None
    return (
        f"the GPU stopped ({said.rstrip('.')}): go on from what is finished; where it happens again, set "
        "CUDA_LAUNCH_BLOCKING=1 and give --debug to see at which call"
    )


def _of_worker(said: str) -> str | None:
    """Of an error in a worker of a data module that uses PyTorch's loader: it gives the whole traceback as its text."""
    if "in DataLoader worker process" not in said:
        return None
    return f"a process that loads data failed: {said.strip().splitlines()[-1].strip()}; --debug shows the traceback"


def _of_other_code(error: BaseException, text: str) -> str | None:
    """Of an error that arose in code that is neither vltok's nor that of a library: a plug-in's, or the user's own."""
    ours = Path(__file__).parents[1]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if ours in path.parents:
            return None
        if not _of_library(frame, path):
            return (
                f"{path.name}, line {line}, raised {type(error).__name__}: {text}; that code is not vltok's: --debug "
                "shows the traceback"
            )
    return None


def _of_library(frame: FrameType, path: Path) -> bool:
    top = frame.f_globals.get("__name__", "").partition(".")[0]
    return top in sys.stdlib_module_names or not path.is_file() or any(part in _LIBRARIES for part in path.parts)
