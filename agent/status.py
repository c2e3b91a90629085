"""How an environment is: local's servers, the agent, its project and runs, and what runs on AWS beside them.

It reads names, not Terraform's state, changes nothing, and looks at everything side by side.
"""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from agent import health, project, run_health, task_health
from environments import checking, local_stack
from environments.checking import Check, Finding, Hint
from environments.errors import PlatformError
from environments.prefect_rest import NotThereError
from environments.settings import Environment
from infra import aws, checks
from infra import health as aws_health

CHECKS: list[Check] = [
    ("agent at ECS", health.at_ecs),
    ("agent at Prefect", health.at_prefect),
    ("agent image", health.image),
    ("Prefect keys", health.keys),
    ("Prefect project", run_health.project),
    ("queue", run_health.queue),
    ("late runs", run_health.late),
    ("stuck runs", run_health.stuck),
    ("capacity", task_health.capacity),
    ("tasks without a run", task_health.tasks_without_run),
    ("task events", aws_health.task_events),
    ("dead letters", aws_health.dead_letters),
    ("alarms", aws_health.alarms),
    ("Terraform lock", aws_health.terraform_lock),
]
GONE = {
    *("ClusterNotFoundException", "NoSuchBucket", "ResourceNotFoundException"),
    *("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
}
"""Codes by which AWS tells that something is not there."""

ENDED = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
"""Codes by which AWS refuses a session that is over, as that of an emulated AWS that was started anew."""
Entries = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Seen:
    """How an environment was at one moment: its parts, its workflows, its newest runs."""

    parts: list[Finding]
    workflows: Entries = dataclasses.field(default_factory=list)
    runs: Entries = dataclasses.field(default_factory=list)


def look(environment: Environment, read: Callable[[Environment], tuple[Entries, Entries]]) -> Seen:
    """All parts of the environment; while local's servers are down, nothing else is asked.

    Args:
        environment: which one.
        read: gives the registered workflows and the newest runs.

    Raises:
        PlatformError: as `checks.account`.
    """
    checks.account(environment)
    servers = _servers(environment) if environment.is_local else []
    if not all(server.ok for server in servers):
        return Seen(servers)
    registered: Future[tuple[Entries, Entries]] = Future()

    def images(_: Environment) -> str:
        try:
            registered.set_result(read(environment))
        except BaseException as error:
            registered.set_exception(error)
            raise
        return _workflow_images(environment, {each["name"]: each["image"] for each in registered.result()[0]})

    of_workflows: list[Check] = [
        ("workflow images", images),
        ("base images", lambda _: _base_images(environment, registered.result()[0])),
    ]
    if not environment.is_local:  # the emulated ECR scans nothing
        of_workflows.append(("image scan", lambda _: _image_scan(environment, registered.result()[0])))
    parts = checking.run(environment, [(name, _deployed(check)) for name, check in [*CHECKS, *of_workflows]])
    return Seen([*servers, *parts], *(() if registered.exception() else registered.result()))


def _servers(environment: Environment) -> list[Finding]:
    return [
        Finding(title, state == "running", state, todo="" if state == "running" else "invoke deploy starts it")
        for title, state in local_stack.state(environment).items()
    ]


def _deployed(check: Callable[[Environment], str]) -> Callable[[Environment], str]:
    """A check in whose words a part that is missing is not deployed."""

    def checked(environment: Environment) -> str:
        from botocore.exceptions import ClientError

        missing = PlatformError("not deployed", todo=f"invoke deploy --env {environment.name} brings it up")
        try:
            return check(environment)
        except NotThereError as error:
            raise missing from error
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ENDED:
                aws.forget_sessions()  # whoever looks again has a new one
            if code not in GONE:
                raise
            raise missing from error

    return checked


def _base_images(environment: Environment, workflows: Entries) -> str:
    """Whether workflows are built on the agent's image, and so have the fixes that its base image brought.

    One that was registered before images named their base has none in its entry, and is built on an earlier one.
    """
    current = project.image_in_use(environment, patient=False)
    ours = [each for each in workflows if each["workflow"] and each["base_image"] != ""]
    if older := [each["name"] for each in ours if each["base_image"] != current]:
        raise Hint(
            f"{len(older)} of {len(ours)} built on another image than the agent's",
            f"they may lack fixes of the base image and of the agent's packages: {', '.join(older)}",
            f"register them again: invoke register --workflow-path FOLDER --env {environment.name}",
        )
    return f"{len(ours)} built on the agent's"


def _image_scan(environment: Environment, workflows: Entries) -> str:
    """Whether ECR's scan has critical findings for the agent's image, or for those that deployments run."""
    from botocore.exceptions import ClientError

    used_by = {project.image_in_use(environment, patient=False): ["the agent"]}
    for each in workflows:
        used_by.setdefault(each["image"], []).append(each["name"])
    try:
        found = aws_health.critical_findings(environment, used_by)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        raise Hint(
            "findings can't be read",
            error.response["Error"].get("Message", ""),
            f"an administrator runs invoke bootstrap-account --env {environment.name} again",
        ) from error
    if found:
        lines = [f"{count} in {uri.rpartition('/')[2]}, of {', '.join(used_by[uri])}" for uri, count in found.items()]
        raise Hint(
            f"{sum(found.values())} critical findings in {len(found)} of {len(used_by)} images",
            "\n".join(lines),
            "see them with aws ecr describe-image-scan-findings; invoke deploy after an update of the platform brings "
            "fixes to the agent, and invoke register then brings them to workflows",
        )
    return f"no critical findings in {len(used_by)} images"


def _workflow_images(environment: Environment, images: dict[str, str]) -> str:
    gone = set(aws_health.missing_images(environment, list(images.values())))
    if broken := [name for name, image in images.items() if image in gone]:
        raise PlatformError(
            f"{len(gone)} not in ECR",
            f"these can't start: {', '.join(broken)}",
            f"register them again: invoke register --workflow-path FOLDER --env {environment.name}",
        )
    return f"{len(set(images.values()))} in ECR"
