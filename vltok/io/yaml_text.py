"""YAML that somebody else may have written: read with bounds, so that a short text cannot fill the memory.

What a plain scalar means is YAML 1.2's rule, as people expect it: `no` and `12:00:00` are texts, `1e-4` is a number,
`2024-01-31` is no date. What `dump` writes, `load` reads back equal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

#: The most values that a text may come to once its aliases are written out.
_MOST_VALUES = 100_000
#: How deep values may be nested.
_DEEPEST = 60
#: What to do about a problem, by the words in which PyYAML tells it.
_HINTS = {
    repr("\t"): "; indent with spaces, not tabs",
    "could not find expected ':'": "; put a space after each colon",
    "mapping values are not allowed here": "; put a space after each colon, and a text that holds one into quotes",
}


@dataclass(frozen=True)
class Written:
    """A number, a truth value or null that stands in a text without quotes: perhaps a text is meant.

    Attributes:
        value: What it means.
        text: What was written.
    """

    value: Any
    text: str


def load(text: str) -> Any:
    """The values of a YAML text; no tag in it makes anything but plain values.

    Raises:
        yaml.YAMLError: It is not YAML, a key stands twice or is no scalar, values are nested too deep or hold
            themselves, or its aliases stand for too many of them.
    """
    return _loaded(text, _Loader)


def load_as_written(text: str) -> Any:
    """The same, with every key as a text, and `Written` in place of what is no text but may be meant as one.

    Raises:
        yaml.YAMLError: As `load`.
    """
    return _loaded(text, _WrittenLoader)


def dump(tree: Mapping) -> str:
    """The YAML text of a mapping, in its order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def problem_of(error: yaml.YAMLError) -> str:
    """What is wrong with a text, and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{where}{problem}{next((hint for said, hint in _HINTS.items() if said in problem), '')}"


class _Loader(yaml.SafeLoader):
    """Reads plain scalars by YAML 1.2's rule."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


class _WrittenLoader(_Loader):
    """Keeps what was written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would take for something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text; without double quotes, PyYAML itself would read some letters back as blanks."""
        text = str.__str__(text)  # of a member of an enumeration its value
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """A number, whose digits may be grouped by underscores."""
    text = node.value.replace("_", "").lower()
    if node.tag == _FLOAT:
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return int(text, 0 if text.lstrip("+-").startswith(("0x", "0o", "0b")) else 10)


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() == "true"


def _written(loader: _WrittenLoader, node: yaml.ScalarNode) -> Written:
    return Written(_Loader.yaml_constructors[node.tag](loader, node), node.value)


_INT, _FLOAT, _BOOL, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))
_SCALARS = {
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)",
    _FLOAT: r"""[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)""",
    "tag:yaml.org,2002:merge": "<<",
}
for _tag, _pattern in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z", re.VERBOSE), None)
for _tag, _construct in {_INT: _number, _FLOAT: _number, _BOOL: _truth}.items():
    _Loader.add_constructor(_tag, _construct)
_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_multi_representer(str, _Dumper.represent_text)
_Loader.add_constructor("tag:yaml.org,2002:merge", _Loader.construct_yaml_str)  # where it stands as a value
for _tag in (_INT, _FLOAT, _BOOL, _NULL):
    _WrittenLoader.add_constructor(_tag, _written)


def _loaded(text: str, reader: type[_Loader]) -> Any:
    try:
        loader = reader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {}, 0)
        return loader.construct_document(root)
    except RecursionError as error:
        raise yaml.YAMLError("values are nested too deep") from error
    except ValueError as error:  # a number that Python has no value for
        raise yaml.YAMLError(str(error)) from error


def _count(node: yaml.Node, counted: dict[int, int], depth: int) -> int:
    """How many values a node stands for."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if depth > _DEEPEST:
        raise _problem(node, f"values are nested more than {_DEEPEST} deep")
    if id(node) in counted:
        if not counted[id(node)]:
            raise _problem(node, "a value holds itself")
        return counted[id(node)]
    counted[id(node)] = 0
    children = node.value
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        children = [child for pair in node.value for child in pair]
    total = 1
    for child in children:
        total += _count(child, counted, depth + 1)
        if total > _MOST_VALUES:
            raise _problem(node, f"there are more than {_MOST_VALUES} values")
    counted[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _problem(key, "a key must be a word or a number")
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise _problem(key, f"key '{key.value}' stands here twice")
        if node.flow_style and ":" in key.value and key.style is None and value.value == "" and value.style is None:
            raise _problem(key, f"'{key.value}' is a key without a value: put a space after each colon")
        seen.add(key.value)


def _problem(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
