"""The registry of components: entry points of installed distributions, imported on first use.

Reading it imports nothing. A component is declared in its distribution's ``pyproject.toml``::

    [project.entry-points."vltok.gates"]
    my-gate = "my_package.gates:MyGate"

and named in a recipe by ``class_path: my-gate``. vltok's own components are declared in the same way.
"""

import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vltok.errors import UserError, unknown
from vltok.extras import remedy
from vltok.version import __version__

#: Each kind of component, which is also the name of the recipe key that holds one: its entry-point group and the
#: interface that its classes implement.
KINDS = {
    "tokenizer": ("vltok.tokenizers", "vltok.interfaces:Tokenizer"),
    "prior": ("vltok.priors", "vltok.interfaces:Prior"),
    "encoder": ("vltok.encoders", "vltok.interfaces:Encoder"),
    "gate": ("vltok.gates", "vltok.interfaces:Gate"),
    "budget": ("vltok.budgets", "vltok.interfaces:Budget"),
    "quantizer": ("vltok.quantizers", "vltok.interfaces:Quantizer"),
    "decoder": ("vltok.decoders", "vltok.interfaces:Decoder"),
    "perceptual": ("vltok.perceptual", "vltok.interfaces:Perceptual"),
    "discriminator": ("vltok.discriminators", "vltok.interfaces:Discriminator"),
    "data": ("vltok.data", "lightning.pytorch:LightningDataModule"),
    "importer": ("vltok.importers", "vltok.io.importers.base:Importer"),
}


#: The group in which a plug-in declares classes of a kind of its own, so that bundles may name them.
PARTS = "vltok.parts"

#: The distribution whose interfaces components implement.
OWN = "vltok"


@dataclass(frozen=True)
class Component:
    """One registered component, not yet imported.

    Attributes:
        kind: A key of `KINDS`.
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
        interface = interface_of(self.kind)
        described = f"{interface.__module__}.{interface.__qualname__}"
        if not (isinstance(loaded, type) and issubclass(loaded, interface)):
            raise UserError(f"{what} is {self.target}, which is no subclass of {described}")
        if inspect.isabstract(loaded):
            missing = ", ".join(sorted(loaded.__abstractmethods__))
            raise UserError(f"{what} is {self.target}, which leaves what {described} asks for undefined: {missing}")
        return loaded


def interface_of(kind: str) -> type:
    """What the classes of a kind implement."""
    return _import(KINDS[kind][1])


def components(kind: str) -> tuple[Component, ...]:
    """Every registered component of a kind, by name; a name that two distributions claim stands here twice.

    Raises:
        UserError: There is no such kind.
    """
    if kind not in KINDS:
        raise unknown("kind of component", kind, KINDS)
    found = {
        Component(
            kind,
            point.name,
            point.value.partition("[")[0].replace(" ", ""),
            point.dist.metadata["Name"],
            point.dist.version,
            _required(point.dist),
        )
        for point in _entry_points(KINDS[kind][0])
    }
    return tuple(sorted(found, key=lambda component: (component.name, component.distribution)))


def registered(class_path: str, kind: str | None = None) -> type | None:
    """The class that a dotted path means, where it is that of a registered component or part of a plug-in; else None.

    Nothing but registered components is imported: a path that is none of theirs is not followed.

    Args:
        class_path: A dotted path.
        kind: A key of `KINDS`, where only its components count.

    Raises:
        UserError: It is that of a component which cannot be used.
    """
    module, _, name = class_path.rpartition(".")
    for component in [each for kind in ([kind] if kind in KINDS else KINDS) for each in components(kind)]:
        if component.class_path == class_path:
            return component.load()
        # a package may show a class under a shorter path than that where it is written, or register the shorter one
        home = component.target.partition(":")[0]
        related = home.startswith(f"{module}.") or module.startswith(f"{home}.")
        if related and component.class_path.rpartition(".")[2] == name:
            found = component.load()
            if getattr(sys.modules.get(module), name, None) is found:
                return found
    for point in _entry_points(PARTS):
        if point.value.replace(":", ".") == class_path:
            found = _import(point.value)
            return found if isinstance(found, type) else None
    return None


def find(kind: str, name: str, distributions: Collection[str] = ()) -> Component:
    """The component of a kind that has a name, without importing it.

    Args:
        kind: A key of `KINDS`.
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


def resolve_names(tree: Any, kind: str | None = None, distributions: Collection[str] = ()) -> Any:
    """A recipe with every component's registered name replaced by the dotted path of its class.

    A component stands under the key of its kind (``gate: {class_path: entropy}``, or short ``gate: entropy``), of which
    the last part counts (``model.tokenizer.gate: entropy``).
    Dotted paths stay as they are, and so do those of files.

    Args:
        tree: What YAML or JSON gave: nested dictionaries, lists and scalars.
        kind: The kind of component that `tree` itself describes, where its key says so.
        distributions: Those that count where several claim a name.

    Raises:
        UserError: A name that is not registered, that several claim, or of a plugin that cannot be used.
    """
    if isinstance(tree, dict):
        resolved = {}
        for key, value in tree.items():
            last = str(key).rpartition(".")[2]
            means = last if last in KINDS else kind if key == "class_path" else None
            resolved[key] = resolve_names(value, means, distributions)
        return resolved
    if isinstance(tree, list):
        return [resolve_names(item, None, distributions) for item in tree]
    if isinstance(tree, str) and kind is not None and "." not in tree and "/" not in tree:
        return path_of(kind, tree, distributions)
    return tree


def _entry_points(group: str) -> Iterator[importlib.metadata.EntryPoint]:
    """Those of a group that installed distributions declare.

    What lies in the current folder is not installed, though Python looks for modules there when it is started without
    a script: else a folder that somebody gave could declare components of its own.
    """
    here = os.path.realpath(os.getcwd())
    places = [place for place in sys.path if os.path.realpath(place) != here]
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions(path=places):
        points = [point for point in distribution.entry_points if point.group == group]
        name = canonicalize_name(distribution.metadata["Name"]) if points else ""
        if points and name not in seen:  # of one that is installed twice, the first counts, as for imports
            seen.add(name)
            yield from points


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
