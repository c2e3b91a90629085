"""The text of a `prefect.yaml` as plain values, with the line of each, so that what is wrong is told beside its place.

Only what JSON has too is taken: keys stay as they are written, and so do dates. Aliases and merge keys are filled in,
but not without end. Source: https://pyyaml.org/wiki/PyYAMLDocumentation
"""

import dataclasses
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from environments.errors import PlatformError

MAXIMUM_VALUES = 100_000
MAXIMUM_DEPTH = 50
UNFIT = re.compile("[\0\ud800-\udfff]")  # text with these does not get through JSON into Prefect's database

Place = tuple[str | int, ...]
"""Keys and positions from the top of the file down to a value."""
Problems = dict[tuple[int, str], str]
"""What is wrong, by the line and by what the author would call the place."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A file that is being read, and what has come up: what is wrong, and what register does otherwise."""

    variables: Mapping[str, str]
    document: Any
    problems: Problems
    otherwise: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def find(self, place: Place) -> tuple[int, str, Any]:
        """The line of a place, how the author would name it from the entry on (`schedules[0].cron`), and its value."""
        value, line, parts = self.document, 1, []
        for part in place:
            lines = value.lines if isinstance(value, _Mapping | _List) else {}
            if part not in lines:
                break
            line, value = lines[part], value[part]
            parts.append(f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}")
        shown = parts[2:] if place[:1] == ("deployments",) and len(parts) > 2 else parts
        return line, "".join(shown).removeprefix(".") or "the file", value

    def problem(self, place: Place, text: str) -> None:
        """Note what is wrong at a place."""
        line, label, _ = self.find(place)
        told = self.problems.get((line, label))
        self.problems[line, label] = f"{told} and {text}" if told else text

    def report(self, place: Place, text: str) -> None:
        """Note what register does otherwise than a place says."""
        line, label, _ = self.find(place)
        self.otherwise.setdefault(f"{label} {text}", []).append(line)


def load(data: bytes, name: str) -> tuple[Any, Problems]:
    """The values of a file, with its aliases filled in, and what is wrong with single ones.

    Args:
        data: the file's content.
        name: the file's, for the message.

    Raises:
        PlatformError: it does not parse, or is too large; with line and column.
    """
    line, column, loader = 1, 1, None
    try:
        text = data.decode("utf-8-sig")
        loader = _Loader(text)
        document = loader.get_single_data()
        values, depth = _size(document, {})
        if values <= MAXIMUM_VALUES and depth <= MAXIMUM_DEPTH:
            return document, loader.problems
        why = f"it is nested deeper than {MAXIMUM_DEPTH}, or has more than {MAXIMUM_VALUES} values, aliases filled in"
    except yaml.MarkedYAMLError as error:
        why = ", ".join(filter(None, (error.context, error.problem)))
        if mark := error.problem_mark or error.context_mark:
            line, column = mark.line + 1, mark.column + 1
    except UnicodeDecodeError as error:
        (line, column), why = _end_of(data[: error.start].decode()), "it is not UTF-8"
    except yaml.reader.ReaderError as error:
        (line, column), why = _end_of(text[: error.position]), f"it can't have the character {error.character:#x} in it"
    except RecursionError:
        why = f"it is nested deeper than {MAXIMUM_DEPTH}"
    except (ValueError, OverflowError) as error:  # oversights of PyYAML's, such as "\UFFFFFFFF"
        why = str(error)
        if loader:
            line, column = loader.line + 1, loader.column + 1
    what = f"{name} line {line}, column {column} does not parse"
    raise PlatformError(what, why, "correct it and register again", file=name, line=line)


class _Mapping(dict[str, Any]):
    """A mapping of the file, with the lines of its keys."""

    lines: Mapping[str | int, int]


class _List(list[Any]):
    """A list of the file, with the lines of its items."""

    lines: Mapping[str | int, int]


class _Loader(yaml.SafeLoader):
    """Takes from YAML what JSON has too; keys stay as they are written, and so do dates."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: Problems = {}
        self.flat: set[yaml.Node] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Fill in merge keys, once; each key counts once then, or merges of merges would grow without end."""
        if node in self.flat:
            return
        self.flat.add(node)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in keys and key.value != "<<":
                self.problems[key.start_mark.line + 1, repr(key.value)] = "is given twice"
            if UNFIT.search(key.value):
                self.problems[key.start_mark.line + 1, repr(key.value)] = "has characters that Prefect does not take"
            keys.add(key.value)
        super().flatten_mapping(node)
        node.value = list({key.value: (key, value) for key, value in node.value}.values())

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value; one that Prefect's API can't take is a problem."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str) and UNFIT.search(value):
                raise ValueError("it has characters that Prefect does not take")
            if isinstance(value, int | float) and not abs(value) < 2**63:
                raise ValueError("it is no number that Prefect takes")
        except (ValueError, LookupError) as error:
            self.problems[node.start_mark.line + 1, reprlib.repr(node.value)] = f"can't be read: {error}"
            return None
        return value

    def construct_map(self, node: yaml.Node) -> Iterator[_Mapping]:
        """Make a mapping; in two steps, as PyYAML wants it, because it may hold itself."""
        mapping = _Mapping()
        yield mapping
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="this is no mapping", problem_mark=node.start_mark)
        self.flatten_mapping(node)
        mapping.lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
        mapping.update((key.value, self.construct_object(value)) for key, value in node.value)

    def construct_seq(self, node: yaml.Node) -> Iterator[_List]:
        """Make a list, in two steps too."""
        items = _List()
        yield items
        if not isinstance(node, yaml.SequenceNode):
            raise yaml.MarkedYAMLError(problem="this is no list", problem_mark=node.start_mark)
        items.extend(self.construct_sequence(node))
        items.lines = {position: item.start_mark.line + 1 for position, item in enumerate(node.value)}


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_constructors = {
    **{_TAG + kind: yaml.SafeLoader.yaml_constructors[_TAG + kind] for kind in ("null", "bool", "int", "float", "str")},
    _TAG + "map": _Loader.construct_map,
    _TAG + "seq": _Loader.construct_seq,
    None: yaml.SafeLoader.construct_undefined,
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _end_of(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _size(value: Any, sizes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values there are, aliases filled in, and how deep; too many when one holds itself."""
    if not isinstance(value, dict | list):
        return 1, 0
    if id(value) not in sizes:
        sizes[id(value)] = MAXIMUM_VALUES + 1, MAXIMUM_DEPTH + 1
        inner = [_size(item, sizes) for item in (value.values() if isinstance(value, dict) else value)]
        sizes[id(value)] = 1 + sum(many for many, _ in inner), 1 + max((deep for _, deep in inner), default=0)
    return sizes[id(value)]


def number(value: Any) -> Any:
    """Refuse true and false where a number is meant; to Python they are numbers.

    Raises:
        ValueError: it is one of them.
    """
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value
