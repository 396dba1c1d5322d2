"""Which data made a figure: every table, record and report tells it in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vltok.evaluation.records import Record
from vltok.pictures.sizes import Size, in_words

#: Where descriptions of data say where it lies.
_PLACES = ("root", "shards", "place")
_SPLITS = {"val": "held-out ", "train": "training ", "all": "", None: ""}


@dataclass(frozen=True)
class DataUsed:
    """The data that figures were measured on.

    Attributes:
        name: The name of its source: ``photos``, ``folder``, …; None where it is not known.
        place: Its path, as it was given; None where it has none.
        pictures: How many pictures the source has in all; None where it does not say.
        split: Which of them were measured: ``val`` are held out.
        measured: How many.
        size: The side of a measured picture, in pixels, or the heights and widths that they have.
    """

    name: str | None
    place: str | None
    pictures: int | None
    split: str | None
    measured: int | None
    size: int | Sequence[Size] | None

    @classmethod
    def described(cls, description: Mapping[str, Any], split: str | None, measured: int | None) -> DataUsed:
        """Of what `ImageData.description` gives, so many pictures of a split."""
        place = next((description[key] for key in _PLACES if description.get(key) is not None), None)
        if isinstance(place, list | tuple):
            place = ", ".join(map(str, place))
        name, pictures, size = (description.get(key) for key in ("kind", "pictures", "size"))
        return cls(
            None if name is None else str(name),
            None if place is None else str(place),
            pictures if isinstance(pictures, int) else None,
            split,
            measured,
            size if isinstance(size, int | list | tuple) else None,
        )

    @classmethod
    def of(cls, record: Record) -> DataUsed:
        """The data of a record."""
        data, sequences = record.protocol["data"], record.protocol.get("sequences")
        if isinstance(sequences, Mapping):  # what a prior was trained on
            unseen = sequences.get("unseen")
            return cls.described({"kind": "codes", "pictures": sequences.get("training"), **sequences}, "val", unseen)
        found = record.environment.get("data")
        if not isinstance(found, Mapping):
            found = record.protocol.get("training_data", {}).get("description")
        described = found if isinstance(found, Mapping) else {}
        size = {} if data.get("size") is None else {"size": data["size"]}
        return cls.described({**described, **size}, data.get("split"), data.get("images"))

    def in_words(self) -> str:
        """``folder 'my/pictures' (775 pictures): 48 held-out pictures of 64 × 64``."""
        place = "" if self.place is None else f" '{self.place}'"
        total = "" if self.pictures is None else f" ({self.pictures:,} {self._things(self.pictures)})"
        crops = self.measured is not None and self.pictures is not None and self.measured > self.pictures
        things = self._things(None if crops else self.measured)
        what = f"{_SPLITS[self.split]}{things}" if self.split in _SPLITS else f"{things} of the split '{self.split}'"
        if crops:
            what = f"crops of {what}"
        count = "" if self.measured is None else f"{self.measured:,} "
        sides = [(self.size, self.size)] if isinstance(self.size, int) else self.size or []
        size = f" of {', '.join(map(in_words, sides))}" if sides else ""
        return f"{self.name or 'data that is not told'}{place}{total}: {count}{what}{size}"

    def _things(self, count: int | None) -> str:
        """What so many of them are called."""
        thing = "sequence" if self.name == "codes" else "picture"
        return thing if count == 1 else f"{thing}s"
