"""The two values that everything shares: `CodeSpec`, what codes may be, and `Codes`, a ragged batch of them.

`CodeSpec` and `Ratios` are defined in `vltok.code_spec`; where codes lie on the finest grid is in `vltok.code_maps`.

Axis letters: b image, c channel, h w grid of regions, H W pixels, t code (packed over the batch), k granularity,
q id of a code (no axis where there is one codebook), e number of an embedding.
Granularities count **from coarse to fine**: 0 is the largest factor.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.code_files import TENSORS, read_codes, write_codes
from vltok.code_maps import code_granularities, code_lengths, code_positions, code_slots, top_left
from vltok.code_spec import CodeSpec as CodeSpec
from vltok.code_spec import Ratios as Ratios
from vltok.errors import UserError, one_line
from vltok.indexing import image_numbers

#: Labels are numbers of 64 bits.
LARGEST_LABEL = torch.iinfo(torch.int64).max
#: What images may be conditioned on besides a class: a text each, or an embedding each.
Conditions = Sequence[str] | Float[Tensor, "b e"]


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of a batch of images: ragged, packed, without padding.

    Within an image, codes stand coarse to fine and, within a granularity, row by row over its position map. Positions
    follow from the grain map and are not stored.

    Attributes:
        ids: Codebook indices of all images, one after another, `[t]`; where codes have several, `[t q]`.
        lengths: The code length of each image, `[b]`.
        grains: The granularity of each region, `[b h w]`; None when codes lie on no grid.
        labels: The class of each image, `[b]`, or None.
        texts: What describes each image, empty where nothing does, or None. They stay on the host.
        embeddings: A vector of each image, `[b e]`, float32, or None.
    """

    ids: Int[Tensor, " t *q"]
    lengths: Int[Tensor, " b"]
    grains: Int[Tensor, "b h w"] | None = None
    labels: Int[Tensor, " b"] | None = None
    texts: tuple[str, ...] | None = None
    embeddings: Float[Tensor, "b e"] | None = None

    @classmethod
    def from_code_map(
        cls,
        code_map: Int[Tensor, "b H W *q"],
        grains: Int[Tensor, "b h w"],
        spec: CodeSpec,
        labels: Int[Tensor, " b"] | None = None,
    ) -> Codes:
        """Pack code maps of the finest grid; of a replicated coarse code the top-left copy is read.

        Raises:
            UserError: The code map's size does not fit the grain map's.
        """
        expected = (*(side * spec.sides[-1] for side in grains.shape[1:]), *spec.id_shape)
        if tuple(code_map.shape[1:]) != expected:
            raise UserError(f"a grain map {tuple(grains.shape[1:])} needs a code map {expected}, not {code_map.shape}")
        slots, lengths = code_slots(grains, spec)
        cells = top_left(code_map, grains, spec).flatten(0, 2)
        if spec.granularities == 1:  # each cell has a code
            return cls(torch.zeros_like(cells).index_copy(0, slots.flatten(), cells), lengths, grains, labels)
        codes = object.__new__(cls)
        codes.__dict__.update(lengths=lengths, grains=grains, labels=labels, _cells=(slots.flatten(), cells))
        return codes

    if not TYPE_CHECKING:  # to whom `ids` are always there

        def __getattr__(self, name: str) -> Tensor:
            """Ids that lie on a code map are packed when somebody asks for them: the host must ask how many they are,
            which a training step need not."""
            if name != "ids" or "_cells" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
            slots, cells = self._cells
            # Copies of one coarse code hold one value, so that it does not matter which of them is written last.
            packed = cells.new_zeros(int(self.lengths.sum()), *cells.shape[1:])
            self.__dict__["ids"] = packed.index_put((slots,), cells)
            return self.ids

    @property
    def occurring(self) -> Int[Tensor, " n *q"]:
        """Every code that occurs, some of them several times; to get these, nobody waits for a device."""
        return self.__dict__["_cells"][1] if "_cells" in self.__dict__ else self.ids

    def to_code_map(self, spec: CodeSpec) -> Int[Tensor, "b H W *q"]:
        """Lay the codes on the finest grid, coarse ones replicated (nearest neighbour, section 3.2).

        Raises:
            UserError: The codes lie on no grid.
        """
        slots, _ = code_slots(self.require_grains(), spec)
        return self.ids[slots]

    def require_grains(self) -> Int[Tensor, "b h w"]:
        """The grain map.

        Raises:
            UserError: The codes lie on no grid.
        """
        if self.grains is None:
            raise UserError("these codes lie on no grid: they have no grain map, which is needed here")
        return self.grains

    def granularities(self, spec: CodeSpec) -> Int[Tensor, " t"]:
        """The granularity of each code."""
        return code_granularities(self.require_grains(), len(self.ids), spec)

    def positions(self, spec: CodeSpec) -> Int[Tensor, " t"]:
        """The place of each code in the position map of its granularity, counted row by row."""
        return code_positions(self.require_grains(), len(self.ids), spec)

    def require_labels(self, classes: int) -> Int[Tensor, " b"]:
        """The class of each image, one of so many. On a GPU nobody waits for the answer: a wrong one ends the process.

        Raises:
            UserError: There are no labels, or, where they are on the host, one is no class.
        """
        if self.labels is None:
            raise UserError("these codes have no labels, which a prior with classes learns from: set `classes` to null")
        labels = self.labels.long()
        # a label that is no class would be read as another token: -1 as the end of the sequence
        if labels.device.type == "cuda":
            torch._assert_async(((labels >= 0) & (labels < classes)).all(), "a label of these codes is no class")
        elif labels.device.type == "cpu" and len(labels):
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= classes:
                label, remedy = highest, "set --model.prior.classes"
                if lowest < 0:
                    label, remedy = lowest, "leave images of unknown class out, or give them one of their own"
                raise UserError(
                    f"the codes have label {label}, but the prior knows {classes} classes, from 0 to {classes - 1}: "
                    f"{remedy}"
                )
        return labels

    def require_texts(self) -> tuple[str, ...]:
        """What describes each image.

        Raises:
            UserError: Nothing does.
        """
        if self.texts is None:
            raise UserError(
                "these codes have no texts, which a prior with a text encoder learns from: set `text_encoder` to null, "
                "or tokenize pictures with their texts (data.texts)"
            )
        return self.texts

    def require_embeddings(self, size: int) -> Float[Tensor, "b e"]:
        """The embedding of each image, of so many numbers.

        Raises:
            UserError: There are none, or of another number.
        """
        if self.embeddings is None:
            raise UserError(
                "these codes have no embeddings, which a prior with an embedding_size learns from: set "
                "`embedding_size` to null, or tokenize pictures with their embeddings (data.embeddings)"
            )
        if self.embeddings.shape[1] != size:
            raise UserError(
                f"the embeddings of these codes have {self.embeddings.shape[1]} numbers, but the prior reads {size}: "
                "give others, or train a prior of another embedding_size"
            )
        return self.embeddings

    def require_conditions(self, embedding_size: int | None) -> Conditions:
        """The texts, or, of so many numbers, the embeddings.

        Raises:
            UserError: There are none.
        """
        return self.require_texts() if embedding_size is None else self.require_embeddings(embedding_size)

    def validate(self, spec: CodeSpec) -> Codes:
        """Check every value against a spec, and return the codes; the host waits for the device once.

        Raises:
            UserError: An id outside the codebook, lengths that do not follow from the grain map, or sizes that do not
                fit each other or the spec.
        """
        self._check_shapes()
        if self.ids.shape[1:] != spec.id_shape:
            axes = " ".join(["t", *map(str, spec.id_shape)])
            raise UserError(f"ids of codes must have the shape [{axes}], not {list(self.ids.shape)}")
        grains = self.require_grains() if spec.gridded else self.lengths.new_zeros(len(self), 1, 1)
        if spec.regions is not None and tuple(grains.shape[1:]) != spec.regions:
            raise UserError(f"the grain map has {tuple(grains.shape[1:])} regions, but the spec {spec.regions}")
        expected = code_lengths(grains, spec) if spec.gridded else self.lengths
        facts = [*_bounds(self.lengths), *_bounds(self.ids), *_bounds(grains)]
        facts += [self.lengths.sum(), (expected != self.lengths).any()]
        facts += [] if self.embeddings is None else [~self.embeddings.isfinite().all()]
        shortest, longest, lowest, highest, coarsest, finest, total, differs, *no_numbers = torch.stack(
            [fact.long() for fact in facts]
        ).tolist()
        self._check_lengths(shortest, total)
        if not 0 <= lowest <= highest < spec.codebook_size:
            raise UserError(f"ids reach from {lowest} to {highest}, outside a codebook of {spec.codebook_size}")
        if spec.gridded and not 0 <= coarsest <= finest < spec.granularities:
            raise UserError(f"the grain map holds a granularity outside 0…{spec.granularities - 1}")
        if differs:
            raise UserError("the lengths do not follow from the grain map")
        if any(no_numbers):
            raise UserError("embeddings of codes must be finite numbers")
        if spec.max_length is not None and longest > spec.max_length:
            raise UserError(f"an image has {longest} codes, more than max_length = {spec.max_length}")
        return self

    @property
    def cu_seqlens(self) -> Int[Tensor, " starts"]:
        """Where each image starts among the packed codes, with the end of the last: `[b+1]`, int32."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0)).int()

    @property
    def device(self) -> torch.device:
        """Where the codes are."""
        return self.lengths.device

    @property
    def on_host(self) -> Codes:
        """The same codes on the CPU; where they were moved from there, nobody waits for the device."""
        if self.device.type == "cpu":
            return self
        if "_host" not in self.__dict__:
            self.__dict__["_host"] = self.to("cpu")
        return self.__dict__["_host"]

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on a device."""
        there = torch.device(device)
        values: dict[str, Any] = {
            name: None if value is None else value.to(there, non_blocking=there.type != "cpu")
            for name, value in self._values()
        }
        moved = Codes(**values, texts=self.texts)
        if self.device.type == "cpu" != there.type:
            moved.__dict__["_host"] = self
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**dict(self._values()), "texts": self.texts}

    def __len__(self) -> int:
        return self.lengths.shape[0]

    def __iter__(self) -> Iterator[Codes]:
        """Each image, a batch of one that shares the memory of this one."""
        every = self.ids.split(self.lengths.tolist())
        for image, ids in enumerate(every):
            here = slice(image, image + 1)
            grains, labels, embeddings = (
                None if value is None else value[here] for value in (self.grains, self.labels, self.embeddings)
            )
            texts = None if self.texts is None else self.texts[here]
            yield Codes(ids, self.lengths[here], grains, labels, texts, embeddings)

    def __getitem__(
        self, index: SupportsIndex | slice | Sequence | Int[Tensor, " n"] | Bool[Tensor, " b"] | np.ndarray
    ) -> Codes:
        """The codes of some images, in the order asked for; one number gives a batch of one.

        Raises:
            IndexError: A number outside the batch, or a mask of another length.
            TypeError: Something else than a number, a slice, a row of numbers, or a mask.
        """
        numbers = image_numbers(index, len(self))
        chosen = numbers.to(self.device, non_blocking=True)
        starts = self.cu_seqlens[:-1].long()[chosen]
        lengths = self.lengths[chosen]
        offsets = lengths.cumsum(0) - lengths
        source = torch.repeat_interleave(starts - offsets, lengths)
        return Codes(
            self.ids[source + torch.arange(source.numel(), device=self.device)],
            lengths,
            None if self.grains is None else self.grains[chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.texts is None else tuple(self.texts[number] for number in numbers.tolist()),
            None if self.embeddings is None else self.embeddings[chosen],
        )

    @staticmethod
    def concatenate(parts: Sequence[Codes]) -> Codes:
        """One batch of several.

        Raises:
            UserError: There is no part, some have grain maps, labels, texts or embeddings and others none, or grain
                maps or embeddings differ in size, or codes in their number of ids.
        """
        if not parts:
            raise UserError("there are no codes to concatenate")

        def join(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            if any(value is None for value in values) or len({value.shape[1:] for value in values}) > 1:
                raise UserError(f"codes with different {name} do not go into one batch")
            return torch.cat(values)

        if len({part.ids.shape[1:] for part in parts}) > 1:
            raise UserError("codes with different numbers of ids do not go into one batch")
        ids, lengths = (torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "lengths"))
        grains, labels, embeddings = map(join, ("grains", "labels", "embeddings"))
        texts = [part.texts for part in parts if part.texts is not None]
        if 0 < len(texts) < len(parts):
            raise UserError("codes with texts and codes without do not go into one batch")
        return Codes(ids, lengths, grains, labels, tuple(itertools.chain(*texts)) if texts else None, embeddings)

    def equal(self, other: Codes) -> bool:
        """Whether both hold the same values."""

        def same(first: Tensor | None, second: Tensor | None) -> bool:
            if first is None or second is None:
                return first is second
            return torch.equal(first, second)

        pairs = zip(self._values(), other._values(), strict=True)
        return self.texts == other.texts and all(same(mine, theirs) for (_, mine), (_, theirs) in pairs)

    def save(self, path: str | os.PathLike) -> None:
        """Write them to a file of safetensors, whole or not at all.

        Raises:
            UserError: They do not go together.
        """
        self._check_shapes()
        write_codes(path, {name: value for name, value in self._values() if value is not None}, self.texts)

    @classmethod
    def load(cls, path: str | os.PathLike, spec: CodeSpec | None = None) -> Codes:
        """The codes of a file that `save` wrote, on the CPU.

        Args:
            path: The file.
            spec: What they must be codes of; None looks at their shapes and lengths alone.

        Raises:
            UserError: It is no such file, or it is damaged, or its codes are none of the spec.
        """
        try:
            values, texts = read_codes(path)
            codes = cls(**values, texts=texts)
            codes._check_shapes()
            codes._check_lengths(int(codes.lengths.min()) if len(codes) else 0, int(codes.lengths.sum()))
        except UserError as error:
            raise UserError(f"'{os.fspath(path)}' is no file of codes, or is damaged: {one_line(error)}") from error
        return codes if spec is None else codes.validate(spec)

    def _check_shapes(self) -> None:
        """See that the values are whole numbers, or of embeddings float32, as many as there are images."""
        for name, value in self._values():
            if value is None:
                continue
            if name == "embeddings" and value.dtype != torch.float32:
                raise UserError(f"embeddings of codes must be float32, not {value.dtype}")
            whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
            if not whole and name != "embeddings":
                raise UserError(f"{name} of codes must be whole numbers, not {value.dtype}")
            axes = {"ids": "tq", "grains": "bhw", "embeddings": "be"}.get(name, "b")
            if value.dim() not in (len(axes), len(axes) - (name == "ids")):
                raise UserError(f"{name} of codes must have the shape [{' '.join(axes)}], not {list(value.shape)}")
        each = {"labels": self.labels, "grain maps": self.grains, "texts": self.texts, "embeddings": self.embeddings}
        for name, values in each.items():
            if values is not None and len(values) != len(self):
                raise UserError(f"there are {len(values)} {name} for {len(self)} images")

    def _check_lengths(self, shortest: int, total: int) -> None:
        if shortest < 0:
            raise UserError(f"an image has {shortest} codes, less than none")
        if total != len(self.ids):
            raise UserError(f"the lengths sum to {total}, but there are {len(self.ids)} ids")

    def _values(self) -> Iterator[tuple[str, Tensor | None]]:
        return ((name, getattr(self, name)) for name in TENSORS)


# They hold tensors and texts alone: `torch.load(…, weights_only=True)` may give back what `torch.save` was given.
torch.serialization.add_safe_globals([Codes])


def _bounds(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value; 0 where there is none."""
    return values.long().aminmax() if values.numel() else (values.new_zeros(()), values.new_zeros(()))
