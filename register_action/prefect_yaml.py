"""Reads the `prefect.yaml` of a workflow folder: what it says of deployments, and what of it register does otherwise.

The story: `_load` makes plain values of the text and remembers their lines; `_without_otherwise` and `_filled` take
away what register does itself and fill in what `prefect deploy` would; the dataclasses below are the schema that is
left, and `_declared` turns an entry into a `Declared`. All problems of the file end up in one error.

What is read, and how, follows the pinned Prefect (its modules `prefect.cli.deploy` and `prefect.client.schemas`)
without importing it, which takes seconds. Source: https://docs.prefect.io/v3/how-to-guides/deployments/prefect-yaml
"""

import dataclasses
import datetime
import difflib
import functools
import importlib.machinery
import importlib.metadata
import json
import posixpath
import re
import reprlib
import types
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from environments.errors import PlatformError
from environments.settings import EXECUTION_ENVIRONMENTS

FILE = "prefect.yaml"
OTHERWISE = {
    "build": "is not run; register builds the image",
    "push": "is not run; register pushes the image to ECR",
    "pull": "is not run; the code is in the image",
    "path": "is not used; the code is in the image",
    "version": "is not used; register sets the version",
    "version_type": "is not used; register sets the version",
    "triggers": "are not made; register makes no automations",
    "sla": "is not made; register makes no SLAs",
    "work_pool.name": "is not used; runs go to the environment's project",
    "work_pool.work_queue_name": "is not used; runs go to the default queue of the environment's project",
    "work_pool.job_variables.image": "is not used; the image is the one that register builds",
    "work_pool.job_variables.family": "is not used; register names the family after the flow",
    "work_pool.job_variables.command": "is not used; the command is Prefect's own",
}
"""What register does itself, by its place in an entry; the first three may be at the top of the file too."""
MAXIMUM_VALUES = 100_000
MAXIMUM_DEPTH = 50
MAXIMUM_RRULE = 6400  # Prefect's is 6500, with the start that it adds
RRULE_START = datetime.datetime(2020, 1, 1)
"""Where Prefect begins to count (`prefect._internal.schemas.validators`)."""
PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
UNFIT = re.compile("[\0\ud800-\udfff]")  # text with these does not get through JSON into Prefect's database
LEFT_OUT = object()

Place = tuple[str | int, ...]
"""Keys and positions from the top of the file down to a value."""
Problems = dict[tuple[int, str], str]
"""What is wrong, by the line and by what the author would call the place."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """One entry under `deployments:`; None where the file does not say.

    The entrypoint is a file relative to the folder and a function, `flow.py:my_flow`. Schedules are as Prefect's API
    wants them in a `DeploymentScheduleCreate`; `slug` and `replaces` are in them when the file has them.
    """

    name: str
    entrypoint: str
    description: str | None
    tags: tuple[str, ...]
    parameters: dict[str, Any]
    schedules: tuple[dict[str, Any], ...]
    paused: bool | None
    concurrency_limit: int | None
    collision_strategy: str | None
    grace_period_seconds: int | None
    job_variables: dict[str, Any]
    enforce_parameter_schema: bool | None
    line: int


@dataclasses.dataclass(frozen=True)
class Project:
    """A `prefect.yaml`: its deployments, and one sentence for each thing that it says and register does otherwise."""

    deployments: tuple[Declared, ...]
    ignored: tuple[str, ...]


def read(folder: Path, variables: Mapping[str, str]) -> Project | None:
    """Read and check the `prefect.yaml` of a workflow.

    Args:
        folder: the workflow.
        variables: environment variables that `{{ $NAME }}` may name. What is filled in goes to Prefect as plain text,
            so keys must not be among them.

    Returns:
        What the file says; None when there is none.

    Raises:
        PlatformError: the file can't be read, does not parse, or has wrong values, which are all listed.
    """
    ignored = []
    try:
        if (folder / "prefect.yml").is_file():
            ignored = [f"prefect.yml is not read; Prefect's name for it is {FILE}"]
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return Project((), tuple(ignored)) if ignored else None
    except OSError as error:
        raise PlatformError(f"{FILE} can't be read", str(error.strerror), "correct it", file=FILE, line=1) from error
    reading = _Reading(variables, *_load(data))
    deployments = tuple(_deployments(reading))
    if reading.problems:
        listed = [f"{FILE}:{line}: {label} {text}" for (line, label), text in sorted(reading.problems.items())]
        what, todo = f"{len(listed)} problem(s) in {FILE}", "correct the file and register again"
        raise PlatformError(what, "\n".join(listed), todo, file=FILE, line=min(reading.problems)[0])
    for text, lines in reading.otherwise.items():
        numbers = ", ".join(map(str, dict.fromkeys(lines)))
        ignored.append(f"{FILE}: {text} ({'lines' if ',' in numbers else 'line'} {numbers})")
    return Project(deployments, tuple(ignored))


# From text to values.


class _Mapping(dict[str, Any]):
    """A mapping of the file, with the lines of its keys."""

    lines: Mapping[str | int, int]


class _List(list[Any]):
    """A list of the file, with the lines of its items."""

    lines: Mapping[str | int, int]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
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


def _load(data: bytes) -> tuple[Any, Problems]:
    """The file's values, with its aliases filled in, and what is wrong with single ones."""
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
        mark, why = error.problem_mark or error.context_mark, ", ".join(filter(None, (error.context, error.problem)))
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
    what = f"{FILE} line {line}, column {column} does not parse"
    raise PlatformError(what, why, "correct it and register again", file=FILE, line=line)


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


