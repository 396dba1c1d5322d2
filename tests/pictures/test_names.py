from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vltok.pictures.folder import Folder
from vltok.pictures.names import Names


def test_names_come_back_as_they_were() -> None:
    given = ["a/b.jpg", "", "ä/ü.png", "no text \udcff.jpg", "日本.webp"]
    names = Names(iter(given))
    assert list(names) == given and len(names) == 5
    assert names[-1] == given[-1] and names[1] == ""
    with pytest.raises(IndexError):
        names[5]
    assert list(Names([])) == []


def test_what_workers_get_of_a_folder_is_arrays(tmp_path: Path) -> None:
    for index in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    data = Folder(str(tmp_path), size=8, batch_size=2, workers=0)
    for source in (data.export_source("all"), data.export_source("train")):
        names = source._crops.pictures._paths
        assert {type(value) for value in vars(names).values()} == {np.ndarray}
