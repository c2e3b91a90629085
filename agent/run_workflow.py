#!/opt/venv/bin/python
"""What `prefect` is in the images of this platform: Prefect's own, but `prefect flow-run execute` imports Prefect once.

That is the command of each workflow's container. It starts two more interpreters one after the other, and each imports
Prefect anew: one that prepares the workspace by the deployment's pull steps, and the engine. On a quarter of a vCPU
that is most of the time from the start of the container to the first line of the flow. Here a process that has imported
everything is forked into both parts; the second one prepares the workspace and becomes the engine.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

PREFECT = str(Path(sys.executable).with_name("prefect"))
SUPERVISOR = "prefect.runner._workspace_supervisor"
EXECUTE = ["flow-run", "execute"]
NEEDED = ("prefect.cli.flow_run", "prefect.engine", "prefect.flow_engine", "prefect.task_engine", SUPERVISOR)
"""What one part or the other imports; none of it starts a thread, which would be lost by the fork."""
ENGINE = [sys.executable, "-m", "prefect.engine"]


class Child:
    """The forked process as Prefect's runner looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> None:
        """Wait for its end; must be called once."""
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)


def main() -> Any:
    """Import everything, fork, and be one of the two; any other command goes to Prefect's own. Gives the exit code."""
    if sys.argv[1:] != EXECUTE:
        os.execv(PREFECT, ["prefect", *sys.argv[1:]])
    for module in NEEDED:
        importlib.import_module(module)
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
    return app()


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
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine")  # it was imported as a part of others, not as the program that it is now
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    return 0


def set_environment(variables: dict[str, str]) -> None:
    """Let these be the variables of this process, and no others."""
    os.environ.clear()
    os.environ.update(variables)


if __name__ == "__main__":
    sys.exit(main())
