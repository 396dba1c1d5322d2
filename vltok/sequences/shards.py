"""Code sequences on disk: one shard after another, in one of two formats.

A sample of a tar shard (webdataset's layout) is these members, one after another; `000000012` is the place of the
picture in the input, so that a picture that could not be read leaves a gap and shifts nothing:

```
000000012.ids.npy     code ids [t], or [t q] of several codebooks, of the smallest unsigned type that holds one
000000012.grains.npy  grain map [h w], uint8; absent where codes lie on no grid
000000012.cls         the label in decimal digits; absent where there is none
000000012.txt         what describes the picture, UTF-8; absent where nothing does
000000012.embedding.npy  its embedding [e], float32; absent where there is none
000000012.key.txt     the source key, UTF-8
```

A Parquet shard has the columns `index`, `key`, `ids`, `grains`, `label`, and, where pictures have such, `text` and
`embedding`.
"""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer
from torch import Tensor

from vltok.codes import LARGEST_LABEL, Codes
from vltok.errors import UserError, unknown

_BLOCK = 512  # a tar file is made of blocks of so many bytes


@dataclass(frozen=True, eq=False)
class CodeSample:
    """The codes of one picture.

    Attributes:
        index: Its place in the input, from 0; corrupt pictures count.
        key: What the data module calls the picture.
        ids: Code ids, `[t]` or `[t q]`, in the order of `Codes`.
        grains: The grain map, `[h w]`, or None where codes lie on no grid.
        label: Its class, or None.
        text: What describes it, or None.
        embedding: Its embedding, or None.
    """

    index: int
    key: str
    ids: Integer[np.ndarray, " t *q"]
    grains: Integer[np.ndarray, "h w"] | None = None
    label: int | None = None
    text: str | None = None
    embedding: Float32[np.ndarray, " e"] | None = None


def codes_of(
    samples: Sequence[CodeSample], labelled: bool = False, described: bool = False, embedded: bool = False
) -> Codes:
    """Samples as one batch.

    Args:
        samples: At least one; all with grain maps of one size, or all without.
        labelled: Whether the batch has their labels, which all must have.
        described: Whether the batch has their texts, empty where they have none.
        embedded: Whether the batch has their embeddings, which all must have.

    Raises:
        UserError: A sample has no label or no embedding, though the batch shall have them, or a label that no computer
            numbers classes by; or grain maps or embeddings are of several sizes, or codes of several numbers of ids.
    """
    if len({sample.ids.shape[1:] for sample in samples}) > 1:
        raise UserError("a shard of codes is damaged: codes have several numbers of ids, although all are to have one")
    if len({None if sample.grains is None else sample.grains.shape for sample in samples}) > 1:
        raise UserError("a shard of codes is damaged: grain maps are of several sizes, although all are to have one")
    grains = None
    if samples[0].grains is not None:
        maps = [sample.grains for sample in samples if sample.grains is not None]
        grains = torch.from_numpy(np.stack(maps).astype(np.int64))
    return Codes(
        ids=torch.from_numpy(np.concatenate([sample.ids for sample in samples]).astype(np.int64)),
        lengths=torch.tensor([len(sample.ids) for sample in samples]),
        grains=grains,
        labels=torch.tensor([_checked_label(sample) for sample in samples]) if labelled else None,
        texts=tuple(sample.text or "" for sample in samples) if described else None,
        embeddings=_embeddings(samples) if embedded else None,
    )


def embedding_size(samples: Iterable[CodeSample]) -> int | None:
    """How many numbers the embeddings of samples have; None where they have none.

    Raises:
        UserError: Some have more than others, or some have none.
    """
    keys: dict[int, str] = {}
    for sample in samples:
        keys.setdefault(0 if sample.embedding is None else len(sample.embedding), sample.key)
    if len(keys) > 1:
        (size, first), (other, second), *_ = keys.items()
        raise UserError(
            f"the embedding of '{second}' has {other or 'no'} numbers, but that of '{first}' {size or 'none'}: all "
            "must have as many"
        )
    return next(iter(keys), None) or None


def _embeddings(samples: Sequence[CodeSample]) -> Float[Tensor, "b e"]:
    if embedding_size(samples) is None:
        raise UserError(f"the codes of '{samples[0].key}' have no embedding, where all samples must have one")
    return torch.from_numpy(np.stack([sample.embedding for sample in samples if sample.embedding is not None]))


