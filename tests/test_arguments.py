"""What objects keep of their constructors' arguments."""

import copy
import dataclasses
import enum
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from vltok.arguments import KeepsArguments, config_of, keep_arguments
from vltok.errors import UserError


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Size:
    height: int
    width: int = 2


class Part(KeepsArguments, nn.Module):
    def __init__(self, values: Any = (1, 2), *more: int, inner: Any = None, **others: Any) -> None:
        super().__init__()
        self.inner = inner
        if isinstance(values, dict):
            values.clear()


class Own(Part):
    """Has a constructor and an attribute of its own."""

    def __init__(self, width: int) -> None:
        super().__init__([width], inner=3)
        self.config = width


class Foreign:
    def __init__(self, depth: int) -> None:
        self.depth = depth


def _arguments(made: object) -> dict[str, Any]:
    return config_of(made)["init_args"]


def test_arguments_are_kept_as_given_with_every_default() -> None:
    assert _arguments(Part()) == {"values": [1, 2], "inner": None}
    assert _arguments(Part({4: 0.5, 8: 0.5})) == {"values": {4: 0.5, 8: 0.5}, "inner": None}, "it cleared its argument"
    assert _arguments(Part(1, 2, 3)) == {"values": 1, "more": [2, 3], "inner": None}
    assert _arguments(Part(inner=1, beyond=2)) == {"values": [1, 2], "inner": 1, "beyond": 2}


def test_a_data_class_is_its_fields_though_a_recipe_built_it() -> None:
    size = Size(1)
    keep_arguments(size, (1,), {})
    assert _arguments(Part(size))["values"] == {"height": 1, "width": 2}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (np.float32(0.5), 0.5),
        (np.str_("a"), "a"),
        (Colour.RED, "RED"),
        (Path("a/b"), "a/b"),
        (range(2), [0, 1]),
        (Size(1), {"height": 1, "width": 2}),
        (Foreign, f"{__name__}.Foreign"),
    ],
)
def test_values_are_written_as_recipes_have_them(given: object, written: object) -> None:
    found = _arguments(Part(given))["values"]
    assert found == written and type(found) is type(written)


def test_a_subclass_is_written_by_its_own_arguments_and_keeps_its_own_attribute() -> None:
    own = Own(3)
    assert config_of(own) == {"class_path": f"{__name__}.Own", "init_args": {"width": 3}}
    assert own.config == 3


def test_copies_and_pickles_keep_them_whatever_was_given() -> None:
    part = Part(lambda: 0, inner=Part(5))
    for again in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert again.inner is not part.inner and config_of(again.inner) == config_of(part.inner)
        with pytest.raises(UserError, match=r"a\.values is a function, which no configuration can hold"):
            config_of(again, "a")


def test_a_part_of_any_class_counts_once_its_arguments_are_kept() -> None:
    foreign = Foreign(7)
    with pytest.raises(UserError, match="inner is a Foreign"):
        config_of(Part(inner=foreign))
    keep_arguments(foreign, (7,), {})
    assert _arguments(Part(inner=[foreign]))["inner"] == [
        {"class_path": f"{__name__}.Foreign", "init_args": {"depth": 7}}
    ]
