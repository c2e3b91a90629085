"""How a task of the emulated ECS lives and ends: as on AWS.

- every state change is told to EventBridge;
- a container's health check is run: a service calls a task steady when it is healthy, and replaces it when it is not;
- StopTask lets containers end by themselves first, and their exit codes are the true ones;
- a task that its service stops has the stop code and reason of the service scheduler;
- a task on Fargate Spot can be interrupted, by a StopTask whose reason says so;
- a container that was killed for its memory says so;
- containers go when their task has ended;
- RunTask called again with the same client token starts nothing.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import contextlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from environments.emulated_answers import being_stopped

SPOT_INTERRUPTION = "Your Spot Task was interrupted."
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
UNHEALTHY = "Task failed container health checks"
STOP_TIMEOUT_SECONDS = 30
"""Fargate's own, where the task definition says nothing."""
FIRST_CHECKS_SECONDS = 0.5
"""AWS waits a whole interval before the first health check; here a task is seen to be healthy at once."""
LONG_SECONDS = 3600
CONNECTIONS = 200
"""To the Docker engine: one for each container that is waited for."""
TOKENS = 10_000
SCHEDULER_REASONS = (
    "Service scaling down",
    "Service deleted",
    "Task definition updated",
    "Deployment completed",
    "Deployment capacity limit",
    "Deployment taken back",
)
"""Why the emulator, and emulated_rollouts.py, stop tasks of a service."""
WORDS = {"Essential container exited": "Essential container in task exited"}
"""The emulator's reason for the end of a task, and the one of AWS."""
OF_A_CONTAINER = re.compile(r"Cannot\w+ContainerError: ")
"""What the reason of a task begins with that is the reason of its container, too."""
NOT_STARTED = "ResourceInitializationError: unable to pull image or start container: "
"""What the emulator says whenever the Docker engine refuses a task."""


def live_as_on_aws(ecs: Any, eventbridge: Any) -> None:
    """Replace what the emulator does when a task changes its state.

    Args:
        ecs: the emulator's ECS module.
        eventbridge: its EventBridge module.
    """
    import docker

    ecs._docker = docker.from_env(timeout=ecs._DOCKER_TIMEOUT, max_pool_size=CONNECTIONS)
    remember_how_to_watch(ecs)
    end_with_true_reasons(ecs)
    tell = teller(ecs, eventbridge)
    stop_gently(ecs, tell)
    check_health(ecs)
    wait_for_exits(ecs)
    remove_ended_containers(ecs)
    start_once_per_token(ecs)
    tell_of_changes(ecs, tell)


def remember_how_to_watch(ecs: Any) -> None:
    """Keep with a task what its containers say about health check and stop timeout."""
    start = ecs._start_task_worker

    def start_task(task: Any, definition: Any, *rest: Any) -> Any:
        containers = definition.get("containerDefinitions", [])
        task["_health_check"] = next((each["healthCheck"] for each in containers if each.get("healthCheck")), None)
        task["_stop_timeout"] = max((each.get("stopTimeout") or STOP_TIMEOUT_SECONDS for each in containers), default=0)
        return start(task, definition, *rest)

    ecs._start_task_worker = start_task


def teller(ecs: Any, eventbridge: Any) -> Callable[[dict[str, Any], str], None]:
    """Return a function that sends a state of a task to the rules of EventBridge.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
    """

    def tell(task: dict[str, Any], status: str) -> None:
        detail = {**ecs._sanitize(task), **being_stopped(task), "lastStatus": status, "updatedAt": ecs._iso()}
        detail.pop("tags", None)
        # In events it has another name than in answers.
        detail["attachments"] = [{**one, "type": "eni"} for one in detail.get("attachments", [])]
        eventbridge._dispatch_event(
            {
                "EventId": ecs.new_uuid(),
                "Source": "aws.ecs",
                "DetailType": "ECS Task State Change",
                "Detail": json.dumps(detail),
                "EventBusName": "default",
                "Time": int(time.time()),
                "Resources": [task["taskArn"]],
                "Account": ecs.get_account_id(),
                "Region": ecs.get_region(),
            }
        )

    return tell


def tell_of_changes(ecs: Any, tell: Callable[[dict[str, Any], str], None]) -> None:
    """Send each state change of a task."""

    def telling(mark: Any, *statuses: str) -> Any:
        def marked(task_arn: str, task: Any, *arguments: Any, **options: Any) -> Any:
            done = mark(task_arn, task, *arguments, **options)
            for status in statuses if done else ():
                tell(task, status)
            return done

        return marked

    # A task is PROVISIONING from its creation on; that is told when the emulator begins with it.
    ecs._mark_task_pending = telling(ecs._mark_task_pending, "PROVISIONING", "PENDING")
    ecs._mark_task_running = telling(ecs._mark_task_running, "RUNNING")
    ecs._mark_task_stopped = telling(ecs._mark_task_stopped, "DEPROVISIONING", "STOPPED")


