"""Reads the `prefect.yaml` of a workflow folder: what it says of deployments, and what of it register does otherwise.

The story: `yaml_text` makes plain values of the text and remembers their lines; `_without_otherwise` and `_filled` take
away what register does itself and fill in what `prefect deploy` would; `prefect_schema` checks what is left,
`schedules` the schedules in it, and `_declared` turns an entry into a `Declared`. All problems of the file end up in
one error.

What is read, and how, follows the pinned Prefect (its modules `prefect.cli.deploy` and `prefect.client.schemas`)
without importing it, which takes seconds. Source: https://docs.prefect.io/v3/how-to-guides/deployments/prefect-yaml
"""

import dataclasses
import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from environments.errors import PlatformError
from register_action import prefect_schema, schedules, yaml_text
from register_action.prefect_schema import JOB_VARIABLES, OTHERWISE, Entry
from register_action.schedules import Schedule
from register_action.yaml_text import UNFIT, Place, Reading

FILE = "prefect.yaml"
PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
LEFT_OUT = object()


@dataclasses.dataclass(frozen=True)
class Declared:
    """One entry under `deployments:`; None where the file does not say.

    The entrypoint is a file relative to the folder and a function, `flow.py:my_flow`. Schedules are as Prefect's API
    wants them in a `DeploymentScheduleCreate`; `active`, `slug` and `replaces` are in them when the file has them.
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
    work_queue_name: str | None = None


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
    reading = Reading(variables, *yaml_text.load(data, FILE))
    deployments = tuple(_deployments(reading))
    if reading.problems:
        listed = [f"{FILE}:{line}: {label} {text}" for (line, label), text in sorted(reading.problems.items())]
        what, todo = f"{len(listed)} problem(s) in {FILE}", "correct the file and register again"
        raise PlatformError(what, "\n".join(listed), todo, file=FILE, line=min(reading.problems)[0])
    for text, lines in reading.otherwise.items():
        numbers = ", ".join(map(str, dict.fromkeys(lines)))
        ignored.append(f"{FILE}: {text} ({'lines' if ',' in numbers else 'line'} {numbers})")
    return Project(deployments, tuple(ignored))


def _deployments(reading: Reading) -> Iterator[Declared]:
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


def _declared(reading: Reading, place: Place, entry: Any) -> Declared | None:
    """One deployment; None for one that is wrong, or says nothing, as `prefect init` writes it."""
    if not isinstance(entry, dict):
        reading.problem(place, f"is {reprlib.repr(entry)}, should be a mapping")
        return None
    said = _filled(reading, place, _without_otherwise(reading, place, entry))
    if _is_empty(said):
        return None
    fields = {field.name for field in dataclasses.fields(Entry)}
    said = {key: value for key, value in said.items() if key not in fields or value not in (None, "", [], {})}
    valid = prefect_schema.check(reading, place, said)
    if valid is None:
        return None
    scheduled: list[tuple[Place, Schedule]]
    scheduled = [((*place, "schedules", position), schedule) for position, schedule in enumerate(valid.schedules)]
    scheduled += [((*place, "schedule"), valid.schedule)] if valid.schedule else []
    limits, variables = valid.concurrency_limit, valid.work_pool.job_variables or {}
    return Declared(
        name=valid.name,
        entrypoint=valid.entrypoint,
        description=valid.description,
        tags=valid.tags,
        parameters=valid.parameters,
        schedules=schedules.for_api(reading, scheduled),
        paused=valid.paused,
        concurrency_limit=limits.limit,
        # A grace period needs a strategy; this is Prefect's own.
        collision_strategy=limits.collision_strategy or ("ENQUEUE" if limits.grace_period_seconds else None),
        grace_period_seconds=limits.grace_period_seconds,
        job_variables={key: value for key, value in variables.items() if value is not None},
        enforce_parameter_schema=valid.enforce_parameter_schema,
        line=reading.find(place)[0],
        work_queue_name=valid.work_pool.work_queue_name,
    )


def _without_otherwise(reading: Reading, place: Place, said: dict[str, Any]) -> dict[str, Any]:
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


def _filled(reading: Reading, place: Place, value: Any) -> Any:
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
            reading.problem(
                place,
                f"names {match[0]}, an environment variable that is not set, is no text, or is called like a secret",
            )
        return text or ""

    return PLACEHOLDER.sub(variable, value)


def _stays(place: Place, name: str) -> bool:
    """Whether the agent fills a placeholder in for each run (`prefect.workers.base`)."""
    of_job = place[2:4] == ("work_pool", "job_variables")
    return name.startswith("ctx.") or (of_job and name.startswith(("prefect.variables.", "prefect.blocks.")))


def _may_be_left_out(place: Place) -> bool:
    inner = place[2:]
    return inner[0] in ("description", "tags", "parameters", "work_pool") or "parameters" in inner[1:3]
