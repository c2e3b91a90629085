"""Simulated shortage of capacity: a file of refusals that the emulated AWS answers with next.

Capacity, quotas and throttling of the real AWS cannot be produced on one machine. Whoever wants to see what happens
then (a test, or a user) writes `.local/local/aws/capacity.json`, a list of entries:

    [{"capacityProvider": "FARGATE_SPOT", "reason": "RESOURCE:CPU"},
     {"capacityProvider": "FARGATE", "exception": "ThrottlingException", "message": "Rate exceeded", "times": 3},
     {"startFailure": "Capacity is unavailable at this time. Please try again later"},
     {"action": "RegisterTaskDefinition", "exception": "ClientException", "message": "Too many concurrent ..."}]

An entry answers one request, or `times` of them, and is gone then. It applies to RunTask unless `action` names another
action of ECS, and to every capacity provider unless it names one. It answers in one of three ways:

- `reason` (with optional `detail` and `arn`): 200, no task, and one entry in `failures`;
- `exception` and `message`: 400 with that error, or 500 with ServerException;
- `startFailure`: the task is created and stops before its containers start, with this text as `stoppedReason`.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE = "capacity.json"
START_FAILURE = "_startFailure"
"""In the overrides of a task that is not to start; the emulator shows nothing that begins with an underscore."""


def refuse_capacity(ecs: Any, file: Path) -> None:
    """Let requests to ECS be answered by the entries of a file as long as it has any that apply.

    Args:
        ecs: the emulator's ECS module.
        file: where the entries are.
    """
    run, dispatch, start = ecs._ACTION_MAP["RunTask"], ecs._dispatch_action, ecs._start_task_worker

    def run_if_capacity(data: dict[str, Any]) -> Any:
        cluster = ecs._clusters.get(ecs._resolve_cluster_name(data.get("cluster", "default")))
        launch_type, strategy, _ = ecs._launch_choice(data, cluster)
        launch_type, provider = ecs._task_capacity(launch_type, strategy)
        entry = take(file, "RunTask", provider or launch_type)
        if entry is None:
            return run(data)
        if "startFailure" in entry:
            return run({**data, "overrides": {**(data.get("overrides") or {}), START_FAILURE: entry["startFailure"]}})
        if "reason" in entry:
            failure = {name: entry[name] for name in ("arn", "reason", "detail") if name in entry}
            return ecs.json_response({"tasks": [], "failures": [failure]})
        return _error(ecs, entry)

    def dispatch_unless_refused(action: str, data: dict[str, Any]) -> Any:
        # RunTask looks for itself: a repeated request with a known client token needs no capacity.
        entry = None if action == "RunTask" else take(file, action)
        return dispatch(action, data) if entry is None else _error(ecs, entry)

    def start_unless_refused(task: Any, *arguments: Any) -> Any:
        reason = (task.get("overrides") or {}).get(START_FAILURE)
        if reason is None:
            return start(task, *arguments)
        if ecs._mark_task_pending(task["taskArn"], task):
            ecs._mark_task_stopped(task["taskArn"], task, reason, "TaskFailedToStart")
        return None

    ecs._ACTION_MAP["RunTask"] = run_if_capacity
    ecs._dispatch_action, ecs._start_task_worker = dispatch_unless_refused, start_unless_refused


def _error(ecs: Any, entry: Mapping[str, Any]) -> Any:
    code = entry.get("exception", "ServerException")
    return ecs.error_response_json(code, entry.get("message", ""), 500 if code == "ServerException" else 400)


def take(file: Path, action: str, provider: str | None = None) -> dict[str, Any] | None:
    """Use up one answer of the first entry that applies to a request, if there is one.

    Args:
        file: where the entries are.
        action: what is asked of ECS.
        provider: capacity provider that the request asks for.
    """
    if not file.exists():
        return None
    with _locked(file):
        entries = read(file)
        for place, entry in enumerate(entries):
            if entry.get("action", "RunTask") == action and entry.get("capacityProvider", provider) == provider:
                more = int(entry.get("times", 1)) - 1
                entries[place : place + 1] = [{**entry, "times": more}] if more > 0 else []
                _write(file, entries)
                return entry
    return None


def replace(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the entries of a file, in place of those that it has."""
    with _locked(file):
        _write(file, entries)


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of a file; none if there is no such file, or it holds something else."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _write(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(list(entries), indent=1), encoding="utf-8")
    draft.replace(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time reads and writes the entries."""
    with os.fdopen(os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
