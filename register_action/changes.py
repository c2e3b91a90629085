"""What has to happen to a workflow's deployments, worked out without changing any of them."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from environments.errors import PlatformError
from environments.names import task_family
from environments.settings import Environment
from infra.images import Image
from register_action import deployed_schedules, workflow_image
from register_action.deployed_schedules import Pair, in_order, merged, paired, schedules_of
from register_action.overview import schedule_text
from register_action.parameters import fitted, unknown
from register_action.prefect_yaml import Declared
from register_action.registered import (
    BASE,
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

DEFAULT_QUEUE = "default"
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
        notes: choices made at Prefect that are kept or changed.
    """

    action: str
    flow: str
    name: str
    payload: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    existing: Registered | None = dataclasses.field(default=None, repr=False)
    identifier: str = ""
    notes: tuple[str, ...] = ()

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
    base = workflow_image.base_image(workflow, project)
    changes, problems = [], []
    for entry in workflow.entries:
        flow = described[entry.flow.entrypoint]
        existing = by_name.pop(f"{flow.name}/{entry.name}", None)
        told = payload(environment, workflow, entry, flow, image, base, existing)
        line = entry.declared.line if entry.declared else 0
        problems += [(line, problem) for problem in _parameter_problems(entry, flow, told)]
        action = "create" if existing is None else "update" if differs(told, existing) else "keep"
        identifier = str(existing.deployment.id) if existing else ""
        notes = tuple(_choices(workflow, entry, flow, existing, told))
        changes.append(Change(action, flow.name, entry.name, told, existing, identifier, notes))
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
    base: str,
    existing: Registered | None,
) -> dict[str, Any]:
    """What Prefect is told of a deployment, whose image is built on the agent's image `base`, if that is not empty.

    What no prefect.yaml says, and none has said before, stays as the Prefect page has it: parameters, schedules and
    concurrency limit. Whether a schedule is on, the work queue, and whether the deployment is paused stay as they are
    unless prefect.yaml says otherwise. Source: https://docs.prefect.io/v3/api-ref/rest-api/server/deployments/create-deployment
    """
    declared = entry.declared
    labels = {
        WORKFLOW: workflow.name,
        ORIGIN: workflow.source.origin,
        PREVIEW: workflow.preview,
        DECLARED: "prefect.yaml" if declared else "",
        DESCRIBED: "prefect.yaml" if declared and declared.description else "",
        BASE: base,
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
    told["schedules"] = merged(_schedules(workflow, entry, flow, existing, told.get("parameters", {})))
    # Prefect moves a deployment that it is told no queue of to the project's default one.
    if queue := (declared and declared.work_queue_name) or (existing and existing.deployment.work_queue_name):
        told["work_queue_name"] = queue
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
) -> list[Pair]:
    """The schedules that a deployment shall have and those that it has; where no file says otherwise these stay."""

    def fit(schedules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**each, "parameters": fitted(flow.parameters, each["parameters"], parameters)} for each in schedules]

    there = fit(schedules_of(existing)) if existing else []
    if entry.declared and not workflow.preview:
        return paired(fit(entry.declared.schedules), there)
    stay = not workflow.preview and existing and not existing.label(DECLARED)
    return [(each if stay else None, each) for each in there]


def _choices(
    workflow: Workflow, entry: Entry, flow: DescribedFlow, existing: Registered | None, told: dict[str, Any]
) -> Iterator[str]:
    """Say which choices made at Prefect a registration keeps, and which it changes."""
    if not existing:
        return
    because = "previews have none" if workflow.preview else "prefect.yaml does not have it"
    pairs = _schedules(workflow, entry, flow, existing, told.get("parameters", {}))
    yield from deployed_schedules.choices(pairs, because)
    declared, before = entry.declared, existing.deployment
    queue = declared.work_queue_name if declared else None
    if queue and queue != before.work_queue_name:
        yield f"changed: its work queue is {queue}, as prefect.yaml says; at Prefect it was {before.work_queue_name}"
    elif not queue and before.work_queue_name not in (None, DEFAULT_QUEUE):
        yield f"kept: its work queue is {before.work_queue_name}; `work_queue_name` in prefect.yaml changes it"
    if "paused" not in told and before.paused:
        yield "kept: it is paused at Prefect; `paused: false` in prefect.yaml resumes it"
    elif declared and declared.paused is not None and declared.paused != before.paused:
        yield f"changed: it is {'paused' if declared.paused else 'no longer paused'}, as prefect.yaml says"


def differs(told: dict[str, Any], existing: Registered) -> bool:
    """Whether a deployment is any other than it is told to be."""
    there = existing.deployment.model_dump(mode="json")
    limit = there.get("global_concurrency_limit") or {}
    there["concurrency_limit"] = limit.get("limit", there.get("concurrency_limit"))
    there["schedules"] = sorted(schedules_of(existing), key=in_order)
    # Prefect has labels of its own.
    there["labels"] = {name: value for name, value in there["labels"].items() if name in told["labels"]}
    told = {**told, "schedules": sorted(told["schedules"], key=in_order)}
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
