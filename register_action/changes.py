"""What has to happen to a workflow's deployments, worked out without changing any of them."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from environments.errors import PlatformError
from environments.names import task_family
from environments.settings import Environment
from infra.images import Image
from register_action import workflow_image
from register_action.overview import schedule_text
from register_action.parameters import fitted, unknown
from register_action.prefect_yaml import Declared
from register_action.registered import (
    DECLARED,
    DESCRIBED,
    ORIGIN,
    PREVIEW,
    REMOVED,
    WORKFLOW,
    Project,
    Registered,
    read_project,
)
from register_action.workflow import Entry, Workflow, job_variables
from register_action.workflow_image import SET_DIRECTORY, DescribedFlow, known

ADDED_START = re.compile(r"^DTSTART:\w+\n")
"""The moment of registration, which Prefect puts before a rule by the minute or second."""
WORDS = {"create": "created", "update": "updated", "keep": "unchanged", "pause": "paused", "delete": "deleted"}


@dataclasses.dataclass(frozen=True)
class Change:
    """What happens to a deployment: `create`, `update`, `keep`, `pause` or `delete`.

    Attributes:
        action: one of these.
        flow: name of its flow.
        name: the deployment's, behind the flow's.
        payload: what Prefect is told of it, in the words of its REST API; empty where it is told nothing.
        existing: the deployment as it was.
        identifier: Prefect's id of it, once it has one.
    """

    action: str
    flow: str
    name: str
    payload: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    existing: Registered | None = dataclasses.field(default=None, repr=False)
    identifier: str = ""

    @property
    def full_name(self) -> str:
        """Prefect's name for it: `<flow>/<deployment>`."""
        return f"{self.flow}/{self.name}"


def project_of(environment: Environment, workflow: Workflow) -> Project:
    """The environment's project, for a workflow that may be registered there.

    Raises:
        PlatformError: as `registered.read_project` and `check_owner`.
    """
    flows = [flow.name for flow in workflow.flows if flow.name]
    project = read_project(environment, workflow.name, flows)
    check_owner(environment, workflow, project, set(flows))
    return project


def check_owner(environment: Environment, workflow: Workflow, project: Project, flows: set[str]) -> None:
    """Make sure that nothing of another workflow would be overwritten.

    Args:
        environment: whose project.
        workflow: what is to be registered.
        project: what is there.
        flows: the names of its flows, as far as they are known.

    Raises:
        PlatformError: a deployment of that name, or the workflow's name, belongs to something else.
    """
    names = {entry.name for entry in workflow.entries}
    for each in project.existing:
        if each.label(WORKFLOW) == workflow.name:
            if workflow.source.origin and each.label(ORIGIN) not in ("", workflow.source.origin):
                raise PlatformError(
                    f"environment {environment.name} has another workflow {workflow.name}",
                    f"it was registered from {each.label(ORIGIN)}, this is {workflow.source.origin}",
                    "give this one another name with --name, or take the other one back with invoke unregister",
                )
            if each.deployment.name in names and each.flow in flows and each.preview != workflow.preview:
                raise PlatformError(
                    f"{each.name} is taken",
                    f"it is a preview of branch {each.preview}" if each.preview else "it is no preview",
                    "rename the branch, or the deployment in prefect.yaml",
                )
        elif each.deployment.name in names and each.flow in flows:
            raise PlatformError(
                f"{each.name} belongs to another workflow",
                f"{each.label(WORKFLOW) or 'somebody'} has a flow {each.flow} in environment {environment.name}",
                f'give this flow another name: @flow(name="...") in {workflow.name}',
            )


