"""`vltok.doctor`: what a training would use of pictures, leave out, and stumble over, before it starts."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from vltok.errors import UserError, how_many, whole_number
from vltok.loading.checks import default_workers
from vltok.loading.pools import in_processes
from vltok.paths import read_path
from vltok.pictures.decoding import CorruptPicture, decode, stored_mode
from vltok.pictures.embeddings import EmbeddingPlace
from vltok.pictures.finding import find_pictures, splits_remark
from vltok.pictures.folder import class_of, classes_of, no_classes_remark
from vltok.pictures.formats import is_picture, left_out
from vltok.pictures.labels import class_names, label_of
from vltok.pictures.samples import Finding, FindingKind
from vltok.pictures.tars import UnreadableShard, is_address, list_shards, read_samples
from vltok.pictures.texts import TextPlace, text_alone
from vltok.verbs.counting import Progress, counted

#: The names of shards in a folder; the first that is there counts.
_SHARDS = ("*.tar", "*.tar.gz", "*.tar.bz2", "*.tar.xz", "*.tar.zst", "*.tgz")


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Attributes:
        source: What was looked at.
        pictures: How many can be used.
        modes: How many of these are stored in which way, as Pillow names it.
        sizes: Their smallest, median and largest width and height in pixels.
        labels: How many have which label: the name of its class, or its number.
        undescribed: How many have no text; None where none was looked for.
        embeddings: How many have an embedding of how many numbers; None where none was looked for.
        shards: How many shards were read; None of a folder.
        duplicate_keys: Keys that stand in several shards, whose pictures are told apart by the shard's name.
        unreadable: Why the other pictures cannot be read, by path or key.
        losses: What a training would lose or stop at, each in one line.
        notes: What may not be meant, but loses nothing.
    """

    source: str
    pictures: int
    modes: dict[str, int]
    sizes: dict[str, tuple[int, int]]
    labels: dict[str, int]
    undescribed: int | None
    embeddings: dict[int, int] | None
    shards: int | None
    duplicate_keys: int
    unreadable: dict[str, str]
    losses: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is lost."""
        return not self.losses

    def to_json(self) -> dict[str, Any]:
        """All of it, and whether it is sound."""
        return {**asdict(self), "sound": self.sound}

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        of = "" if self.shards is None else f" of {how_many(self.shards, 'shard')}"
        sizes = ", ".join(f"{which} {width} × {height}" for which, (width, height) in self.sizes.items())
        yield f"{how_many(self.pictures, 'picture')}{of} can be used{f': {sizes} pixels' if sizes else ''}"
        if self.modes:
            yield f"modes: {', '.join(f'{mode} {count}' for mode, count in self.modes.items())}"
        if self.labels:
            least, most = min(self.labels.values()), max(self.labels.values())
            yield f"labels: {how_many(len(self.labels), 'class')} of {least} to {how_many(most, 'picture')}"
        else:
            yield "labels: none"
        if self.undescribed is not None:
            yield f"texts: {self.pictures - self.undescribed} of {how_many(self.pictures, 'picture')}"
        if self.embeddings is not None:
            found = [f"{count} of {how_many(size, 'number')}" for size, count in self.embeddings.items()]
            yield f"embeddings: {', '.join(found) or 'none'}"
        yield from (f"note: {note}" for note in self.notes)
        yield from (f"lost: {loss}" for loss in self.losses)


@dataclass(frozen=True)
class _Look:
    """What was seen of one picture; its size is None where it cannot be read, for which `said` is the reason."""

    size: tuple[int, int] | None
    said: str
    key: str = ""
    label: str | None = None
    text: str | None = None
    embedding: int | None = None  # how many numbers it has
    unread: bool = False  # whether its JSON is a text that nobody asked for


@dataclass(frozen=True)
class _Shard:
    """What was seen of one shard."""

    looks: tuple[_Look, ...]
    losses: tuple[str, ...]
    wrong: tuple[str, ...]
    findings: tuple[Finding, ...]


def doctor(
    pictures: str | os.PathLike,
    *,
    picture: str | None = None,
    texts: str | None = None,
    embeddings: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Read through pictures before a long training, as it would read them.

    Says what it would use, leave out and stumble over: counts by reason, sizes, modes, labels, duplicate keys, shards
    that are cut. The command ends with 1 where a training would lose anything.

    Args:
        pictures: A folder of pictures, or of shards; or (quoted) shards, with braces or wildcards.
        picture: The ending of the pictures, where samples of shards hold several.
        texts: Where texts that describe the pictures stand, as in `data.texts`: ``txt``, ``json:KEY`` of shards, or
            ``metadata.jsonl`` of a folder.
        embeddings: The ending of the pictures' embeddings, as in `data.embeddings`: ``npy``, or one such as
            ``clip.npy``.
        workers: Processes that read; by default as many as there are cores, up to eight.
        progress: Is told how many pictures, or shards, are done.

    Raises:
        UserError: There is nothing to look at.
    """
    given = os.fspath(pictures)
    workers = whole_number("--workers", default_workers() if workers is None else workers, 0)
    vectors = None if embeddings is None else EmbeddingPlace.of(embeddings, "--embeddings")
    folder = read_path(given)
    if folder.is_dir():
        given = str(folder)
        found = find_pictures(folder)
        shards = [pattern for pattern in _SHARDS if any(folder.glob(pattern))]
        if found.paths or not shards:
            return _of_folder(given, texts, vectors, workers, progress)
        given = str(folder / (shards[0] if len(shards) == 1 else f"{{{','.join(shards)}}}"))
    elif folder.is_file() and is_picture(folder.name):
        raise UserError(f"PICTURES '{given}' is a picture: give the folder that holds it, or shards")
    elif not read_path(given).exists() and not is_address(given) and not re.search(r"[{*?\[]", given):
        raise UserError(f"PICTURES '{given}' does not exist: give a folder of pictures, or shards such as 'a/*.tar'")
    return _of_shards(given, picture, texts, vectors, workers, progress)


