"""How an environment is: local's servers, the agent at ECS and at Prefect. Reads names, not Terraform's state."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from agent import releases
from agent.rollout import describe, online_agents, revision_number, running_tasks
from environments import local_stack
from environments.errors import PlatformError
from environments.settings import Environment

NOT_DEPLOYED = "not deployed; invoke deploy brings it up"


@dataclasses.dataclass(frozen=True)
class Component:
    """One part of the environment: whether it is well, and a few words on its state."""

    name: str
    ok: bool
    state: str


def components(environment: Environment) -> list[Component]:
    """All parts of the environment, looked at side by side."""
    servers = (
        [
            Component(title, state == "running", state if state == "running" else f"{state}; invoke deploy starts it")
            for title, state in local_stack.state(environment).items()
        ]
        if environment.is_local
        else []
    )
    if not all(server.ok for server in servers):
        return servers
    with ThreadPoolExecutor() as pool:
        service, project = pool.submit(_service, environment), pool.submit(_project, environment)
        return [*servers, service.result(), *project.result()]


def _service(environment: Environment) -> Component:
    from botocore.exceptions import BotoCoreError, ClientError

    title = "agent at ECS"
    try:
        service = describe(environment)
        newer = releases.newer(environment, service["taskDefinition"])
    except PlatformError:
        return Component(title, False, NOT_DEPLOYED)
    except (ClientError, BotoCoreError) as error:
        return Component(title, False, str(error))
    running, wanted = service["runningCount"], service["desiredCount"]
    if not wanted:
        return Component(title, False, "down; invoke agent --up starts it")
    state = f"{running} of {wanted} running, revision {revision_number(service['taskDefinition'])}"
    return Component(title, running == wanted, f"{state}; {newer}" if newer else state)


def _project(environment: Environment) -> list[Component]:
    from botocore.exceptions import BotoCoreError, ClientError
    from prefect.exceptions import ObjectNotFound

    title = "Prefect project"
    try:
        online = online_agents(environment)
    except ObjectNotFound:
        return [Component(title, False, NOT_DEPLOYED)]
    except PlatformError as error:
        return [Component(title, False, f"{error.what}: {error.why}")]
    try:
        # Prefect shows a stopped agent online until it has missed some heartbeats; only running tasks count.
        names = [f"{environment.prefix}_{task}" for task in running_tasks(environment)]
    except (ClientError, BotoCoreError):
        names = []
    serving = [name for name in names if name in online]
    return [
        Component(title, True, environment.prefix),
        Component("agent at Prefect", bool(serving), f"online: {', '.join(serving)}" if serving else "none online"),
    ]
