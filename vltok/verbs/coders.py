"""What compresses pictures and what reads them again: a tokenizer, and a model of its codes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from vltok.compression.coders import Coder
from vltok.compression.header import EQUAL, PRIOR, Header, is_named
from vltok.compression.pictures import PictureCoder
from vltok.compression.prior_coder import PriorCoder
from vltok.compression.table_coder import TableCoder
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.interfaces import Prior, Tokenizer
from vltok.rates import Rate
from vltok.tokenizers.rate import RateEncoder
from vltok.verbs.inputs import Opened, open_prior, open_tokenizer, tokenizer_of

_LOG = logging.getLogger(__name__)
#: How the names of compressed pictures end.
ENDING = ".vlt"


@dataclass(frozen=True, eq=False)
class Coders:
    """A tokenizer, and what can model its codes.

    Attributes:
        opened: The tokenizer.
        tables: How often its codes occur: all that were measured, the last ones of which are used.
        prior: What is used in their place, where it is given.
    """

    opened: Opened[Tokenizer]
    tables: list[CodeTables]
    prior: PriorCoder | None = None
    _coders: dict[CodeTables | None, TableCoder] = field(init=False, default_factory=dict)

    def to_compress(self) -> Coder:
        """The one to compress with."""
        if self.prior is not None:
            return self.prior
        if not self.tables:
            _LOG.warning(
                "'%s' does not say how often its codes occur, so that all count as equally frequent: measure it with "
                "'vltok rate' for smaller files",
                self.opened.name,
            )
        return self._by_tables(self.tables[-1] if self.tables else None)

    def to_decompress(self, header: Header) -> Coder:
        """The one with which a file was compressed.

        Raises:
            UserError: It is of another tokenizer, or needs a model that is not here.
        """
        if not is_named(self.opened.fingerprint, header.tokenizer):
            here = self.opened.fingerprint[: 2 * len(header.tokenizer)]
            raise UserError(
                f"it is of another tokenizer ({header.tokenizer.hex()}…) than '{self.opened.name}' ({here}…): "
                "give the one with which it was compressed"
            )
        if header.kind == EQUAL:
            return self._by_tables(None)
        if header.kind == PRIOR:
            if self.prior is not None and is_named(self.prior.name, header.model):
                return self.prior
            here = "" if self.prior is None else self.prior.name[: 2 * len(header.model)]
            other = here and f", and another one is given ({here}…)"
            raise UserError(f"a prior models its codes ({header.model.hex()}…){other}: give that one as --prior")
        for tables in self.tables:
            if is_named(tables.name, header.model):
                return self._by_tables(tables)
        raise UserError(
            f"it was compressed with tables ({header.model.hex()}…) that '{self.opened.name}' does not have: give the "
            "bundle as it was then"
        )

    def _by_tables(self, tables: CodeTables | None) -> TableCoder:
        if tables not in self._coders:
            self._coders[tables] = TableCoder(tables, self.opened.model.spec)
        return self._coders[tables]

    def pictures(self, coder: Coder, rate: Rate | str | None = None) -> PictureCoder:
        """What goes from pictures to files and back, with a coder of their codes.

        Raises:
            UserError: The tokenizer cannot be steered so.
        """
        size = None
        if coder is self.prior and self.prior.regions is not None:
            factor = self.opened.model.spec.factors[0]
            size = self.prior.regions[0] * factor, self.prior.regions[1] * factor
        encoder = None if rate is None else RateEncoder(self.opened.model, Rate.of(rate))
        return PictureCoder(self.opened.model, self.opened.fingerprint, self.opened.device, size, encoder)


@contextlib.contextmanager
def open_coders(
    tokenizer: Tokenizer | str | os.PathLike,
    prior: Prior | str | os.PathLike | None,
    tables: CodeTables | None,
    device: str | None,
    trust: bool,
) -> Iterator[Coders]:
    """Load what compresses pictures.

    Args:
        tokenizer: Or its bundle's place.
        prior: Or its bundle's place.
        tables: Used besides those of the bundle, and before them.
        device: Where the tokenizer computes.
        trust: See `vltok.load_tokenizer`.

    Raises:
        UserError: There is no such device, something cannot be loaded, or the prior is of other codes.
    """
    if prior is not None:
        tokenizer_of(prior, tokenizer, trust)
    with open_tokenizer(tokenizer, device, trust=trust) as opened:
        stored = [] if isinstance(tokenizer, Tokenizer) else CodeTables.stored(tokenizer, opened.model.spec)
        used = [*stored, *([] if tables is None else [tables])]
        if prior is None:
            yield Coders(opened, used)
            return
        with open_prior(prior, "cpu", trust=trust) as model:
            spec, mine = opened.model.spec, model.model.spec
            if (mine.entries, mine.codebooks, mine.factors) != (spec.entries, spec.codebooks, spec.factors):
                raise UserError(f"the prior '{model.name}' models other codes than those of '{opened.name}'")
            yield Coders(opened, used, PriorCoder(model.model, model.fingerprint))
