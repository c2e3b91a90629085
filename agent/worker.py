"""The worker that runs in the agent's container: Prefect's ECS worker, made to lose no run.

It differs from the original in these things:

- ECS starts one task for each attempt of a run (attempts.py), and the task of an earlier attempt is stopped first;
- a run that AWS has no room for waits, in its place in the queue (capacity.py, refusals.py); one that can never start
  ends at once;
- one task definition is registered for each content (task_definitions.py), and what AWS limits is made to fit
  (limits.py);
- tasks that die are seen by an observer that never stops (observer.py, task_ends.py), and runs and tasks that were left
  behind are found (recovery.py).
"""

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.states import Crashed
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect_aws.observers.ecs import replicate_ecs_event
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker, ECSWorkerResult
from pydantic import Field

from agent import attempts, aws, limits, outlived, prefect_states, rate_limits, recovery, refusals, task_ends
from agent.capacity import ON_DEMAND, RESTARTS_ON_SPOT, Capacity
from agent.observer import Observer
from agent.start_agent import agent_name
from agent.task_definitions import Revisions
from agent.tasks import Tasks, run_of
from environments.run_terms import ATTEMPT_TAG, AWAITING_CAPACITY, RESTARTS_TAG, RUN_TAG

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse

REMEMBERED_SECONDS = 60.0
"""How long the job variables of a deployment are remembered while its runs wait."""
MARKED_AT_ONCE = 20
"""Runs that are marked as waiting each time the agent asks for work."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""AWS may take a moment until it knows a new revision everywhere: https://github.com/remind101/empire/issues/353."""
ONE_ATTEMPT = ("CREATE_TASK_RUN_MAX_ATTEMPTS", "REGISTER_TASK_DEFINITION_MAX_ATTEMPTS")
"""Settings of Prefect's own retries, which know nothing of why AWS refused."""

logger = logging.getLogger("prefect.agent.worker")


class NotStartedError(Exception):
    """Tells Prefect's worker that a run was not started; what becomes of the run has been seen to."""


class JobConfiguration(ECSJobConfiguration):
    """What a deployment chooses for its runs."""

    restarts: int = Field(default=0, ge=0, description="Maximum restarts of a run whose task died.")