def plan(
    environment: Environment,
    workflow: Workflow,
    project: Project,
    image: Image,
    flows: list[DescribedFlow],
    prune: bool,
) -> list[Change]:
    """What has to happen to the workflow's deployments.

    Args:
        environment: whose project.
        workflow: what is wanted.
        project: what is there.
        image: the workflow's image in ECR; deployments name it by digest.
        flows: what the image holds.
        prune: delete deployments of flows that are gone, not only pause them.

    Raises:
        PlatformError: parameters don't fit their flow, or a flow's name is another workflow's.
    """
    if new := {flow.name for flow in flows} - {flow.name for flow in workflow.flows}:
        # Names that are made when the module is imported are known only now.
        project = read_project(environment, workflow.name, sorted(new))
        check_owner(environment, workflow, project, {flow.name for flow in flows})
    described = {flow.entrypoint: flow for flow in flows}
    mine = [
        each for each in project.existing if each.label(WORKFLOW) == workflow.name and each.preview == workflow.preview
    ]
    by_name = {each.name: each for each in mine}
    changes, problems = [], []
    for entry in workflow.entries:
        flow = described[entry.flow.entrypoint]
        existing = by_name.pop(f"{flow.name}/{entry.name}", None)
        told = payload(environment, workflow, entry, flow, image, existing)
        line = entry.declared.line if entry.declared else 0
        problems += [(line, problem) for problem in _parameter_problems(entry, flow, told)]
        action = "create" if existing is None else "update" if differs(told, existing) else "keep"
        identifier = str(existing.deployment.id) if existing else ""
        changes.append(Change(action, flow.name, entry.name, told, existing, identifier))
    if problems:
        line = next((line for line, _ in problems if line), 0)
        raise PlatformError(
            "parameters don't fit their flow",
            "\n".join(problem for _, problem in problems),
            "correct them and register again",
            file="prefect.yaml" if line else "",
            line=line,
        )
    if not workflow.choice.flows:
        changes += [_removal(each, delete=prune or bool(workflow.preview)) for each in by_name.values()]
    return changes


def describe(environment: Environment, workflow: Workflow, project: Project, image: Image) -> list[DescribedFlow]:
    """Describe the flows of a built image, and refuse what could not be registered before it is pushed.

    Raises:
        PlatformError: as `workflow_image.describe` and `plan`.
    """
    flows = workflow_image.describe(environment, workflow, project, image)
    plan(environment, workflow, project, image, flows, prune=False)
    return flows


def foresee(
    environment: Environment, workflow: Workflow, project: Project, image: Image, prune: bool
) -> list[Change] | None:
    """The plan as far as it can be known without building or importing anything; None when it can't."""
    flows = known(workflow, project, image)
    if any(flow.entrypoint not in flows for flow in workflow.flows):
        return None
    return plan(environment, workflow, project, image, [flows[flow.entrypoint] for flow in workflow.flows], prune)


def _removal(each: Registered, delete: bool) -> Change:
    """What happens to the deployment of a flow that is no longer in the folder; paused by hand it stays that way."""
    paused = each.deployment.paused or REMOVED in (each.deployment.tags or [])
    action = "delete" if delete else "keep" if paused else "pause"
    return Change(action, each.flow, each.deployment.name, {}, each, str(each.deployment.id))


def payload(
    environment: Environment,
    workflow: Workflow,
    entry: Entry,
    flow: DescribedFlow,
    image: Image,
    existing: Registered | None,
) -> dict[str, Any]:
    """What Prefect is told of a deployment.

    What no prefect.yaml says, and none has said before, stays as the Prefect page has it: parameters, schedules and
    concurrency limit. Source: https://docs.prefect.io/v3/api-ref/rest-api/server/deployments/create-deployment
    """
    declared = entry.declared
    labels = {
        WORKFLOW: workflow.name,
        ORIGIN: workflow.source.origin,
        PREVIEW: workflow.preview,
        DECLARED: "prefect.yaml" if declared else "",
        DESCRIBED: "prefect.yaml" if declared and declared.description else "",
    }
    kind = ["preview"] if workflow.preview else []
    tags = [environment.name, workflow.name, *kind, *(declared.tags if declared else ())]
    told: dict[str, Any] = {
        "name": entry.name,
        "version": workflow.source.commit or image.tag,
        "description": (declared and declared.description) or flow.description,
        "tags": list(dict.fromkeys(tags)),
        "labels": labels,
        "entrypoint": flow.entrypoint,
        "work_pool_name": environment.prefix,
        "pull_steps": [{SET_DIRECTORY: {"directory": flow.directory}}],
        "parameter_openapi_schema": flow.parameters,
        "enforce_parameter_schema": not declared or declared.enforce_parameter_schema is not False,
        "job_variables": {
            **job_variables(workflow, entry),
            "image": image.pinned,
            "family": task_family(environment.name, flow.name, entry.name),
        },
    }
    if declared or (existing and existing.label(DECLARED)):
        told |= _said(declared)
    elif existing:
        # Prefect takes parameters that it is not told for none.
        told["parameters"] = existing.deployment.parameters
    if "parameters" in told:
        told["parameters"] = fitted(flow.parameters, told["parameters"], {})
    told["schedules"] = _schedules(workflow, entry, flow, existing, told.get("parameters", {}))
    if declared and declared.paused is not None:
        told["paused"] = declared.paused
    elif existing and REMOVED in (existing.deployment.tags or []):
        told["paused"] = False
    return told


