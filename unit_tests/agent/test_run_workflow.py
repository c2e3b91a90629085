import asyncio
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateAcceptDetails
from prefect.concurrency import services
from prefect.states import Completed, Crashed

from agent import run_workflow
from environments.run_terms import LEASE
from environments.settings import ROOT
from unit_tests.agent.prefect_fake import states_of

RUN = uuid.UUID("11111111-1111-4111-8111-111111111111")


def test_any_other_command_goes_to_prefects_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def become(program: str, arguments: list[str]) -> None:
        started.append((program, arguments))
        raise SystemExit

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(sys, "argv", ["prefect", "flow-run", "ls"])

    with pytest.raises(SystemExit):
        run_workflow.main()

    assert started == [(str(Path(sys.executable).with_name("prefect")), ["prefect", "flow-run", "ls"])]


def test_what_is_imported_before_the_fork_starts_no_thread() -> None:
    look = (
        "import importlib, threading\n"
        "from agent.run_workflow import NEEDED\n"
        "[importlib.import_module(module) for module in NEEDED]\n"
        "print([thread.name for thread in threading.enumerate()])"
    )

    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['MainThread']"


def test_replaced_functions_of_prefect_are_those_that_it_calls() -> None:
    starter = importlib.import_module("prefect.runner._starter_engine")
    supervisor = importlib.import_module(run_workflow.SUPERVISOR)

    assert "await run_process(\n" in inspect.getsource(starter)
    assert {"command", "task_status", "task_status_handler"} <= inspect.signature(starter.run_process).parameters.keys()
    assert list(inspect.signature(supervisor._launch_engine).parameters) == ["command", "cwd", "environment"]
    assert "await _launch_engine(\n" in inspect.getsource(supervisor.supervise)


def test_child_ends_when_there_was_nothing_to_execute() -> None:
    reading, writing = os.pipe()
    os.close(writing)

    assert run_workflow.become_engine(reading) == 0


