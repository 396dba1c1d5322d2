"""What a sample of a tar shard is: which members belong together, which is the picture, which tell its class."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from vltok.errors import UserError
from vltok.pictures.formats import ending_of, left_out, readable, remedy

_LABELS = frozenset({"cls", "json"})
#: Where others keep labels: parts of endings, and keys of JSON.
_ELSEWHERE = frozenset({"cls", "label", "labels", "class", "classes", "category", "target"})
_OTHER_KEYS = _ELSEWHERE - {"label"} | {"class_id", "class_name", "class_index", "label_id", "category_id"}
#: Members that webdataset keeps for itself.
_OWN = re.compile(r"__[^/]*__/")
#: Folders that tools leave behind which know nothing of a Mac's attributes, or of extended headers.
_LEFT_BEHIND = re.compile(r"__MACOSX|PaxHeaders?(\.\d+)?")


class FindingKind(Enum):
    """What may be odd about the members of a shard, and whether a picture or a label would be lost by going on."""

    TWICE = "two members have one name"
    SEVERAL = "a sample has several pictures or labels"
    APART = "members of a sample do not stand together"
    LINK = "a picture is only a link"
    UNREADABLE = "a shard cannot be read to its end"
    SET_ASIDE = "a picture stands beside another one of its sample"
    NO_PICTURE = "a sample has no picture"
    UNREAD_LABEL = "a label stands where none is looked for"

    @property
    def loses(self) -> bool:
        """Whether it is an error."""
        return self not in (FindingKind.SET_ASIDE, FindingKind.NO_PICTURE, FindingKind.UNREAD_LABEL)


@dataclass(frozen=True)
class Finding:
    """Something odd in a shard.

    Attributes:
        kind: What it is.
        shard: The shard.
        member: The member that shows it.
        text: One clause that names both, and the remedy.
    """

    kind: FindingKind
    shard: str
    member: str
    text: str


@dataclass(frozen=True)
class Member:
    """One member of a shard.

    Attributes:
        name: Its path.
        read: Reads its content.
        link: Whether it is a link to another member or file, rather than a file.
        stays: Whether it can be read at any time, and not only before the next member is asked for.
    """

    name: str
    read: Callable[[], bytes] = bytes
    link: bool = False
    stays: bool = False


@dataclass(frozen=True)
class TarSample:
    """A picture in a shard, and what tells its class.

    Attributes:
        shard: The shard.
        key: What the names of its members have in common.
        name: The name of the picture's member.
        read: Reads the encoded picture.
        cls: What its `.cls` holds, or None where there is none.
        json: What its `.json` holds, or None.
        unique: What no picture of another shard is called; empty where that was not asked.
        txt: Reads its `.txt`, or None where there is none.
        npy: Reads the `.npy` of its embedding, or None where there is none or nobody asked.
    """

    shard: str
    key: str
    name: str
    read: Callable[[], bytes] = field(repr=False)
    cls: bytes | None = None
    json: bytes | None = field(default=None, repr=False)
    unique: str = ""
    txt: Callable[[], bytes] | None = field(default=None, repr=False)
    npy: Callable[[], bytes] | None = field(default=None, repr=False)

    def kept(self) -> TarSample:
        """The same with its picture in memory."""
        return replace(self, read=partial(bytes, self.read()))


def refuse_losses(finding: Finding) -> None:
    """Raise what would lose a picture or a label, and let the rest pass.

    Raises:
        UserError: The finding would.
    """
    if finding.kind.loses:
        raise UserError(finding.text)


def samples_of(
    shard: str,
    members: Iterable[Member],
    tell: Callable[[Finding], None] = refuse_losses,
    picture: str | None = None,
    embeddings: str | None = None,
) -> Iterator[TarSample]:
    """The samples of a shard. Everything that reads shards of pictures goes by this rule:

    * Members whose folders and names up to the first dot of the name are the same (their key) are one sample, as
      webdataset writes them. They stand one after another.
    * Members and folders whose names start with a dot do not exist, nor do those in `__name__/`,
      `__MACOSX/` or `PaxHeader/`.
    * The picture is the member whose ending is a picture's, in small letters or capitals. Where there are several, it
      is the one whose name has a single dot (`a.jpg` beside `a.seg.png`), which is told; else `picture` says which.
    * The label is in the `.cls` or `.json` that is named as the picture is (`a.v2.cls` beside `a.v2.jpg`), else in the
      one that is named by the key (`a.cls`), else in the only `.cls`.
    * The text that describes it is in the `.txt` that is named as the picture is, else in the one named by the key; its
      embedding likewise, in the member of the ending that is asked for.
    * What looks like a label elsewhere is told: `a.label`, `a.cls.txt`, other keys of JSON, folders like classes. A
      `.json` that is a text alone is none (`vltok.pictures.texts`).
    * What would lose a picture or a label is told as such: two pictures of which neither comes first, two members of
      one name, a member apart from the others of its sample, a picture that is but a link.

    Args:
        shard: What the shard is called.
        members: Its members, in order.
        tell: Is told what is odd. It raises what shall end the reading; where it does not, the first of several counts.
        picture: The ending of the pictures (`jpg`, `left.png`), where samples hold several. None: as above.
        embeddings: The ending of their embeddings, such as `npy`; None looks for none.
    """
    ended: set[str] = set()
    folders = _Folders()
    key, group = None, _Group(shard, "", embeddings)
    for member in members:
        split = split_name(member.name)
        if split is None:
            continue
        of, ending = split
        if of != key:
            if key is not None:
                yield from folders.seen(group.sample(tell, picture))
                if group.counts:
                    ended.add(key)
            key, group = of, _Group(shard, of, embeddings)
        if not readable(ending_of(member.name)) and ending.rpartition(".")[2] not in _LABELS:
            group.others.append(member.name)
            group.add_condition(member, ending)
            continue
        if not group.counts:
            group.counts = True
            if key in ended:
                tell(
                    _finding(
                        FindingKind.APART,
                        shard,
                        member.name,
                        f"comes after other samples, although its sample '{key}' (a name up to its first dot) has "
                        "ended: let the members of a sample stand together (tar --sort=name), and give each picture a "
                        "key of its own",
                    )
                )
        group.add(member, ending, tell)
    if key is not None:
        yield from folders.seen(group.sample(tell, picture))
    if (text := folders.like_classes()) is not None:
        tell(_finding(FindingKind.UNREAD_LABEL, shard, folders.first, text))


def split_name(name: str) -> tuple[str, str] | None:
    """The key of a member and its ending in small letters; None for one that does not exist to vltok."""
    *folders, base = name.split("/")
    stem, _, ending = base.partition(".")
    hidden = any(folder.startswith(".") and folder not in (".", "..") for folder in folders)
    if not stem or hidden or any(map(_LEFT_BEHIND.fullmatch, folders)) or _OWN.match(name):
        return None
    return "/".join([*folders, stem]), ending.lower()


class _Group:
    """The pictures and labels of one sample, by ending."""

    def __init__(self, shard: str, key: str, embeddings: str | None) -> None:
        self._shard, self._key, self._embeddings = shard, key, embeddings
        #: Whether it has a picture or a label, or the link to one.
        self.counts = False
        #: Members that are neither.
        self.others: list[str] = []
        self._names: dict[str, str] = {}
        self._contents: dict[str, Callable[[], bytes]] = {}
        self._conditions: dict[str, Callable[[], bytes]] = {}

    def add_condition(self, member: Member, ending: str) -> None:
        """Keep a text or an embedding."""
        kinds = ("txt",) if self._embeddings is None else ("txt", self._embeddings)
        if not member.link and any(ending == kind or ending.endswith(f".{kind}") for kind in kinds):
            self._conditions.setdefault(ending, member.read if member.stays else partial(bytes, member.read()))

    def add(self, member: Member, ending: str, tell: Callable[[Finding], None]) -> None:
        if ending in self._names:
            first = self._names[ending]
            what = "stands there twice" if first == member.name else f"and '{first}' differ in capitals alone"
            self._tell(tell, FindingKind.TWICE, member.name, f"{what}: give each picture a name of its own")
        elif member.link:
            text = "is a link, without a content of its own: pack the files themselves (tar -h --hard-dereference)"
            self._tell(tell, FindingKind.LINK, member.name, text)
        else:
            self._names[ending] = member.name
            self._contents[ending] = member.read if member.stays else partial(bytes, member.read())

    def sample(self, tell: Callable[[Finding], None], picture: str | None) -> Iterator[TarSample]:
        chosen = self._picture(tell, None if picture is None else picture.removeprefix(".").lower())
        if chosen is None:
            for name in [*filter(left_out, self.others), *self._names.values(), *self.others][:1]:
                way = f" ({remedy(ending_of(name))})" if left_out(name) else ""
                text = f"belongs to no picture, and is left out{way}"
                self._tell(tell, FindingKind.NO_PICTURE, name, text)
            return
        before = chosen.rpartition(".")[0]
        cls, record = self._label(tell, before, "cls"), self._label(tell, before, "json")
        if cls is None:
            self._tell_of_other_labels(tell, record)
        txt, npy = self._condition(before, "txt"), self._condition(before, self._embeddings)
        name, content = self._names[chosen], self._contents[chosen]
        yield TarSample(self._shard, self._key, name, content, cls, record, txt=txt, npy=npy)

    def _condition(self, before: str, ending: str | None) -> Callable[[], bytes] | None:
        """What reads the member that is named as the picture is, else the one that is named by the key."""
        if ending is None:
            return None
        return self._conditions.get(f"{before}.{ending}" if before else ending) or self._conditions.get(ending)

    def _tell_of_other_labels(self, tell: Callable[[Finding], None], record: bytes | None) -> None:
        """Tell of what may be a label to its owner; `record` is the JSON in which one is looked for."""
        for name in self.others:
            if not _ELSEWHERE.isdisjoint(name.rpartition("/")[2].lower().split(".")[1:]):
                text = f"is read for no label: call it '{self._key}.cls', with a whole number or the name of a class"
                self._tell(tell, FindingKind.UNREAD_LABEL, name, text)
                return
        elsewhere = _label_elsewhere(_parsed(record))
        if elsewhere is not None:
            name = next(self._names[ending] for ending in self._names if self._contents[ending]() == record)
            self._tell(tell, FindingKind.UNREAD_LABEL, name, elsewhere)

    def _picture(self, tell: Callable[[Finding], None], wanted: str | None) -> str | None:
        pictures = [ending for ending in self._names if readable(ending_of(self._names[ending]))]
        if wanted is not None:
            return wanted if wanted in pictures else None
        plain = [ending for ending in pictures if "." not in ending]
        first = plain or pictures
        if len(first) > 1:
            numbered = any(part.isdigit() for part in first[0].split("."))
            remedy = "" if numbered else f", or say which ending is the picture's (--data.picture {first[0]})"
            for other in first[1:]:
                self._tell(
                    tell,
                    FindingKind.SEVERAL,
                    self._names[other],
                    f"is a second picture of sample '{self._key}' (a name up to its first dot), beside "
                    f"'{self._names[first[0]]}': rename them, such as 'img_1.jpg' for 'img.1.jpg'{remedy}",
                )
        elif len(pictures) > 1:
            other = next(ending for ending in pictures if ending != first[0])
            text = f"stands beside '{self._names[first[0]]}', which is taken for the picture of the sample"
            self._tell(tell, FindingKind.SET_ASIDE, self._names[other], text)
        return first[0] if first else None

    def _label(self, tell: Callable[[Finding], None], before: str, kind: str) -> bytes | None:
        """The content of the member that may tell the class; `before` stands before the picture's last ending."""
        there = [ending for ending in self._names if ending.rpartition(".")[2] == kind]
        named = [ending for ending in (f"{before}.{kind}" if before else kind, kind) if ending in there]
        if not named and kind == "cls":
            named = there
            if len(there) > 1:
                text = f"and '{self._names[there[0]]}' are labels of one picture: name one as the picture"
                self._tell(tell, FindingKind.SEVERAL, self._names[there[1]], text)
        return self._contents[named[0]]() if named else None

    def _tell(self, tell: Callable[[Finding], None], kind: FindingKind, member: str, text: str) -> None:
        tell(_finding(kind, self._shard, member, text))


