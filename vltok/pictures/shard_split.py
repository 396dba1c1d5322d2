"""Which pictures of some shards are meant: their keys, made unique, and the side of the split that these fall on."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vltok.pictures.remote import Copies
from vltok.pictures.samples import Finding, FindingKind, TarSample, refuse_losses
from vltok.pictures.splits import unit_hash
from vltok.pictures.tars import UnreadableShard, is_address, read_samples


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The keys of all pictures in some shards.

    A key that stands in more than one shard names several pictures: to each of these, the shard's name is added.

    Attributes:
        hashes: For each shard, the hash of each picture's key.
        repeated: The hashes of the keys that stand in more than one shard, ascending.
    """

    hashes: dict[str, Float[np.ndarray, " n"]]
    repeated: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, shards: Sequence[str], picture: str | None, copies: Copies | None = None) -> ShardIndex:
        """Read the headers of shards, and warn once of each kind of member that is left out.

        Args:
            shards: The shards; those behind addresses are read whole.
            picture: The ending of the pictures, where samples hold several.
            copies: Keeps what is behind addresses; None keeps nothing.

        Raises:
            UserError: A shard cannot be read, or a picture or a label in it would be lost.
        """
        counts: Counter[FindingKind] = Counter()
        first: dict[FindingKind, Finding] = {}

        def tell(finding: Finding) -> None:
            refuse_losses(finding)
            counts[finding.kind] += 1
            first.setdefault(finding.kind, finding)

        found = {}
        for shard, name in names_of(shards).items():
            keys = [sample.key for sample in read_samples(shard, tell, picture, copies)]
            pairs = [(unit_hash(key), unit_hash(f"{name}/{key}")) for key in keys]
            found[shard] = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        for kind, finding in first.items():
            more = f" ({counts[kind]} such members in all)" if counts[kind] > 1 else ""
            warnings.warn(f"{finding.text}{more}", stacklevel=2)
        places, times = np.unique(np.concatenate([plain for plain, _ in found.values()]), return_counts=True)
        repeated = places[times > 1]
        return cls({shard: np.where(np.isin(one, repeated), two, one) for shard, (one, two) in found.items()}, repeated)


@dataclass(frozen=True, eq=False)
class ShardSplit:
    """Some of the pictures of some shards: those whose keys' hashes lie in an interval.

    Attributes:
        shards: The shards.
        above: The hashes start above this.
        up_to: The largest hash.
        picture: The ending of the pictures, where samples hold several.
        bears: Whether shards behind addresses may be left out where they cannot be read, which is told.
        copies: Keeps what is behind addresses; None keeps nothing.
        repeated: The hashes of the keys that stand in several shards; None where that is not known.
        names: What is added to those keys, for each shard.
        pictures: How many there are in each shard; None where that is not known.
        embeddings: The ending of the pictures' embeddings; None looks for none.
    """

    shards: tuple[str, ...]
    above: float = -1.0
    up_to: float = 1.0
    picture: str | None = None
    bears: bool = False
    copies: Copies | None = None
    repeated: Float[np.ndarray, " k"] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[int, ...] | None = None
    embeddings: str | None = None

    def counted(self, index: ShardIndex | None) -> ShardSplit:
        """The same with what an index of its shards, and of more, knows of them."""
        if index is None:
            return self
        inside = [(index.hashes[shard] > self.above) & (index.hashes[shard] <= self.up_to) for shard in self.shards]
        counts = tuple(int(each.sum()) for each in inside)
        return replace(self, repeated=index.repeated, names=names_of(tuple(index.hashes)), pictures=counts)

    def samples(self, shards: Sequence[str], tell: Callable[[Finding], None] = refuse_losses) -> Iterator[TarSample]:
        """The samples of some of the shards that belong to it, in the order in which they are stored.

        Args:
            shards: Those to read.
            tell: Is told what is odd in them (see `samples_of`), unless an index was made, which has told it.

        Raises:
            UserError: A shard cannot be read, or what `tell` raises.
        """
        if self.repeated is not None:
            tell = refuse_losses  # the index has told the rest
        for shard in shards:
            try:
                for sample in read_samples(shard, tell, self.picture, self.copies, self.embeddings):
                    key = self._unique(shard, sample.key)
                    if self.above < unit_hash(key) <= self.up_to:
                        # where it is not known which keys are repeated, messages name the shard
                        yield replace(sample, key=key, unique=f"{shard}/{key}" if self.repeated is None else key)
            except UnreadableShard as error:
                if not self.bears or not is_address(shard):
                    raise
                tell(Finding(FindingKind.UNREADABLE, shard, shard, str(error)))

    def _unique(self, shard: str, key: str) -> str:
        if self.repeated is None or not len(self.repeated):
            return key
        place = unit_hash(key)
        near = min(int(np.searchsorted(self.repeated, place)), len(self.repeated) - 1)
        return f"{self.names[shard]}/{key}" if self.repeated[near] == place else key


def names_of(shards: Sequence[str]) -> dict[str, str]:
    """A name for each shard that no other has: that of its file, or its path from the folder that holds them all."""
    names = {shard: os.path.basename(shard) for shard in shards}
    if len(set(names.values())) < len(names):
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])
        names = {shard: Path(os.path.relpath(shard, folder)).as_posix() for shard in shards}
    return names
