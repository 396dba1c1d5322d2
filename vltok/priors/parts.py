"""What the priors that are built of transformers have in common."""

from __future__ import annotations

from vltok.errors import UserError
from vltok.links import Default, Link
from vltok.nn.sequence_model import SequenceModel

#: Of a transformer's arguments, those that a prior had itself before.
_FORMER = ("width", "heads", "checkpointing", "compile")


def links_between(**layers: int) -> tuple[Link | Default, ...]:
    """What a prior's transformers follow: the width and heads of the first, and the prior's own dropout.

    Args:
        layers: How many layers each has where a recipe leaves it out, by the argument's name.
    """
    first, *others = layers
    return (
        *(Default(f"{name}.layers", count) for name, count in layers.items()),
        *(Link(f"{name}.{key}", f"{first}.{key}") for name in others for key in ("width", "heads")),
        *(Link(f"{name}.dropout", "dropout") for name in layers),
    )


def moved_to(**layers: str) -> dict[str, tuple[str, ...]]:
    """Where a prior's arguments of before are by now.

    Args:
        layers: What the number of layers was called before, by the transformer's name.
    """
    return {
        **{key: (f"spec.{key}",) for key in ("codebook_size", "factors", "regions")},
        **{key: tuple(f"{name}.{key}" for name in layers) for key in _FORMER},
        **{key: (f"{name}.layers",) for name, key in layers.items()},
    }


def common_width(**transformers: SequenceModel) -> int:
    """The width of a prior's transformers.

    Raises:
        UserError: They have several, or walk over the rows of one grid, which is not how the codes of several
            granularities stand.
    """
    for name, transformer in transformers.items():
        if transformer.columns is not None:
            raise UserError(
                f"{name}.columns is {transformer.columns}, but must be left out here: the codes of this prior do not "
                "stand row by row; those of 'sequence' do"
            )
    widths = {name: transformer.width for name, transformer in transformers.items()}
    if len(set(widths.values())) > 1:
        told = " and ".join(f"{name} has {width}" for name, width in widths.items())
        raise UserError(f"the transformers of a prior must have one width, but {told}")
    return next(iter(widths.values()))
