#!/opt/venv/bin/python
"""What `prefect` is in the images of this platform: Prefect's own, but `prefect flow-run execute` imports Prefect once.

That is the command of each workflow's container. It starts two more interpreters one after the other, and each imports
Prefect anew: one that prepares the workspace by the deployment's pull steps, and the engine. On a quarter of a vCPU
that is most of the time from the start of the container to the first line of the flow. Here a process that has imported
everything is forked into both parts; the second one prepares the workspace and becomes the engine.

ECS asks a task to stop by SIGTERM, which reaches the first process only. It is passed on to the flow, whose handlers,
`finally` blocks and hooks then have the container's `stopTimeout` to run. The exit code is the flow's own, by which the
agent tells a flow that ended itself from one that was killed. And each lease of a concurrency slot is written to the
task's log, so that the agent can release it when the task dies. A flow that is stopped because its run has ended, or
starts again, does not report that end as its own. A Prefect that limits the rate of requests is waited for
(rate_limits.py).

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLATFORM = Path(__file__).parent.parent
# Not imported: a flow must not find the platform's modules among its own.
LEASE = runpy.run_path(str(PLATFORM / "environments" / "run_terms.py"))["LEASE"]
wait_out_rate_limits: Callable[[], None] = runpy.run_path(str(PLATFORM / "agent" / "rate_limits.py"))["wait_out"]
PREFECT = str(Path(sys.executable).with_name("prefect"))
SUPERVISOR = "prefect.runner._workspace_supervisor"
EXECUTE = ["flow-run", "execute"]
NEEDED = ("prefect.cli.flow_run", "prefect.engine", "prefect.flow_engine", "prefect.task_engine", SUPERVISOR)
"""What one part or the other imports; none of it starts a thread, which would be lost by the fork."""
ENGINE = [sys.executable, "-m", "prefect.engine"]
OF_A_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a process, and so does ECS."""


class Child:
    """The forked process as Prefect's runner looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.asked_to_stop = False

    def wait(self) -> None:
        """Wait for its end; must be called once."""
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)

    def ask_to_stop(self, *_: Any) -> None:
        """Pass SIGTERM on to it; the handler of that signal."""
        self.asked_to_stop = True
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, signal.SIGTERM)


def main() -> Any:
    """Import everything, fork, and be one of the two; any other command goes to Prefect's own. Gives the exit code."""
    if sys.argv[1:] != EXECUTE:
        os.execv(PREFECT, ["prefect", *sys.argv[1:]])
    for module in NEEDED:
        importlib.import_module(module)
    wait_out_rate_limits()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(reading)
        return execute(Child(child), writing)
    os.close(writing)
    os.setsid()  # the command ends it and all that it has started as one group
    return become_engine(reading)


def execute(child: Child, writing: int) -> Any:
    """Execute the run that the environment names, with the child in place of a new process."""
    signal.signal(signal.SIGTERM, child.ask_to_stop)
    import anyio
    from prefect.cli import app

    starter: Any = importlib.import_module("prefect.runner._starter_engine")

    async def run_process(command: list[str], task_status: Any, task_status_handler: Any, env: Any, **_: Any) -> Child:
        with os.fdopen(writing, "w") as pipe:
            json.dump({"arguments": command[3:], "env": env}, pipe)
        task_status.started(task_status_handler(child))
        await anyio.to_thread.run_sync(child.wait)
        return child

    starter.run_process = run_process
    # While the flow starts its run is PENDING, too; one that nobody stopped reports its own crash.
    leave_to_others(lambda _: child.asked_to_stop)
    code: Any = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    return code if child.returncode is None else exit_code(child.returncode)


def exit_code(returncode: int) -> int:
    """Return the exit code of the container for how the flow's process ended."""
    return returncode if returncode >= 0 else OF_A_SIGNAL - returncode


def become_engine(reading: int) -> int:
    """Wait until the other part says which run it is, prepare its workspace, and be the engine."""
    supervisor: Any = importlib.import_module(SUPERVISOR)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    if not told:
        return 0  # there was nothing to execute
    message, engine = json.loads(told), dict[str, Any]()

    async def remember(command: list[str], *, cwd: Path, environment: dict[str, str]) -> int:
        engine.update(command=command, cwd=cwd, environment=environment)
        return 0

    set_environment(message["env"])
    supervisor._launch_engine = remember
    code: int = supervisor.main(message["arguments"])
    if not engine:
        return code
    os.chdir(engine["cwd"])
    if engine["command"] != ENGINE:
        os.execvpe(engine["command"][0], engine["command"], engine["environment"])
    set_environment(engine["environment"])
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    write_leases()
    leave_to_others(lambda forced: forced)
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine")  # it was imported as a part of others, not as the program that it is now
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    return 0


def write_leases() -> None:
    """Have the id of each lease of concurrency slots written to the container's log."""
    clients: Any = importlib.import_module("prefect.client.orchestration._concurrency_limits.client")
    leased = clients.ConcurrencyLimitAsyncClient.increment_concurrency_slots_with_lease

    async def leased_and_written(client: Any, *arguments: Any, **options: Any) -> Any:
        answer = await leased(client, *arguments, **options)
        if (given := answer.json()).get("limits"):
            sys.stdout.write(f"{LEASE} {given['lease_id']}\n")
            sys.stdout.flush()
        return answer

    clients.ConcurrencyLimitAsyncClient.increment_concurrency_slots_with_lease = leased_and_written


def leave_to_others(applies: Callable[[bool], bool]) -> None:
    """Have a crash of the flow reported only while the run is this process's to end.

    Prefect's engine forces that state upon a run, even when somebody has ended the run or had it started again.

    Args:
        applies: whether to look first; gets whether the state is forced.
    """
    clients: Any = importlib.import_module("prefect.client.orchestration._flow_runs.client")
    set_state, set_state_async = (
        clients.FlowRunClient.set_flow_run_state,
        clients.FlowRunAsyncClient.set_flow_run_state,
    )

    def checked(client: Any, flow_run_id: Any, state: Any, force: bool = False) -> Any:
        if state.is_crashed() and applies(force) and is_anothers(run := client.read_flow_run(flow_run_id)):
            return rejected(run)
        return set_state(client, flow_run_id, state, force)

    async def checked_async(client: Any, flow_run_id: Any, state: Any, force: bool = False) -> Any:
        if state.is_crashed() and applies(force) and is_anothers(run := await client.read_flow_run(flow_run_id)):
            return rejected(run)
        return await set_state_async(client, flow_run_id, state, force)

    clients.FlowRunClient.set_flow_run_state = checked
    clients.FlowRunAsyncClient.set_flow_run_state = checked_async


def is_anothers(run: Any) -> bool:
    """Whether a run has ended, or is to start again, without the process that works on it."""
    if run.state is None:
        return False
    again = run.state.is_scheduled() and run.empirical_policy.retry_type != "in_process"
    return bool(run.state.is_final() or run.state.is_pending() or again)


def rejected(run: Any) -> Any:
    """Return what Prefect answers when a run stays in its state."""
    from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateRejectDetails

    reason = "The run has ended, or starts again, without this process."
    return OrchestrationResult(status=SetStateStatus.REJECT, details=StateRejectDetails(reason=reason), state=run.state)


def set_environment(variables: dict[str, str]) -> None:
    """Let these be the variables of this process, and no others."""
    os.environ.clear()
    os.environ.update(variables)


if __name__ == "__main__":
    sys.exit(main())