def by_grid(samples: Iterable[CodeSample]) -> list[list[CodeSample]]:
    """Samples parted by the size of their grain maps, ascending; in each part they keep their order."""
    parts: dict[tuple[int, ...], list[CodeSample]] = {}
    for sample in samples:
        parts.setdefault(() if sample.grains is None else sample.grains.shape, []).append(sample)
    return [parts[grid] for grid in sorted(parts)]


def _checked_label(sample: CodeSample) -> int:
    if sample.label is None or not -LARGEST_LABEL <= sample.label <= LARGEST_LABEL:
        raise UserError(
            f"the codes of '{sample.key}' have label {sample.label}, where all samples must have a whole number: "
            "tokenize their pictures again"
        )
    return sample.label


def smallest_unsigned(size: int) -> np.dtype:
    """The smallest unsigned type that holds the ids of a codebook of so many entries."""
    return np.min_scalar_type(size - 1)


class ShardFormat(ABC):
    """How the samples of one shard stand in one file. The same samples give the same bytes.

    Attributes:
        suffix: The end of the file's name.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def write(self, path: Path, samples: Sequence[CodeSample], codebook_size: int) -> Int64[np.ndarray, "b 2"] | None:
        """Write a shard; the start of each sample in the file and its size, both in bytes, where they are known.

        Args:
            path: The file, which is overwritten.
            samples: In the order in which they shall stand.
            codebook_size: Number of entries of the codebook, from which the type of the ids follows.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[CodeSample]:
        """The samples of a shard, in order.

        Raises:
            UserError: The file is no shard of this format.
        """


@final
class TarShards(ShardFormat):
    """Webdataset's layout: readable with tar and numpy alone."""

    suffix = ".tar"

    def write(self, path: Path, samples: Sequence[CodeSample], codebook_size: int) -> Int64[np.ndarray, "b 2"]:
        places = np.zeros((len(samples), 2), dtype=np.int64)
        # USTAR headers with mtime, owner and mode as TarInfo has them at first say nothing about when and where
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for place, sample in zip(places, samples, strict=True):
                place[0] = archive.offset
                for suffix, content in _members(sample, smallest_unsigned(codebook_size)):
                    header = tarfile.TarInfo(f"{sample.index:09d}.{suffix}")
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
                place[1] = archive.offset - place[0]
        return places

    def read(self, path: Path) -> Iterator[CodeSample]:
        try:
            with tarfile.open(path) as archive:
                members: dict[str, bytes] = {}
                current = ""
                for header in archive:
                    name, _, suffix = header.name.partition(".")
                    if members and name != current:
                        yield _sample(current, members)
                        members = {}
                    file = archive.extractfile(header) if header.isreg() else None
                    if file is None or suffix in members:
                        raise ValueError(f"'{header.name}' is no plain file, or stands twice")
                    current = name
                    members[suffix] = file.read()
                if members:
                    yield _sample(current, members)
        except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is no shard of codes, or is damaged: {error}") from error


@final
class ParquetShards(ShardFormat):
    """One row a sample, for `datasets.load_dataset("parquet", data_files="DIR/*.parquet")`."""

    suffix = ".parquet"

    def write(self, path: Path, samples: Sequence[CodeSample], codebook_size: int) -> None:
        arrow, parquet = _pyarrow()
        code = arrow.from_numpy_dtype(smallest_unsigned(codebook_size))
        for codebooks in samples[0].ids.shape[1:] if samples else ():
            code = arrow.list_(code, codebooks)
        schema = arrow.schema(
            {
                "index": arrow.int64(),
                "key": arrow.string(),
                "ids": arrow.list_(code),
                "grains": arrow.list_(arrow.list_(arrow.uint8())),
                "label": arrow.int64(),
                # shards of before have no such column
                **({"text": arrow.string()} if any(sample.text is not None for sample in samples) else {}),
                **({"embedding": arrow.list_(arrow.float32())} if embedding_size(samples) is not None else {}),
            }
        )
        rows = [
            {
                "index": sample.index,
                # a file name need not be UTF-8; a table's text must
                "key": sample.key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
                "ids": sample.ids.tolist(),
                "grains": None if sample.grains is None else list(sample.grains),
                "label": sample.label,
                "text": sample.text,
                "embedding": sample.embedding,
            }
            for sample in samples
        ]
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), path)

    def read(self, path: Path) -> Iterator[CodeSample]:
        arrow, parquet = _pyarrow()
        try:
            with parquet.ParquetFile(path) as file:
                columns = ["index", "key", "ids", "grains", "label", "text", "embedding"]
                for batch in file.iter_batches(columns=columns):
                    code = batch.schema.field("ids").type.value_type
                    several = arrow.types.is_fixed_size_list(code)
                    ids_type = np.dtype(str(code.value_type if several else code))
                    ids_shape = (-1, code.list_size) if several else (-1,)
                    for row in batch.to_pylist():
                        grains = None if row["grains"] is None else np.array(row["grains"], dtype=np.uint8)
                        if type(row["index"]) is not int or type(row["key"]) is not str:
                            raise ValueError("a row has no index or no key")
                        if grains is not None and grains.ndim != 2:
                            raise ValueError("a grain map must have rows and columns")
                        ids = np.array(row["ids"], dtype=ids_type).reshape(ids_shape)
                        vector = row.get("embedding")
                        vector = None if vector is None else np.array(vector, dtype=np.float32)
                        yield CodeSample(row["index"], row["key"], ids, grains, row["label"], row.get("text"), vector)
        # pyarrow raises OSError for pages that are cut, and a type that is not a list has no type of values
        except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no shard of codes, or is damaged: {error}") from error


