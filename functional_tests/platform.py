"""A whole platform of its own for tests: a copy of this checkout with its own ports, driven by its own commands.

It stands beside whatever the developer has running, and leaves nothing behind. `RealPlatform` is an environment on AWS
with the same interface, driven by the commands of this checkout.
"""

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from infra import base_image

ROOT = Path(__file__).resolve().parent.parent
INVOKE = [sys.executable, "-m", "invoke"]
COMMAND_TIMEOUT_SECONDS = 400
TEARDOWN_SECONDS = 120
PORTS = range(20000, 30000)
"""Below those that the system gives to outgoing connections, which could take one before its server listens."""
BASE_IMAGE = base_image.pinned().name
"""What the agent's image is built on; it is on this machine."""
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""A platform's commands compile its modules once, as they do where nobody forbids it."""


class Platform:
    """A copied checkout, and what tests do with it.

    `arguments` are the command lines of processes seen while it was at work, `printed` is what its commands printed.
    """

    name = "local"

    def __init__(self, folder: Path, arguments: set[bytes] | None = None) -> None:
        self.folder = folder
        self.arguments: set[bytes] = set() if arguments is None else arguments
        self.printed: list[str] = []
        copy_checkout(folder)
        self.aws_port, self.prefect_port = free_port(), free_port()
        settings = folder / "environments" / "local.tfvars"
        settings.write_text(with_ports(settings.read_text(), self.aws_port, self.prefect_port))

    def invoke(
        self, *arguments: str, check: bool = True, stderr: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an invoke task and wait for it; what it printed is in `stdout`, errors included unless told otherwise."""
        return self.finish(self.start(*arguments, stderr=stderr, **variables), *arguments, check=check)

    def finish(
        self, process: "subprocess.Popen[str]", *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Wait for an invoke task that was started with some arguments, as `invoke` does."""
        try:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise AssertionError(f"invoke {' '.join(arguments)} hangs:\n{output}") from None
        self.printed.append(output)
        print(f"$ invoke {' '.join(arguments)}\n{output}[{process.returncode}]")
        if check:
            assert process.returncode == 0, output
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def start(self, *arguments: str, stderr: bool = True, **variables: str) -> "subprocess.Popen[str]":
        """Start an invoke task in a process group of its own."""
        return subprocess.Popen(
            [*INVOKE, *arguments],
            cwd=self.folder,
            env={**os.environ, **COMPILED, **variables},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr else None,
            start_new_session=True,
            # A shell starts background jobs with Ctrl-C switched off, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def aws(self, service: str) -> Any:
        """A boto3 client of the emulated AWS, as its root user."""
        import boto3

        session: Any = boto3.session.Session(aws_access_key_id="local", aws_secret_access_key=self.root_key)
        return session.client(service, region_name="eu-west-1", endpoint_url=f"http://127.0.0.1:{self.aws_port}")

    @property
    def root_key(self) -> str:
        """The secret access key of the emulated account's root user."""
        return (self.folder / ".local" / "local" / "aws_secret_key").read_text()

    @property
    def prefix(self) -> str:
        """What every AWS name starts with, and the name of the Prefect project."""
        return f"{self.name}_dataflow_automation"

    @property
    def key(self) -> str:
        """The generated key of the Prefect API."""
        return (self.folder / ".local" / "local" / "prefect_key").read_text()

    @property
    def workflow_key(self) -> str:
        """The key that workflows have for the Prefect API."""
        return (self.folder / ".local" / "local" / "prefect_key_workflow").read_text()

    @property
    def register_key(self) -> str:
        """The key that workflow repositories have for the Prefect API."""
        return self.key

    @property
    def prefect_url(self) -> str:
        """The Prefect API as this machine reaches it."""
        return f"http://127.0.0.1:{self.prefect_port}/api"

    def prefect(self, path: str, body: Any = None, method: str = "POST", **filters: Any) -> Any:
        """What the Prefect API answers to a body, or to filters; asked without any of the project's code."""
        cloud = self.prefect_url.startswith("https://api.prefect.cloud/")
        login = f"Bearer {self.key}" if cloud else f"Basic {base64.b64encode(self.key.encode()).decode()}"
        request = urllib.request.Request(
            self.prefect_url + path,
            data=json.dumps(filters if body is None else body).encode() if method != "GET" else None,
            method=method,
            headers={"Authorization": login, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    @property
    def label(self) -> dict[str, str]:
        """The Docker label by which this platform's containers are known."""
        return {"ministack.instance": f"dataflow-automation:{self.aws_port}"}

    @property
    def agent_containers(self) -> list[Any]:
        """The agent's running containers."""
        return self.containers("local_dataflow_automation_agent")

    def only_agent(self) -> Any:
        """The agent's container, as soon as those that it replaces have stopped: an agent gets two minutes for that."""
        (agent,) = wait_for("a single agent", lambda: len(found := self.agent_containers) == 1 and found, 150)
        return agent

    def containers(self, family: str, everything: bool = False) -> list[Any]:
        """Containers of this platform's tasks of one task definition family."""
        import docker

        labels = ["=".join(each) for each in self.label.items()]
        if family:
            labels.append(f"com.amazonaws.ecs.task-definition-family={family}")
        # The other worker's containers come and go meanwhile.
        return docker.from_env().containers.list(all=everything, filters={"label": labels}, ignore_removed=True)

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


def take_away(folder: Path) -> None:
    """Destroy the platform in a folder, whatever a test that was cut off has left running there."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[1:3] == INVOKE[1:] and folder_of(process) == str(folder):
            # As after Ctrl-C: it lets go of Terraform's lock.
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
                process.wait(TEARDOWN_SECONDS)
    subprocess.run([*INVOKE, "destroy", "--yes"], cwd=folder, timeout=COMMAND_TIMEOUT_SECONDS, check=True)


class RealPlatform(Platform):
    """An environment that is deployed on AWS: tasks of this checkout, credentials and keys of the surroundings."""

    def __init__(self, name: str, arguments: set[bytes] | None = None) -> None:
        from environments.settings import load

        self.name, self.folder = name, ROOT
        self.arguments = set() if arguments is None else arguments
        self.printed = []
        self.environment = load(name)

    def start(self, *arguments: str, stderr: bool = True, **variables: str) -> "subprocess.Popen[str]":
        """Start an invoke task for this environment; never one that makes it or takes it away."""
        if arguments[0] in ("deploy", "destroy", "bootstrap-account"):
            raise ValueError(f"tests don't {arguments[0]} environment {self.name}")
        return super().start(*arguments, f"--env={self.name}", stderr=stderr, **variables)

    def aws(self, service: str) -> Any:
        """A boto3 client with the credentials of the surroundings."""
        import boto3

        session: Any = boto3.session.Session()
        return session.client(service, region_name=self.environment.aws_region)

    @property
    def key(self) -> str:
        """The key for the Prefect API that this machine works with."""
        return os.environ["PREFECT_AGENT_TOKEN"]

    @property
    def register_key(self) -> str:
        """The key that workflow repositories have for the Prefect API."""
        return os.environ["PREFECT_WORKFLOW_REGISTER_TOKEN"]

    @property
    def prefect_url(self) -> str:
        """The Prefect API as this machine reaches it."""
        return self.environment.operator_prefect_api_url


def unmet_preconditions(name: str) -> str:
    """Why an environment on AWS can't be tested now, in the words of its own commands; empty when it can."""
    from environments.errors import PlatformError

    if name == "prod":
        return "the tests take its agent down for a while, and prod's runs would wait"
    try:
        platform = RealPlatform(name)
    except PlatformError as error:
        return str(error)
    tokens = ("PREFECT_AGENT_TOKEN", "PREFECT_WORKFLOW_REGISTER_TOKEN")
    if missing := [token for token in tokens if not os.environ.get(token, "").strip()]:
        return f"set {' and '.join(missing)} to keys of its Prefect, and AWS credentials for its account"
    for task in ("doctor", "outputs"):
        answer = platform.start(task)
        words, _ = answer.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
        if answer.returncode:
            return f"invoke {task} --env {name} says:\n{words}"
    return ""


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


def with_ports(settings: str, aws_port: int, prefect_port: int) -> str:
    """Replace the addresses in the settings of local, whichever the developer has chosen for the own platform."""
    urls = {
        "aws_endpoint_url": f"http://127.0.0.1:{aws_port}",
        "prefect_api_url": f"http://host.docker.internal:{prefect_port}/api",
    }
    for name, url in urls.items():
        settings, replaced = re.subn(rf"^({name}\s*=).*", rf'\1 "{url}"', settings, flags=re.MULTILINE)
        if replaced != 1:
            raise ValueError(f"{name} is set {replaced} times in environments/local.tfvars")
    return settings


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(what: str, condition: Any, seconds: float = 60) -> Any:
    """Wait until a condition gives something true, and give that; fails with `what` when it doesn't come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def image_tags() -> list[str]:
    """Tags of all images that the engine has; docker's own list fails when one of them goes meanwhile."""
    import docker

    return [tag for image in docker.from_env().api.images() for tag in image["RepoTags"] or ()]


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
