"""A whole platform of its own for tests: a copy of this checkout with its own ports, driven by its own commands.

It stands beside whatever the developer has running, and leaves nothing behind.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INVOKE = [sys.executable, "-m", "invoke"]
COMMAND_TIMEOUT_SECONDS = 400


class Platform:
    """A copied checkout, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_checkout(folder)
        self.aws_port, self.prefect_port = free_port(), free_port()
        settings = folder / "environments" / "local.tfvars"
        text = settings.read_text().replace(":4566", f":{self.aws_port}").replace(":4200", f":{self.prefect_port}")
        settings.write_text(text)

    def invoke(
        self, *arguments: str, check: bool = True, stderr: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an invoke task and wait for it; what it printed is in `stdout`, errors included unless told otherwise."""
        process = self.start(*arguments, stderr=stderr, **variables)
        try:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise AssertionError(f"invoke {' '.join(arguments)} hangs:\n{output}") from None
        print(f"$ invoke {' '.join(arguments)}\n{output}[{process.returncode}]")
        if check:
            assert process.returncode == 0, output
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def start(self, *arguments: str, stderr: bool = True, **variables: str) -> "subprocess.Popen[str]":
        """Start an invoke task in a process group of its own."""
        return subprocess.Popen(
            [*INVOKE, *arguments],
            cwd=self.folder,
            env={**os.environ, **variables},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr else None,
            start_new_session=True,
            # A shell starts background jobs with Ctrl-C switched off, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def aws(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        import boto3

        session: Any = boto3.session.Session(aws_access_key_id="local", aws_secret_access_key="local")
        return session.client(service, region_name="eu-west-1", endpoint_url=f"http://127.0.0.1:{self.aws_port}")

    @property
    def key(self) -> str:
        """The generated key of the Prefect API."""
        return (self.folder / ".local" / "local" / "prefect_key").read_text()

    @property
    def agent_containers(self) -> list[Any]:
        """The agent's running containers."""
        return self.containers("local_dataflow_automation_agent")

    def containers(self, family: str, everything: bool = False) -> list[Any]:
        """Containers of this platform's tasks of one task definition family."""
        import docker

        labels = [f"ministack.instance=dataflow-automation:{self.aws_port}"]
        if family:
            labels.append(f"com.amazonaws.ecs.task-definition-family={family}")
        return docker.from_env().containers.list(all=everything, filters={"label": labels})

    def servers(self) -> dict[str, int]:
        """Process ids of the two local servers by kind."""
        import psutil

        found = {}
        for process in psutil.process_iter(["pid", "cmdline"]):
            line = process.info["cmdline"] or []
            if "environments.local_server" in line and str(self.folder) == folder_of(process):
                found[line[line.index("environments.local_server") + 1]] = process.info["pid"]
        return found

    def status(self) -> dict[str, Any]:
        """What `invoke status --json` says."""
        answer: dict[str, Any] = json.loads(self.invoke("status", "--json", check=False).stdout)
        return answer


def copy_checkout(folder: Path) -> None:
    """Copy what git knows of this checkout, changes included, and what bootstrap.sh made for it."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for made in ("terraform.rc", "bin"):
        source, target = ROOT / ".local" / made, folder / ".local" / made
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            target.symlink_to(source)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, condition: Any, seconds: float = 60) -> Any:
    """Wait until a condition gives something true, and give that; fails with `what` when it doesn't come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def step_seconds(output: str) -> dict[str, float]:
    """How long each step took, from what a task printed."""
    return {name: float(seconds) for name, seconds in re.findall(r"^✓ (.+?)  ([\d.]+) s", output, re.MULTILINE)}


def folder_of(process: Any) -> str:
    """Working folder of a process; empty when it can't be seen."""
    import psutil

    try:
        return str(process.cwd())
    except psutil.Error:
        return ""