def shard_format(name: str) -> ShardFormat:
    """A format by its name.

    Raises:
        UserError: There is no such format.
    """
    formats = {"webdataset": TarShards, "parquet": ParquetShards}
    if name not in formats:
        raise unknown("--format", name, formats)
    return formats[name]()


def parse_tar_sample(block: bytes) -> CodeSample:
    """The sample that a range of bytes of a tar shard holds: what `TarShards.write` said of its place.

    Raises:
        UserError: The bytes are no sample.
    """
    members: dict[str, bytes] = {}
    position = 0
    name = ""
    try:
        while position < len(block):
            # name and size of a USTAR header: https://www.gnu.org/software/tar/manual/html_node/Standard.html
            name, _, suffix = block[position : position + 100].rstrip(b"\0").decode("ascii").partition(".")
            size = int(block[position + 124 : position + 136].rstrip(b"\0 "), 8)
            if size < 0:
                raise ValueError(f"'{name}.{suffix}' has a negative size")
            position += _BLOCK
            members[suffix] = block[position : position + size]
            position += -(-size // _BLOCK) * _BLOCK
        return _sample(name, members)
    except (ValueError, KeyError) as error:
        raise UserError(f"a shard of codes is damaged, or does not fit its index: {error}") from error


def _members(sample: CodeSample, ids_type: np.dtype) -> Iterator[tuple[str, bytes]]:
    yield "ids.npy", to_npy(sample.ids.astype(ids_type, order="C"))
    if sample.grains is not None:
        yield "grains.npy", to_npy(sample.grains.astype(np.uint8))
    if sample.label is not None:
        yield "cls", str(sample.label).encode()
    if sample.text is not None:
        yield "txt", sample.text.encode("utf-8")
    if sample.embedding is not None:
        yield "embedding.npy", to_npy(sample.embedding)
    yield "key.txt", sample.key.encode("utf-8", "surrogateescape")


def _sample(name: str, members: dict[str, bytes]) -> CodeSample:
    return CodeSample(
        int(name),
        members["key.txt"].decode("utf-8", "surrogateescape"),
        _from_npy(members["ids.npy"], axes=(1, 2)),
        _from_npy(members["grains.npy"], axes=(2,)) if "grains.npy" in members else None,
        int(members["cls"]) if "cls" in members else None,
        members["txt"].decode("utf-8") if "txt" in members else None,
        _from_npy(members["embedding.npy"], axes=(1,), kind="f") if "embedding.npy" in members else None,
    )


def to_npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes, axes: tuple[int, ...], kind: str = "u") -> np.ndarray:
    """The array that `to_npy` wrote; no memory is taken for what the header only claims."""
    buffer = io.BytesIO(content)
    version = np.lib.format.read_magic(buffer)
    if version != (1, 0):
        raise ValueError(f"an array is of version {version}")
    shape, transposed, dtype = np.lib.format.read_array_header_1_0(buffer)
    if len(shape) not in axes or transposed or dtype.kind != kind or (kind == "f" and dtype != np.float32):
        allowed, numbers = " or ".join(map(str, axes)), "float32" if kind == "f" else "unsigned numbers"
        raise ValueError(f"an array must have {allowed} axes of {numbers}, not {dtype} {list(shape)}")
    return np.frombuffer(content, dtype, offset=buffer.tell()).reshape(shape)


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Parquet shards need pyarrow: pip install 'vltok[parquet]'") from error
    return pyarrow, pyarrow.parquet
