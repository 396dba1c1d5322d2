"""Real pictures for the tests of data: photographs from scikit-image's wheel, as files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data


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
