"""What an entry under `deployments:` in a `prefect.yaml` may hold, and in our words what is wrong with one.

The keys are those of the pinned Prefect (its module `prefect.cli.deploy`), which is not imported: that takes seconds.
Source: https://docs.prefect.io/v3/how-to-guides/deployments/prefect-yaml
"""

import dataclasses
import difflib
import functools
import posixpath
import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from environments.settings import EXECUTION_ENVIRONMENTS, MOST_RESTARTS
from register_action.schedules import Schedule, Scheduled
from register_action.yaml_text import Place, Reading, number

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
    "work_pool.job_variables.image": "is not used; the image is the one that register builds",
    "work_pool.job_variables.family": "is not used; register names the family after the deployment",
    "work_pool.job_variables.command": "is not used; the command is Prefect's own",
}
"""What register does itself, by its place in an entry; the first three may be at the top of the file too."""


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


def _capacity_provider(text: str) -> str:
    known = sorted({choice["capacity_provider"] for choice in EXECUTION_ENVIRONMENTS.values()})
    if text not in known:
        raise ValueError(f"should be one of {', '.join(known)}")
    return text


def _user(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]*(:[1-9][0-9]*)?", text):
        raise ValueError("should be the id of a user, or <user>:<group>, and not root's, which is 0")
    return text


_Whole = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(number)]
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _Limits:
    limit: _Whole | None = None
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] | None = None
    grace_period_seconds: Annotated[int, Field(ge=60, le=86400), BeforeValidator(number)] | None = None


@with_config(ConfigDict(extra="allow"))
class _JobVariables(TypedDict, total=False):
    """What a workflow may choose of the variables in the project's base job template."""

    cpu: _Whole | None
    memory: _Whole | None
    env: dict[str, str | None] | None
    labels: dict[str, str] | None
    capacity_provider: Annotated[str, AfterValidator(_capacity_provider)] | None
    compatibility: Literal["FARGATE", "EC2"] | None
    restarts: Annotated[int, Field(ge=0, le=MOST_RESTARTS), BeforeValidator(number)] | None
    user: Annotated[str, AfterValidator(_user)] | None
    readonly_root_filesystem: bool | None


JOB_VARIABLES = tuple(_JobVariables.__annotations__)


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class _WorkPool:
    work_queue_name: Annotated[str, AfterValidator(_name)] | None = None
    job_variables: _JobVariables | None = None


@with_config(_STRICT)
@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry, checked."""

    name: Annotated[str, AfterValidator(_name)]
    entrypoint: Annotated[str, AfterValidator(_entrypoint)]
    flow_name: Any = None  # Prefect does not use it either
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    enforce_parameter_schema: bool | None = None
    paused: bool | None = None
    schedule: Scheduled | None = None
    schedules: tuple[Scheduled, ...] = ()
    concurrency_limit: Annotated[
        _Limits, BeforeValidator(lambda limit: limit if isinstance(limit, dict) else {"limit": limit})
    ] = _Limits()
    work_pool: _WorkPool = _WorkPool()

    def __post_init__(self) -> None:
        if self.schedule and self.schedules:
            raise ValueError("should have schedule or schedules, has both")


_SCHEMAS: dict[str, Any] = {
    "": Entry,
    "schedule": Schedule,
    "schedules": Schedule,
    "concurrency_limit": _Limits,
    "work_pool": _WorkPool,
}
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


def check(reading: Reading, place: Place, said: dict[str, Any]) -> Entry | None:
    """Check an entry.

    Args:
        reading: where problems are noted.
        place: the entry's in the file.
        said: the entry, without what register does otherwise.

    Returns:
        The entry; None for one that is wrong.
    """
    try:
        return _schema().validate_python(said)
    except ValidationError as error:
        _report_findings(reading, place, error)
        return None


@functools.cache
def _schema() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)


def _report_findings(reading: Reading, place: Place, error: ValidationError) -> None:
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
        close = difflib.get_close_matches(str(last), known, n=1)
        return "is no key of Prefect's; " + (
            f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
        )
    text = str(finding["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind := _KINDS.get(finding["type"].partition("_")[0]):
        text = f"should be {kind}"
    return text if text.startswith("should have") else f"is {written}, {text}"
