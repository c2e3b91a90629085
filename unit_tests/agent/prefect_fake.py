"""A Prefect API for tests of what runs in the agent: runs with their states, and what was proposed and written."""

import datetime
import uuid
from types import SimpleNamespace
from typing import Any

from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
    StateRejectDetails,
)

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
TEMPLATE = {"job_configuration": {"cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/workflows"}}


def states_of(*described: str) -> list[State[Any]]:
    """States such as `PENDING` or `SCHEDULED:AwaitingRestart`, one minute after the other, the last one now."""
    made = []
    for place, text in enumerate(described):
        kind, _, name = text.partition(":")
        moment = NOW + datetime.timedelta(minutes=place + 1 - len(described))
        made.append(State(type=StateType[kind], name=name or kind.title(), timestamp=moment))
    return made


class FakePrefect:
    """Plays the client of the Prefect API for the requests that the agent makes on its own.

    Like the real API it refuses to leave a final state for CRASHED, and takes no transition id twice in a row.
    """

    def __init__(self) -> None:
        self.states: dict[uuid.UUID, list[State[Any]]] = {}
        self.runs: dict[uuid.UUID, FlowRun] = {}
        self.workers: list[Any] = []
        self.logs: list[dict[str, Any]] = []
        self.asked: list[str] = []

    async def __aenter__(self) -> "FakePrefect":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def add(self, *states: str, **properties: Any) -> uuid.UUID:
        """A run that has had these states."""
        run = FlowRun(flow_id=uuid.uuid4(), **properties)
        self.runs[run.id], self.states[run.id] = run, states_of(*states)
        return run.id

    def names(self, run_id: uuid.UUID) -> list[str | None]:
        """Names of the states that a run has had."""
        return [state.name for state in self.states[run_id]]

    async def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        from prefect.exceptions import ObjectNotFound

        if run_id not in self.runs:
            raise ObjectNotFound(Exception("gone"))
        return self.runs[run_id].model_copy(update={"state": self.states[run_id][-1]})

    async def read_flow_run_states(self, run_id: uuid.UUID) -> list[State[Any]]:
        return list(reversed(self.states[run_id]))

    async def read_flow_runs(
        self, flow_run_filter: Any, work_pool_filter: Any, limit: int, offset: int
    ) -> list[FlowRun]:
        self.asked.append(work_pool_filter.name.any_[0])
        kinds = flow_run_filter.state.type.any_
        found = [await self.read_flow_run(run) for run, states in self.states.items() if states[-1].type in kinds]
        return found[offset : offset + limit]

    async def read_work_pool(self, _: str) -> Any:
        return SimpleNamespace(base_job_template=TEMPLATE)

    async def read_workers_for_work_pool(self, _: str, worker_filter: Any) -> list[Any]:
        since = worker_filter.last_heartbeat_time.after_
        return [worker for worker in self.workers if worker.last_heartbeat_time > since]

    async def update_flow_run(self, run_id: uuid.UUID, **changes: Any) -> None:
        self.runs[run_id] = self.runs[run_id].model_copy(update=changes)

    async def create_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs

    async def set_flow_run_state(
        self, run_id: uuid.UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        last = self.states[run_id][-1]
        if last.is_final() and state.is_crashed():
            details = StateAbortDetails(reason="Run is already in terminal state.")
            return OrchestrationResult(status=SetStateStatus.ABORT, details=details, state=None)
        if state.state_details.transition_id and state.state_details.transition_id == last.state_details.transition_id:
            refused = StateRejectDetails(reason="This run has already made this state transition.")
            return OrchestrationResult(status=SetStateStatus.REJECT, details=refused, state=last)
        self.states[run_id].append(state)
        return OrchestrationResult(status=SetStateStatus.ACCEPT, details=StateAcceptDetails(), state=state)
