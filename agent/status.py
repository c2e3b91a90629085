"""How an environment is: local's servers, the agent at ECS and at Prefect. Reads names, not Terraform's state."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from agent.rollout import online_agents
from environments import local_stack
from environments.errors import PlatformError
from environments.settings import Environment
from infra.aws import client


@dataclasses.dataclass(frozen=True)
class Component:
    """One part of the environment: whether it is well, and a few words on its state."""

    name: str
    ok: bool
    state: str


def components(environment: Environment) -> list[Component]:
    """All parts of the environment, looked at side by side."""
    servers = (
        [Component(title, state == "running", state) for title, state in local_stack.state(environment).items()]
        if environment.is_local
        else []
    )
    if not all(server.ok for server in servers):
        return [
            *servers,
            Component("agent", False, "not deployed"),
            Component("Prefect project", False, "not deployed"),
        ]
    with ThreadPoolExecutor() as pool:
        service, project = pool.submit(_service, environment), pool.submit(_project, environment)
        return [*servers, service.result(), *project.result()]


def _service(environment: Environment) -> Component:
    from botocore.exceptions import BotoCoreError, ClientError

    name = f"{environment.prefix}_agent"
    try:
        found = client(environment, "ecs").describe_services(cluster=name, services=[name])["services"]
    except (ClientError, BotoCoreError) as error:
        missing = "ClusterNotFound" in str(error)
        return Component("agent at ECS", False, "not deployed" if missing else str(error))
    if not found or found[0]["status"] != "ACTIVE":
        return Component("agent at ECS", False, "not deployed")
    running, wanted = found[0]["runningCount"], found[0]["desiredCount"]
    revision = found[0]["taskDefinition"].rsplit(":", 1)[-1]
    state = f"{running} of {wanted} running, revision {revision}" if wanted else "down (invoke agent --up)"
    return Component("agent at ECS", running == wanted and wanted > 0, state)


def _project(environment: Environment) -> list[Component]:
    from prefect.exceptions import ObjectNotFound

    try:
        online = online_agents(environment)
    except ObjectNotFound:
        return [Component("Prefect project", False, "not deployed")]
    except PlatformError as error:
        return [Component("Prefect project", False, f"{error.what}: {error.why}")]
    agents = ", ".join(sorted(online)) or "none"
    return [
        Component("Prefect project", True, environment.prefix),
        Component("agent at Prefect", bool(online), f"{len(online)} online: {agents}" if online else "none online"),
    ]
