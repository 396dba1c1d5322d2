"""How often codes occur beside others.

There are far too many pairs of codes to count them. So codes are sorted into classes, such that those of a class have
like neighbours: how often each class follows what stands at its left and above it is counted, and which code of a class
it is follows from how often each occurs. Neighbours count by coarser classes, each of which holds several classes.

Axis letters: k granularity, v vocabulary, c class, n state of a neighbour, t code, p what a profile counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int32

from vltok.codes import CodeSpec
from vltok.compression.frequencies import quantized
from vltok.compression.neighbours import Neighbours

#: Classes of the codes of a granularity, and how many of them are one to a neighbour.
CLASSES, TOGETHER = 32, 2
#: How often classes are sought, each time by the classes that were found before.
_ROUNDS = 4
#: A neighbourhood that was seen so often counts as much as what one neighbour less says.
_SHRINKAGE = 12.0
#: Fewer bits a code that they save are not worth the time.
_LEAST = 0.05


@dataclass(frozen=True, eq=False)
class Contexts:
    """Classes of codes, and frequencies of classes by the states of neighbours, each row of which sums to 2²⁴.

    Attributes:
        classes: The class of each code of each granularity.
        frequencies: Of the classes of a granularity, by what is above and at the left (`states`).
    """

    classes: Int32[np.ndarray, "k v"]
    frequencies: Int32[np.ndarray, "k n n c"]

    @classmethod
    def measure(cls, seen: Sequence[Neighbours], spec: CodeSpec) -> Contexts:
        """The classes and frequencies of codes.

        Args:
            seen: Those of each granularity, and what lies beside each.
            spec: What the codes may be.
        """
        classes = _classes(seen, spec)
        states = states_of(classes)
        frequencies = [_counted(each, own, states) for each, own in zip(seen, classes, strict=True)]
        return cls(classes, np.stack(frequencies))

    @staticmethod
    def shapes(spec: CodeSpec) -> dict[str, tuple[int, ...]]:
        """Those of `classes` and `contexts`, as tables store them."""
        states = spec.granularities * (CLASSES // TOGETHER + 1) + 1
        return {
            "classes": (spec.granularities, spec.codebook_size),
            "contexts": (spec.granularities, states, states, CLASSES),
        }

    def of(self, granularity: int, beside: Neighbours) -> Int32[np.ndarray, "t c"]:
        """The frequencies of the class of each code."""
        states = states_of(self.classes)
        return self.frequencies[granularity, states[beside.above], states[beside.left]]


def helpful(seen: Sequence[Sequence[Neighbours]], spec: CodeSpec) -> Contexts | None:
    """The contexts of codes; None where those of one half of the images say nothing of the other one.

    Args:
        seen: Batches of the codes of each granularity, and what lies beside them. Images of two batches may be the same
            where they have the same places.
        spec: What the codes may be.
    """
    first, second = _halves(seen)
    if not first or not second:
        return None
    contexts, saved = Contexts.measure(first, spec), 0.0
    for granularity, (known, new) in enumerate(zip(first, second, strict=True)):
        classes = contexts.classes[granularity]
        own = contexts.of(granularity, new)[np.arange(len(new.ids)), classes[new.ids]]
        alone = quantized(np.bincount(classes[known.ids], minlength=CLASSES) + 0.5)
        saved += float(np.log2(own / alone[classes[new.ids]]).sum())
    return Contexts.measure(_joined(seen), spec) if saved > _LEAST * sum(len(each.ids) for each in second) else None


def _halves(seen: Sequence[Sequence[Neighbours]]) -> tuple[list[Neighbours], list[Neighbours]]:
    """The codes of every second image; where all batches have a single one, those of the first batches."""
    if any(each.image.any() for batch in seen for each in batch):
        every = _joined(seen)
        return [each.of(each.image % 2 == 0) for each in every], [each.of(each.image % 2 == 1) for each in every]
    half = len(seen) // 2
    return _joined(seen[:half]), _joined(seen[half:])


def _joined(batches: Sequence[Sequence[Neighbours]]) -> list[Neighbours]:
    """One batch of several."""
    return [Neighbours.joined(parts) for parts in zip(*batches, strict=True)]


def states_of(classes: Int[np.ndarray, "k v"]) -> Int[np.ndarray, " s"]:
    """The state of each symbol: a granularity and a coarser class, or what it is that is no code."""
    granularities, coarser = len(classes), CLASSES // TOGETHER
    codes = classes // TOGETHER + np.arange(granularities)[:, None] * coarser
    return np.append(codes, np.arange(granularities + 1) + granularities * coarser)


def _counted(
    seen: Neighbours, classes: Int[np.ndarray, " v"], states: Int[np.ndarray, " s"]
) -> Int32[np.ndarray, "n n c"]:
    """Frequencies of classes: of all, drawn to those of what is above, drawn to those of what is at the left too."""
    own, above, left = classes[seen.ids], states[seen.above], states[seen.left]
    count = int(states.max()) + 1
    both = np.zeros((count, count, CLASSES))
    np.add.at(both, (above, left, own), 1)
    shares = np.full(CLASSES, 1 / CLASSES)
    for axes in ((0, 1), (1,), ()):
        counts = both.sum(axes, keepdims=True)
        shares = (counts + _SHRINKAGE * shares) / (counts.sum(-1, keepdims=True) + _SHRINKAGE)
    return quantized(shares).astype(np.int32)


def _classes(seen: Sequence[Neighbours], spec: CodeSpec) -> Int32[np.ndarray, "k v"]:
    """Classes of codes with like neighbours: from random ones on, each time by the neighbours' classes before."""
    shape = (spec.granularities, spec.codebook_size)
    weights = np.stack([np.bincount(each.ids, minlength=spec.codebook_size) for each in seen])
    classes = np.random.default_rng(0).integers(CLASSES, size=shape)
    for _ in range(_ROUNDS):
        profiles = _profiles(seen, states_of(classes), spec)
        classes = np.stack([_split(*each) for each in zip(profiles, weights, strict=True)])
    return classes.astype(np.int32)


