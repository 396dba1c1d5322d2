"""The registry of components: entry points of installed distributions, imported on first use.

Reading it imports nothing. A component is declared in its distribution's ``pyproject.toml``::

    [project.entry-points."vltok.gates"]
    my-gate = "my_package.gates:MyGate"

and named in a recipe by ``class_path: my-gate``. vltok's own components are declared in the same way. A plug-in may add
kinds of its own (`MORE_KINDS`).
"""

import functools
import importlib
import importlib.metadata
import os
import sys
import warnings
from abc import ABCMeta
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vltok.errors import UserError, unknown
from vltok.extras import remedy
from vltok.version import __version__

#: vltok's own kinds of component: the entry-point group of each, and the interface that its classes implement.
KINDS = {
    "tokenizer": ("vltok.tokenizers", "vltok.interfaces:Tokenizer"),
    "prior": ("vltok.priors", "vltok.interfaces:Prior"),
    "transformer": ("vltok.transformers", "vltok.nn.sequence_model:SequenceModel"),
    "text_encoder": ("vltok.text_encoders", "vltok.interfaces:TextEncoder"),
    "encoder": ("vltok.encoders", "vltok.interfaces:Encoder"),
    "gate": ("vltok.gates", "vltok.interfaces:Gate"),
    "budget": ("vltok.budgets", "vltok.interfaces:Budget"),
    "quantizer": ("vltok.quantizers", "vltok.interfaces:Quantizer"),
    "decoder": ("vltok.decoders", "vltok.interfaces:Decoder"),
    "perceptual": ("vltok.perceptual", "vltok.interfaces:Perceptual"),
    "discriminator": ("vltok.discriminators", "vltok.interfaces:Discriminator"),
    "data": ("vltok.data", "lightning.pytorch:LightningDataModule"),
    "importer": ("vltok.importers", "vltok.io.importers.base:Importer"),
    "exporter": ("vltok.exporters", "vltok.io.exporters.base:Exporter"),
}

#: The group in which a plug-in declares a kind of its own: ``length_policy = "package.module:Interface"``. The
#: components of that kind then stand in the group ``vltok.length_policy``.
MORE_KINDS = "vltok.kinds"

#: The distribution whose interfaces components implement.
OWN = "vltok"


