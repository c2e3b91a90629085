"""What all unit tests share: a checkout, a home and variables of their own, and nothing kept from the test before."""

import atexit
import datetime
import gc
import importlib
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import botocore.loaders
import botocore.session
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from moto import mock_aws
from moto.ecr.models import ecr_backends

from environments import github_actions, settings
from environments.settings import Environment
from infra import aws
from infra.terraform import Outputs
from unit_tests.guard import sitecustomize

SURROUNDINGS = (
    *github_actions.JOB_VARIABLES,
    *("AWS_", "PREFECT_", "TF_", "DOCKER_", "GIT_", "INVOKE_", "XDG_"),
    *("NO_COLOR", "FORCE_COLOR", "HTTP_", "HTTPS_", "ALL_PROXY", "PYTHONPATH"),
)
"""Prefixes of the variables by which the developer's machine or a runner would change what the tests do."""
OWN = Path(tempfile.mkdtemp(prefix="unit-tests-")).resolve()
"""Folder of the tests' own checkout, home and Prefect, and of the file that lists what the guard refused."""
CHECKOUT, REFUSED = OWN / "checkout", OWN / "refused"
atexit.register(shutil.rmtree, OWN, ignore_errors=True)

_VARIABLES = {
    "HOME": str(OWN / "home"),
    "PREFECT_HOME": str(OWN / "prefect"),
    "PREFECT_PROFILES_PATH": "/nonexistent/profiles.toml",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
_process = pytest.MonkeyPatch()
for _name in [name for name in os.environ if name.upper().startswith(SURROUNDINGS)]:
    _process.delenv(_name)
# Prefect reads its settings once, when it is imported. These replace some that prefect_api sets.
importlib.import_module("environments.prefect_api")
for _name, _value in _VARIABLES.items():
    _process.setenv(_name, _value)

# The libraries leave much behind that lives to the end; looking through it again and again takes seconds.
gc.set_threshold(50_000, 20, 20)

# The gate tries the same few cases each time; `nox -s reliability` takes `--hypothesis-profile=full`: others, and many.
_OF_ALL = hypothesis_settings(
    database=None,
    deadline=datetime.timedelta(seconds=20),
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.register_profile("gate", _OF_ALL, max_examples=40, derandomize=True)
hypothesis_settings.register_profile("full", _OF_ALL, max_examples=1000)
# The cases of the gate, for a machine that is busy with other work: no time limit for a single case. A variable chooses
# it, because the workers of xdist do not heed the option.
hypothesis_settings.register_profile("busy", hypothesis_settings.get_profile("gate"), deadline=None)
hypothesis_settings.load_profile(os.environ.get("UNIT_TESTS_PROFILE", "gate"))

_LOADER = botocore.loaders.create_loader()
ACCOUNT = "123456789012"  # moto's own
REGION = "eu-west-1"
LOOPBACK = "127.0.0.1"
PREFECT_CLOUD = (
    "https://api.prefect.cloud/api/accounts/11111111-1111-4111-8111-111111111111"
    "/workspaces/22222222-2222-4222-8222-222222222222"
)


@pytest.fixture(scope="package", autouse=True)
def _own_world() -> Iterator[None]:
    """Give the tests a checkout of their own and guard everything else, until the last of them has ended."""
    for name in ("agent", "environments", "infra", "register_action", "requirements"):
        shutil.copytree(settings.ROOT / name, CHECKOUT / name, ignore=shutil.ignore_patterns(".terraform"))
    shutil.copy2(settings.ROOT / "tasks.py", CHECKOUT)
    (OWN / "home").mkdir()
    _process.setattr(settings, "ROOT", CHECKOUT)
    _process.setattr(settings, "SETTINGS_FOLDER", CHECKOUT / "environments")
    # Only here, because the workers of xdist inherit variables from the process that starts them, and take options from
    # this one.
    _process.delenv("PYTEST_ADDOPTS", raising=False)
    _process.setenv("PYTHONPATH", str(Path(sitecustomize.__file__).parent))
    _process.setenv(sitecustomize.VARIABLE, str(REFUSED))
    sitecustomize.watch(REFUSED, pytest.fail.Exception)
    yield
    sitecustomize.unwatch()
    _process.undo()
    fail_if_refused()


@pytest.fixture(autouse=True)
def _nothing_refused() -> Iterator[None]:
    yield
    fail_if_refused()


def fail_if_refused() -> None:
    """Fail a test to which the guard refused something, even if the exception was caught or raised elsewhere."""
    if REFUSED.exists():
        refused = REFUSED.read_text(encoding="utf-8")
        REFUSED.unlink()
        pytest.fail(refused)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    # The descriptions of AWS's services are large; reading them for every client is most of the time of these tests.
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: _LOADER)
    aws.forget_sessions()
    settings.load.cache_clear()


class Server:
    """An HTTP server on 127.0.0.1 that gives the prepared answers in turn, the last one for ever.

    `headers` has more headers for the answers with a status code.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = [(200, b"{}")]
        self.headers: dict[int, dict[str, str]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.command, self.path, dict(self.headers)))
                code, body = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response_only(code)
                sent = {"Date": self.date_time_string(), **outer.headers.get(code, {})}
                for name, value in {**sent, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self.httpd = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.port = self.httpd.server_address[1]
        self.url = f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        serve = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        serve.start()

    def stop(self) -> None:
        """Refuse connections from now on; the port stays taken, so that no other program answers there."""
        self.httpd.shutdown()
        self.httpd.server_close()
        self.taken = socket.socket()
        self.taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.taken.bind((LOOPBACK, self.port))

    def answer(self, *codes: int, body: bytes = b"{}") -> None:
        self.answers = [(code, body) for code in codes]


@pytest.fixture
def http_server() -> Iterator[Server]:
    """A real HTTP server on a free port of 127.0.0.1."""
    server = Server()
    server.start()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of the test's own, with the committed settings; nothing is written into the checkout."""
    folder = tmp_path / "project"
    (folder / "environments").mkdir(parents=True)
    for file in settings.SETTINGS_FOLDER.glob("*.tfvars"):
        shutil.copy(file, folder / "environments")
    monkeypatch.setattr(settings, "SETTINGS_FOLDER", folder / "environments")
    monkeypatch.setattr(settings, "ROOT", folder)
    return folder


@pytest.fixture
def environment(root: Path) -> Environment:
    """An environment on AWS, in the account that moto plays, scheduled by Prefect Cloud."""
    return Environment(name="dev", aws_account_id=ACCOUNT, aws_region=REGION, prefect_api_url=PREFECT_CLOUD)


@pytest.fixture
def local(root: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Environment local, with its committed settings and a folder of the test's own; each of its roles is there."""
    call = botocore.client.BaseClient._make_api_call

    def call_or_assume(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation != "AssumeRole" or "127.0.0.1" not in client.meta.endpoint_url:
            return call(client, operation, parameters)
        key = f"ASIA:{parameters['RoleArn'].rpartition('/')[2]}"
        return {"Credentials": {"AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "token"}}

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call_or_assume)
    return settings.load("local")


@pytest.fixture
def aws_mocked(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Moto in place of AWS; gives a function that makes clients which don't go through the project's code."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield lambda service: boto3.client(service, region_name=REGION)


@pytest.fixture
def outputs() -> Outputs:
    """What Terraform says of environment dev."""
    return Outputs(
        aws_region=REGION,
        agent_cluster="dev_dataflow_automation_agent",
        agent_service="dev_dataflow_automation_agent",
        agent_task_definition_arn=f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/dev_dataflow_automation_agent:2",
        agent_image=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/dev_dataflow_automation_agent:0123456789abcdef",
        agent_log_group="dev_dataflow_automation_agent",
        workflows_cluster_arn=f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/dev_dataflow_automation_workflows",
        workflows_log_group="dev_dataflow_automation_workflows",
        workflow_execution_role_arn=f"arn:aws:iam::{ACCOUNT}:role/dev_dataflow_automation_workflow_execution",
        workflow_task_role_arn=f"arn:aws:iam::{ACCOUNT}:role/dev_dataflow_automation_workflow_task",
        subnet_ids=("subnet-1", "subnet-2", "subnet-3"),
        security_group_id="sg-1",
        prefect_key_secret_arn=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:dev_prefect_key-abcdef",
        workflow_prefect_key_secret_arn=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:dev_prefect_key_workflow-abcdef",
        task_events_queue="dev_dataflow_automation_task_events",
    )


class FakeTerraform:
    """A program named terraform that answers what the test has prepared, and records how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "terraform"
        folder.mkdir(parents=True, exist_ok=True)
        self.program.write_text(
            f"""#!/bin/sh
cd '{folder}'
[ "$1" = version ] || {{ printf '%s\\n' "$@" > "$1.arguments"; env > "$1.environment"; echo "$1" >> calls; }}
[ ! -f "$1.stderr" ] || cat "$1.stderr" >&2
[ ! -f "$1.stdout" ] || cat "$1.stdout"
[ ! -f "$1.code" ] || [ "$(cat "$1.code")" = 0 ] || exit "$(cat "$1.code")"
[ ! -f "$1.end" ] || cat "$1.end"
"""
        )
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.answers("version", '{"terraform_version": "1.11.4"}')

    def answers(self, command: str, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        (self.folder / f"{command}.stdout").write_text(stdout)
        (self.folder / f"{command}.stderr").write_text(stderr)
        (self.folder / f"{command}.code").write_text(str(code))

    def ends_with(self, command: str, stdout: str) -> None:
        """What a command prints at last, each time it does not fail."""
        (self.folder / f"{command}.end").write_text(stdout)

    def arguments(self, command: str) -> list[str]:
        return (self.folder / f"{command}.arguments").read_text().splitlines()

    def environment(self, command: str) -> str:
        return (self.folder / f"{command}.environment").read_text()

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()


@pytest.fixture
def fake_terraform(root: Path) -> FakeTerraform:
    """A fake of Terraform at the place where bootstrap.sh puts the real one."""
    return FakeTerraform(root / ".local" / "bin")


def failing(error: BaseException) -> Callable[..., Any]:
    """A function that raises this, whatever it is called with."""

    def function(*_: Any) -> None:
        raise error

    return function


def pushed_one_by_one(repository: str) -> None:
    """Let the images in a repository of moto's be a second apart, as nobody waits for in a test."""
    for number, image in enumerate(ecr_backends[ACCOUNT][REGION].repositories[repository].images):
        image.image_pushed_at += number