class Agent(ECSWorker):
    """The ECS worker of this platform."""

    job_configuration = JobConfiguration

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._capacity = Capacity()
        self._revisions = Revisions()
        self._waiting: Counter[str] = Counter()
        self._providers: dict[uuid.UUID, tuple[float, str]] = {}
        self._on_demand: set[uuid.UUID] = set()
        self._unknown: Counter[str] = Counter()

    @classmethod
    def __dispatch_key__(cls) -> str:
        # In Prefect's list of workers it does not take the place of the original.
        return cls.__name__

    # Which runs are started now

    async def _get_scheduled_flow_runs(self) -> "list[WorkerFlowRunResponse]":
        """Return the runs that are due, without those that have to wait for capacity."""
        due = await super()._get_scheduled_flow_runs()
        self._waiting = Counter()
        if not self._capacity.refused:
            self._on_demand.clear()
            return due
        ready, unmarked = [], []
        for entry in due:
            wanted = await self._wanted_provider(entry.flow_run)
            if entry.flow_run.id in self._submitting_flow_run_ids or self._capacity.choose(wanted, entry.flow_run.id):
                ready.append(entry)
                continue
            self._waiting[self._capacity.explain(wanted)] += 1
            if entry.flow_run.state and entry.flow_run.state.name != AWAITING_CAPACITY:
                unmarked.append((entry.flow_run, wanted))
        marking = (self._let_wait(*each, taken=False) for each in unmarked[:MARKED_AT_ONCE])
        for outcome in await asyncio.gather(*marking, return_exceptions=True):
            if isinstance(outcome, Exception):  # the run waits all the same, and is marked the next time
                logger.warning("a run is not marked as waiting: %s: %s", type(outcome).__name__, outcome)
        return ready

    async def _wanted_provider(self, flow_run: "FlowRun") -> str:
        """Return the capacity provider that a run is to be started at."""
        if flow_run.id in self._on_demand:
            return ON_DEMAND
        if named := (flow_run.job_variables or {}).get("capacity_provider"):
            return str(named)
        variables = self.work_pool.base_job_template.get("variables", {}).get("properties", {})
        usual = str(variables.get("capacity_provider", {}).get("default") or ON_DEMAND)
        if not flow_run.deployment_id:
            return usual
        read_at, name = self._providers.get(flow_run.deployment_id, (float("-inf"), usual))
        if time.monotonic() - read_at > REMEMBERED_SECONDS:
            name = usual
            try:
                deployment = await self.client.read_deployment(flow_run.deployment_id)
                name = str((deployment.job_variables or {}).get("capacity_provider") or usual)
            except (
                Exception
            ) as error:  # it was deleted, or Prefect has trouble: the run is looked at again when it starts
                logger.warning("deployment %s: %s: %s", flow_run.deployment_id, type(error).__name__, error)
            self._providers[flow_run.deployment_id] = time.monotonic(), name
        return name

    async def _let_wait(self, flow_run: "FlowRun", provider: str, taken: bool) -> None:
        """Put a run back into its place in the queue, with what it waits for.

        Args:
            flow_run: the run.
            provider: that has no room for it.
            taken: this agent has taken the run; then nothing is done when another one has taken it since.
        """
        try:
            now = await self.client.read_flow_run(flow_run.id)
        except ObjectNotFound:
            return
        if now.state and (self._is_mine(now) if taken else now.state.is_scheduled()):
            message = f"The run {self._capacity.explain(provider)}. It is started when AWS has room."
            await prefect_states.propose(self.client, now.id, prefect_states.awaiting_capacity(now, message))

    def _is_mine(self, flow_run: "FlowRun") -> bool:
        """Whether this agent has taken a run, and nobody else since."""
        taker = flow_run.labels.get("prefect.worker.name")
        return bool(flow_run.state and flow_run.state.is_pending() and taker in (None, self.name))

    # How a run is started

    async def run(
        self,
        flow_run: "FlowRun",
        configuration: ECSJobConfiguration,
        task_status: "TaskStatus[Any] | None" = None,
    ) -> ECSWorkerResult:
        """Start a run as an ECS task that carries the name of its attempt, and how often it may be restarted."""
        try:
            return await self._start(flow_run, configuration, task_status)
        except refusals.NeverStartsError as error:
            self.get_flow_run_logger(flow_run).error("Not started: %s", error)
            await prefect_states.propose(self.client, flow_run.id, Crashed(message=f"Not started: {error}"))
        except (NotStartedError, ObjectNotFound):  # it waits, or was deleted
            pass
        except refusals.NoAnswerError as error:
            # Its task may have been started: recovery looks for it, and schedules the run again if there is none.
            self.get_flow_run_logger(flow_run).warning("AWS did not answer, the agent looks again soon: %s", error)
        except (refusals.RefusedError, refusals.StaleError, refusals.NotYetKnownError) as error:
            with contextlib.suppress(ObjectNotFound):
                if self._is_mine(await self.client.read_flow_run(flow_run.id)):
                    message = f"AWS asks to try again: {error}."
                    await prefect_states.propose(self.client, flow_run.id, prefect_states.rescheduled(message))
        finally:
            self._capacity.given_up(flow_run.id)
        if task_status:
            task_status.started(NotStartedError())
        return ECSWorkerResult(identifier="", status_code=0)

    async def _start(
        self, flow_run: "FlowRun", configuration: ECSJobConfiguration, task_status: "TaskStatus[Any] | None"
    ) -> ECSWorkerResult:
        states = await self.client.read_flow_run_states(flow_run.id)
        attempt = attempts.name(flow_run.id, states)
        if attempts.number(states):
            await self._stop_earlier(flow_run, configuration, attempt)
        request = configuration.task_run_request
        request |= {"startedBy": str(flow_run.id), "clientToken": attempt}
        if not on_instances(configuration.task_definition):
            limits.check_size(request.get("overrides", {}))
        restarts = str(cast(JobConfiguration, configuration).restarts)
        configuration.labels |= {ATTEMPT_TAG: attempt, RESTARTS_TAG: restarts, RUN_TAG: str(flow_run.id)}  # as tags
        move_large_variables(configuration)
        wanted = provider_of(request)
        if attempts.restarts(states) > RESTARTS_ON_SPOT:
            wanted = ON_DEMAND
            self._on_demand.add(flow_run.id)
        provider = self._capacity.choose(wanted, flow_run.id)
        if provider is None:
            await self._let_wait(flow_run, wanted, taken=True)
            raise NotStartedError
        set_provider(request, provider)
        try:
            result = await super().run(flow_run, configuration, task_status)
        except (refusals.RefusedError, refusals.NoAnswerError) as error:
            self._capacity.refuse(provider, flow_run.id, str(error))
            if isinstance(error, refusals.NoAnswerError):
                raise
            await self._let_wait(flow_run, provider, taken=True)
            raise NotStartedError from error
        self._capacity.taken(provider, flow_run.id)
        return result

    async def _stop_earlier(self, flow_run: "FlowRun", configuration: ECSJobConfiguration, attempt: str) -> None:
        """Make sure that no task of an earlier attempt works on the run any more."""
        try:
            async with aws.client("ecs") as ecs:
                if not await outlived.stop_earlier(Tasks(ecs, configuration.cluster or ""), flow_run.id, attempt):
                    return
        except Exception as error:
            raise refusals.of_error(error) from None
        now = await self.client.read_flow_run(flow_run.id)
        if now.state and not now.state.is_pending():
            # A task that is asked to stop reports its run as crashed.
            if now.state.is_crashed():
                message = "The task of its earlier attempt was stopped."
                await prefect_states.propose(self.client, flow_run.id, prefect_states.rescheduled(message))
            raise NotStartedError

    def _prepare_task_definition(
        self, configuration: ECSJobConfiguration, region: str, flow_run: "FlowRun"
    ) -> dict[str, Any]:
        """Prepare a task definition as the original does, but leave the sizes of its containers to the task."""
        definition: dict[str, Any] = super()._prepare_task_definition(configuration, region, flow_run)
        if not on_instances(definition):
            # A container's own limit would hold for a run whose task is larger.
            for container in definition["containerDefinitions"]:
                container.pop("cpu", None)
                container.pop("memory", None)
        return definition

    def _get_or_register_task_definition(
        self,
        logger: logging.Logger,
        ecs_client: Any,
        configuration: ECSJobConfiguration,
        flow_run: "FlowRun",
        task_definition: dict[str, Any],
    ) -> tuple[str, bool]:
        try:
            return self._revisions.find_or_register(ecs_client, task_definition), False
        except Exception as error:
            raise refusals.of_error(error) from None

    def _prepare_task_run_request(
        self,
        configuration: ECSJobConfiguration,
        task_definition: Any,
        task_definition_arn: str,
        new_task_definition_registered: bool,
    ) -> dict[str, Any]:
        """Prepare a request as the original does, with tags that AWS takes."""
        request: dict[str, Any] = super()._prepare_task_run_request(
            configuration, task_definition, task_definition_arn, new_task_definition_registered
        )
        request["tags"], notes = limits.fitting_tags(request.get("tags", []))
        for note in notes:
            self._logger.warning("run %s: %s", request.get("startedBy"), note)
        return request

    def _prepare_and_create_task(
        self, logger: logging.Logger, ecs_client: Any, configuration: ECSJobConfiguration, flow_run: "FlowRun"
    ) -> Any:
        for pause in PAUSES_SECONDS:
            try:
                return super()._prepare_and_create_task(logger, ecs_client, configuration, flow_run)
            except refusals.StaleError:  # another agent, or somebody, has deregistered the revision
                continue
            except refusals.NotYetKnownError:
                time.sleep(pause)
        return super()._prepare_and_create_task(logger, ecs_client, configuration, flow_run)

    def _create_task_run(self, ecs_client: Any, task_run_request: dict[str, Any]) -> Any:
        """Start the task, unless one has been started for this attempt: then that is the one."""
        try:
            answer = ecs_client.run_task(**task_run_request)
        except ecs_client.exceptions.ConflictException as conflict:
            # Same attempt, other parameters: the tags of another agent, or a task definition registered since.
            if started := conflict.response.get("resourceIds"):
                return {"taskArn": started[0], "clusterArn": task_run_request["cluster"]}
            raise refusals.RefusedError(str(conflict)) from None
        except Exception as error:
            meaning, revision = refusals.of_error(error), task_run_request["taskDefinition"]
            if isinstance(meaning, refusals.NotYetKnownError):
                self._unknown[revision] += 1
            if isinstance(meaning, refusals.StaleError) or self._unknown[revision] >= len(PAUSES_SECONDS):
                self._revisions.forget(revision)
                self._unknown.pop(revision, None)
            raise meaning from None
        self._unknown.pop(task_run_request["taskDefinition"], None)
        if answer["tasks"]:
            return answer["tasks"][0]
        raise refusals.of_failures(answer["failures"])

    def _report_task_run_creation_failure(self, configuration: Any, task_run: Any, exc: Exception) -> None:
        """Let the error be what it is: it says what happened and what to do."""
        raise exc

    # What goes on beside that

    def is_worker_still_polling(self, query_interval_seconds: float) -> bool:
        """Whether the agent asks for runs and its observer reads events: what its health check wants to know."""
        if not self._observer.runs:
            self._logger.error("the observer of task events has stopped")
            return False
        return super().is_worker_still_polling(query_interval_seconds)

    async def __aenter__(self) -> "Agent":
        """Start the observer of tasks, and to look for stranded runs."""
        await super(ECSWorker, self).__aenter__()  # without Prefect's observer
        self._observer = Observer(os.environ["TASK_EVENTS_QUEUE"], self._on_stopped)
        looking = recovery.Agent(
            project=self._work_pool_name,
            name=self.name,
            heartbeat_seconds=self.heartbeat_interval_seconds,
            starting=lambda: self._submitting_flow_run_ids,
            capacity=self._capacity,
            waiting=lambda: dict(self._waiting),
        )
        self._beside = [
            asyncio.create_task(self._observer.keep_reading()),
            asyncio.create_task(recovery.keep_looking(looking)),
        ]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        """Stop both; runs that are being started are waited for."""
        for task in self._beside:
            task.cancel()
        await super(ECSWorker, self).__aexit__(*exc_info)

    async def _on_stopped(self, event: dict[str, Any]) -> None:
        """Handle the event of a stopped task, and show it among Prefect's own events."""
        task = event["detail"]
        async with aws.client("ecs") as ecs:
            listed = await Tasks(ecs, task["clusterArn"]).described([task["taskArn"]])
        # The worker starts each task in the name of its run.
        tags = listed[task["taskArn"]]["tags"] if task["taskArn"] in listed else {RUN_TAG: task.get("startedBy", "")}
        if run_of(tags):
            await task_ends.settle(self.client, task, tags, self._capacity)
            await show_event(event, tags)


