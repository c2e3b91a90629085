import asyncio
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import run_workflow


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
