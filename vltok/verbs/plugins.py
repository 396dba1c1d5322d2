"""`vltok.plugins`: what is registered, and what its constructors take."""

from __future__ import annotations

from vltok.errors import unknown
from vltok.io.inspection import Entry, inspect_component
from vltok.registry import components, kinds


def plugins(kind: str | None = None, name: str | None = None) -> list[Entry]:
    """The registered components, those that cannot be used among them: their `error` says why.

    Args:
        kind: Of one kind alone, such as `gate`.
        name: Of one name alone.

    Raises:
        UserError: There is no such kind, or nothing of that name.
    """
    if kind is not None and kind not in kinds():
        raise unknown("kind of component", kind, kinds())
    among = [component for each in ([kind] if kind else kinds()) for component in components(each)]
    found = [component for component in among if name in (None, component.name)]
    if name is not None and not found:
        names = sorted({component.name for component in among})
        raise unknown(kind or "component", name, names if kind else [*names, *kinds()])
    return [inspect_component(component) for component in found]