@pytest.mark.parametrize(("how", "code"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)])
def test_end_of_the_child_is_seen_as_that_of_a_process(how: str, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", f"import os; {how}"])
    child = run_workflow.Child(process.pid)

    asyncio.run(asyncio.to_thread(child.wait))
    process.returncode = child.returncode  # waited for already

    assert child.returncode == code


FLOWS = {
    "completes": "pass",
    "exits": "os._exit(3)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "crashes in native code": "os.kill(os.getpid(), signal.SIGSEGV)",
    "stops as asked": "ready(); time.sleep(60)",
    "tidies up when asked": """
def tidy_up(*_):
    raise SystemExit(5)
signal.signal(signal.SIGTERM, tidy_up)
try:
    ready()
    time.sleep(60)
finally:
    print("tidied up", flush=True)
""",
}
"""What the flow's process does; `ready()` has its task asked to stop."""
EXECUTE = r"""
import importlib, json, os, resource, signal, sys, time
from types import SimpleNamespace
import anyio
import prefect.cli
from agent import run_workflow

starter = importlib.import_module("prefect.runner._starter_engine")
importlib.import_module("prefect.client.orchestration._flow_runs.client")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def app():
    # Prefect's own command: it starts the flow, waits for it, and ends with a code of its own.
    status = SimpleNamespace(started=lambda handle: None)
    async def run():
        process = await starter.run_process(
            command=["python", "-m", "supervisor", "message"], task_status=status,
            task_status_handler=lambda child: child, env={"A": "b"}, cwd=None, stream_output=True,
        )
        print("seen", process.returncode, flush=True)
    anyio.run(run)
    sys.exit(1)

def container(flow):
    # What a container does: a process that has imported everything, and the flow forked from it.
    first = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            print(pipe.read(), flush=True)
        names = {"os": os, "signal": signal, "time": time, "ready": lambda: os.kill(first, signal.SIGTERM)}
        try:
            exec(flow, names)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    os.close(reading)
    prefect.cli.app = app
    os._exit(run_workflow.execute(run_workflow.Child(pid), writing))

ends = {}
for name, flow in json.loads(sys.argv[1]).items():
    output, into = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(into, 1)
        os.close(output)
        container(flow)
    os.close(into)
    with os.fdopen(output) as pipe:
        text = pipe.read()
    ends[name] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.splitlines()]
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def ends() -> dict[str, tuple[int, list[str]]]:
    """Exit code of the container for each of the flows, and what was written."""
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, json.dumps(FLOWS)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ended: dict[str, tuple[int, list[str]]] = json.loads(done.stdout)
    return ended


@pytest.mark.parametrize(
    ("flow", "code", "seen"),
    [
        ("completes", 0, 0),
        ("exits", 3, 3),
        ("is killed", 137, -9),
        ("crashes in native code", 139, -11),
        ("stops as asked", 143, -15),
        ("tidies up when asked", 5, 5),
    ],
)
def test_exit_code_of_the_container_is_the_flows_own(
    ends: dict[str, tuple[int, list[str]]], flow: str, code: int, seen: int
) -> None:
    returned, lines = ends[flow]

    assert returned == code
    assert lines[-1] == f"seen {seen}"


def test_flow_is_told_what_to_run_and_with_which_environment(ends: dict[str, tuple[int, list[str]]]) -> None:
    assert json.loads(ends["completes"][1][0]) == {"arguments": ["message"], "env": {"A": "b"}}


def test_flow_that_is_asked_to_stop_can_tidy_up(ends: dict[str, tuple[int, list[str]]]) -> None:
    assert ends["tidies up when asked"][1][1:] == ["tidied up", "seen 5"]


@pytest.mark.parametrize(("returncode", "code"), [(0, 0), (1, 1), (255, 255), (-9, 137), (-15, 143), (-2, 130)])
def test_exit_code_is_the_one_that_ecs_would_give(returncode: int, code: int) -> None:
    assert run_workflow.exit_code(returncode) == code


def test_child_that_has_ended_is_not_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: asked.append(arguments))
    child = run_workflow.Child(1234567)
    child.ask_to_stop(signal.SIGTERM, None)
    child.returncode = 0
    child.ask_to_stop(signal.SIGTERM, None)

    assert child.asked_to_stop
    assert asked == [(1234567, signal.SIGTERM)]


def test_child_that_ends_just_when_it_is_asked_to_stop_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    child = run_workflow.Child(process.pid)
    child.ask_to_stop(signal.SIGTERM, None)

    assert child.asked_to_stop


class Api:
    """A client of Prefect for one run, which is in some state; keeps what was set."""

    def __init__(self, state: str = "", retry_type: Any = None) -> None:
        policy = FlowRunPolicy(retry_type=retry_type)
        self.run = FlowRun(id=RUN, flow_id=RUN, state=states_of(state)[0] if state else None, empirical_policy=policy)
        self.set: list[tuple[str | None, bool]] = []

    def read(self, run_id: uuid.UUID) -> FlowRun:
        assert run_id == RUN
        return self.run

    def accept(self, state: State[Any], force: bool) -> OrchestrationResult[Any]:
        self.set.append((state.name, force))
        return OrchestrationResult(status=SetStateStatus.ACCEPT, details=StateAcceptDetails(), state=state)


class SyncApi(Api):
    def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        return self.read(run_id)

    def set_state(self, state: State[Any], force: bool) -> OrchestrationResult[Any]:
        clients: Any = importlib.import_module("prefect.client.orchestration._flow_runs.client")
        result: OrchestrationResult[Any] = clients.FlowRunClient.set_flow_run_state(self, RUN, state, force)
        return result


class AsyncApi(Api):
    async def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        return self.read(run_id)

    def set_state(self, state: State[Any], force: bool) -> OrchestrationResult[Any]:
        clients: Any = importlib.import_module("prefect.client.orchestration._flow_runs.client")
        called = clients.FlowRunAsyncClient.set_flow_run_state(self, RUN, state, force)
        result: OrchestrationResult[Any] = asyncio.run(called)
        return result


@pytest.fixture
def left_to_others(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that does what the process does, over clients that accept everything."""
    clients: Any = importlib.import_module("prefect.client.orchestration._flow_runs.client")

    def accept(client: SyncApi, _: uuid.UUID, state: State[Any], force: bool = False) -> OrchestrationResult[Any]:
        return client.accept(state, force)

    async def accept_async(
        client: AsyncApi, _: uuid.UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        return client.accept(state, force)

    monkeypatch.setattr(clients.FlowRunClient, "set_flow_run_state", accept)
    monkeypatch.setattr(clients.FlowRunAsyncClient, "set_flow_run_state", accept_async)
    return run_workflow.leave_to_others


def _always(_: bool) -> bool:
    return True


@pytest.mark.parametrize("api", [SyncApi, AsyncApi])
@pytest.mark.parametrize(
    ("state", "retry_type"),
    [
        ("COMPLETED", None),
        ("FAILED", None),
        ("CANCELLED", None),
        ("CRASHED", None),
        ("PENDING", None),
        ("PENDING", "in_process"),
        ("SCHEDULED", None),
        ("SCHEDULED:Rescheduled", None),
        ("SCHEDULED:AwaitingRestart", "reschedule"),
        ("SCHEDULED:AwaitingRetry", "reschedule"),
    ],
)
def test_crash_of_a_flow_whose_run_goes_on_without_it_is_not_reported(
    left_to_others: Any, api: Any, state: str, retry_type: Any
) -> None:
    left_to_others(_always)
    client = api(state, retry_type)
    answer = client.set_state(Crashed(), True)

    assert client.set == []
    assert answer.status == SetStateStatus.REJECT
    assert answer.state == client.run.state
    assert answer.details.reason == "The run has ended, or starts again, without this process."


@pytest.mark.parametrize("api", [SyncApi, AsyncApi])
@pytest.mark.parametrize(
    ("state", "retry_type"),
    [
        ("RUNNING", None),
        ("RUNNING", "in_process"),
        ("CANCELLING", None),
        ("PAUSED", None),
        ("SCHEDULED:AwaitingRetry", "in_process"),
        ("", None),
    ],
)
def test_crash_of_a_flow_whose_run_is_still_its_own_is_reported(
    left_to_others: Any, api: Any, state: str, retry_type: Any
) -> None:
    left_to_others(_always)
    client = api(state, retry_type)

    assert client.set_state(Crashed(), True).status == SetStateStatus.ACCEPT
    assert client.set == [("Crashed", True)]


@pytest.mark.parametrize("api", [SyncApi, AsyncApi])
def test_other_states_are_set_without_a_look(left_to_others: Any, api: Any) -> None:
    left_to_others(_always)
    client = api("CANCELLED")

    assert client.set_state(Completed(), False).status == SetStateStatus.ACCEPT
    assert client.set == [("Completed", False)]


@pytest.mark.parametrize("api", [SyncApi, AsyncApi])
def test_flow_looks_only_before_it_forces_a_crash(left_to_others: Any, api: Any) -> None:
    left_to_others(lambda forced: forced)
    client = api("PENDING")

    assert client.set_state(Crashed(), False).status == SetStateStatus.ACCEPT
    assert client.set_state(Crashed(), True).status == SetStateStatus.REJECT


def test_replaced_ways_to_set_a_state_are_those_of_prefects_clients() -> None:
    clients: Any = importlib.import_module("prefect.client.orchestration._flow_runs.client")

    assert PrefectClient.set_flow_run_state is clients.FlowRunAsyncClient.set_flow_run_state
    assert SyncPrefectClient.set_flow_run_state is clients.FlowRunClient.set_flow_run_state


@pytest.mark.parametrize(
    ("limits", "lines"),
    [([{"id": str(RUN), "name": "database", "limit": 1}], [f"{LEASE} {RUN}"]), ([], [])],
    ids=["limited", "no-such-limit"],
)
def test_lease_is_written_when_there_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limits: list[Any], lines: list[str]
) -> None:
    clients: Any = importlib.import_module("prefect.client.orchestration._concurrency_limits.client")
    response = SimpleNamespace(json=lambda: {"lease_id": str(RUN), "limits": limits})
    asked: list[Any] = []

    async def leased(client: Any, *arguments: Any, **options: Any) -> Any:
        asked.append((client, arguments, options))
        return response

    monkeypatch.setattr(clients.ConcurrencyLimitAsyncClient, "increment_concurrency_slots_with_lease", leased)
    run_workflow.write_leases()
    client = object()
    answer = asyncio.run(
        clients.ConcurrencyLimitAsyncClient.increment_concurrency_slots_with_lease(client, ["database"], slots=1)
    )

    assert answer is response
    assert asked == [(client, (["database"],), {"slots": 1})]
    assert capsys.readouterr().out.splitlines() == lines


def test_replaced_way_to_a_lease_is_that_of_prefects_client() -> None:
    clients: Any = importlib.import_module("prefect.client.orchestration._concurrency_limits.client")
    used = "self._client.increment_concurrency_slots_with_lease("

    assert used in inspect.getsource(services)
    assert (
        PrefectClient.increment_concurrency_slots_with_lease
        is clients.ConcurrencyLimitAsyncClient.increment_concurrency_slots_with_lease
    )


def test_line_of_a_lease_is_the_one_that_the_agent_looks_for() -> None:
    from agent import remains

    assert run_workflow.LEASE == LEASE
    assert remains.LEASE_ID.findall(f"{run_workflow.LEASE} {RUN}") == [str(RUN)]


def test_environment_is_replaced_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"LEFT_OVER": "1", "A": "old"})
    run_workflow.set_environment({"A": "b"})

    assert os.environ == {"A": "b"}
