"""What every test may ask for. Shapes in vltok's signatures are checked here, and only here."""

import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping

SOURCE = Path(__file__).parents[1]
#: The modules whose signatures hold shapes; to check the others too takes a quarter of the time of tests of recipes.
SHAPED = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in (SOURCE / "vltok").rglob("*.py")
    if "jaxtyping" in path.read_text(encoding="utf-8")
]
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from skimage import data

from vltok.evaluation.records import Record
from vltok.measures.meanings import explained

#: Figures of the tests' own components, which nobody explains.
OWN_FIGURES = {"last_error"}
PARITY = Path(__file__).parents[2] / "shared" / "parity"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need a GPU say so where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no GPU that PyTorch can use")


@pytest.fixture(autouse=True, scope="session")
def explained_figures() -> Iterator[None]:
    """Whatever record a test writes, readers can be told what each of its figures means."""
    write = Record.write

    def checked(record: Record, folder: Path) -> Path:
        without = [name for name in record.values if name not in OWN_FIGURES and not explained(name)]
        assert not without, f"{', '.join(without)}: write an entry in vltok/measures/meanings.py"
        return write(record, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "write", checked)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def leading() -> Iterator[None]:
    """Every test leaves this process the first one, whatever rank it has tried: Lightning keeps it."""
    yield
    if rank_zero := sys.modules.get("lightning_utilities.core.rank_zero"):
        rank_zero.rank_zero_only.rank = 0


@pytest.fixture
def parity() -> Callable[[str], tuple[dict[str, torch.Tensor], dict]]:
    """Read a fixture of the original implementation: its tensors, and its configuration."""
    if not PARITY.is_dir():
        pytest.skip(f"the original implementation's numbers are not at {PARITY}")

    def read(name: str) -> tuple[dict[str, torch.Tensor], dict]:
        path = PARITY / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        return load_file(path), json.loads(metadata["config"])

    return read


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Calls as users make them: nothing looks at the types of arguments but vltok itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A colour photograph, small, and neither square nor symmetric."""
    return Image.fromarray(data.astronaut()).resize((96, 72), box=(100, 0, 420, 240))


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of JPEGs: crops of photographs that differ, in classes or flat."""

    def make(classes: int = 3, each: int = 4, name: str = "pictures") -> Path:
        photograph = data.chelsea()
        root = tmp_path / name
        for index in range(max(classes, 1) * each):
            folder = root / f"class{index // each}" if classes else root
            folder.mkdir(parents=True, exist_ok=True)
            crop = np.roll(photograph, 37 * index, axis=1)[40 : 40 + 48 + index, 60:130]
            Image.fromarray(crop).save(folder / f"picture {index:02d}.v1.jpg", quality=92)
        return root

    return make


def jpeg(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.roll(data.coffee(), 31 * index, axis=1)[:40, :56]).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write shards of so many pictures each; returns the pattern that they match."""

    def write(
        *counts: int, name: str = "train", change: Callable[[int, dict], dict] = lambda index, files: files
    ) -> str:
        index = 0
        for shard, count in enumerate(counts):
            with tarfile.open(tmp_path / f"{name}-{shard:03d}.tar", "w") as tar:
                for _ in range(count):
                    files = change(index, {"jpg": jpeg(index), "cls": str(index % 3).encode()})
                    for extension, content in files.items():
                        header = tarfile.TarInfo(f"{name}/{index:04d}.{extension}")
                        header.size = len(content)
                        tar.addfile(header, io.BytesIO(content))
                    index += 1
        return str(tmp_path / f"{name}-*.tar")

    return write
