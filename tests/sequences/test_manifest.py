"""A manifest may hold anything: it is read as it was written, or refused in one line."""

import dataclasses
import json
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.stored import stored_sequences

from .code_exports import SPEC, export_codes, random_codes

WRONG = (
    None,
    True,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "../../etc/passwd",
    "a\0b\n",
    "x" * 3000,
    [],
    [[]],
    {},
    {"a": []},
)


def leaves(tree: object, path: tuple = ()):
    """Where every value of a tree stands, those of options and of open dictionaries apart."""
    yield path
    if isinstance(tree, dict) and path[-1:] not in (("options",), ("histogram",)):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree[:1]):
            yield from leaves(value, (*path, place))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    export_codes(folder, random_codes(12))
    return folder


def test_the_number_of_codebooks_stands_where_there_are_several(folder: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, codebooks=2)
    export_codes(tmp_path, random_codes(3, spec), spec=spec)
    assert CodeManifest.read(tmp_path).spec == dataclasses.replace(spec, regions=(2, 3))
    told, before = (json.loads((each / "codes.json").read_text())["spec"] for each in (tmp_path, folder))
    assert told["codebooks"] == 2 and list(before) == ["codebook_size", "factors", "regions", "max_length"]


def test_every_field_missing_or_wrong_is_one_line(folder: Path) -> None:
    path = folder / "codes.json"
    whole = path.read_text()
    refused = tried = 0
    try:
        for place in leaves(json.loads(whole)):
            for value in (..., *WRONG):
                tree = json.loads(whole)
                owner = tree
                for key in place[:-1]:
                    owner = owner[key]
                if not place:
                    tree = None if value is ... else value
                elif value is ...:
                    del owner[place[-1]]
                else:
                    owner[place[-1]] = value
                path.write_text(json.dumps(tree))
                tried += 1
                try:
                    stored_sequences(folder)
                except UserError as error:
                    refused += 1
                    assert "\n" not in str(error) and len(str(error)) < 4000
    finally:
        path.write_text(whole)
    assert tried > 400 and refused > 0.8 * tried


@pytest.mark.parametrize(
    "name", ["../codes-000000.tar", "/etc/passwd", "codes-000001.tar", "CON", "a\0.tar", "x" * 300]
)
def test_a_shard_has_the_name_that_follows_from_its_number(name: str, folder: Path) -> None:
    path = folder / "codes.json"
    whole = path.read_text()
    tree = json.loads(whole)
    tree["shards"][0]["name"] = name
    path.write_text(json.dumps(tree))
    try:
        with pytest.raises(UserError, match=r"codes\.json is damaged: shards must be the 3"):
            CodeManifest.read(folder)
    finally:
        path.write_text(whole)


def test_a_shard_whose_bytes_changed_is_not_trained_on(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "codes"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    stored_sequences(copy)
    shard = copy / "codes-000001.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 128 + 2] ^= 1  # one bit of an id
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"codes-000001\.tar is missing or damaged"):
        stored_sequences(copy)