async def show_event(event: dict[str, Any], tags: dict[str, str]) -> None:
    """Show an event of ECS among Prefect's own; that it may fail must not bring the event back."""
    try:
        await replicate_ecs_event(event, tags)
    except Exception as error:
        logger.warning("an event of ECS is not shown at Prefect: %s: %s", type(error).__name__, error)


def on_instances(task_definition: dict[str, Any]) -> bool:
    """Whether a task runs on instances of one's own, of which any size is offered, and not on Fargate."""
    return "EC2" in task_definition.get("requiresCompatibilities", [])


def provider_of(task_run_request: dict[str, Any]) -> str:
    """Return the capacity provider of a request to RunTask."""
    strategy = task_run_request.get("capacityProviderStrategy") or [{"capacityProvider": ON_DEMAND}]
    return str(strategy[0]["capacityProvider"])


def set_provider(task_run_request: dict[str, Any], provider: str) -> None:
    """Have a task started by a capacity provider."""
    for entry in task_run_request.get("capacityProviderStrategy", []):
        entry["capacityProvider"] = provider


def move_large_variables(configuration: ECSJobConfiguration) -> None:
    """Move variables from the overrides of a run, which have little room, to its task definition.

    Raises:
        NeverStartsError: they don't fit there either.
    """
    environment = {name: value for name, value in configuration.env.items() if value is not None}
    moving = limits.move_to_definition(environment, configuration.command or "")
    if not moving:
        return
    (container,) = configuration.task_definition["containerDefinitions"]
    container["environment"] = [{"name": name, "value": environment[name]} for name in moving]
    for override in configuration.task_run_request.get("overrides", {}).get("containerOverrides", []):
        if isinstance(override.get("environment"), dict):
            override["environment"] = {k: v for k, v in override["environment"].items() if k not in moving}
    configuration.env = {name: value for name, value in configuration.env.items() if name not in moving}


def main() -> None:
    """Work until asked to stop: SIGTERM, which is what ECS sends, ends it in order."""
    setup_signal_handlers_worker(os.getpid(), "the agent", print)
    os.environ.update({f"PREFECT_INTEGRATIONS_AWS_ECS_WORKER_{name}": "1" for name in ONE_ATTEMPT})
    rate_limits.wait_out()
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
