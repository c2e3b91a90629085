"""How an environment is: local's servers, the agent, its project and runs, and what runs on AWS beside them.

It reads names, not Terraform's state, changes nothing, and looks at everything side by side.
"""

from collections.abc import Callable

from agent import health, run_health
from environments import checking, local_stack
from environments.checking import Check, Finding
from environments.errors import PlatformError
from environments.settings import Environment
from infra import health as aws_health

CHECKS: list[Check] = [
    ("agent at ECS", health.at_ecs),
    ("agent at Prefect", health.at_prefect),
    ("agent image", health.image),
    ("Prefect keys", health.keys),
    ("Prefect project", run_health.project),
    ("late runs", run_health.late),
    ("stuck runs", run_health.stuck),
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


def look(environment: Environment, images: dict[str, str]) -> list[Finding]:
    """All parts of the environment; while local's servers are down, nothing else is asked.

    Args:
        environment: which one.
        images: of the registered workflows, by the deployment that runs them.
    """
    servers = _servers(environment) if environment.is_local else []
    if not all(server.ok for server in servers):
        return servers
    checks = [*CHECKS, ("workflow images", lambda _: _workflow_images(environment, images))]
    return [*servers, *checking.run(environment, [(name, _deployed(check)) for name, check in checks])]


def _servers(environment: Environment) -> list[Finding]:
    return [
        Finding(title, state == "running", state, todo="" if state == "running" else "invoke deploy starts it")
        for title, state in local_stack.state(environment).items()
    ]


def _deployed(check: Callable[[Environment], str]) -> Callable[[Environment], str]:
    """A check in whose words a part that is missing is not deployed."""

    def checked(environment: Environment) -> str:
        from botocore.exceptions import ClientError
        from prefect.exceptions import ObjectNotFound

        missing = PlatformError("not deployed", todo=f"invoke deploy --env {environment.name} brings it up")
        try:
            return check(environment)
        except ObjectNotFound as error:
            raise missing from error
        except ClientError as error:
            if error.response["Error"]["Code"] not in GONE:
                raise
            raise missing from error

    return checked


def _workflow_images(environment: Environment, images: dict[str, str]) -> str:
    gone = set(aws_health.missing_images(environment, list(images.values())))
    if broken := [name for name, image in images.items() if image in gone]:
        raise PlatformError(
            f"{len(gone)} not in ECR",
            f"these can't start: {', '.join(broken)}",
            f"register them again: invoke register --workflow-path FOLDER --env {environment.name}",
        )
    return f"{len(set(images.values()))} in ECR"
