"""What is registered: the deployments of an environment's project, read from Prefect.

A deployment knows by its labels which workflow it belongs to, where that comes from, and whose preview it is; by its
tags the Prefect page can filter. Source: https://docs.prefect.io/v3/api-ref/rest-api/server/deployments
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from environments import progress
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from environments.settings import Environment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

PAGE = 200
"""How many entries Prefect gives at once."""
UNPROCESSABLE = 422
WORKFLOW, ORIGIN, PREVIEW, DECLARED, DESCRIBED = "workflow", "origin", "preview", "declared_in", "described_in"
"""Labels: what a deployment belongs to, and the file that says its schedules and parameters, or its description."""
BASE = "base_image"
"""Label: the agent's image that the deployment's image is built on; empty when it is built on another one."""
REMOVED = "removed"
"""Tag of a deployment whose flow is no longer in the folder; register paused it and would start it again."""


@dataclasses.dataclass(frozen=True)
class Registered:
    """A deployment at Prefect and the name of its flow."""

    flow: str
    deployment: "DeploymentResponse"

    @property
    def name(self) -> str:
        """Prefect's full name: `<flow>/<deployment>`."""
        return f"{self.flow}/{self.deployment.name}"

    @property
    def image(self) -> str:
        """The image it runs, by digest."""
        return str((self.deployment.job_variables or {}).get("image", ""))

    @property
    def preview(self) -> str:
        """The branch it is a preview of; empty for a real one."""
        return self.label(PREVIEW)

    def label(self, name: str) -> str:
        """One of our labels; empty when it has none of that name."""
        return str((self.deployment.labels or {}).get(name, ""))


def of_environment(environment: Environment, variable: str = AGENT_TOKEN) -> list[Registered]:
    """All deployments of the environment's project, by name."""
    with prefect_client(environment, variable) as client:
        return read(client, environment)


def read(
    client: "SyncPrefectClient",
    environment: Environment,
    tags: list[str] | None = None,
    flows: list[str] | None = None,
) -> list[Registered]:
    """The deployments of the environment's project that pass Prefect's filters, by name.

    Args:
        client: of the environment's Prefect.
        environment: whose project.
        tags: that all must be there, if given.
        flows: names of flows, of which one must be it, if given.
    """
    from prefect.client.schemas import filters as f

    wanted: dict[str, Any] = {
        "work_pool_filter": f.WorkPoolFilter(name=f.WorkPoolFilterName(any_=[environment.prefix])),
    }
    if tags:
        wanted["deployment_filter"] = f.DeploymentFilter(tags=f.DeploymentFilterTags(all_=tags))
    if flows is not None:
        wanted["flow_filter"] = f.FlowFilter(name=f.FlowFilterName(any_=flows))
    found = list(_pages(client.read_deployments, **wanted))
    ids = sorted({deployment.flow_id for deployment in found}, key=str)
    names: dict[Any, str] = {}
    for start in range(0, len(ids), PAGE):
        of_page = f.FlowFilter(id=f.FlowFilterId(any_=ids[start : start + PAGE]))
        names.update({flow.id: flow.name for flow in client.read_flows(flow_filter=of_page, limit=PAGE)})
    registered = [Registered(names[each.flow_id], each) for each in found if each.flow_id in names]
    return sorted(registered, key=lambda each: each.name)


def delete(client: "SyncPrefectClient", deployment_id: UUID) -> None:
    """Delete a deployment; one that is gone already is fine."""
    from prefect.exceptions import ObjectNotFound

    with contextlib.suppress(ObjectNotFound):
        client.delete_deployment(deployment_id)


def _pages(reader: Any, **filters: Any) -> Iterator[Any]:
    offset = 0
    while page := reader(**filters, limit=PAGE, offset=offset):
        yield from page
        if len(page) < PAGE:
            return
        offset += PAGE


@dataclasses.dataclass(frozen=True)
class Project:
    """What register needs to know of an environment's project.

    Attributes:
        base_image: the agent's image, which workflow images are built on.
        existing: the deployments of the workflow, previews included.
    """

    base_image: str
    existing: tuple[Registered, ...]


def read_project(environment: Environment, name: str, flows: list[str]) -> Project:
    """Read the project, and what it has of a workflow.

    Args:
        environment: whose project.
        name: the workflow's.
        flows: names of flows; deployments of theirs that belong to another workflow are given as well.

    Raises:
        PlatformError: the environment is not deployed yet or not as deploy leaves it, or the token may not register.
    """
    from prefect.exceptions import ObjectNotFound

    with prefect_client(environment, REGISTER_TOKEN) as client:
        try:
            pool = client.read_work_pool(environment.prefix)
        except ObjectNotFound as error:
            raise PlatformError(
                f"environment {environment.name} is not deployed yet",
                f"Prefect has no project {environment.prefix}",
                f"invoke deploy --env {environment.name}",
            ) from error
        _check_right(client, environment)
        of_workflow = read(client, environment, tags=[environment.name, name])
        of_flows = read(client, environment, flows=flows) if flows else []
    try:
        base_image = str(pool.base_job_template["variables"]["properties"]["image"]["default"])
    except (KeyError, TypeError) as error:
        raise PlatformError(
            f"project {pool.name} is not as invoke deploy leaves it",
            "its base job template names no image that workflows are built on",
            f"invoke deploy --env {environment.name} puts it right",
        ) from error
    existing = {each.deployment.id: each for each in [*of_workflow, *of_flows]}
    progress.note(f"{pool.name}, {len(of_workflow)} deployment(s) of {name}")
    return Project(base_image, tuple(existing.values()))


def _check_right(client: "SyncPrefectClient", environment: Environment) -> None:
    """Make sure that the token may create deployments, before anything is built.

    A request that names nothing can't change anything: who may create deployments is told that it is incomplete (422),
    anybody else that it is forbidden (403).
    """
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        client.request("POST", "/deployments/", json={})
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise PlatformError(
                f"the token may not register workflows in environment {environment.name}",
                f"Prefect answered {code} to a request to create a deployment",
                f"give its account the right to edit deployments, or set {REGISTER_TOKEN} to another key",
            ) from error
        if code != UNPROCESSABLE:
            raise