def end_with_true_reasons(ecs: Any) -> None:
    """Let a stopped task say in the words of AWS why it ended.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
    """
    mark = ecs._mark_task_stopped

    def mark_stopped(task_arn: str, task: Any, reason: str, stop_code: str, exit_code: int | None = None) -> Any:
        if reason in SCHEDULER_REASONS:
            reason = f"Scaling activity initiated by (deployment {task.get('_deployment_id')})"
            stop_code = "ServiceSchedulerInitiated"
        reason, stop_code = (task.get("_stopping") or (_as_aws_says(reason), stop_code))[:2]
        if not task.get("startedAt"):
            exit_code = None  # its containers never ran
        for container in task["containers"] if OF_A_CONTAINER.match(reason) else ():
            container["reason"] = reason
        for container, docker_id in zip(task["containers"], task.get("_docker_ids") or [], strict=False):
            if killed_for_memory(ecs._get_docker(), docker_id):
                container["reason"] = OUT_OF_MEMORY
        return mark(task_arn, task, reason, stop_code, exit_code)

    ecs._mark_task_stopped = mark_stopped


def _as_aws_says(reason: str) -> str:
    if not reason.startswith(NOT_STARTED):
        return WORDS.get(reason, reason)
    said = reason.removeprefix(NOT_STARTED)
    # The engine's request for an image is /images/create.
    return f"{'CannotPullContainerError' if '/images/create' in said else 'CannotStartContainerError'}: {said}"


def killed_for_memory(docker_client: Any, container_id: str) -> bool:
    """Whether the kernel killed a container for its memory limit."""
    from docker.errors import DockerException

    with contextlib.suppress(DockerException):
        return bool(docker_client.api.inspect_container(container_id)["State"]["OOMKilled"])
    return False


def stop_gently(ecs: Any, tell: Callable[[dict[str, Any], str], None]) -> None:
    """Let StopTask answer at once, and the containers of a workflow end by themselves before they are killed.

    That the task is to stop is sent to EventBridge at once, which is how a Spot interruption is announced:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html

    The emulator's own way stays for the tasks of services: it calls those stopped first, and its rollouts rely on that.
    """
    stop = ecs._stop_task

    def stop_task(data: dict[str, Any]) -> Any:
        task = ecs._resolve_task(data.get("task", ""), ecs._resolve_cluster_name(data.get("cluster", "default")))
        if not task or task.get("lastStatus") != "RUNNING" or task.get("group", "").startswith("service:"):
            return stop(data)
        reason = data.get("reason") or "Task stopped by user"
        interrupted = reason.startswith(SPOT_INTERRUPTION[:-1]) and task.get("capacityProviderName") == "FARGATE_SPOT"
        with ecs.resource_lock("ecs-task", task["taskArn"]):
            first = "_stopping" not in task
            task.setdefault("_stopping", [reason, "SpotInterruption" if interrupted else "UserInitiated", ecs._iso()])
        if first:
            tell(task, "RUNNING")
            ecs.spawn_background(_stop_containers, ecs, task, thread_name="stop-task")
        return ecs.json_response({"task": {**ecs._sanitize(task), **being_stopped(task)}})

    ecs._stop_task = ecs._ACTION_MAP["StopTask"] = stop_task


def _stop_containers(ecs: Any, task: dict[str, Any]) -> None:
    from docker.errors import DockerException

    for docker_id in list(task.get("_docker_ids") or []):
        with contextlib.suppress(DockerException):
            ecs._get_docker().containers.get(docker_id).stop(timeout=task.get("_stop_timeout", STOP_TIMEOUT_SECONDS))


def wait_for_exits(ecs: Any) -> None:
    """Have the engine tell when a container ends, instead of asking ten times a second for each of them."""

    def watch(task: Any, docker_client: Any, account_id: str, region: str) -> None:
        def wait() -> None:
            with ecs.request_scope(account_id, region):
                while ecs._task_is_active(task["taskArn"], task):
                    for docker_id in list(task.get("_docker_ids") or []):
                        with contextlib.suppress(Exception):  # the engine is away; a lost answer is no end
                            docker_client.api.wait(docker_id, timeout=LONG_SECONDS)
                    ecs._maybe_mark_stopped(task, docker_client)
                    time.sleep(0.1)

        ecs.spawn_background(wait, thread_name="wait-for-exit")
        _look_at_rollout(ecs, task, account_id, region)

    ecs._watch_task_lifecycle = watch


def remove_ended_containers(ecs: Any) -> None:
    """Remove a container when its task has ended and all that it wrote is in its log.

    The emulator leaves it there for two or three minutes, and looks at each of those that lie about once a minute.
    """
    from docker.errors import DockerException

    forward = ecs._forward_awslogs

    def forward_and_remove(container: Any, config: Any, account_id: str, region: str) -> None:
        forward(container, config, account_id, region)  # comes back when the container has ended
        task_arn = container.labels["com.amazonaws.ecs.task-arn"]
        with ecs.request_scope(account_id, region):
            while (task := ecs._tasks.get(task_arn)) and ecs._task_is_active(task_arn, task):
                time.sleep(0.1)
        with contextlib.suppress(DockerException):  # the emulator was quicker, or it is still about to stop it
            container.remove(v=True)

    ecs._forward_awslogs = forward_and_remove