@dataclass(frozen=True)
class Component:
    """One registered component, not yet imported.

    Attributes:
        kind: One of `kinds`.
        name: The name that recipes use.
        target: ``package.module:Class``.
        distribution: The distribution that declares it.
        version: That distribution's version.
        requires: The versions of vltok that the distribution says it is built for, such as ``>=0.1``; empty for any.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    requires: str = ""

    @property
    def class_path(self) -> str:
        """The dotted path of the class, as jsonargparse writes it."""
        return self.target.replace(":", ".")

    def load(self) -> type:
        """Import the class and check that it implements its kind's interface.

        Raises:
            UserError: It is built for another version of vltok, the import fails, or the class does not implement the
                interface.
        """
        what = f"{self.kind} '{self.name}' of {self.distribution} {self.version}"
        if not SpecifierSet(self.requires).contains(__version__, prereleases=True):
            raise UserError(
                f"{what} is built for {OWN}{self.requires}, and this is {OWN} {__version__}: "
                f"pip install '{OWN}{self.requires}', or install another version of {self.distribution}"
            )
        try:
            loaded = _import(self.target)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            reason = remedy(error) if isinstance(error, ModuleNotFoundError) else None
            reason = reason or f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"{what} cannot be imported from {self.target}: {reason}") from error
        described = kinds()[self.kind][1].replace(":", ".")
        if not (isinstance(loaded, type) and issubclass(loaded, interface_of(self.kind))):
            raise UserError(f"{what} is {self.target}, which is no subclass of {described}")
        if isinstance(loaded, ABCMeta) and loaded.__abstractmethods__:
            missing = ", ".join(sorted(loaded.__abstractmethods__))
            raise UserError(f"{what} is {self.target}, which leaves what {described} asks for undefined: {missing}")
        return loaded


def kinds() -> dict[str, tuple[str, str]]:
    """Every kind of component: its entry-point group, and the interface that its classes implement.

    Of two that have the same name, the first counts, and a warning names the other.
    """
    found, owners = dict(KINDS), dict.fromkeys(KINDS, OWN)
    for kind, target, owner, *_ in _declared().get(MORE_KINDS, ()):
        if kind in found and found[kind][1] != target:
            warnings.warn(
                f"kind '{kind}' of {owner} is left out: {owners[kind]} has one of that name; uninstall one",
                stacklevel=2,
            )
        else:
            found[kind], owners[kind] = (f"vltok.{kind}", target), owner
    return found


def interface_of(kind: str) -> type:
    """What the classes of a kind implement."""
    return _import(kinds()[kind][1])


def kind_of(component: type) -> str | None:
    """The kind whose interface a class is or implements; the most specific one, or None."""
    every = kinds()
    for base in component.__mro__:
        for kind, (_, interface) in every.items():
            if interface.endswith(f":{base.__qualname__}") and _import(interface) is base:
                return kind
    return None


def components(kind: str) -> tuple[Component, ...]:
    """Every registered component of a kind, by name; a name that two distributions claim stands here twice.

    Raises:
        UserError: There is no such kind.
    """
    every = kinds()
    if kind not in every:
        raise unknown("kind of component", kind, every)
    return _sorted(Component(kind, *declared) for declared in _declared().get(every[kind][0], ()))


def registered(class_path: str) -> type | None:
    """The class that a dotted path means, where it is that of a registered component; else None.

    Nothing but registered components is imported: a path that is none of theirs is not followed.

    Raises:
        UserError: It is that of a component which cannot be used.
    """
    module, _, name = class_path.rpartition(".")
    for component in _every_component():
        if component.class_path == class_path:
            return component.load()
        # a package may show a class under a shorter path than that where it is written, or register the shorter one
        home = component.target.partition(":")[0]
        related = home.startswith(f"{module}.") or module.startswith(f"{home}.")
        if related and component.class_path.rpartition(".")[2] == name:
            found = component.load()
            if getattr(sys.modules.get(module), name, None) is found:
                return found
    return None


def registrations(loaded: object) -> Iterator[Component]:
    """Every component that is a class, under whatever dotted path."""
    for component in _every_component():
        if component.class_path.rpartition(".")[2] == getattr(loaded, "__name__", None):
            try:
                if component.load() is loaded:
                    yield component
            except UserError:  # one that does not load is none
                continue


def find(kind: str, name: str, distributions: Collection[str] = ()) -> Component:
    """The component of a kind that has a name, without importing it.

    Args:
        kind: One of `kinds`.
        name: Its name.
        distributions: Those that count where several claim the name; without them, none does.

    Raises:
        UserError: No distribution declares it, or more than one does.
    """
    every = components(kind)
    matches = [component for component in every if component.name == name]
    if not matches:
        raise unknown(kind, name, sorted({component.name for component in every}))
    chosen = [component for component in matches if component.distribution in distributions]
    if len(matches) > 1 and len(chosen) != 1:
        owners = " and ".join(f"{component.distribution} {component.version}" for component in matches)
        paths = " or ".join(component.class_path for component in matches)
        raise UserError(
            f"{kind} '{name}' is claimed by {owners}: write which class is meant, {paths}, or uninstall one"
        )
    return (chosen or matches)[0]


def path_of(kind: str, name: str, distributions: Collection[str] = ()) -> str:
    """The dotted path of the class that a name means. A plugin's is loaded, so that what is wrong with it is said.

    Raises:
        UserError: No distribution declares it, more than one does, or what a plugin declares cannot be used.
    """
    component = find(kind, name, distributions)
    if component.distribution != OWN:
        component.load()
    return component.class_path


def _every_component() -> tuple[Component, ...]:
    declared = _declared()
    return _sorted(Component(kind, *each) for kind, (group, _) in kinds().items() for each in declared.get(group, ()))


def _sorted(found: Iterable[Component]) -> tuple[Component, ...]:
    return tuple(sorted(set(found), key=lambda component: (component.kind, component.name, component.distribution)))


def _declared() -> dict[str, tuple[tuple[str, ...], ...]]:
    """What installed distributions declare in each group: the fields of `Component` from the name on.

    What lies in the current folder is not installed, though Python looks for modules there when it is started without
    a script: else a folder that somebody gave could declare components of its own.
    """
    here = os.path.realpath(os.getcwd())
    places = [place for place in sys.path if os.path.realpath(place) != here]
    return _declarations(tuple((place, _changed(place)) for place in places))


@functools.lru_cache(maxsize=1)
def _declarations(places: tuple[tuple[str, int | None], ...]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The same of every group, by folders and when they were changed."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions(path=[place for place, _ in places]):
        points = [point for point in distribution.entry_points if point.group.startswith(f"{OWN}.")]
        name = distribution.metadata["Name"] if points else ""
        if points and canonicalize_name(name) not in seen:  # of one that is installed twice, the first counts
            seen.add(canonicalize_name(name))
            common = (name, distribution.version, _required(distribution))
            for point in points:
                target = point.value.partition("[")[0].replace(" ", "")
                found[point.group] = (*found.get(point.group, ()), (point.name, target, *common))
    return found


def _changed(place: str) -> int | None:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return None


def _required(distribution: importlib.metadata.Distribution) -> str:
    """The versions of vltok that a distribution requires, whatever extras it is installed with."""
    specifiers = SpecifierSet()
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of another distribution, for another tool to complain about
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) == OWN and applies:
            specifiers &= requirement.specifier
    return str(specifiers)


@functools.cache
def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
