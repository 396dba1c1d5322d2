"""The registry of components: entry points of installed distributions, imported on first use.

Reading it imports nothing. A component is declared in its distribution's ``pyproject.toml``::

    [project.entry-points."vltok.gates"]
    my-gate = "my_package.gates:MyGate"

and named in a recipe by ``class_path: my-gate``. vltok's own components are declared in the same way.
"""

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from vltok.errors import UserError, unknown

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


@dataclass(frozen=True)
class Component:
    """One registered component, not yet imported.

    Attributes:
        kind: A key of `KINDS`.
        name: The name that recipes use.
        target: ``package.module:Class``.
        distribution: The distribution that declares it.
        version: That distribution's version.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    @property
    def class_path(self) -> str:
        """The dotted path of the class, as jsonargparse writes it."""
        return self.target.replace(":", ".")

    def load(self) -> type:
        """Import the class and check that it implements its kind's interface.

        Raises:
            UserError: The import fails, or the class does not implement the interface.
        """
        try:
            loaded = _import(self.target)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            raise UserError(
                f"{self.kind} '{self.name}' of {self.distribution} {self.version} cannot be imported from "
                f"{self.target}: {type(error).__name__}: {error}"
            ) from error
        interface = _import(KINDS[self.kind][1])
        if not (isinstance(loaded, type) and issubclass(loaded, interface)):
            raise UserError(
                f"{self.kind} '{self.name}' of {self.distribution} {self.version} is {self.target}, "
                f"which is no subclass of {interface.__module__}.{interface.__qualname__}"
            )
        return loaded


def components(kind: str) -> tuple[Component, ...]:
    """Every registered component of a kind, by name; a name that two distributions claim stands here twice.

    Raises:
        UserError: There is no such kind.
    """
    if kind not in KINDS:
        raise unknown("kind of component", kind, KINDS)
    found = {
        Component(kind, point.name, point.value, point.dist.metadata["Name"], point.dist.version)
        for point in importlib.metadata.entry_points(group=KINDS[kind][0])
    }
    return tuple(sorted(found, key=lambda component: (component.name, component.distribution)))


def find(kind: str, name: str) -> Component:
    """The component of a kind that has a name, without importing it.

    Raises:
        UserError: No distribution declares it, or more than one does.
    """
    every = components(kind)
    matches = [component for component in every if component.name == name]
    if not matches:
        raise unknown(kind, name, sorted({component.name for component in every}))
    if len(matches) > 1:
        owners = " and ".join(f"{component.distribution} {component.version}" for component in matches)
        raise UserError(f"{kind} '{name}' is claimed by {owners}: uninstall one, or write the class's dotted path")
    return matches[0]


def resolve_names(tree: Any, kind: str | None = None) -> Any:
    """A recipe with every component's registered name replaced by the dotted path of its class.

    A component stands under the key of its kind (``gate: {class_path: entropy}``, or short ``gate: entropy``), of which
    the last part counts (``model.tokenizer.gate: entropy``).
    Dotted paths stay as they are, and so do those of files.

    Args:
        tree: What YAML or JSON gave: nested dictionaries, lists and scalars.
        kind: The kind of component that `tree` itself describes, where its key says so.

    Raises:
        UserError: A name that is not registered.
    """
    if isinstance(tree, dict):
        resolved = {}
        for key, value in tree.items():
            last = str(key).rpartition(".")[2]
            resolved[key] = resolve_names(value, last if last in KINDS else kind if key == "class_path" else None)
        return resolved
    if isinstance(tree, list):
        return [resolve_names(item) for item in tree]
    if isinstance(tree, str) and kind is not None and "." not in tree and "/" not in tree:
        return find(kind, tree).class_path
    return tree


@functools.cache
def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
