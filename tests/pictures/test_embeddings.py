"""The embeddings of pictures: beside them in folders, and in shards."""

import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vltok
from vltok.errors import UserError
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageBatch
from vltok.pictures.shards import WebDataset

Tree = Callable[..., Path]


def embedded(tree: Tree, ending: str = "npy") -> dict[str, np.ndarray]:
    """The embeddings of a folder of nine pictures, by key."""
    root = tree(classes=3, each=3)
    found = {}
    for number, picture in enumerate(sorted(root.rglob("*.jpg"))):
        vector = np.arange(4, dtype=[np.float16, np.float64, np.int32][number % 3]) + number
        np.save(picture.with_suffix(f".{ending}"), vector)
        found[picture.relative_to(root).as_posix()] = vector.astype(np.float32)
    return found


def embeddings_of(batches: list[ImageBatch]) -> dict[str, list[float]]:
    return dict(itertools.chain(*(zip(batch.keys, batch.embeddings.tolist(), strict=True) for batch in batches)))


def folder(root: Path, embeddings: str | None = "npy") -> Folder:
    return Folder(str(root), size=32, batch_size=4, workers=0, val_share=0.3, embeddings=embeddings)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["npy", "clip.npy"])
def test_embeddings_of_a_folder_stay_with_their_pictures(ending: str, tree: Tree, tmp_path: Path) -> None:
    wanted = {key: vector.tolist() for key, vector in embedded(tree, ending).items()}
    data = pickle.loads(pickle.dumps(folder(tmp_path / "pictures", ending)))
    assert embeddings_of(list(data.export_dataloader())) == wanted
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert embeddings_of(list(loader)).items() <= wanted.items()
    assert all(batch.embeddings is None for batch in folder(tmp_path / "pictures", None).val_dataloader())
    vltok.pack(tmp_path / "pictures", tmp_path / "shards", embeddings=ending, keep_order=True, workers=0)
    shards = str(tmp_path / "shards" / "*.tar")
    data = WebDataset(shards, size=32, batch_size=4, workers=0, embeddings=ending)
    assert list(embeddings_of(list(data.export_dataloader())).values()) == list(wanted.values())
    assert [batch.embeddings.shape[1] for batch in data.train_dataloader()] == [4, 4]
    for place in (tmp_path / "pictures", shards):
        diagnosis = vltok.doctor(place, embeddings=ending, workers=0)
        assert (diagnosis.embeddings, diagnosis.sound) == ({4: 9}, True)
        assert "embeddings: 9 of 4 numbers" in diagnosis.lines()
    assert vltok.doctor(shards, workers=0).embeddings is None


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "cannot be read .No such file or directory.: every picture needs one"),
        (b"", "has no readable embedding: "),
        (b"0.1, 0.2", "has no readable embedding: "),
        (npy(np.zeros(4))[:-3], "has no readable embedding: "),
        (npy(np.zeros(4)).replace(b"(4,)", b"(9,)"), "has no readable embedding: "),
        (npy(np.zeros(4)).replace(b"(4,)", b"(4(["), "has no readable embedding: "),
        (npy(np.array([None])), "has no readable embedding: "),
        (npy(np.array(["a"])), "has no readable embedding: it must be one array of numbers"),
        (npy(np.zeros((1, 4))), r"has no readable embedding: it must be \[e\], not \[1, 4\]"),
        (npy(np.zeros(0)), r"has no readable embedding: it must be \[e\], not \[0\]"),
        (npy(np.array([0, np.nan])), "has no readable embedding: it holds a number that is not finite"),
        (npy(np.array([0, 1e300])), "has no readable embedding: it holds a number that is not finite"),
        (npy(np.zeros(5)), "the embedding of .*02.v1.jpg has 5 numbers, but that of .*00.v1.jpg has 4"),
    ],
)
def test_an_embedding_that_is_none_ends_the_reading(
    content: bytes | None, said: str, tree: Tree, write: Callable[..., str]
) -> None:
    root = tree(classes=0, each=3)
    files = [picture.with_suffix(".npy") for picture in sorted(root.glob("*.jpg"))]
    for number, file in enumerate(files):
        np.save(file, np.zeros(4) + number)
    data = folder(root)
    files[2].unlink()
    if content is not None:
        files[2].write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(data.export_dataloader())
    losses = vltok.doctor(root, embeddings="npy", workers=0).losses
    assert losses and (
        "1 text or embedding cannot be used, first: '" in losses[0] or "2 have 4 and 1 have 5" in losses[0]
    )

    def add(index: int, members: dict) -> dict:
        given = content if index == 2 else npy(np.zeros(4))
        return members if given is None else {**members, "npy": given}

    shards = write(3, change=add)
    said = "has no embedding: every picture needs one, as a member .npy" if content is None else said
    said = said.replace("02.v1.jpg", "train/0002").replace("00.v1.jpg", "train/0000")
    with pytest.raises(UserError, match=said):
        list(WebDataset(shards, size=32, batch_size=3, workers=0, embeddings="npy").export_dataloader())
    assert vltok.doctor(shards, embeddings="npy", workers=0).losses


def test_where_no_embeddings_stand_is_told_at_once(tree: Tree, write: Callable[..., str]) -> None:
    root = tree(classes=0, each=2)
    with pytest.raises(UserError, match=r"'.*00.v1.npy', the embedding of 'picture 00.v1.jpg', cannot be read"):
        folder(root)
    for wrong in ("json", "", ".npy", "CLIP.npy", "clip/x.npy", "npy:key"):
        with pytest.raises(UserError, match=r"data\.embeddings must be npy, or an ending such as clip\.npy in small"):
            folder(root, wrong)
        with pytest.raises(UserError, match=r"data\.embeddings must be npy"):
            WebDataset(write(1), embeddings=wrong)


def test_the_array_that_is_named_as_the_picture_comes_first(write: Callable[..., str]) -> None:
    shards = write(
        2, change=lambda index, files: {"left.jpg": files["jpg"], "npy": npy(np.ones(1)), "left.npy": npy(np.zeros(1))}
    )
    data = WebDataset(shards, size=32, batch_size=2, workers=0, embeddings="npy")
    (batch,) = data.export_dataloader()
    assert batch.embeddings.tolist() == [[0.0], [0.0]]
