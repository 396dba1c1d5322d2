"""Which data made a figure, in words."""

import pytest

from vltok.evaluation.data_used import DataUsed
from vltok.evaluation.records import Record

FOLDER = {"kind": "folder", "root": "../my pictures", "pictures": 1775, "size": 64, "split": {"held_out": "by hash"}}


def record(protocol: dict, environment: dict | None = None) -> Record:
    whole = {"data": {"split": "val", "size": 32, "images": 48}, "precision": "float32", **protocol}
    return Record("tokenizer", {"path": "a"}, {}, {}, whole, environment or {})


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (record({}, {"data": FOLDER}), "folder '../my pictures' (1,775 pictures): 48 held-out pictures of 32 × 32"),
        (
            record({"training_data": {"description": {**FOLDER, "kind": "photos", "root": None, "pictures": 18}}}),
            "photos (18 pictures): 48 crops of held-out pictures of 32 × 32",
        ),
        (
            record({"data": {"tokenizer": "0"}, "sequences": {"place": "codes/train", "training": 300, "unseen": 40}}),
            "codes 'codes/train' (300 sequences): 40 held-out sequences",
        ),
        (
            record({}, {"data": {"kind": "webdataset", "shards": ["a.tar", "b.tar"], "pictures": None}}),
            "webdataset 'a.tar, b.tar': 48 held-out pictures of 32 × 32",
        ),
        (record({}), "data that is not told: 48 held-out pictures of 32 × 32"),
        (record({"data": {"split": "val", "images": 1}}), "data that is not told: 1 held-out picture"),
        (
            record({"data": {"described": "photographs", "images": 3}}, {"data": "?"}),
            "data that is not told: 3 pictures",
        ),
    ],
)
def test_in_words(of: Record, words: str) -> None:
    assert DataUsed.of(of).in_words() == words
