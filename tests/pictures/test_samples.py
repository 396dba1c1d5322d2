"""What a sample of a shard is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from vltok.errors import UserError
from vltok.pictures.samples import Finding, FindingKind, Member, TarSample, samples_of, split_name


def read(*names: str, picture: str | None = None) -> tuple[list[TarSample], list[Finding]]:
    """The samples of members that hold their own names, and what is told of them."""
    told: list[Finding] = []
    members = [Member(name, name.encode) for name in names]
    return list(samples_of("a.tar", members, told.append, picture)), told


def pictures(*names: str, picture: str | None = None) -> list[str]:
    samples, told = read(*names, picture=picture)
    assert not told
    return [sample.name for sample in samples]


@pytest.mark.parametrize(
    ("names", "key", "label"),
    [
        (("a/0.jpg", "a/0.cls"), "a/0", "a/0.cls"),
        (("v1.0/0.cls", "v1.0/0.JPG"), "v1.0/0", "v1.0/0.cls"),
        (("./0.PNG", "./0.txt", "./0.CLS"), "./0", "./0.CLS"),
        (("0.v2.jpg", "0.v2.cls"), "0", "0.v2.cls"),
        (("0.v2.jpg", "0.cls"), "0", "0.cls"),
        (("0.jpg", "0.class.cls"), "0", "0.class.cls"),
        (("0.jpg", "0.mask.json"), "0", None),
    ],
)
def test_picture_and_label(names: tuple[str, ...], key: str, label: str | None) -> None:
    samples, told = read(*names)
    assert not told and [(sample.key, sample.cls) for sample in samples] == [(key, label and label.encode())]
    assert samples[0].read() == samples[0].name.encode() and samples[0].json is None


def test_json_of_a_picture() -> None:
    samples, _ = read("0.jpg", "0.json", "0.other.json", "1.x.png", "1.json", "1.x.json")
    assert [sample.json for sample in samples] == [b"0.json", b"1.x.json"]


@pytest.mark.parametrize(
    "hidden",
    [
        "._0.jpg",
        "a/.DS_Store",
        "a/.thumbs/0.jpg",
        "__MACOSX/0.jpg",
        "PaxHeaders.12/0.jpg",
        "PaxHeader/0.jpg",
        "__x__/0.jpg",
    ],
)
def test_members_that_do_not_exist(hidden: str) -> None:
    assert split_name(hidden) is None
    assert pictures("0.jpg", hidden, "1.jpg") == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("names", "kind", "member"),
    [
        (("img.0.jpg", "img.1.jpg"), FindingKind.SEVERAL, "img.1.jpg"),
        (("0.jpg", "0.png"), FindingKind.SEVERAL, "0.png"),
        (("0.jpg", "0.jpg"), FindingKind.TWICE, "0.jpg"),
        (("0.JPG", "0.jpg"), FindingKind.TWICE, "0.jpg"),
        (("0.jpg", "1.jpg", "0.cls"), FindingKind.APART, "0.cls"),
        (("0.cls", "1.jpg", "0.jpg"), FindingKind.APART, "0.jpg"),
        (("0.jpg", "1.jpg", "0.jpg"), FindingKind.APART, "0.jpg"),
        (("0.jpg", "0.a.cls", "0.b.cls"), FindingKind.SEVERAL, "0.b.cls"),
    ],
)
def test_losses_are_errors(names: tuple[str, ...], kind: FindingKind, member: str) -> None:
    _, told = read(*names)
    assert (kind, member) in [(finding.kind, finding.member) for finding in told]
    with pytest.raises(UserError, match=rf"^'{member}' of shard 'a\.tar' "):
        list(samples_of("a.tar", map(Member, names)))


def test_link_to_a_picture_is_an_error() -> None:
    with pytest.raises(UserError, match=r"^'0\.jpg' of shard 'a\.tar' is a link.* --hard-dereference"):
        list(samples_of("a.tar", [Member("0.jpg", link=True)]))


@pytest.mark.parametrize(
    ("names", "kind", "member", "left"),
    [
        (("0.depth.png", "0.jpg", "1.jpg"), FindingKind.SET_ASIDE, "0.depth.png", ["0.jpg", "1.jpg"]),
        (("0.jpg", "1.cls"), FindingKind.NO_PICTURE, "1.cls", ["0.jpg"]),
        (("0.jpg", "1.xcf"), FindingKind.NO_PICTURE, "1.xcf", ["0.jpg"]),
    ],
)
def test_what_is_left_out_is_told(names: tuple[str, ...], kind: FindingKind, member: str, left: list[str]) -> None:
    samples, told = read(*names)
    assert [(finding.kind, finding.member) for finding in told] == [(kind, member)]
    assert [sample.name for sample in samples] == left == [each.name for each in samples_of("a", map(Member, names))]


@pytest.mark.parametrize("wanted", ["left.png", ".LEFT.png"])
def test_ending_that_is_asked_for(wanted: str) -> None:
    names = ("0.left.png", "0.right.png", "0.jpg", "1.left.png")
    assert pictures(*names, picture=wanted) == ["0.left.png", "1.left.png"]


NAME = st.text(st.sampled_from("ab.0éJ/_"), min_size=1, max_size=7)


@given(st.lists(st.tuples(NAME, st.sampled_from(["jpg", "png", "cls", "txt", "JPG"])), max_size=6))
def test_no_picture_is_lost_in_silence(members: list[tuple[str, str]]) -> None:
    names = [f"{name}.{ending}" for name, ending in members]
    samples, told = read(*names)
    used = [sample.name for sample in samples]
    assert len(set(used)) == len(used) or told
    for name in names:
        hidden = any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
        if name.lower().endswith(("jpg", "png")) and not hidden:
            assert name in used or told


@given(st.lists(st.text(st.sampled_from("ab0é_- "), min_size=1, max_size=4), unique=True, max_size=5), st.booleans())
def test_samples_that_webdataset_writes_are_read_as_it_reads_them(keys: list[str], folders: bool) -> None:
    keys = [f"v1.0/{key}" if folders else key for key in keys]
    names = [f"{key}.{ending}" for key in keys for ending in ("cls", "jpg", "meta.txt")]
    samples, told = read(*names)
    assert not told and [sample.key for sample in samples] == keys
    assert all(split_name(name) == base_plus_ext(name) for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ("0.label", "0.jpg"),
        ("0.jpg", "0.cls.txt"),
        ("0.jpg", "0.CLASS"),
        ("cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"),
        ("train/a/0.png", "train/a/0.txt", "train/a/1.png", "train/b/2.png", "train/b/3.png"),
    ],
)
def test_labels_elsewhere_are_told(names: tuple[str, ...]) -> None:
    samples, told = read(*names)
    assert [finding.kind for finding in told] == [FindingKind.UNREAD_LABEL]
    assert all(sample.cls is None for sample in samples)
    assert ".cls" in told[0].text and not told[0].kind.loses


@pytest.mark.parametrize(
    "names",
    [
        ("0.jpg", "0.label", "0.cls"),
        ("cat/0.jpg", "cat/0.cls", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"),
        ("a/0.jpg", "b/1.jpg", "c/2.jpg"),
        ("a/0.jpg", "a/1.jpg", "2.jpg", "3.jpg"),
    ],
)
def test_what_is_no_label_elsewhere_is_not_told(names: tuple[str, ...]) -> None:
    assert not read(*names)[1]


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (b'{"class": 3}', "class"),
        (b'{"caption": "x", "category_id": "7"}', "category_id"),
        (b'{"label": null, "cls": 1}', "cls"),
        (b'{"label": 1, "cls": 1}', None),
        (b'{"class": null}', None),
        (b'[{"class": 1}]', None),
        (b"{", None),
    ],
)
def test_keys_of_json_that_may_be_labels(record: bytes, key: str | None) -> None:
    told: list[Finding] = []
    members = [Member("0.jpg", lambda: b"x"), Member("0.json", lambda: record)]
    list(samples_of("a.tar", members, told.append))
    assert [finding.text for finding in told] == (
        [f"'0.json' of shard 'a.tar' has '{key}', which is read for no label: call the key 'label'"] if key else []
    )


def test_json_that_is_a_text_alone_is_told_of_as_no_label() -> None:
    members = [Member("0.jpg", lambda: b"x"), Member("0.json", lambda: b'"a cat on a mat"')]
    told: list[Finding] = []
    assert len(list(samples_of("a.tar", members, told.append))) == 1 and not told


@pytest.mark.parametrize("record", [b"3", b'"3"', b"[1]", b'["cat", "dog"]'])
def test_json_that_is_no_object_but_may_be_a_label(record: bytes) -> None:
    told: list[Finding] = []
    members = [Member("0.jpg", lambda: b"x"), Member("0.json", lambda: record)]
    list(samples_of("a.tar", members, told.append))
    assert [finding.kind for finding in told] == [FindingKind.UNREAD_LABEL]
    assert told[0].text.startswith(
        "'0.json' of shard 'a.tar' is read for no label: write an object, such as {\"label\""
    )


def test_a_member_without_an_ending_may_be_a_picture() -> None:
    samples, told = read("a/0", "a/1.jpg")
    assert [sample.name for sample in samples] == ["a/1.jpg"]
    assert [(finding.kind, finding.member) for finding in told] == [(FindingKind.NO_PICTURE, "a/0")]
    assert "names without an ending: add one, such as .jpg" in told[0].text