class _Folders:
    """The folders of the samples of a shard, as long as none has a label."""

    def __init__(self) -> None:
        self.first = ""
        self._samples: Counter[str] = Counter()
        self._labelled = False

    def seen(self, samples: Iterable[TarSample]) -> Iterator[TarSample]:
        """The same samples."""
        for sample in samples:
            self.first = self.first or sample.name
            self._labelled = self._labelled or sample.cls is not None or "label" in _keys(_parsed(sample.json))
            self._samples[sample.key.rpartition("/")[0]] += 1
            yield sample

    def like_classes(self) -> str | None:
        """What to say of folders that look like classes: there are several, with pictures that have no label."""
        names = [folder.rpartition("/")[2] for folder in self._samples]
        if self._labelled or "" in names or len(names) < 2 or self._samples.total() < 2 * len(names):
            return None
        return (
            f"and the others have no label: the folders in a shard ({', '.join(names[:3])}{' …' * (len(names) > 3)}) "
            "are no classes; labels stand in .cls or .json members, as 'vltok pack' writes them of a folder of folders"
        )


def _parsed(record: bytes | None) -> object:
    """What a JSON holds; None where it holds nothing or is broken, which whoever reads the label refuses."""
    try:
        return json.loads(record or b"null")
    except (ValueError, RecursionError):
        return None


def _keys(found: object) -> Collection[str]:
    return [key for key, value in found.items() if value is not None] if isinstance(found, dict) else ()


def _label_elsewhere(found: object) -> str | None:
    """What to say of a JSON that may hold a label to its owner, but not where one is looked for."""
    keys = _keys(found)
    if "label" not in keys and (others := sorted(_OTHER_KEYS.intersection(keys))):
        return f"has '{others[0]}', which is read for no label: call the key 'label'"
    values = found if isinstance(found, list) else [found]
    if isinstance(found, str) and not found.strip().isdecimal():  # it is the picture's text
        return None
    if values and all(isinstance(value, int | float | str) for value in values):
        return 'is read for no label: write an object, such as {"label": 3}'
    return None


def _finding(kind: FindingKind, shard: str, member: str, text: str) -> Finding:
    return Finding(kind, shard, member, f"'{member}' of shard '{shard}' {text}")