@dataclasses.dataclass(frozen=True)
class _Reading:
    """A file that is being read, and what has come up: what is wrong, and what register does otherwise."""

    variables: Mapping[str, str]
    document: Any
    problems: Problems
    otherwise: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def find(self, place: Place) -> tuple[int, str, Any]:
        """The line of a place, how the author would name it from the entry on (`schedules[0].cron`), and its value."""
        value, line, parts = self.document, 1, []
        for part in place:
            if not isinstance(value, _Mapping | _List) or part not in value.lines:
                break
            line, value = value.lines[part], value[part]  # type: ignore[index]
            parts.append(f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}")
        shown = parts[2:] if place[:1] == ("deployments",) and len(parts) > 2 else parts
        return line, "".join(shown).removeprefix(".") or "the file", value

    def problem(self, place: Place, text: str) -> None:
        line, label, _ = self.find(place)
        told = self.problems.get((line, label))
        self.problems[line, label] = f"{told} and {text}" if told else text

    def report(self, place: Place, text: str) -> None:
        line, label, _ = self.find(place)
        self.otherwise.setdefault(f"{label} {text}", []).append(line)


# What `prefect deploy` does with values before it reads them.


def _without_otherwise(reading: _Reading, place: Place, said: dict[str, Any]) -> dict[str, Any]:
    """A mapping without what register does otherwise, which is reported unless it is empty."""
    kept = {}
    for key, value in said.items():
        below = (*place, key)
        why = OTHERWISE.get(reading.find(below)[1])
        # Prefect takes `env.NAME` for the key NAME of env.
        if not why and below[2:-1] == ("work_pool", "job_variables") and key.partition(".")[0] not in JOB_VARIABLES:
            why = f"is not used; of the job variables a workflow chooses {', '.join(JOB_VARIABLES)}"
        if not why:
            kept[key] = _without_otherwise(reading, below, value) if isinstance(value, dict) else value
        elif not _is_empty(value):
            reading.report(below, why)
    return kept


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == ""


def _filled(reading: _Reading, place: Place, value: Any) -> Any:
    """A value with its placeholders filled in; LEFT_OUT for one that only `prefect deploy` could fill in."""
    if isinstance(value, dict):
        mapping = {key: _filled(reading, (*place, key), item) for key, item in value.items()}
        return {key: item for key, item in mapping.items() if item is not LEFT_OUT}
    if isinstance(value, list):
        items = [_filled(reading, (*place, position), item) for position, item in enumerate(value)]
        return [item for item in items if item is not LEFT_OUT]
    if not isinstance(value, str):
        return value
    later = [name for name in PLACEHOLDER.findall(value) if not name.startswith("$") and not _stays(place, name)]
    named = ", ".join(f"{{{{ {name} }}}}" for name in later)
    if later and _may_be_left_out(place):
        reading.report(place, f"is left out; register does not fill in {named}")
        return LEFT_OUT
    if later:
        reading.problem(place, f"can't have {named}; register fills in {{{{ $NAME }}}}, an environment variable")

    def variable(match: re.Match[str]) -> str:
        if not match[1].startswith("$"):
            return match[0]
        text = reading.variables.get(match[1][1:])
        if text is None or UNFIT.search(text):
            reading.problem(place, f"names {match[0]}, an environment variable that is not set, or is no text")
        return text or ""

    return PLACEHOLDER.sub(variable, value)