def _look_at_rollout(ecs: Any, task: dict[str, Any], account_id: str, region: str) -> None:
    cluster = ecs._cluster_name_from_arn(task["clusterArn"])
    kind, _, service = task.get("group", "").partition(":")
    if kind == "service":
        ecs._schedule_service_deployment_completion(
            cluster, f"{cluster}/{service}", account_id, region, healthy_task=task
        )


def check_health(ecs: Any) -> None:
    """Run the health check of a service's task, and let its rollout wait for it.

    Sources: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/healthcheck.html and
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
    """
    mark_running, record_healthy = ecs._mark_task_running, ecs._record_service_task_healthy

    def mark_running_and_watch(task_arn: str, task: Any) -> Any:
        done = mark_running(task_arn, task)
        if done and task.get("_health_check"):
            ecs.spawn_background(_watch_health, ecs, task, thread_name="health-check")
        return done

    def record_when_healthy(service: str, task: Any) -> None:
        if task.get("healthStatus") == "HEALTHY" or not task.get("_health_check"):
            record_healthy(service, task)

    ecs._mark_task_running = mark_running_and_watch
    ecs._record_service_task_healthy = record_when_healthy


def _watch_health(ecs: Any, task: dict[str, Any]) -> None:
    check, failures, begin = task["_health_check"], 0, time.monotonic()
    interval = check.get("interval", 30)
    while ecs._task_is_active(task["taskArn"], task):
        starting = task["healthStatus"] == "UNKNOWN" and time.monotonic() - begin < check.get("startPeriod", 0)
        if passes(ecs._get_docker(), task, check):
            failures = 0
            if task["healthStatus"] != "HEALTHY":
                task["healthStatus"] = "HEALTHY"
                _look_at_rollout(ecs, task, ecs.get_account_id(), ecs.get_region())
        elif not starting:
            failures += 1
        if failures >= check.get("retries", 3):
            _replace_unhealthy(ecs, task)
            return
        time.sleep(FIRST_CHECKS_SECONDS if starting else interval)


def _replace_unhealthy(ecs: Any, task: dict[str, Any]) -> None:
    task["healthStatus"] = "UNHEALTHY"
    if ecs._mark_task_stopped(task["taskArn"], task, UNHEALTHY, "ServiceSchedulerInitiated"):
        ecs._cleanup_task_resources(task, ecs._get_docker())
        ecs._record_service_task_failure(task)


def passes(docker_client: Any, task: dict[str, Any], check: dict[str, Any]) -> bool:
    """Whether the health check of a task's container ends with exit code 0 in time."""
    from docker.errors import DockerException

    kind, *command = check["command"]
    arguments = ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command
    deadline = time.monotonic() + check.get("timeout", 5)
    with contextlib.suppress(DockerException, IndexError):
        run = docker_client.api.exec_create(task["_docker_ids"][0], arguments)["Id"]
        docker_client.api.exec_start(run, detach=True)
        while time.monotonic() < deadline:
            state = docker_client.api.exec_inspect(run)
            if not state["Running"]:
                return bool(state["ExitCode"] == 0)
            time.sleep(0.05)
    return False


def start_once_per_token(ecs: Any) -> None:
    """Let RunTask start nothing when it is called again with the same client token.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ECS_Idempotency.html
    """
    run = ecs._ACTION_MAP["RunTask"]
    known: OrderedDict[tuple[str, str, str], tuple[str, list[str]]] = OrderedDict()
    lock = threading.Lock()

    def run_once(data: dict[str, Any]) -> Any:
        asked, token = json.dumps(data, sort_keys=True), data.get("clientToken")
        if not token:
            return run(data)
        key = (ecs.get_account_id(), ecs.get_region(), token)
        with lock:
            if key in known:
                before, arns = known[key]
                return _conflict(ecs, arns) if before != asked else _as_they_are(ecs, arns)
            answer = run(data)
            if started := [task["taskArn"] for task in json.loads(answer[2]).get("tasks", [])]:
                known[key] = asked, started
                if len(known) > TOKENS:
                    known.popitem(last=False)
        return answer

    ecs._ACTION_MAP["RunTask"] = run_once


def _as_they_are(ecs: Any, arns: list[str]) -> Any:
    tasks = [ecs._sanitize(ecs._tasks[arn]) for arn in arns if arn in ecs._tasks]
    return ecs.json_response({"tasks": tasks, "failures": []})


def _conflict(ecs: Any, arns: list[str]) -> Any:
    message = "The provided clientToken is already in use with a different RunTask request."
    return ecs.json_response({"__type": "ConflictException", "message": message, "resourceIds": arns}, 400)
