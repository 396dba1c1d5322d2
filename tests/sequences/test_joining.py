"""Exports that are read one after another."""

from dataclasses import replace
from pathlib import Path

import pytest

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.launchers import ALONE
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.export import CodeExport
from vltok.sequences.joining import JoinedExports
from vltok.sequences.statistics import CodeCounts

from .code_exports import SPEC, export_codes, random_codes, samples_of, settings


def exported(folder: Path, codes: Codes, classes: list[str] | None, **changes) -> Path:
    """An export under names of classes."""
    given = settings(len(codes), 5, **{"input": folder.name.encode().hex().rjust(64, "0"), **changes})
    export = CodeExport(folder, SPEC, given, classes)
    for shard in export.pending():
        part = codes[list(export.pictures(shard))]
        export.write(shard, samples_of(part, export.pictures(shard).start), CodeCounts.of(part, SPEC, 256))
    export.finish()
    return folder


def test_labels_count_by_name(tmp_path: Path) -> None:
    codes = random_codes(3)
    first = exported(tmp_path / "a", codes, ["cat", "dog", "owl"])
    second = exported(tmp_path / "b", codes, ["owl", "cat", "elk"])
    joined = JoinedExports([first, second])
    assert joined.run.classes == ("cat", "dog", "owl", "elk")
    found = joined.samples(range(6))
    assert [(sample.index, sample.label) for sample in found] == [(0, 0), (1, 1), (2, 2), (3, 2), (4, 0), (5, 3)]


def test_what_was_skipped_leaves_its_gap(tmp_path: Path) -> None:
    codes = random_codes(3)
    folders = []
    for name in "ab":
        export = CodeExport(
            tmp_path / name, SPEC, settings(4, 4, input=name.encode().hex().rjust(64, "0")), None, ALONE
        )
        export.write(0, samples_of(codes), CodeCounts.of(codes, SPEC, 256), [SkippedPicture(3, name, "broken")])
        export.finish()
        folders.append(tmp_path / name)
    joined = JoinedExports(folders)
    assert [sample.index for sample in joined.samples(range(2, 8))] == [2, 4, 5, 6]
    assert joined.skipped(range(0, 4)) == [SkippedPicture(3, "a", "broken")]
    assert joined.skipped(range(4, 8)) == [SkippedPicture(7, "b", "broken")]


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [
        ({"tokenizer": "2" * 64}, True, "'.*b' holds the codes of another tokenizer"),
        ({"precision": "bfloat16"}, True, "'.*b' holds an export with --precision bfloat16, not float32"),
        (
            {"options": {"--rate": "codes=20"}},
            True,
            "'.*b' holds codes with --rate codes=20, '.*a' codes with --rate None",
        ),
        ({"input": "1" * 64}, True, "'.*a' and '.*b' hold codes of the same pictures"),
        ({}, False, "the labels of '.*b' are numbers without names"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict, classes: bool, message: str, tmp_path: Path) -> None:
    names = ["cat", "dog", "owl", "elk"]
    first = exported(tmp_path / "a", random_codes(4), names, input="1" * 64)
    second = exported(tmp_path / "b", random_codes(4), names if classes else None, **changes)
    with pytest.raises(UserError, match=message):
        JoinedExports([first, second])


def test_codes_without_labels_go_with_others(tmp_path: Path) -> None:
    codes = random_codes(2)
    first = exported(tmp_path / "a", replace(codes, labels=None), None)
    second = exported(tmp_path / "b", codes, ["cat", "dog"])
    joined = JoinedExports([first, second])
    assert joined.run.classes == ("cat", "dog")
    assert [sample.label for sample in joined.samples(range(4))] == [None, None, 0, 1]
    assert export_codes(tmp_path / "c", codes).labelled
