"""Deployments at Prefect: `<flow>/<env>` for each flow of a workflow, created or brought up to date side by side."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from environments import progress
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import REGISTER_TOKEN
from environments.settings import Environment
from infra.images import Image
from register_action.changes import WORDS, Change, plan
from register_action.registered import REMOVED, Project, delete
from register_action.workflow import Workflow
from register_action.workflow_image import DescribedFlow

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

AT_ONCE = 4
"""Requests to Prefect at the same time; more of them only wait for each other in the server's database."""


def register(
    environment: Environment,
    workflow: Workflow,
    project: Project,
    image: Image,
    flows: list[DescribedFlow],
    prune: bool,
) -> list[Change]:
    """Bring the workflow's deployments to what is wanted; arguments and errors as `plan` and `carry_out`."""
    return carry_out(environment, plan(environment, workflow, project, image, flows, prune))


def carry_out(environment: Environment, changes: list[Change]) -> list[Change]:
    """Tell Prefect, side by side; gives the changes with their deployments' ids.

    Raises:
        PlatformError: Prefect refused some; the reason lists them, the others are done.
    """
    wanted = [change for change in changes if change.action != "keep"]
    done: dict[str, Change] = {change.full_name: change for change in changes if change.action == "keep"}
    refused: dict[str, BaseException] = {}
    if wanted:
        with prefect_client(environment, REGISTER_TOKEN) as client, ThreadPoolExecutor(AT_ONCE) as pool:
            futures = {change.full_name: pool.submit(_carry_out, client, change) for change in wanted}
            for number, (name, future) in enumerate(futures.items(), 1):
                if error := future.exception():
                    refused[name] = error
                else:
                    done[name] = future.result()
                progress.doing(f"{number} of {len(wanted)}")
            if refused and not any(change.full_name in done for change in wanted):
                raise next(iter(refused.values()))
    if refused:
        raise PlatformError(
            f"{len(refused)} of {len(wanted)} deployments could not be brought up to date",
            "\n".join(f"{name}: {error}" for name, error in refused.items()),
            "the others are done; register again for these",
        )
    counts = {action: sum(change.action == action for change in changes) for action in WORDS}
    progress.note(", ".join(f"{count} {WORDS[action]}" for action, count in counts.items() if count) or "none")
    return [done[change.full_name] for change in changes]


def _carry_out(client: "SyncPrefectClient", change: Change) -> Change:
    from prefect.client.schemas.actions import DeploymentUpdate

    there = change.existing.deployment if change.existing else None
    if change.action == "delete" and there:
        delete(client, there.id)
    elif change.action == "pause" and there:
        client.update_deployment(there.id, DeploymentUpdate(paused=True, tags=[*(there.tags or []), REMOVED]))
    else:
        flow_id = there.flow_id if there else client.create_flow_from_name(change.flow)
        # The client's own method knows no labels, and would say something of every field.
        answer = client.request("POST", "/deployments/", json={**change.payload, "flow_id": str(flow_id)})
        return dataclasses.replace(change, identifier=str(answer.json()["id"]))
    return change
