"""The texts of pictures: beside them in folders, in files of JSON lines, and in shards."""

import itertools
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import vltok
from vltok.errors import UserError
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageBatch
from vltok.pictures.shards import WebDataset

Tree = Callable[..., Path]


def described(tree: Tree) -> Path:
    """A folder of nine pictures, all but the last with a text beside it and in two files of JSON lines."""
    root = tree(classes=3, each=3)
    lines = []
    for picture in sorted(root.rglob("*.jpg"))[:-1]:
        name = picture.relative_to(root).as_posix()
        picture.with_suffix(".txt").write_text(f"\ufeffa {picture.stem} of ünïcode\n", encoding="utf-8")
        lines.append({"file_name": name, "text": f"text of {name}", "caption": f"caption of {name}"})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return root


def texts_of(batches: list[ImageBatch]) -> dict[str, str]:
    pairs = (zip(batch.keys, batch.texts or [""] * len(batch), strict=True) for batch in batches)
    return dict(itertools.chain(*pairs))


def folder(root: Path, texts: str) -> Folder:
    return Folder(str(root), size=32, batch_size=4, workers=0, val_share=0.3, texts=texts)


@pytest.mark.parametrize(
    "texts, text",
    [
        ("txt", lambda key: f"a {Path(key).stem} of ünïcode"),
        ("metadata.jsonl", lambda key: f"text of {key}"),
        ("metadata.jsonl:caption", lambda key: f"caption of {key}"),
    ],
)
def test_texts_of_a_folder_stay_with_their_pictures(tree: Tree, texts: str, text: Callable[[str], str]) -> None:
    root = described(tree)
    data = pickle.loads(pickle.dumps(folder(root, texts)))
    found = texts_of(list(data.export_dataloader()))
    *some, last = sorted(found)
    assert {key: found[key] for key in some} == {key: text(key) for key in some}
    assert found[last] == ""
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert texts_of(list(loader)).items() <= found.items()
    assert all(batch.texts is None for batch in Folder(str(root), size=32, batch_size=3, workers=0).val_dataloader())


def test_packed_texts_are_read_from_shards_and_counted(tree: Tree, tmp_path: Path) -> None:
    root = described(tree)
    vltok.pack(root, tmp_path / "shards", texts="metadata.jsonl", keep_order=True, workers=0)
    shards = str(tmp_path / "shards" / "*.tar")
    data = WebDataset(shards, size=32, batch_size=4, workers=0, texts="txt")
    found = texts_of(list(data.export_dataloader()))
    assert sorted(found.values())[0] == "" and len(set(found.values())) == 9
    for key, text in found.items():
        assert re.sub("[^a-z0-9]+", "_", text.removeprefix("text of ").removesuffix(".jpg")) in key
    assert [text for batch in data.train_dataloader() for text in batch.texts or () if text not in found.values()] == []
    for place, texts in ((root, "txt"), (shards, "txt")):
        diagnosis = vltok.doctor(place, texts=texts, workers=0)
        assert (diagnosis.undescribed, diagnosis.sound) == (1, True)
        assert "texts: 8 of 9 pictures" in diagnosis.lines()
    assert vltok.doctor(shards, workers=0).undescribed is None


def test_texts_of_json_members_have_a_key(write: Callable[..., str]) -> None:
    records = [{"caption": "a cat"}, {"caption": None}, {"text": "a dog"}]
    shards = write(3, change=lambda index, files: {**files, "json": json.dumps(records[index]).encode()})
    data = WebDataset(shards, size=32, batch_size=3, workers=0, texts="json:caption")
    assert list(texts_of(list(data.export_dataloader())).values()) == ["a cat", "", ""]
    with pytest.raises(UserError, match=r"data\.texts must be txt, json or json:KEY, not 'cls'"):
        WebDataset(shards, texts="cls")
    records[1]["caption"] = 3
    shards = write(3, change=lambda index, files: {**files, "json": json.dumps(records[index]).encode()})
    with pytest.raises(UserError, match=r"sample train/0001 of shard .* 'caption' must be a text, not 3"):
        list(WebDataset(shards, size=32, batch_size=3, workers=0, texts="json:caption").export_dataloader())


def test_json_that_is_a_text_alone_is_the_text_to_all(write: Callable[..., str]) -> None:
    records = ["a cat", {"text": "a dog"}, ""]
    shards = write(3, change=lambda index, files: {**files, "json": json.dumps(records[index]).encode()})
    for place in ("json", "json:text"):
        data = WebDataset(shards, size=32, batch_size=3, workers=0, texts=place)
        assert list(texts_of(list(data.export_dataloader())).values()) == ["a cat", "a dog", ""]
    diagnosis = vltok.doctor(shards, texts="json", workers=0)
    assert (diagnosis.undescribed, diagnosis.losses, diagnosis.notes) == (1, (), ())
    diagnosis = vltok.doctor(shards, workers=0)  # nobody asks for them
    assert diagnosis.sound and "of 2 pictures the .json is a text alone, first " in diagnosis.notes[0]
    for record in (3, ["a cat"]):
        with pytest.raises(UserError, match="its JSON is no object"):
            shards = write(1, change=lambda index, files, record=record: {**files, "json": json.dumps(record).encode()})
            list(WebDataset(shards, size=32, batch_size=1, workers=0, texts="json").export_dataloader())


@pytest.mark.parametrize(
    "files, texts, said",
    [
        ({}, "txt", "no picture of .* has a text beside it, as NAME.txt"),
        ({}, "json", "must be txt, metadata.jsonl or metadata.jsonl:KEY, not 'json'"),
        ({}, "txt:key", "must be txt, metadata.jsonl"),
        ({}, "metadata.jsonl", "'.*metadata.jsonl' cannot be read: .*No such file"),
        ({"metadata.jsonl": b"{"}, "metadata.jsonl", "line 1 of .* it is no JSON"),
        ({"metadata.jsonl": b"3"}, "metadata.jsonl", "line 1 of .* its JSON is no object"),
        ({"metadata.jsonl": b'{"text": "a"}'}, "metadata.jsonl", "line 1 of .* names no picture"),
        (
            {"metadata.jsonl": b'\n{"file_name": "a", "text": 3}'},
            "metadata.jsonl",
            "line 2 .*'text' must be a text, not 3",
        ),
        ({"metadata.jsonl": b'{"file_name": "a", "text": "\\ud800"}'}, "metadata.jsonl", "line 1 of .* not UTF-8"),
        ({"metadata.jsonl": b'{"file_name": "a", "text": "b"}'}, "metadata.jsonl", "no line of .* describes a picture"),
    ],
)
def test_what_is_wrong_with_texts_is_told(tree: Tree, files: dict[str, bytes], texts: str, said: str) -> None:
    root = tree(classes=0, each=2)
    for name, content in files.items():
        (root / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        folder(root, texts)


def test_a_text_that_is_not_utf_8_ends_the_reading(tree: Tree) -> None:
    root = described(tree)
    broken = next(root.rglob("*.txt"))
    broken.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match=f"'{broken}' has no readable text: it is not UTF-8"):
        list(folder(root, "txt").export_dataloader())
    assert "1 text cannot be used" in vltok.doctor(root, texts="txt", workers=0).losses[0]