def _of_folder(
    root: str, texts: str | None, vectors: EmbeddingPlace | None, workers: int, progress: Progress | None
) -> Diagnosis:
    found = find_pictures(root)
    if not found.paths:
        why = f" ({found.remark})" if found.remark else ""
        raise UserError(f"PICTURES '{root}' holds neither pictures nor shards{why}")
    text_of = None if texts is None else TextPlace.of(texts, "--texts", shards=False).of_folder(root, found.paths)
    report = counted(progress, len(found.paths))
    classes = classes_of(found.paths)
    looks, wrong = [], []
    files = [os.path.join(root, path) for path in found.paths]
    for path, look in zip(found.paths, in_processes(_look, files, workers), strict=True):
        text = size = None
        try:
            text = None if text_of is None else text_of(path)
            size = None if vectors is None else len(vectors.of_file(root, path))
        except UserError as error:
            wrong.append(str(error))
        label = None if classes is None else class_of(path)
        looks.append(replace(look, key=path, label=label, text=text, embedding=size))
        report(1)
    notes: list[str] = []
    losses = [loss for loss in (splits_remark(found.paths, "data.root", root),) if loss]  # the classes below them
    if found.missing_classes:
        losses.append(found.missing_classes)
    if found.left_out or found.closed:
        losses.append(found.remark)
    elif found.remark:
        notes.append(found.remark)
    losses += _unusable("text" if vectors is None else "text or embedding", wrong)
    if (remark := no_classes_remark(found.paths)) is not None:
        losses.append(remark)
    return _diagnosis(root, looks, losses, notes, texts is not None, vectors is not None)


def _of_shards(
    pattern: str,
    picture: str | None,
    texts: str | None,
    vectors: EmbeddingPlace | None,
    workers: int,
    progress: Progress | None,
) -> Diagnosis:
    place = None if texts is None else TextPlace.of(texts, "--texts", shards=True)
    shards = list_shards(pattern, "PICTURES")
    losses: list[str] = []
    try:
        classes = class_names(shards, "PICTURES")
    except UserError as error:
        classes, losses = None, [str(error)]
    report = counted(progress, len(shards))
    wrong: list[str] = []
    looks: list[_Look] = []
    keys: Counter[str] = Counter()
    findings: dict[FindingKind, list[Finding]] = {}
    look_at = functools.partial(_look_at_shard, picture, classes, place, vectors)
    for shard, seen in zip(shards, in_processes(look_at, shards, workers, chunk=1), strict=True):
        looks += (replace(look, key=f"{look.key} of {shard}") for look in seen.looks)
        keys.update(list(dict.fromkeys(look.key for look in seen.looks)))
        losses += seen.losses
        wrong += seen.wrong
        for finding in seen.findings:
            findings.setdefault(finding.kind, []).append(finding)
        report(1)
    asked = ["label", *(["text"] if texts else []), *(["embedding"] if vectors else [])]
    losses += _unusable(" or ".join(asked), wrong)
    notes: list[str] = []
    for some in findings.values():
        text = f"{some[0].kind.value}: {how_many(len(some), 'time')}, first {some[0].text}"
        lost = (
            some[0].kind.loses
            or some[0].kind is FindingKind.UNREAD_LABEL
            or any(left_out(finding.member) for finding in some)
        )
        (losses if lost else notes).append(text)
    repeated = [key for key, count in keys.items() if count > 1]
    if repeated:
        stand = how_many(len(repeated), "key", "stand")
        notes.append(f"{stand} in several shards ({repeated[0]}): the shard's name is added")
    unread = [look.key for look in looks if look.unread]
    if unread:
        notes.append(
            f"of {how_many(len(unread), 'picture')} the .json is a text alone, first {unread[0]}: --texts json reads "
            'it, and a label stands in an object, such as {"label": 3}'
        )
    unlabelled = [look.key for look in looks if look.label is None]
    if 0 < len(unlabelled) < len(looks):
        losses.append(
            f"{len(unlabelled)} of {len(looks)} pictures have no label ({unlabelled[0]}): give all one, or none"
        )
    told = place is not None, vectors is not None
    return _diagnosis(pattern, looks, losses, notes, *told, len(shards), len(repeated))


