"""Registered names in recipes: which component a word means follows from the type of the parameter that it fills.

``encoder: vqgan`` is a registered encoder where the parameter is an `Encoder`, whatever its key is called, and a word
where it is a `str`. What a recipe leaves out and the parts of a component must agree on is filled in (`vltok.links`).
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import yaml

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.argument_types import is_component, items_of, kind_among, members, parameters_of
from vltok.io.yaml_text import Written
from vltok.links import Default
from vltok.registry import components, path_of, registrations

#: The keys under which something stands, without `init_args`, which recipes may leave out.
Place = tuple[str, ...]

#: What is given nowhere.
_MISSING = object()


class RecipeNames:
    """Follows what recipes and options say, one after the other, so that it knows what stands where.

    Args:
        parameters: The type of each value at the top of a recipe, by key.
        distributions: Those that count where several claim a name.
        load: Gives the class or function of a dotted path, or None where it cannot be had or is not to be imported.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        distributions: Collection[str] = (),
        load: Callable[[str], Callable | None] | None = None,
    ) -> None:
        self._parameters = parameters
        self._distributions = distributions
        self._load = load or _imported
        #: What each place holds so far, where it can be had.
        self.classes: dict[Place, Callable] = {}
        #: What was found where a text is taken: it means itself, whatever YAML would make of it.
        self.texts: set[str] = set()
        #: What is given so far for arguments that are no components.
        self._values: dict[Place, Any] = {}
        #: What was given for another component, whose former arguments this one has too, by where it goes here.
        self._kept: dict[tuple[Place, ...], Any] = {}

    def resolved(self, tree: Mapping[Any, Any], above: Place = ()) -> dict[Any, Any]:
        """What a recipe says, with names replaced by dotted paths: every component is a mapping with a `class_path`.

        Raises:
            UserError: A name that is not registered, that several claim, or of a plugin that cannot be used.
        """
        values: dict[Any, Any] = {}
        former: dict[str, list[str]] = {}
        # what a component is says what its other keys are, and those with dots below it
        for key in sorted(tree, key=lambda key: (str(key).rpartition(".")[2] != "class_path", str(key).count("."))):
            if (now := self.moved(str(key), above)) != [str(key)]:
                former[key] = now
            else:
                values[key] = self._resolved(tree[key], _place(key, above))
        # jsonargparse takes no further dotted keys below one that says which component stands there
        whole = [key for key in values if isinstance(tree[key], str) and isinstance(values[key], dict)]
        below = {key: [other for other in values if str(other).startswith(f"{key}.")] for key in whole}
        for key, others in below.items():
            if others:
                values[key]["init_args"] = {str(other)[len(str(key)) + 1 :]: values[other] for other in others}
        taken = {other for others in below.values() for other in others}
        resolved = {key: values[key] for key in tree if key in values and key not in taken}
        for before, keys in former.items():
            for each in keys:
                self._put(resolved, str(before), each, tree[before], above)
        return resolved

    def _put(self, resolved: dict[Any, Any], key: str, now: str, value: Any, above: Place) -> None:
        """Put the value of a former key where it stands by now; beside it, what is given there counts."""
        owner = next((str(each) for each in resolved if key.startswith(f"{each}.")), None)
        if owner is None and "." in key:  # it is laid over what stands there in an earlier recipe
            resolved[now] = self._resolved(value, _place(now, above))
            return
        *way, last = [*_place(now)] if owner is None else [owner, *_place(now[len(owner) + 1 :])]
        inner = _arguments_at(resolved, way)
        if owner is not None or last not in inner:
            inner[last] = self._resolved(value, _place(now, above))

    def moved(self, key: str, above: Place = ()) -> list[str]:
        """The keys that say by now what a key says; itself alone unless its component has moved that argument."""
        place, (before, _, last) = _place(key, above), key.rpartition(".")
        now = getattr(self._class(place[:-1]), "former_arguments", {}).get(last, (last,))
        return [f"{before}.{each}".lstrip(".") for each in now]

    def option(self, key: str, value: str, nulls: bool = True) -> str:
        """The same of an option, whose value is a component's name, the dotted path of a class, or something else.

        Args:
            key: The option's.
            value: What is given.
            nulls: Whether `null` takes back a text that a recipe has given.

        Raises:
            UserError: As `resolved`.
        """
        place = _place(key.removesuffix("+"))
        if place[-1] == "class_path":
            return self._path(value, place[:-1])
        if self._takes_component(place) and value not in ("", "null", "None"):
            return self._path(value, place)
        if self.takes_text_alone(key):
            self.texts.add(value)
            taken_back = nulls and value in ("null", "None") and types.NoneType in self._types(place)
            self._give(place, None if taken_back else value)
            return value
        try:
            read = self._resolved(yaml_text.load_as_written(value), place)
        except yaml.YAMLError:  # the parser that reads the option says why
            return value
        # jsonargparse knows no `0o17`
        taken = self._types(place)
        return str(read) if type(read) is int and int in taken and str not in taken else value

    def takes_text(self, key: str) -> bool:
        """Whether the value at a key may be a text."""
        return str in self._types(_place(key))

    def takes_text_alone(self, key: str) -> bool:
        """Whether the value at a key must be a text, or null."""
        return set(self._types(_place(key))) - {types.NoneType} == {str}

    def texts_given(self) -> Iterator[tuple[Place, str, list[Any]]]:
        """The texts that stand where no component does: the place of each, itself, and the types taken there."""
        for place, value in self._values.items():
            if isinstance(value, str):
                yield place, value, self._types(place)

    def named(self, tree: Any, place: Place = ()) -> Any:
        """What `resolved` gave, with names again wherever they can be read back."""
        if isinstance(tree, list):
            return [self.named(item, (*place, str(number))) for number, item in enumerate(tree)]
        if not isinstance(tree, Mapping):
            return tree
        named = {key: self.named(value, _place(key, place)) for key, value in tree.items()}
        if "class_path" in tree and place in self.classes:
            named["class_path"] = self._name(tree["class_path"], place)
        return named

    def linked(self) -> Iterator[tuple[Place, Any]]:
        """What follows from what is given: each place where nothing is given, and its value."""
        kept = {
            place: value for places, value in self._kept.items() if all(map(self.lacks, places)) for place in places
        }
        yield from kept.items()
        for target, derived, _ in self._links():
            if self.lacks(target) and target not in kept:
                yield target, derived

    def require_agreement(self) -> None:
        """See that what is given agrees with what it would follow from.

        Raises:
            UserError: It does not.
        """
        for target, derived, source in self._links():
            if source is not None and (given := self.given(target)) not in (_MISSING, derived):
                here, there = ".".join(target), ".".join(source)
                raise UserError(f"{here} is {given}, but {there} is {self.value(source)}: leave {here} out")

    def _links(self) -> Iterator[tuple[Place, Any, Place | None]]:
        """Each argument that follows, its value, and with which other one it must agree, if it must."""
        for place, component in list(self.classes.items()):
            for link in getattr(component, "links", ()):
                target = (*place, *link.target.split("."))
                if not self.takes(target):
                    continue
                if isinstance(link, Default):
                    yield target, link.value, None
                    continue
                source = (*place, *link.source.split("."))
                if (value := self.value(source)) is not _MISSING:
                    with contextlib.suppress(TypeError, ValueError):  # the parser that reads the source says why
                        yield target, link.derive(value), source if link.must_agree else None

    def completed(self, tree: Mapping[Any, Any]) -> dict[Any, Any]:
        """What `resolved` gave, with what follows from it."""
        completed = copy.deepcopy(dict(tree))
        for place, value in self.linked():
            _arguments_at(completed, place[:-1])[place[-1]] = value
        return completed

    def given(self, place: Place) -> Any:
        """What is given for an argument, a component as its `class_path` and `init_args`; `_MISSING` for nothing."""
        if place in self._values:
            return self._values[place]
        known = (*self._values, *self.classes)
        keys = dict.fromkeys(other[len(place)] for other in known if other[:-1][: len(place)] == place)
        arguments = {key: self.given((*place, key)) for key in keys}
        if place in self.classes:
            component = self.classes[place]
            return {"class_path": f"{component.__module__}.{component.__qualname__}", "init_args": arguments}
        return arguments or _MISSING

    def lacks(self, place: Place) -> bool:
        """Whether an argument could be given, and is not."""
        return self.takes(place) and self.given(place) is _MISSING

    def takes(self, place: Place) -> bool:
        """Whether there is such an argument."""
        return bool(self._types(place))

    def value(self, place: Place) -> Any:
        """The same, or else the argument's default."""
        if (given := self.given(place)) is not _MISSING:
            return given
        component, key = self._class(place[:-1]), place[-1]
        parameter = inspect.signature(component).parameters.get(key) if component is not None else None
        return _MISSING if parameter is None or parameter.default in (parameter.empty, None) else parameter.default

    def kind(self, place: Place) -> str | None:
        """The kind of component that a place takes; None where it takes none."""
        return kind_among(self._types(place))

    def _class(self, place: Place) -> Callable | None:
        """What stands at a place: what is named there, or else the final class that it takes, which needs no name."""
        if place in self.classes:
            return self.classes[place]
        return next((each for each in self._types(place) if getattr(each, "__final__", False)), None)

    def _takes_component(self, place: Place) -> bool:
        return any(map(is_component, self._types(place)))

    def _resolved(self, value: Any, place: Place) -> Any:
        if isinstance(value, Written):
            value = value.text if self._means_text(value, place) else value.value
        types = self._types(place)
        if isinstance(value, str) and place[-1] == "class_path":
            return self._path(value, place[:-1])
        if isinstance(value, str) and self._takes_component(place) and str not in types:
            return {"class_path": self._path(value, place)}
        if isinstance(value, Mapping) and not any(typing.get_origin(each) is dict for each in types):
            return self.resolved(value, place)
        self._forget(place)
        if isinstance(value, Mapping):
            value = self.resolved(value, place)
        elif isinstance(value, list):
            value = [self._resolved(item, (*place, str(number))) for number, item in enumerate(value)]
        elif isinstance(value, str) and str in types:
            self.texts.add(value)
        self._values[place] = value
        return value

    def _means_text(self, written: Written, place: Place) -> bool:
        """Whether a value that was written without quotes stands where a text alone is taken; `~` is a home there."""
        taken = set(self._types(place))
        if written.value is None:
            return written.text == "~" and str in taken and types.NoneType not in taken
        numbers = {type(written.value), *((float,) if type(written.value) is int else ())}
        return str in taken and taken.isdisjoint({*numbers, Any, object})

    def _path(self, text: str, place: Place) -> str:
        """The dotted path of the component that stands at a place."""
        kind = self.kind(place)
        path = text
        if kind is not None and "." not in text and "/" not in text:
            path = path_of(kind, text, self._distributions)
        found = self._load(path)
        self._keep(place, self.classes.get(place), found)
        # as jsonargparse does: a new class keeps what it has an argument for
        self._forget(place, {key.partition(".")[0] for key in parameters_of(found)})
        if found is not None:
            self.classes[place] = found
        return path

    def _keep(self, place: Place, before: Callable | None, now: Callable | None) -> None:
        """Keep what is given for a component's former arguments for another one that takes its place."""
        theirs = getattr(now, "former_arguments", {})
        for key, (first, *_) in getattr(before, "former_arguments", {}).items() if now is not before else ():
            if (given := self.given((*place, *first.split(".")))) is not _MISSING:
                self._kept[tuple((*place, *each.split(".")) for each in theirs.get(key, ()))] = given

    def _give(self, place: Place, value: Any) -> None:
        self._forget(place)
        self._values[place] = value

    def _forget(self, place: Place, kept: Collection[str] = ()) -> None:
        """Forget what stands at a place and below it, but below some of its arguments."""
        for known in (self.classes, self._values):
            for other in [other for other in known if other[: len(place)] == place]:
                if len(other) == len(place) or other[len(place)] not in kept:
                    del known[other]

    def _name(self, path: str, place: Place) -> str:
        """The name of what stands at a place, if exactly one registered component means it; else its dotted path."""
        kind = self.kind(place)
        component = self.classes[place]
        names = [each.name for each in registrations(component) if each.kind == kind]
        # of several, the one that its file has too: others are names of before
        names.sort(key=lambda name: name.replace("-", "_") != component.__module__.rpartition(".")[2])
        taken = [] if kind is None else [each.name for each in components(kind)]
        return next((name for name in names if taken.count(name) == 1), path)

    def _types(self, place: Place) -> list[Any]:
        """The types that a place takes: those of an argument of the nearest component above it, or of its items."""
        for depth in range(len(place) - 1, -1, -1):
            parameters = parameters_of(self._class(place[:depth])) if depth else self._parameters
            if (key := ".".join(place[depth:])) in parameters:
                return list(members(parameters[key]))
        if not place:
            return []
        containers = [each for each in self._types(place[:-1]) if typing.get_origin(each) is not None]
        return [member for each in containers for inner in items_of(each, place[-1]) for member in members(inner)]


def _arguments_at(tree: dict[Any, Any], place: Iterable[str]) -> dict[Any, Any]:
    """Where the arguments of what stands at a place of a tree stand; nowhere, if a value stands there."""
    for key in place:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            return {}
        if "class_path" in tree or "init_args" in tree:
            tree = tree.setdefault("init_args", {})
    return tree


def _place(key: Any, above: Place = ()) -> Place:
    return (*above, *(part for part in str(key).split(".") if part != "init_args"))


def _imported(path: str) -> Callable | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception:  # the parser that reads the recipe says why
        return None
    return found if callable(found) else None
