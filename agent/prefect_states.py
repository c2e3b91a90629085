"""Changes that the agent proposes for the state of a run."""

import logging
import uuid
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Scheduled, to_state_create

from environments.run_terms import AWAITING_CAPACITY, RESCHEDULED

logger = logging.getLogger("prefect.agent.states")


async def propose(client: PrefectClient, run_id: uuid.UUID, state: State[Any], once: str = "") -> bool:
    """Propose a state for a run and return whether Prefect took it.

    Args:
        client: of Prefect.
        run_id: its id.
        state: what is proposed.
        once: names this change. Prefect takes a change of one name once in a row, so several agents may propose it.
            Its own client names each change anew, which is why the request is made here.
    """
    created = to_state_create(state)
    created.state_details.flow_run_id = run_id
    created.state_details.transition_id = uuid.uuid5(run_id, once) if once else uuid.uuid4()
    body = {"state": created.model_dump(mode="json", serialize_as_any=True), "force": False}
    try:
        response = await client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run_id}, json=body)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return False  # the run was deleted
        raise
    answer = response.json()
    if answer["status"] != "ACCEPT":
        reason = (answer.get("details") or {}).get("reason")
        logger.info("run %s does not become %s: %s", run_id, state.name, reason)
    return bool(answer["status"] == "ACCEPT")


def rescheduled(message: str) -> State[Any]:
    """Return the state of a run that is scheduled again at once."""
    return Scheduled(name=RESCHEDULED, message=message)


def awaiting_capacity(run: FlowRun, message: str) -> State[Any]:
    """Return the state of a run that waits until AWS has room; it keeps its place in the queue."""
    return Scheduled(name=AWAITING_CAPACITY, message=message, scheduled_time=run.expected_start_time)
