"""The worker that runs in the agent's container: Prefect's ECS worker, made to lose no run.

It differs from the original in three things: ECS starts one task for each attempt of a run (attempts.py), runs that an
agent left behind are found (recovery.py), and a task that dies is told with its reason, and its run restarted if it was
told to be (task_ends.py).
"""

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, cast

from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker, ECSWorkerResult
from pydantic import Field

from agent import attempts, recovery, task_ends
from agent.start_agent import agent_name

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun


RESTARTS_ON_SPOT = 1
"""So many restarts of a run on Spot are on Spot again."""


class JobConfiguration(ECSJobConfiguration):
    """What a deployment chooses for its runs."""

    restarts: int = Field(default=0, ge=0, description="How often a run whose task died is started again.")


class Agent(ECSWorker):
    """The ECS worker of this platform."""

    job_configuration = JobConfiguration

    @classmethod
    def __dispatch_key__(cls) -> str:
        # In Prefect's list of workers it does not take the place of the original.
        return cls.__name__

    async def run(
        self,
        flow_run: "FlowRun",
        configuration: ECSJobConfiguration,
        task_status: "TaskStatus[Any] | None" = None,
    ) -> ECSWorkerResult:
        """Start a run as an ECS task that carries the name of this attempt, and how often it may be restarted."""
        states = await self.client.read_flow_run_states(flow_run.id)
        attempt = attempts.name(flow_run.id, states)
        configuration.task_run_request |= {"startedBy": str(flow_run.id), "clientToken": attempt}
        if attempts.restarts(states) > RESTARTS_ON_SPOT:
            leave_spot(configuration.task_run_request)
        restarts = str(cast(JobConfiguration, configuration).restarts)
        configuration.labels |= {attempts.TAG: attempt, task_ends.RESTARTS_TAG: restarts}  # become tags
        return await super().run(flow_run, configuration, task_status)

    def _create_task_run(self, ecs_client: Any, task_run_request: dict[str, Any]) -> Any:
        """Start the task, unless one has been started for this attempt: then that is the one."""
        try:
            return super()._create_task_run(ecs_client, task_run_request)
        except ecs_client.exceptions.ConflictException as conflict:
            # Same attempt, other parameters: the tags of another agent, or a task definition registered since.
            return {"taskArn": conflict.response["resourceIds"][0], "clusterArn": task_run_request["cluster"]}

    async def __aenter__(self) -> "Agent":
        """Start the observer of tasks, and to look for stranded runs."""
        await super().__aenter__()
        looking = recovery.Agent(
            project=self._work_pool_name,
            name=self.name,
            heartbeat_seconds=self.heartbeat_interval_seconds,
            starting=lambda: self._submitting_flow_run_ids,
        )
        self._recovery = asyncio.create_task(recovery.keep_looking(looking))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        """Stop both; runs that are being started are waited for."""
        self._recovery.cancel()
        await super().__aexit__(*exc_info)


def leave_spot(task_run_request: dict[str, Any]) -> None:
    """Have a task started on demand that would be started on Spot."""
    for provider in task_run_request.get("capacityProviderStrategy", []):
        if provider["capacityProvider"] == "FARGATE_SPOT":
            provider["capacityProvider"] = "FARGATE"


def main() -> None:
    """Work until asked to stop: SIGTERM, which is what ECS sends, ends it in order."""
    setup_signal_handlers_worker(os.getpid(), "the agent", print)
    task_ends.observe()
    worker = Agent(
        name=agent_name(),
        work_pool_name=os.environ["PREFECT_PROJECT"],
        create_pool_if_not_found=False,
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
    )
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(worker.start(with_healthcheck=True))


if __name__ == "__main__":
    main()