def _stays(place: Place, name: str) -> bool:
    """Whether the agent fills a placeholder in for each run (`prefect.workers.base`)."""
    of_job = place[2:4] == ("work_pool", "job_variables")
    return name.startswith("ctx.") or (of_job and name.startswith(("prefect.variables.", "prefect.blocks.")))


def _may_be_left_out(place: Place) -> bool:
    inner = place[2:]
    return inner[0] in ("description", "tags", "parameters", "work_pool") or "parameters" in inner[1:3]


# The schema of what is left.


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which is a number to Python
        raise ValueError("should be a number")
    return value


def _name(text: str) -> str:
    if re.search("[/%&<>]", text):
        raise ValueError("should be without / % & < and >")
    return text


def _entrypoint(text: str) -> str:
    name, _, function = text.rpartition(":")
    file = posixpath.normpath(name.replace("\\", "/"))
    if not file.endswith(".py") or not all(part.isidentifier() for part in function.split(".")):
        raise ValueError("should be <file>.py:<function>")
    if file.startswith(("/", "../")):
        raise ValueError("should be in a file of the workflow's folder")
    return f"{file}:{function}"


def _cron(text: str) -> str:
    try:
        # Prefect does without H and R, which croniter has.
        if {"h", "r"} & {*text.lower().split()}:
            raise ValueError("H and R are not supported")
        _croniter()(text).get_next()
    except Exception as error:  # also when it never comes due
        raise ValueError(f"should be a cron expression: {str(error).rstrip('.')}") from error
    return text


@functools.cache
def _croniter() -> Any:
    """The library by which Prefect reads cron: from its file, since importing a part of Prefect imports all of it."""
    file = importlib.metadata.distribution("prefect").locate_file("prefect/_vendor/croniter/croniter.py")
    loader = importlib.machinery.SourceFileLoader("croniter", str(file))
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    return module.croniter


def _rrule(text: str) -> str:
    """Check a recurrence rule and give it the start that Prefect gives one without, so that its answer is the same."""
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    upper = text.upper()
    try:
        if "DTSTART" not in upper and re.search(r"UNTIL=\w+Z", upper):
            raise ValueError("UNTIL with a Z needs a DTSTART with one")
        rrulestr(text, dtstart=RRULE_START)
        # Prefect would look for the next run for ever.
        if any(int(number) < 1 for number in re.findall(r"INTERVAL=([+-]?\d+)", upper)):
            raise ValueError("INTERVAL must be 1 or more")
        if len(text) > MAXIMUM_RRULE:
            raise ValueError(f"it is longer than {MAXIMUM_RRULE} characters")
    except Exception as error:  # dateutil's errors are of many kinds
        raise ValueError(f"should be a recurrence rule: {error}") from error
    # Prefect lets these start when they are registered, or counting from 2020 would take too long.
    frequent = re.search("FREQ=(SECONDLY|MINUTELY)", upper) and "COUNT" not in upper
    return text if frequent or "DTSTART" in upper else f"DTSTART:{RRULE_START:%Y%m%dT%H%M%S}\n{text}"


def _time_zone(text: str) -> str:
    if text not in _time_zones():
        raise ValueError(f"should be a time zone{_did_you_mean(text, _time_zones())}")
    return text


@functools.cache
def _time_zones() -> list[str]:
    # Two that some machines have and Prefect refuses.
    return sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})


def _json_rrule(schedule: Any) -> Any:
    """A schedule of which the rrule is JSON that holds rule and time zone, which Prefect takes too, as a plain one."""
    try:
        inner = json.loads(schedule["rrule"])
        return {**inner, **schedule, "rrule": inner["rrule"]}
    except (TypeError, LookupError, ValueError, RecursionError):
        return schedule


def _capacity_provider(text: str) -> str:
    known = sorted({choice["capacity_provider"] for choice in EXECUTION_ENVIRONMENTS.values()})
    if text not in known:
        raise ValueError(f"should be one of {', '.join(known)}")
    return text


