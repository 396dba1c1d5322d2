"""What the parts of a component must agree on, so that a recipe says it once.

A class whose arguments are parts lists them in its attribute `links`::

    class MyTokenizer(Tokenizer):
        links = (Link("decoder.channels", "encoder.channels"), Link("decoder.factor", "encoder.factors", min))

A recipe that leaves out the decoder's channels then gives it the encoder's. A part that has no such argument gets none.

A class whose arguments have moved to its parts says in its attribute `former_arguments` where they are by now, so that
recipes, options and bundles that have them go on working::

    class MyPrior(Prior):
        former_arguments = {"width": ("transformer.width",), "regions": ("spec.regions",)}
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """An argument of a part that follows from an argument of another, where a recipe leaves it out.

    Attributes:
        target: The argument that follows, by dotted keys from the class on.
        source: The argument that it follows from.
        derive: Gives the one from the other; by default they are equal.
        must_agree: Whether a recipe that gives both must give the same. Leave it False where another value has a
            meaning, or where the class itself refuses it.
    """

    target: str
    source: str
    derive: Callable[[Any], Any] = lambda value: value
    must_agree: bool = False


@dataclass(frozen=True)
class Default:
    """An argument of a part whose default is another one here than the part's own.

    Attributes:
        target: The argument, by dotted keys from the class on.
        value: What it is where a recipe leaves it out.
    """

    target: str
    value: Any