def _profiles(seen: Sequence[Neighbours], states: Int[np.ndarray, " s"], spec: CodeSpec) -> Float[np.ndarray, "k v p"]:
    """The shares of states on four sides of each code, as their roots, whose distances say how unlike shares are."""
    count, every = int(states.max()) + 1, spec.granularities * spec.codebook_size
    sides = np.zeros((4, every, count))
    for granularity, each in enumerate(seen):
        symbols = granularity * spec.codebook_size + each.ids
        for side, beside in enumerate((each.left, each.above)):
            np.add.at(sides[side], (symbols, states[beside]), 1)
            code = beside < every
            np.add.at(sides[side + 2], (beside[code], states[symbols[code]]), 1)
    usual = sides.sum(1, keepdims=True) + 1e-9
    usual /= usual.sum(-1, keepdims=True)
    shares = (sides + usual) / (sides.sum(-1, keepdims=True) + 1)
    return np.sqrt(shares).transpose(1, 0, 2).reshape(spec.granularities, spec.codebook_size, -1)


def _split(profiles: Float[np.ndarray, "v p"], weights: Int[np.ndarray, " v"]) -> Int[np.ndarray, " v"]:
    """Classes of about equal weight: halves of halves, each across the direction in which profiles differ most.

    So classes whose numbers differ in the last bits are alike.
    """
    classes = np.zeros(len(profiles), dtype=np.int64)
    for level in range((CLASSES - 1).bit_length()):
        before, classes = classes, 2 * classes
        for number in range(1 << level):
            (members,) = np.nonzero(before == number)
            weight = weights[members] + 1e-9
            away = profiles[members] - np.average(profiles[members], axis=0, weights=weight) if len(members) else 0
            if len(members) > 1:
                _, directions = np.linalg.eigh((away * weight[:, None]).T @ away)
                order = np.argsort(away @ directions[:, -1], kind="stable")
                half = np.searchsorted(weight[order].cumsum(), weight.sum() / 2)
                classes[members[order[min(max(half, 1), len(order) - 1) :]]] += 1
    return classes