_Whole = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_number)]
_Seconds = Annotated[datetime.timedelta, Field(gt=datetime.timedelta()), BeforeValidator(_number)]
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _Schedule:
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    interval: _Seconds | None = None
    rrule: Annotated[str, AfterValidator(_rrule)] | None = None
    timezone: Annotated[str, AfterValidator(_time_zone)] | None = None
    anchor_date: datetime.datetime | None = None
    day_or: bool | None = None
    active: bool | None = None
    parameters: dict[str, Any] | None = None
    slug: str | None = None
    replaces: str | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in ("cron", "interval", "rrule") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"should have one of cron, interval and rrule, has {' and '.join(given) or 'none'}")


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _Limits:
    limit: _Whole | None = None
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] | None = None
    grace_period_seconds: Annotated[int, Field(ge=60, le=86400), BeforeValidator(_number)] | None = None


@with_config(ConfigDict(extra="allow"))
class _JobVariables(TypedDict, total=False):
    """What a workflow may choose of the variables in the project's base job template."""

    cpu: _Whole | None
    memory: _Whole | None
    env: dict[str, str | None] | None
    labels: dict[str, str] | None
    name: str | None
    capacity_provider: Annotated[str, AfterValidator(_capacity_provider)] | None
    compatibility: Literal["FARGATE", "EC2"] | None


JOB_VARIABLES = tuple(_JobVariables.__annotations__)


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _WorkPool:
    job_variables: _JobVariables | None = None


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _Entry:
    name: Annotated[str, AfterValidator(_name)]
    entrypoint: Annotated[str, AfterValidator(_entrypoint)]
    flow_name: Any = None  # Prefect does not use it either
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    enforce_parameter_schema: bool | None = None
    paused: bool | None = None
    schedule: Annotated[_Schedule, BeforeValidator(_json_rrule)] | None = None
    schedules: tuple[Annotated[_Schedule, BeforeValidator(_json_rrule)], ...] = ()
    concurrency_limit: Annotated[
        _Limits, BeforeValidator(lambda limit: limit if isinstance(limit, dict) else {"limit": limit})
    ] = _Limits()
    work_pool: _WorkPool = _WorkPool()

    def __post_init__(self) -> None:
        if self.schedule and self.schedules:
            raise ValueError("should have schedule or schedules, has both")


_SCHEMAS: dict[str, Any] = {
    "": _Entry,
    "schedule": _Schedule,
    "schedules": _Schedule,
    "concurrency_limit": _Limits,
    "work_pool": _WorkPool,
}


@functools.cache
def _schema() -> TypeAdapter[_Entry]:
    return TypeAdapter(_Entry)


_KINDS = {
    "string": "text",
    "dict": "a mapping",
    "dataclass": "a mapping",
    "tuple": "a list",
    "int": "a whole number",
    "bool": "true or false",
    "datetime": "a date and time such as 2026-01-31T06:00:00Z",
    "time": "a number of seconds, or a time such as PT1H or 01:00:00",
}


def _report_findings(reading: _Reading, place: Place, error: ValidationError) -> None:
    """Tell what pydantic found in an entry, where nothing is told yet."""
    told = set(reading.problems)
    for finding in error.errors(include_url=False):
        missing = finding["type"] == "missing"
        at = (*place, *(finding["loc"][:-1] if missing else finding["loc"]))
        # What the file has, not what was filled in: that may be meant for few eyes.
        line, label, written = reading.find(at)
        if (line, label) not in told:
            reading.problem(at, _in_words(finding, reprlib.repr(written)))