def _said(declared: Declared | None) -> dict[str, Any]:
    """What prefect.yaml says of parameters and concurrency; nothing when it no longer says it."""
    if declared is None:
        return {"parameters": {}, "concurrency_limit": None, "concurrency_options": None}
    strategy, grace = declared.collision_strategy, declared.grace_period_seconds
    return {
        "parameters": declared.parameters,
        "concurrency_limit": declared.concurrency_limit,
        "concurrency_options": {"collision_strategy": strategy, "grace_period_seconds": grace} if strategy else None,
    }


def _schedules(
    workflow: Workflow, entry: Entry, flow: DescribedFlow, existing: Registered | None, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """The schedules a deployment shall have; those it has stay as they are where nothing else is said of them."""

    def fit(schedules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**each, "parameters": fitted(flow.parameters, each["parameters"], parameters)} for each in schedules]

    there = fit(_schedules_of(existing)) if existing else []
    if workflow.preview:
        return []
    if entry.declared is None:
        return [] if existing and existing.label(DECLARED) else there
    # An interval without an anchor would begin anew each time it is told, so a schedule that stays is told as it is.
    wanted = fit(entry.declared.schedules)
    kept = [next((other for other in there if _alike(one, other)), one) for one in wanted]
    return there if len(there) == len(kept) and all(other in kept for other in there) else kept


def _schedules_of(existing: Registered) -> list[dict[str, Any]]:
    """The schedules a deployment has, as Prefect would be told of them."""
    return [
        {
            name: value
            for name, value in schedule.model_dump(mode="json").items()
            if name in ("schedule", "active", "max_scheduled_runs", "parameters", "slug") and value is not None
        }
        for schedule in existing.deployment.schedules
    ]


def _alike(wanted: dict[str, Any], there: dict[str, Any]) -> bool:
    """Whether a schedule is as it is wanted; any start will do where none is said, and no time zone means UTC."""
    rule = there["schedule"]
    if "rrule" in rule and "DTSTART" not in wanted["schedule"].get("rrule", "").upper():
        rule = {**rule, "rrule": ADDED_START.sub("", rule["rrule"])}
    completed = {"timezone": "UTC", **{key: rule[key] for key in rule if key == "anchor_date"}, **wanted["schedule"]}
    return completed == {**rule, "timezone": rule.get("timezone") or "UTC"} and all(
        wanted.get(key) == there.get(key) for key in ("active", "parameters", "slug")
    )


def differs(told: dict[str, Any], existing: Registered) -> bool:
    """Whether a deployment is any other than it is told to be."""
    there = existing.deployment.model_dump(mode="json")
    limit = there.get("global_concurrency_limit") or {}
    there["concurrency_limit"] = limit.get("limit", there.get("concurrency_limit"))
    there["schedules"] = _schedules_of(existing)
    # Prefect has labels of its own.
    there["labels"] = {name: value for name, value in there["labels"].items() if name in told["labels"]}
    return any(value != there.get(name) for name, value in told.items())


def _parameter_problems(entry: Entry, flow: DescribedFlow, told: dict[str, Any]) -> list[str]:
    """What is wrong with the parameters that runs would start with."""
    declared, parameters = entry.declared, told.get("parameters") or {}
    place = f"prefect.yaml:{declared.line}: {declared.name}" if declared else f"{flow.name}/{entry.name} at Prefect"
    problems = [f"{place}: {text}" for text in unknown(flow.parameters, parameters)]
    for schedule in told["schedules"]:
        named = f"{place}, schedule {schedule_text(schedule)}"
        problems += [f"{named}: {text}" for text in unknown(flow.parameters, schedule["parameters"])]
    if problems or not told["enforce_parameter_schema"]:
        return problems
    from prefect.utilities.schema_tools import validate

    said = [parameters, *({**parameters, **each["parameters"]} for each in told["schedules"])]
    try:
        for each in filter(None, said):
            validate(each, flow.parameters, raise_on_error=True, ignore_required=True)
    except Exception as error:  # the schema is the author's, and what can be wrong with one has many kinds
        return [f"{place}: {error}"]
    return []
