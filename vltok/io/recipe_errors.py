"""What jsonargparse says about a wrong recipe, in one line.

jsonargparse reports a tree, one level for each nested component, with every alternative that it tried and the whole
recipe at the end. Only the innermost line says what is wrong; the headings above it say where.
"""

import contextlib
import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from vltok.errors import unknown
from vltok.io.argument_types import kind_among, members, parameters_of, types_of
from vltok.io.trust import distrusted
from vltok.registry import components, kinds

_HEADING = re.compile(
    r"""Parser key "(?P<key>.*?)"(?: element \d+)?:(?P<rest>.*)|Problem with given class_path '(?P<path>.*)':$"""
)
_NOISE = re.compile(
    r"Given value|Subtypes:|Errors:|Expected a path but|Does not validate against|Subclass types expect|"
    r"a class path \(str\)|a dict with"
)
_COMPONENT = "must be a component's name or dotted path, or hold class_path and init_args alone"
_LONGEST_VALUE = 80
#: Words for truth values that are texts to YAML since 2009.
_TRUTHS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def explain(report: str, parser: ArgumentParser) -> str:
    """One line from a report: the dotted key, what was given, and what is allowed.

    Args:
        report: The message of an error that jsonargparse raised.
        parser: The parser that raised it, for the names of its options.
    """
    findings = [finding for finding in _findings(report) if not _NOISE.match(finding.text)]
    if not findings:
        return _one_line(report)
    # alternatives of a union stand side by side; what got furthest into the recipe is what was meant
    deepest = max(finding.depth for finding in findings)
    first = next(finding for finding in findings if finding.depth == deepest)
    expected = [finding.text for finding in findings if finding.keys == first.keys and finding.depth == deepest]
    return _one_line(_Explanation(first, expected, parser).text())


def must_be(place: str, types: Sequence[Any], given: str) -> str:
    """What to say of a value of a wrong type, which is given as Python writes it."""
    names = list(dict.fromkeys(_type_name(str(each)) for each in types))
    return f"{place} must be {' or '.join(names)}, not {_short(given)}{_remedy(names, given.strip(chr(39)))}"


def place_of(key: str, parser: ArgumentParser) -> str:
    """How the user gives a key: as it stands in recipes, or as an option of a verb that reads none."""
    return _Explanation(_Finding(0, "", ((key, None),), ""), [], parser).place


