"""The emulated AWS of environment local: ministack, plus what real ECS does and it does not.

- ECS answers with the fields that AWS returns (emulated_answers.py), refuses what AWS refuses (emulated_refusals.py),
  and has no capacity when a file says so (emulated_capacity.py);
- ECS starts a task's containers as Fargate does (emulated_ecs.py), and a task lives and ends as there
  (emulated_lifecycle.py); a rollout that is taken back does not stop who serves (emulated_rollouts.py);
- IAM is enforced with the permissions that AWS asks for (emulated_iam.py);
- flow logs, NAT gateways and VPC endpoints are described in full, and what is in use stays (emulated_network.py);
- values of secrets are encrypted with KMS keys that the caller must be allowed to use (emulated_secrets.py), and a log
  group with one that its service may use (emulated_logs.py);
- CloudWatch tells all of an alarm in each protocol (emulated_cloudwatch.py);
- its threads don't trip over each other (emulated_threads.py);
- availability zone rebalancing of a service, tags and description of an egress rule are given back as they were told;
- state is saved a moment after each change, not only on an orderly stop.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

SAVE_AFTER_QUIET_SECONDS = 1.0
SAVED = "saved.txt"
HEALTH = "/_ministack/health"


async def serve(sockets: list[socket.socket], port: int, gateway: str, network: str) -> None:
    """Serve the emulated AWS on sockets that are already listening.

    Args:
        sockets: where to listen; one is the containers' gateway.
        port: their common port.
        gateway: address of this machine in the containers' network.
        network: id of the containers' Docker network.
    """
    import signal

    state = Path(os.environ["STATE_DIR"])
    start_empty_if_incomplete(state, Path(os.environ["S3_DATA_DIR"]))

    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config
    from ministack import app as ministack
    from ministack.services import (
        cloudwatch,
        cloudwatch_logs,
        ec2,
        ecr,
        ecs,
        eventbridge,
        kms,
        secretsmanager,
        sqs,
        sts,
    )

    from environments import emulated_capacity
    from environments.emulated_answers import answer_as_aws
    from environments.emulated_cloudwatch import describe_alarms_in_full
    from environments.emulated_ecs import adapt_tasks
    from environments.emulated_iam import enforce_as_aws_does
    from environments.emulated_lifecycle import live_as_on_aws
    from environments.emulated_logs import encrypt_groups
    from environments.emulated_network import complete_network
    from environments.emulated_record import FILE_VARIABLE, Recorder
    from environments.emulated_refusals import refuse_as_aws
    from environments.emulated_rollouts import keep_who_serves
    from environments.emulated_secrets import encrypt_values
    from environments.emulated_threads import walk_safely

    recorder = Recorder(Path(record) if (record := os.environ.get(FILE_VARIABLE)) else None)
    walk_safely(ecs, sts)
    adapt_tasks(ecs, port, gateway, network)
    answer_as_aws(ecs)
    emulated_capacity.refuse_capacity(ecs, state.parent / emulated_capacity.FILE)
    refuse_as_aws(ecs)
    live_as_on_aws(ecs, eventbridge)
    keep_who_serves(ecs)
    enforce_as_aws_does(ecr, ecs, recorder)
    remember_availability_zone_rebalancing(ecs)
    forget_receivers(sqs)
    stop_restored_tasks(ecs)
    # Restored services start their tasks at once: what those need must have been restored before.
    ministack._state_map["ecs"] = ministack._state_map.pop("ecs")
    replace_default_egress(ec2)
    complete_network(ec2, recorder)
    encrypt_values(secretsmanager, kms, recorder)
    encrypt_groups(cloudwatch_logs, kms)
    describe_alarms_in_full(cloudwatch)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}" for listener in sockets]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1.0
    stopped = asyncio.Event()

    def stop() -> None:
        # Services must not replace the containers that are being stopped.
        ecs._reconcile_service_tasks = lambda *_arguments, **_options: None
        stopped.set()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop)
    logging.getLogger("persistence").setLevel(logging.WARNING)
    changes = Changes()
    threading.Thread(target=save_changes, args=(ministack, changes, state), daemon=True, name="save").start()
    await hypercorn_serve(closed(recording(ministack.app, changes)), config, shutdown_trigger=stopped.wait)
    # Everything is saved and stopped; threads that wait for queues and containers must not keep the process.
    os._exit(0)


def forget_receivers(sqs: Any) -> None:
    """Let whoever waits for messages of a queue ask every second: the emulator goes on waiting for one who is gone.

    A message that it hands to an agent that was killed would stay hidden from the next one.
    """
    receive = sqs._HANDLERS["ReceiveMessage"]

    async def receive_for_a_second(data: dict[str, Any], url: str) -> Any:
        longest = {"WaitTimeSeconds": min(int(data["WaitTimeSeconds"]), 1)} if data.get("WaitTimeSeconds") else {}
        return await receive({**data, **longest}, url)

    sqs._HANDLERS["ReceiveMessage"] = receive_for_a_second


def start_empty_if_incomplete(state: Path, objects: Path) -> None:
    """Forget everything when a service's saved state is gone.

    What is left would speak of things that no longer exist, Terraform's state above all; an empty account is what a
    deploy can start from.
    """
    there = {file.name for file in state.glob("*.json")}
    known = state / SAVED
    expected = set(known.read_text(encoding="utf-8").split()) if known.exists() else set()
    if not there or expected - there:
        shutil.rmtree(objects, ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)


def remember_what_is_saved(state: Path) -> None:
    """Write down which services have saved state, for `start_empty_if_incomplete`."""
    names = sorted(file.name for file in state.glob("*.json"))
    draft = state / f"{SAVED}.draft"
    with contextlib.suppress(OSError):  # a full disk; the list from before still holds
        draft.write_text("\n".join(names), encoding="utf-8")
        draft.replace(state / SAVED)


class Changes:
    """When something was last changed: anything at all, and images in particular."""

    def __init__(self) -> None:
        self.anything = 0.0
        self.images = 0.0


def closed(application: Any) -> Any:
    """Wrap an ASGI application so that of the emulator's own pages its health alone is there.

    AWS has none of them. They ask for no signature, and one makes the emulator forget everything: for each container
    that reaches the port, and for each web page that has this machine's browser send a request.
    """

    async def without_own_pages(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if re.match("/+_(ministack|localstack)", path) and path != HEALTH:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body"})
            return
        await application(scope, receive, send)

    return without_own_pages


def recording(application: Any, changes: Changes) -> Any:
    """Wrap an ASGI application so that `changes` knows of each request that may have changed something."""

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        try:
            await application(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
                changes.anything = time.monotonic()
                if scope["path"].startswith("/v2/"):
                    changes.images = changes.anything

    return recorded


def save_changes(ministack: Any, changes: Changes, state: Path) -> None:
    """For ever: write state to disk once it has been quiet for a moment. Image layers are large: only when pushed."""
    from ministack.core.persistence import save_all

    saved = saved_images = 0.0
    while True:
        time.sleep(SAVE_AFTER_QUIET_SECONDS)
        latest, latest_images = changes.anything, changes.images
        if latest == saved or time.monotonic() - latest < SAVE_AFTER_QUIET_SECONDS:
            continue
        services = ministack._build_persistence_save_dict()
        if latest_images == saved_images:
            services.pop("ecr", None)
        save_all(services)
        remember_what_is_saved(state)
        saved, saved_images = latest, latest_images


def remember_availability_zone_rebalancing(ecs: Any) -> None:
    """Let DescribeServices give back what CreateService and UpdateService were told; Terraform compares it."""
    setting = "availabilityZoneRebalancing"

    def remembering(action: Any) -> Any:
        def called(data: dict[str, Any]) -> Any:
            answer = action(data)
            name = data.get("serviceName") or data.get("service", "")
            cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
            service = ecs._services.get(f"{cluster}/{name.rsplit('/', 1)[-1]}")
            if service is not None:
                service[setting] = data.get(setting) or service.get(setting, "ENABLED")
            return answer

        return called

    for name in ("CreateService", "UpdateService"):
        ecs._ACTION_MAP[name] = remembering(ecs._ACTION_MAP[name])


def stop_restored_tasks(ecs: Any) -> None:
    """Let tasks whose container went with the last process be stopped in every respect; the service starts new ones.

    The emulator marks them stopped, and would still list them among those that should be running.
    """
    restore = ecs._restore_state

    def restore_as_stopped(data: Any) -> None:
        restore(data)
        for _, task in ecs._tasks.all_items():
            task["desiredStatus"] = "STOPPED"
            task.setdefault("stopCode", "ServiceSchedulerInitiated")
            task.setdefault("stoppedReason", "the emulated AWS was restarted")

    ecs._restore_state = restore_as_stopped


def replace_default_egress(ec2: Any) -> None:
    """Let an egress rule take the place of the default one it repeats.

    The emulator would keep the default one, and lose the new one's tags and description.
    """
    authorize = ec2._ACTION_MAP["AuthorizeSecurityGroupEgress"]

    def authorize_in_place(parameters: Any) -> Any:
        group = ec2._security_groups.get(ec2._p(parameters, "GroupId"))
        if group:
            new = ec2._parse_ip_permissions(parameters, "IpPermissions")
            group["IpPermissionsEgress"] = [
                rule for rule in group["IpPermissionsEgress"] if not any(ec2._rules_match(rule, other) for other in new)
            ]
        return authorize(parameters)

    ec2._ACTION_MAP["AuthorizeSecurityGroupEgress"] = authorize_in_place
