"""A Prefect API for tests of what runs in the agent: runs with their states, and what was proposed and written."""

import datetime
import uuid
from types import SimpleNamespace
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, StateDetails, StateType
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
    StateRejectDetails,
)
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
TEMPLATE: dict[str, Any] = {
    "variables": {"properties": {"family": {"default": "any"}, "capacity_provider": {"default": "FARGATE"}}},
    "job_configuration": {
        "cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/workflows",
        "task_definition": {"family": "dev_dataflow_automation_workflow_{{ family }}"},
    },
}


def states_of(*described: str) -> list[State[Any]]:
    """States such as `PENDING` or `SCHEDULED:AwaitingRestart`, one minute after the other, the last one now."""
    states = []
    for place, text in enumerate(described):
        kind, _, name = text.partition(":")
        moment = NOW + datetime.timedelta(minutes=place + 1 - len(described))
        states.append(State(type=StateType[kind], name=name or kind.title(), timestamp=moment))
    return states


class FakePrefect:
    """Plays the client of the Prefect API for the requests that the agent makes on its own.

    Like the real API it refuses to leave a final state for CRASHED, CANCELLING or PAUSED, schedules a run that has
    ended only if it has a deployment, and takes no transition id twice in a row.
    """

    def __init__(self) -> None:
        self.states: dict[uuid.UUID, list[State[Any]]] = {}
        self.runs: dict[uuid.UUID, FlowRun] = {}
        self.deployments: dict[uuid.UUID, dict[str, Any]] = {}
        self.task_runs: list[Any] = []
        self.workers: list[Any] = []
        self.logs: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.proposed: list[dict[str, Any]] = []
        self.released: list[uuid.UUID] = []

    async def __aenter__(self) -> "FakePrefect":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def add(self, *states: str, **properties: Any) -> uuid.UUID:
        """Add a run that has had these states; without `deployment_id`, of a deployment that chooses nothing."""
        if "deployment_id" not in properties:
            properties["deployment_id"] = self.deploy()
        run = FlowRun(flow_id=uuid.uuid4(), **properties)
        self.runs[run.id], self.states[run.id] = run, states_of(*states)
        return run.id

    def deploy(self, **job_variables: Any) -> uuid.UUID:
        """Add a deployment."""
        deployment = uuid.uuid4()
        self.deployments[deployment] = job_variables
        return deployment

    def add_task_run(self, run_id: uuid.UUID, state: str, created: datetime.datetime | None = NOW) -> uuid.UUID:
        """Add a task run of a run."""
        task_run = SimpleNamespace(id=uuid.uuid4(), flow_run_id=run_id, state=states_of(state)[0], created=created)
        self.task_runs.append(task_run)
        return task_run.id

    def delete(self, run_id: uuid.UUID) -> None:
        """Delete a run."""
        del self.runs[run_id], self.states[run_id]

    def names(self, run_id: uuid.UUID) -> list[str | None]:
        """Names of the states that a run has had."""
        return [state.name for state in self.states[run_id]]

    def last(self, run_id: uuid.UUID) -> State[Any]:
        """Return the state that a run has now."""
        return self.states[run_id][-1]

    def state_of_task_run(self, task_run_id: uuid.UUID) -> State[Any]:
        """Return the state that a task run has now."""
        (state,) = (each.state for each in self.task_runs if each.id == task_run_id)
        assert isinstance(state, State)
        return state

    async def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        if run_id not in self.runs:
            raise ObjectNotFound(Exception("gone"))
        return self.runs[run_id].model_copy(update={"state": self.states[run_id][-1]})

    async def read_flow_run_states(self, run_id: uuid.UUID) -> list[State[Any]]:
        return list(reversed(self.states[run_id]))

    async def read_flow_runs(
        self, flow_run_filter: Any, limit: int, work_pool_filter: Any = None, offset: int = 0
    ) -> list[FlowRun]:
        assert limit <= 200
        if work_pool_filter:
            self.asked.append(work_pool_filter.name.any_[0])
        found = [await self.read_flow_run(run) for run in self.runs]
        return [run for run in found if _chosen(run, flow_run_filter)][offset : offset + limit]

    async def read_task_runs(
        self, flow_run_filter: Any, task_run_filter: Any, limit: int, offset: int
    ) -> list[SimpleNamespace]:
        assert limit <= 200
        runs, kinds = flow_run_filter.id.any_, task_run_filter.state.type.any_
        found = [each for each in self.task_runs if each.flow_run_id in runs and each.state.type in kinds]
        return found[offset : offset + limit]

    async def read_work_pool(self, _: str) -> Any:
        return SimpleNamespace(base_job_template=TEMPLATE)

    async def read_deployment(self, deployment_id: uuid.UUID) -> Any:
        if deployment_id not in self.deployments:
            raise ObjectNotFound(Exception("gone"))
        return SimpleNamespace(id=deployment_id, job_variables=self.deployments[deployment_id])

    async def read_deployments(self, work_pool_filter: Any, limit: int, offset: int) -> list[Any]:
        assert limit <= 200
        self.asked.append(work_pool_filter.name.any_[0])
        return [await self.read_deployment(each) for each in list(self.deployments)[offset : offset + limit]]

    async def read_workers_for_work_pool(self, _: str, worker_filter: Any) -> list[Any]:
        since = worker_filter.last_heartbeat_time.after_
        return [worker for worker in self.workers if worker.last_heartbeat_time > since]

    async def update_flow_run(self, run_id: uuid.UUID, **changes: Any) -> None:
        self.runs[run_id] = self.runs[run_id].model_copy(update=changes)

    async def create_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs

    async def read_logs(self, log_filter: Any, limit: int, sort: LogSort) -> list[Any]:
        assert limit <= 200
        assert sort == LogSort.TIMESTAMP_DESC
        runs = [str(run) for run in log_filter.flow_run_id.any_]
        return [SimpleNamespace(**log) for log in reversed(self.logs) if log["flow_run_id"] in runs][:limit]

    async def release_concurrency_slots_with_lease(self, lease_id: uuid.UUID) -> None:
        self.released.append(lease_id)

    async def set_task_run_state(self, task_run_id: uuid.UUID, state: State[Any], force: bool = False) -> None:
        (task_run,) = (each for each in self.task_runs if each.id == task_run_id)
        # Prefect moves the task runs of a run that has ended only when it is forced to.
        if force or not (task_run.flow_run_id in self.states and self.last(task_run.flow_run_id).is_final()):
            task_run.state = state

    async def set_flow_run_state(
        self, run_id: uuid.UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        if run_id not in self.runs:
            raise ObjectNotFound(Exception("gone"))
        return self._orchestrate(run_id, state, force)

    async def request(self, method: str, path: str, path_params: dict[str, Any], json: Any) -> httpx.Response:
        assert (method, path) == ("POST", "/flow_runs/{id}/set_state")
        run_id, request = path_params["id"], httpx.Request(method, "http://127.0.0.1/api")
        self.proposed.append(json)
        if run_id not in self.runs:
            raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))
        state = State[Any](
            type=json["state"]["type"],
            name=json["state"]["name"],
            message=json["state"]["message"],
            state_details=StateDetails.model_validate(json["state"]["state_details"]),
        )
        result = self._orchestrate(run_id, state, json["force"])
        return httpx.Response(200, request=request, json=result.model_dump(mode="json"))

    def _orchestrate(self, run_id: uuid.UUID, state: State[Any], force: bool) -> OrchestrationResult[Any]:
        last, run = self.states[run_id][-1], self.runs[run_id]
        final_kinds = {StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED}
        if not force and last.is_final() and (state.type in final_kinds):
            return _aborted("Run is already in terminal state.")
        if not force and last.is_final() and state.is_scheduled() and not run.deployment_id:
            return _aborted("Cannot reschedule a run without an associated deployment.")
        transition = state.state_details.transition_id
        if not force and transition and transition == last.state_details.transition_id:
            refused = StateRejectDetails(reason="This run has already made this state transition.")
            return OrchestrationResult(status=SetStateStatus.REJECT, details=refused, state=last)
        if last.is_final() and state.is_scheduled():
            self.runs[run_id] = run.model_copy(update={"empirical_policy": FlowRunPolicy(retry_type="reschedule")})
        moment = last.timestamp + datetime.timedelta(milliseconds=1)
        self.states[run_id].append(state.model_copy(update={"timestamp": moment}))
        return OrchestrationResult(status=SetStateStatus.ACCEPT, details=StateAcceptDetails(), state=self.last(run_id))


def _aborted(reason: str) -> OrchestrationResult[Any]:
    return OrchestrationResult(status=SetStateStatus.ABORT, details=StateAbortDetails(reason=reason), state=None)


def _chosen(run: FlowRun, wanted: Any) -> bool:
    """Whether a run matches a filter of flow runs; knows those that the agent uses."""
    state = run.state
    assert state
    return all(
        (
            wanted.id is None or run.id in wanted.id.any_,
            wanted.parent_task_run_id is None or run.parent_task_run_id in wanted.parent_task_run_id.any_,
            wanted.state is None or wanted.state.type is None or state.type in wanted.state.type.any_,
            wanted.state is None or wanted.state.name is None or state.name in wanted.state.name.any_,
            wanted.end_time is None or (state.is_final() and state.timestamp >= wanted.end_time.after_),
        )
    )
