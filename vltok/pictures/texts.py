"""Where the texts stand that describe pictures, and how they are read."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vltok.errors import UserError, one_line
from vltok.pictures.samples import TarSample

#: What names a picture in a line of JSON, as in Hugging Face's folders of images.
_FILE_NAME = "file_name"


@dataclass(frozen=True)
class TextPlace:
    """Where texts stand.

    Attributes:
        source: ``txt`` (``NAME.txt`` beside ``NAME.jpg``), ``json`` (likewise, in shards), or the name of a file of
            JSON lines in a folder, such as ``metadata.jsonl``.
        key: The key of JSON whose value is the text; a sample's JSON may be the text alone, too.
    """

    source: str
    key: str

    @classmethod
    def of(cls, given: str, option: str, *, shards: bool) -> TextPlace:
        """What a user says: a source, and behind a colon a key where it is not ``text``.

        Args:
            given: What was said.
            option: What it was given by.
            shards: Whether the pictures lie in shards, or in a folder.

        Raises:
            UserError: Texts are read from no such place.
        """
        source, colon, key = given.partition(":")
        if not (source == "txt" or (source == "json" if shards else source.endswith(".jsonl"))) or (
            colon and (not key or source == "txt")
        ):
            allowed = "json or json:KEY" if shards else "metadata.jsonl or metadata.jsonl:KEY"
            raise UserError(f"{option} must be txt, {allowed}, not '{given}'")
        return cls(source, key or "text")

    def of_sample(self, sample: TarSample) -> str | None:
        """What describes a sample of a shard; None where nothing does.

        Raises:
            UserError: It is no text.
        """
        where = f"sample {sample.key} of shard '{sample.shard}'"
        if self.source == "txt":
            return None if sample.txt is None else decoded(sample.txt(), where)
        if sample.json is None:
            return None
        alone = text_alone(sample.json)
        return self._value(_object(sample.json, where), where) if alone is None else _checked(alone, where)

    def of_folder(self, root: str, paths: Sequence[str]) -> Callable[[str], str | None]:
        """What gives the text of a picture of a folder, by its relative path; None for one without.

        Args:
            root: The folder.
            paths: The relative paths of its pictures.

        Raises:
            UserError: The file of JSON lines cannot be read, or no picture has a text.
        """
        if self.source == "txt":
            if not any(_beside(root, path).is_file() for path in paths):
                raise UserError(f"data.texts is txt, but no picture of '{root}' has a text beside it, as NAME.txt")
            return functools.partial(_text_beside, root)
        texts = dict(self._lines(Path(root, self.source)))
        if texts.keys().isdisjoint(paths):
            raise UserError(
                f"data.texts: no line of '{Path(root, self.source)}' describes a picture of '{root}'; a line is such "
                f'as {{"{_FILE_NAME}": "{paths[0]}", "{self.key}": "…"}}'
            )
        return texts.get

    def _lines(self, path: Path) -> list[tuple[str, str]]:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, ValueError) as error:
            raise UserError(f"data.texts: '{path}' cannot be read: {one_line(error)}") from error
        found = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"line {number} of '{path}'"
                record = _object(line, where)
                name, text = record.get(_FILE_NAME), self._value(record, where)
                if not isinstance(name, str):
                    raise UserError(f"{where} names no picture: it must have a '{_FILE_NAME}'")
                found += [] if text is None else [(name, text)]
        return found

    def _value(self, record: dict, where: str) -> str | None:
        value = record.get(self.key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where} has no readable text: '{self.key}' must be a text, not {value!r:.60}")
        return None if value is None else _checked(value, where)


def text_alone(record: bytes | None) -> str | None:
    """The text that a JSON is, as `"a cat"` is, whatever its key; None where it is anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(record or b"null")
        if isinstance(found, str):
            return found
    return None


def decoded(content: bytes, where: str) -> str:
    """A text from its bytes, without blanks around it.

    Raises:
        UserError: They are no UTF-8.
    """
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} has no readable text: it is not UTF-8 ({error})") from error


def _checked(text: str, where: str) -> str:
    """A text of JSON, which may name half a character."""
    return decoded(text.encode("utf-8", "surrogatepass"), where)


def _object(content: str | bytes, where: str) -> dict:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} has no readable text: it is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} has no readable text: its JSON is no object")
    return record


def _beside(root: str, path: str) -> Path:
    return Path(root, os.path.splitext(path)[0] + ".txt")


def _text_beside(root: str, path: str) -> str | None:
    beside = _beside(root, path)
    try:
        return decoded(beside.read_bytes(), f"'{beside}'")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"'{beside}' cannot be read: {error.strerror}") from error