def _in_words(finding: Any, written: str) -> str:
    """What pydantic found wrong with what the author has written, in our words."""
    *above, last = finding["loc"] or ("",)
    section = str(above[0]) if above else ""
    if finding["type"] == "missing":
        return f"has no {last}"
    if finding["type"] == "unexpected_keyword_argument":
        known = [field.name for field in dataclasses.fields(_SCHEMAS[section])]
        known += [name for part, _, name in (key.rpartition(".") for key in OTHERWISE) if part == section]
        return "is no key of Prefect's" + (_did_you_mean(str(last), known) or f"; known: {', '.join(sorted(known))}")
    text = str(finding["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind := _KINDS.get(finding["type"].partition("_")[0]):
        text = f"should be {kind}"
    return text if text.startswith("should have") else f"is {written}, {text}"


def _did_you_mean(text: str, known: list[str]) -> str:
    close = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


# From values to deployments.


def _deployments(reading: _Reading) -> Iterator[Declared]:
    document = reading.document
    if document is None:
        return
    if not isinstance(document, dict):
        reading.problem((), "should hold a mapping with `deployments:`")
        return
    _without_otherwise(reading, (), {key: document[key] for key in ("build", "push", "pull") if key in document})
    # Other keys may be there, for anchors; but a slip must not hide all deployments.
    if "deployments" not in document and (slip := difflib.get_close_matches("deployments", document, 1, 0.85)):
        reading.problem((slip[0],), "is no key of Prefect's; did you mean deployments?")
    entries = document.get("deployments") or []
    if not isinstance(entries, list):
        reading.problem(("deployments",), f"is {reprlib.repr(entries)}, should be a list")
        return
    seen: dict[tuple[str, str], int] = {}
    for position, entry in enumerate(entries):
        place: Place = ("deployments", position)
        if declared := _declared(reading, place, entry):
            if line := seen.get((declared.name, declared.entrypoint)):
                reading.problem((*place, "name"), f"and entrypoint are those of the deployment in line {line}")
            seen[declared.name, declared.entrypoint] = declared.line
            yield declared


def _declared(reading: _Reading, place: Place, entry: Any) -> Declared | None:
    """One deployment; None for one that is wrong, or says nothing, as `prefect init` writes it."""
    if not isinstance(entry, dict):
        reading.problem(place, f"is {reprlib.repr(entry)}, should be a mapping")
        return None
    said = _filled(reading, place, _without_otherwise(reading, place, entry))
    if _is_empty(said):
        return None
    fields = {field.name for field in dataclasses.fields(_Entry)}
    said = {key: value for key, value in said.items() if key not in fields or value not in (None, "", [], {})}
    try:
        valid = _schema().validate_python(said)
    except ValidationError as error:
        _report_findings(reading, place, error)
        return None
    limits, variables = valid.concurrency_limit, valid.work_pool.job_variables or {}
    return Declared(
        name=valid.name,
        entrypoint=valid.entrypoint,
        description=valid.description,
        tags=valid.tags,
        parameters=valid.parameters,
        schedules=_schedules(reading, place, valid),
        paused=valid.paused,
        concurrency_limit=limits.limit,
        # A grace period needs a strategy; this is Prefect's own.
        collision_strategy=limits.collision_strategy or ("ENQUEUE" if limits.grace_period_seconds else None),
        grace_period_seconds=limits.grace_period_seconds,
        job_variables={key: value for key, value in variables.items() if value is not None},
        enforce_parameter_schema=valid.enforce_parameter_schema,
        line=reading.find(place)[0],
    )


def _schedules(reading: _Reading, place: Place, entry: _Entry) -> tuple[dict[str, Any], ...]:
    found: list[tuple[Place, _Schedule]]
    found = [((*place, "schedules", position), schedule) for position, schedule in enumerate(entry.schedules)]
    if entry.schedule:
        found = [((*place, "schedule"), entry.schedule)]
    for key in ("slug", "replaces"):
        names = set()
        for at, schedule in found:
            if (name := getattr(schedule, key)) in names:
                reading.problem((*at, key), f"is {name!r} in another schedule too")
            names |= {name} - {None}
    return tuple(_for_api(reading, at, schedule) for at, schedule in found)


def _for_api(reading: _Reading, place: Place, schedule: _Schedule) -> dict[str, Any]:
    """A schedule as Prefect's API wants it."""
    rule: dict[str, Any] = {"timezone": schedule.timezone} if schedule.timezone else {}
    for key, kind in (("day_or", "cron"), ("anchor_date", "interval")):
        if getattr(schedule, key) is not None and getattr(schedule, kind) is None:
            reading.report((*place, key), f"is not used; it goes with {kind}")
    if schedule.cron is not None:
        rule |= {"cron": schedule.cron, "day_or": schedule.day_or is not False}
    elif schedule.interval is not None:
        rule["interval"] = schedule.interval.total_seconds()
        if anchor := schedule.anchor_date:
            # Prefect takes a time without a zone for UTC, which it writes with a Z.
            text = anchor.replace(tzinfo=anchor.tzinfo or datetime.UTC).isoformat()
            rule["anchor_date"] = text.replace("+00:00", "Z")
    else:
        rule["rrule"] = schedule.rrule
    return {
        "schedule": rule,
        "active": schedule.active is not False,
        "parameters": schedule.parameters or {},
        **{key: name for key in ("slug", "replaces") if (name := getattr(schedule, key)) is not None},
    }
