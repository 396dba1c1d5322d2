"""Whether data suits what shall be trained on it: images a tokenizer, codes a prior."""

from __future__ import annotations

import warnings

from lightning.pytorch import LightningDataModule

from vltok.errors import UserError
from vltok.interfaces import AnyGrid, Budget, FixedSize, Gate, LengthTargeted, Prior, Tokenizer
from vltok.pictures.images import ImageData
from vltok.pictures.sizes import in_words
from vltok.sequences.source import CodeSource

#: The share by which the code lengths that a gate and a budget ask for may differ: ratios are written rounded.
_LENGTHS_APART = 0.02


def check_images(tokenizer: Tokenizer, data: LightningDataModule) -> None:
    """See that a tokenizer can be trained on the images of a source.

    Raises:
        UserError: It gives none, or of a size that the tokenizer does not take, or for which gate and budget disagree.
    """
    if not isinstance(data, ImageData):
        raise UserError(f"data: a tokenizer is trained on images, which {type(data).__name__} does not give")
    divisor = tokenizer.divisor
    for size in data.sizes:
        said = f"data.size is {data.size}" if isinstance(data.size, int) else f"data.size has {in_words(size)}"
        if isinstance(tokenizer, FixedSize) and tokenizer.image_size != size:
            raise UserError(f"{said}, but this tokenizer takes images of {in_words(tokenizer.image_size)} only")
        if size[0] % divisor or size[1] % divisor:
            height, width = (max(round(side / divisor), 1) * divisor for side in size)
            near = height if isinstance(data.size, int) else in_words((height, width))
            raise UserError(
                f"{said}, but must be a multiple of {divisor}, as this tokenizer's images are; the nearest is {near}"
            )
    if not tokenizer.spec.gridded:
        return
    for height, width in data.sizes:
        _check_length(tokenizer, height * width // tokenizer.spec.factors[0] ** 2)
    chooses = tokenizer.spec.granularities > 1
    if chooses and isinstance(tokenizer, LengthTargeted) and tokenizer.expected_length(*data.sizes[0]) is None:
        warnings.warn(
            "nothing holds the code length: neither the gate nor a budget says how many regions shall be fine; give "
            "model.tokenizer.budget, such as ratio",
            stacklevel=2,
        )


def _check_length(tokenizer: Tokenizer, regions: int) -> None:
    """See that a gate which keeps its ratios itself, and a budget, ask for the same number of codes."""
    kept = [part.ratios for part in tokenizer.modules() if isinstance(part, Gate) and part.ratios is not None]
    budgets = [part for part in tokenizer.modules() if isinstance(part, Budget)]
    for ratios, budget in zip(kept, budgets, strict=False):
        own, asked = regions * ratios.codes_per_region, budget.expected_length(regions)
        if abs(own - asked) > _LENGTHS_APART * asked:
            raise UserError(
                f"model.tokenizer.gate keeps its own ratios, which come to {own:.1f} codes an image, but "
                f"model.tokenizer.budget asks for {asked:.1f}: leave the budget out (null), or change the gate's ratios"
            )


def code_source(data: LightningDataModule) -> CodeSource:
    """What a prior is trained on.

    Raises:
        UserError: It gives no codes.
    """
    if not isinstance(data, CodeSource):
        raise UserError(
            f"data: a prior is trained on codes, which {type(data).__name__} does not give; write them with "
            "'vltok tokenize', and give --data codes --data.root DIR"
        )
    return data


def check_codes(prior: Prior, data: LightningDataModule) -> None:
    """See that a prior was built for the codes that it shall be trained on.

    Raises:
        UserError: It was not: names the argument and what it must be.
    """
    source = code_source(data)
    facts = source.training.facts
    root = facts.place
    if prior.spec.gridded and not facts.spec.gridded:
        raise UserError(
            f"model.prior has factors {_plain(prior.spec.factors)}, but the codes in {root} lie on no grid: give a "
            "prior that models plain sequences, such as sequence"
        )
    several = facts.spec.any_grid and f"the codes in {root} are of pictures of several sizes"
    if several and prior.spec.any_grid and not isinstance(prior, AnyGrid):
        raise UserError(
            f"{several}, which {type(prior).__name__} cannot model: tokenize pictures of one size, or give a prior "
            "that can, such as dq-transformer or raster-scan"
        )
    if several and prior.spec.regions is not None:
        raise UserError(
            f"model.prior has regions {_plain(prior.spec.regions)}, but {several}: leave it out of the recipe"
        )
    for key in ("codebook_size", "codebooks", "factors", "regions", "max_length"):
        wanted, found = getattr(prior.spec, key), getattr(facts.spec, key)
        # a prior may leave open what it does not need
        if wanted != found and wanted is not None:
            remedy = "leave it out of the recipe"
            if key == "codebooks":  # a recipe that says all else is not filled in
                remedy = f"set --model.prior.spec.codebooks {found}"
            raise UserError(
                f"model.prior has {key} {_plain(wanted)}, but the codes in {root} have {_plain(found)}: {remedy}"
            )
    names = facts.classes
    if prior.classes is not None and not facts.labelled:
        raise UserError(
            f"model.prior.classes is {prior.classes}, but the codes in {root} have no labels: set it to null, or "
            "tokenize pictures that have classes"
        )
    if prior.conditioning.described and not facts.described:
        raise UserError(
            f"model.prior.text_encoder reads texts, but the codes in {root} have none: set it to null, or tokenize "
            "pictures that have texts (data.texts)"
        )
    size = prior.conditioning.embedding_size
    if size is not None and facts.embedding_size is None:
        raise UserError(
            f"model.prior.embedding_size is {size}, but the codes in {root} have no embeddings: set it to null, or "
            "tokenize pictures that have some (data.embeddings)"
        )
    if size is not None and size != facts.embedding_size:
        raise UserError(
            f"model.prior.embedding_size is {size}, but the embeddings in {root} have {facts.embedding_size} numbers: "
            f"set --model.prior.embedding_size {facts.embedding_size}"
        )
    if prior.classes is not None and names is not None and len(names) != prior.classes:
        raise UserError(
            f"model.prior.classes is {prior.classes}, but the codes in {root} have {len(names)}: "
            f"set --model.prior.classes {len(names)}"
        )
    if source.held_out is not None and source.held_out.facts.labelled < facts.labelled:
        raise UserError(f"the codes in {source.held_out.facts.place} have no labels, but those in {root} have")
    if prior.conditioning.described and source.held_out is not None and not source.held_out.facts.described:
        raise UserError(f"the codes in {source.held_out.facts.place} have no texts, but those in {root} have")
    if size is not None and source.held_out is not None and source.held_out.facts.embedding_size != size:
        found = source.held_out.facts.embedding_size or "no"
        raise UserError(
            f"the embeddings in {source.held_out.facts.place} have {found} numbers, but those in {root} {size}"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