@dataclass(frozen=True)
class _Finding:
    """A line of a report that is no heading.

    Attributes:
        depth: Its indentation.
        text: What it says.
        way: The headings that it stands under: keys of the recipe, and classes whose arguments were looked at.
        given: The value that was refused, as the report shows it.
    """

    depth: int
    text: str
    way: tuple[tuple[str | None, str | None], ...]
    given: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys alone."""
        return tuple(key for key, _ in self.way if key)

    @property
    def class_path(self) -> str | None:
        """The last class, if there is one."""
        return next((path for _, path in reversed(self.way) if path), None)


def _findings(report: str) -> Iterator[_Finding]:
    lines = report.splitlines()
    headings: list[tuple[int, str | None, str | None]] = []
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        text = line.lstrip(" ")
        depth = len(line) - len(text)
        if text.startswith("- "):
            text, depth = text[2:], depth + 2
        headings = [heading for heading in headings if heading[0] <= depth]
        if match := _HEADING.match(text):
            headings = [heading for heading in headings if heading[0] < depth]
            headings.append((depth, match["key"], match["path"]))
            text, depth = (match["rest"] or "").strip(), depth + 2
        if text:
            way = tuple((key, path) for _, key, path in headings)
            given = next((below for below in lines[index:] if below.lstrip().startswith("Given value: ")), "")
            yield _Finding(depth, text, way, given.partition("Given value: ")[2])


@dataclass(frozen=True)
class _Explanation:
    """The sentence for a finding."""

    finding: _Finding
    alternatives: list[str]
    parser: ArgumentParser

    def text(self) -> str:
        cases: dict[str, Callable[..., str]] = {
            r"(?:Option|Group '(?P<group>.*?)' does not accept option) '(?P<key>.*?)'(?: is not accepted)?$": self.key,
            r"unrecognized arguments: (?P<arguments>.*)": self.arguments,
            r"the following arguments are required: (?P<names>.*)": self.missing,
            r".*?Importing '(?P<path>[^']*)' is not allowed": self.distrusted,
            r"(?:module '.*' has no attribute|No module named) .*": self.not_importable,
            r"Import path(?: (?P<path>\S+))? does not correspond to a subclass of (?P<base>\w+)": self.wrong_class,
            r"Not a valid subclass of \w+(?:\. Got value: (?P<value>.*))?": self.no_component,
            r"Expected an instantiatable class": self.abstract,
            r"argument of type '\w+' is not (?:iterable|a container)|unhashable type: ": self.no_name,
            r"Expected a dot import path string: (?P<value>.*)": self.no_path,
            r"Expected an? ": self.wrong_type,
        }
        for pattern, case in cases.items():
            if match := re.match(pattern, self.finding.text):
                return case(**match.groupdict())
        return ": ".join([*filter(None, [self.place]), self.finding.text])

    @property
    def place(self) -> str:
        key = ".".join(self.finding.keys)
        return key if self.reads_recipes else self.option(key) or key

    @property
    def reads_recipes(self) -> bool:
        """Whether what is wrong may stand in a file, and not in an option alone."""
        return self.option("config") is not None

    def option(self, key: str) -> str | None:
        """The option of the command line that gives a key, if there is one."""
        names = {name for action in self.parser._actions for name in action.option_strings}
        return next((name for name in (f"--{key.replace('_', '-')}", f"--{key}") if name in names), None)

    @property
    def owner(self) -> str:
        """The component whose arguments were looked at, as `model.tokenizer (DQVAE)`."""
        if self.finding.class_path is None:
            return "the recipe"
        return f"{self.place} ({self.finding.class_path.rpartition('.')[2]})"

    def key(self, group: str | None, key: str) -> str:
        if self.finding.class_path is None:
            return self.arguments(f"--{group}.{key}" if group else f"--{key}")
        # below a key that does not exist jsonargparse also names the keys of its value
        known = dict.fromkeys(name.partition(".")[0] for name in parameters_of(_loaded(self.finding.class_path)))
        return str(unknown(f"key of {self.owner}", key.partition(".")[0], known))

    def arguments(self, arguments: str) -> str:
        given = next(iter(arguments.split()), "").partition("=")[0]
        if not given.startswith("-"):
            example = f", as in --config {given}" if given and self.reads_recipes else ""
            return f"'{given}' stands alone: every value follows an option{example}"
        given = given.partition(".init_args.")[0]  # what stands below a wrong key is not wrong
        known = [*self.parser.get_defaults(skip_validation=True).keys(), *(["config"] if self.reads_recipes else [])]
        keys = dict.fromkeys([*known, *(key.partition(".")[0] for key in known)])
        options = [self.option(key) or f"--{key}" for key in keys if self.reads_recipes or self.option(key)]
        near = difflib.get_close_matches(given, options, n=1, cutoff=0.5)
        # of a key below a component jsonargparse tells the end alone
        kind = difflib.get_close_matches(given.lstrip("-").partition(".")[0], kinds(), n=1, cutoff=0.75)
        if kind and "." in given and not any(option.startswith(f"--{kind[0]}.") for option in options):
            near = kind
        hint = f"did you mean '{near[0]}'?" if near else f"'{self.parser.prog} --help' lists them"
        what = f"key or option is called '{given.lstrip('-')}'" if self.reads_recipes else f"option is called '{given}'"
        return f"no {what}; {hint}"

    def missing(self, names: str) -> str:
        if not self.reads_recipes:
            given = [name.strip() for name in names.split(",")]
            # an argument without an option is shown in capitals, a key as it is written
            alone = {action.dest for action in self.parser._actions if not action.option_strings}
            shown = [self.option(name) or (name.upper() if name in alone else name) for name in given]
            return f"{' and '.join(shown)} must be given"
        option = ".".join([*self.finding.keys, names.split(",")[0]])
        return f"{self.owner} needs {names}: give it in the recipe, or as --{option} on the command line"

    def not_importable(self) -> str:
        return f"{self.place}.class_path: '{self.finding.class_path}' cannot be imported: {self.finding.text}"

    def distrusted(self, path: str) -> str:
        return str(distrusted(self.place, f"'{path}', which is no registered component: it would import other code"))

    def wrong_class(self, path: str | None, base: str) -> str:
        return f"{self.place}: '{path or self.finding.given}' is no {base}{self.choices}"

    def no_component(self, value: str | None) -> str:
        return f"{self.place} {_COMPONENT}, not {_short(value or self.finding.given)}{self.choices}"

    def no_name(self) -> str:
        # jsonargparse looks for a dot in whatever stands there
        return f"{self.place}.class_path must be a component's name or dotted path{self.choices}"

    def abstract(self) -> str:
        # jsonargparse takes a mapping that is no component for arguments of the interface itself
        return f"{self.place} {_COMPONENT}{self.choices}"

    def no_path(self, value: str) -> str:
        return f"{self.place}: '{value}' is no dotted path of a class, such as my_package.module.Class{self.choices}"

    def wrong_type(self) -> str:
        texts = [text.partition(". Got value: ") for text in self.alternatives if text.startswith("Expected a")]
        given = next((value for _, _, value in texts if value), self.finding.given)
        nested = re.match(r"NestedArg\(key='.*?', val=(.*)\)$", given)
        return must_be(
            self.place, [text.split(" ", 2)[2] for text, _, _ in texts], nested[1] if nested else repr(given)
        )

    @property
    def choices(self) -> str:
        """The registered names, where the last key takes a component."""
        parameters: Mapping[str, Any] = types_of(self.parser)
        kind = None
        for key, path in self.finding.way:
            if key is not None:
                kind = kind_among(members(parameters.get(key)))
            elif path is not None:
                parameters = parameters_of(_loaded(path))
        names = [] if kind is None else sorted({component.name for component in components(kind)})
        return f"; there are: {', '.join(names)}" if names else ""


def _loaded(path: str) -> Any:
    """What a dotted path means, or None. It has been imported, or is not to be."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _type_name(text: str) -> str:
    if (choices := text.removeprefix("typing.")).startswith("Literal["):
        return f"one of {choices[8:-1]}"
    return re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", text).replace("typing.", "").replace("NoneType", "null")


def _remedy(types: Sequence[str], given: str) -> str:
    """What to write instead of a value of another type, where it can be known."""
    if "int" in types:
        with contextlib.suppress(ValueError):
            return f": write {int(float(given))}" if float(given).is_integer() else ": write a whole number"
    if "bool" in types and given.lower() in _TRUTHS:
        return f": write {_TRUTHS[given.lower()]}"
    return f": write '{given}' in quotes" if "str" in types and given.strip('"')[:1] not in ("[", "{") else ""


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