def _unusable(what: str, wrong: list[str]) -> list[str]:
    return [f"{how_many(len(wrong), what)} cannot be used, first: {wrong[0]}"] if wrong else []


def _diagnosis(
    source: str,
    looks: list[_Look],
    losses: list[str],
    notes: list[str],
    described: bool,
    embedded: bool,
    shards: int | None = None,
    duplicate_keys: int = 0,
) -> Diagnosis:
    unreadable = {look.key: look.said for look in looks if look.size is None}
    whole = [look for look in looks if look.size is not None]
    if unreadable:
        named = "; ".join(f"{key}: {reason}" for key, reason in list(unreadable.items())[:3])
        losses = [*losses, f"{len(unreadable)} of {len(looks)} pictures cannot be read ({named})"]
    sizes_of_embeddings = dict(Counter(look.embedding for look in whole if look.embedding is not None).most_common())
    if len(sizes_of_embeddings) > 1:
        told = " and ".join(f"{count} have {size}" for size, count in sizes_of_embeddings.items())
        losses = [*losses, f"embeddings must all have as many numbers, but {told}"]
    strange = Counter(look.said.partition(" (")[2].rstrip(")") for look in whole if " (" in look.said)
    notes = [*notes, *(f"{how_many(n, 'picture', 'have')} {how}, which is read as sRGB" for how, n in strange.items())]
    if not looks:
        losses = [*losses, "there is no picture"]
    sizes = sorted((look.size for look in whole if look.size), key=lambda size: size[0] * size[1])
    measures = {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1]} if sizes else {}
    return Diagnosis(
        source=source,
        pictures=len(whole),
        modes=dict(Counter(look.said for look in whole).most_common()),
        sizes=measures,
        undescribed=sum(not look.text for look in whole) if described else None,
        embeddings=sizes_of_embeddings if embedded else None,
        labels=dict(sorted(Counter(look.label for look in whole if look.label is not None).items())),
        shards=shards,
        duplicate_keys=duplicate_keys,
        unreadable=unreadable,
        losses=tuple(losses),
        notes=tuple(notes),
    )


def _look_at_shard(
    picture: str | None,
    classes: list[str] | None,
    texts: TextPlace | None,
    vectors: EmbeddingPlace | None,
    shard: str,
) -> _Shard:
    looks: list[_Look] = []
    findings: list[Finding] = []
    losses: list[str] = []
    wrong: list[str] = []
    names = dict(enumerate(classes or ()))
    try:
        ending = None if vectors is None else vectors.ending
        for sample in read_samples(shard, findings.append, picture, embeddings=ending):
            label = text = size = None
            try:
                label = label_of(sample, classes)
                text = None if texts is None else texts.of_sample(sample)
                size = None if vectors is None else len(vectors.of_sample(sample))
            except UserError as error:
                wrong.append(str(error))
            name = None if label is None else names.get(label, str(label))
            unread = texts is None and text_alone(sample.json) is not None
            look = replace(_look(sample.read()), key=sample.key, label=name, text=text, embedding=size, unread=unread)
            looks.append(look)
    except UnreadableShard as error:
        losses.append(str(error))
    return _Shard(tuple(looks), tuple(losses), tuple(wrong), tuple(findings))


def _look(source: bytes | str) -> _Look:
    try:
        return _Look(decode(source).size, stored_mode(source))
    except CorruptPicture as error:
        return _Look(None, str(error))
