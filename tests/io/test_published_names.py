"""Bundles are published without the folders of the machine on which they were made."""

import json

import pytest

from vltok.io.published_names import without_places


@pytest.mark.parametrize(
    "card",
    [
        'It lay at "C:\\data\\x", which is no JSON.',
        'The "big"/"small" models, "/" and "~ 3/4 of all".',
        'See https://example.org/data/x and "metadata/".',
        '```json\n{"note": "~ 3/4 of all", "bad": "C:\\data"}\n```',
    ],
)
def test_what_people_write_in_a_card_stays(card: str) -> None:
    assert without_places({"root": "data/", "base": "./"}, card)[1] == card


@pytest.mark.parametrize(
    ("path", "name"),
    [("/home/me/pics", "pics"), ("~/pics", "pics"), ("../pics", "pics"), ("C:\\me\\pics", "pics"), ("./", "folder")],
)
def test_a_path_becomes_its_name(path: str, name: str) -> None:
    card = f"Of {path}, or `{path}`.\n\n```json\n{json.dumps({'root': path, 'all': [path]}, indent=2)}\n```\n"
    told, shown = without_places({"data": {"root": path}}, card)
    assert told == {"data": {"root": name}}
    assert shown == card.replace(json.dumps(path)[1:-1], name).replace(path, name)
    alone = f"```json\n{json.dumps({'root': path})}\n```"
    assert without_places({}, alone)[1] == alone.replace(json.dumps(path)[1:-1], name)
