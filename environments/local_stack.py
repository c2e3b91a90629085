"""Environment local's own servers: started when they are not running, stopped and removed on request.

Two background processes (`local_server`): the emulated AWS and the Prefect server. Data, logs and the generated key
lie in `.local/local/`. A process is known by its exact command line, so that nothing of anybody else's is ever
stopped, and a server that was started for another port or network is started anew.
"""

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from environments import leftovers, local_keys, outages, progress, settings
from environments.errors import PlatformError
from environments.prefect_api import check_prefect
from environments.secrets import key_file, local_root_keys, process_environment
from environments.settings import Environment

START_TIMEOUT_SECONDS = 90
STOP_TIMEOUT_SECONDS = 30
EMULATOR_NAME = "dataflow-automation"


@dataclasses.dataclass(frozen=True)
class Server:
    """One background process: how it is started and how it shows that it is ready."""

    title: str
    kind: str
    port: int
    health_url: str
    log: Path
    command: tuple[str, ...] = ()
    variables: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)


def servers(environment: Environment, network: dict[str, str] | None = None) -> tuple[Server, Server]:
    """The two servers of environment local; without a network they can be looked for but not started."""
    logs = environment.folder / "logs"
    aws, prefect = environment.folder / "aws", environment.folder / "prefect"
    return (
        Server(
            title="emulated AWS",
            kind="aws",
            port=environment.aws_port,
            log=logs / "aws.log",
            health_url=f"{environment.aws_endpoint_url}/_ministack/health",
            command=_command("aws", environment.aws_port, network),
            variables={
                **local_root_keys(environment),
                "AUTH": "true",
                "GATEWAY_PORT": str(environment.aws_port),
                "MINISTACK_ACCOUNT_ID": environment.aws_account_id,
                "MINISTACK_REGION": environment.aws_region,
                "MINISTACK_HOSTNAME": EMULATOR_NAME,
                "PERSIST_STATE": "1",
                "STATE_DIR": str(aws / "state"),
                "S3_PERSIST": "1",
                "S3_DATA_DIR": str(aws / "s3"),
                "SFTP_ENABLED": "0",
                "IOT_MTLS_ENABLED": "0",
                "ECS_RESTORE_RECONCILE_DELAY_SECONDS": "0.2",
                "LOG_LEVEL": "INFO",
            },
        ),
        Server(
            title="Prefect server",
            kind="prefect",
            port=environment.prefect_port,
            log=logs / "prefect.log",
            health_url=f"{environment.operator_prefect_api_url}/health",
            command=_command("prefect", environment.prefect_port, network),
            variables={
                "PREFECT_HOME": str(prefect),
                "PREFECT_PROFILES_PATH": str(prefect / "profiles.toml"),
                "PREFECT_API_URL": "",
                "KEY_FILE": str(key_file(environment)),
                "PREFECT_SERVER_UI_API_URL": "/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect / 'prefect.db'}",
                "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            },
        ),
    )


def start(environment: Environment) -> None:
    """Make sure both servers run and answer; does nothing when they do.

    Raises:
        PlatformError: a port is taken by another program, or a server does not come up.
    """
    with _lock(environment), ThreadPoolExecutor() as pool:
        _remove_rest(environment)
        network = ensure_network(environment)
        local_keys.make(environment)  # the Prefect server takes what is in the files
        outcomes = list(pool.map(lambda server: _start_server(environment, server), servers(environment, network)))
    check_prefect(environment)
    progress.note("already running" if not any(outcomes) else f"Prefect page at {environment.prefect_page_url}")


def stop(environment: Environment) -> None:
    """Stop both servers in an orderly way; what they have saved stays."""
    with _lock(environment), ThreadPoolExecutor() as pool:
        list(pool.map(_stop_process, [process for server in servers(environment) for process in _processes(server)]))


def remove(environment: Environment) -> None:
    """Stop everything of environment local and remove it: processes, containers, network, data, key and logs.

    What the Docker engine has is named after the port of the emulated AWS. While another program listens there, it
    belongs to the environment of another checkout, and stays.
    """
    leftovers.clear()
    stop(environment)
    aws, _ = servers(environment)
    if other := _port_taken(aws):
        progress.note(f"containers stay: they belong to another checkout ({other.what}: {other.why})")
    else:
        _remove_from_engine(environment)
    _remove_rest(environment)
    # In one go: were we killed half-way, what is left of it would be taken for the whole.
    with contextlib.suppress(FileNotFoundError):
        environment.folder.rename(_removed(environment))
    _remove_rest(environment)


def _remove_from_engine(environment: Environment) -> None:
    """Remove the containers, the network and the images of environment local from the Docker engine."""
    client = docker_client()
    ours = {"label": f"ministack.instance={_instance(environment)}"}
    for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
        container.remove(force=True, v=True)
    for network in _networks(client, environment):
        network.remove()
    # The plain list: the other one looks at each image once more, and another stack may have removed it by then.
    pushed = re.compile(rf"127\.0\.0\.[0-9]+:{environment.aws_port}/")
    for image in client.api.images():
        for tag in image["RepoTags"] or ():
            if pushed.match(tag):
                client.images.remove(tag, force=True)


def _removed(environment: Environment) -> Path:
    return environment.folder.with_name(f"{environment.name}.removed")


def _remove_rest(environment: Environment) -> None:
    """What a `remove` that was killed has left of the folder, too."""
    shutil.rmtree(_removed(environment), ignore_errors=True)


def state(environment: Environment) -> dict[str, str]:
    """How the servers are: `running`, `not answering` or `stopped` by title."""
    return {
        server.title: "stopped" if not _processes(server) else "running" if _answers(server) else "not answering"
        for server in servers(environment)
    }


def require_running(environment: Environment) -> Environment:
    """The environment, if what it needs on this machine runs; only local needs anything.

    Raises:
        PlatformError: a server of local does not run.
    """
    states = state(environment) if environment.is_local else {}
    if down := [f"{title}: {how}" for title, how in states.items() if how != "running"]:
        raise PlatformError(
            f"environment {environment.name} is not running", ", ".join(down), "invoke deploy starts it"
        )
    return environment


def ensure_running(environment: Environment) -> None:
    """Start the servers unless both answer; then neither Docker engine nor key is needed."""
    if any(how != "running" for how in state(environment).values()):
        start(environment)


def docker_client() -> Any:
    """A client of this machine's Docker engine.

    Raises:
        PlatformError: none answers.
    """
    import docker

    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except docker.errors.DockerException as error:
        raise PlatformError("no Docker engine answers", str(error), "./bootstrap.sh installs and starts one") from error
    return client


def docker_errors() -> Any:
    """Docker's errors. Threads that import a part of a package and the package itself can block each other for good."""
    import docker

    return docker.errors


def network_name(environment: Environment) -> str:
    """Name of the Docker network of local's containers; the port keeps two stacks on one machine apart."""
    return f"{environment.prefix}_{environment.aws_port}"


def ensure_network(environment: Environment) -> dict[str, str]:
    """The containers' own Docker network: they reach this machine and the internet through it, not each other.

    Returns:
        `id`, `bridge` (network interface) and `gateway` (this machine's address in it).
    """
    client = docker_client()
    bridge = f"dataflow{environment.aws_port}"
    options = {"com.docker.network.bridge.name": bridge, "com.docker.network.bridge.enable_icc": "false"}
    found = _networks(client, environment)
    network = found[0] if found else client.networks.create(network_name(environment), "bridge", options)
    network.reload()
    return {
        "id": network.id,
        "bridge": bridge,
        "gateway": network.attrs["IPAM"]["Config"][0]["Gateway"].split("/")[0],
    }


def _networks(client: Any, environment: Environment) -> list[Any]:
    name = network_name(environment)
    # The engine's own filter also takes names that only begin like this one: another stack's, with a longer port.
    return [network for network in client.networks.list(names=[name]) if network.name == name]


def check_ports(environment: Environment) -> list[PlatformError]:
    """What stands in the way of starting the servers: ports that another program listens on."""
    return [problem for server in servers(environment) if not _processes(server) and (problem := _port_taken(server))]


def _instance(environment: Environment) -> str:
    return f"{EMULATOR_NAME}:{environment.aws_port}"


def _command(kind: str, port: int, network: dict[str, str] | None) -> tuple[str, ...]:
    command = [sys.executable, "-m", "environments.local_server", kind, "--port", str(port)]
    if network:
        command += [
            "--gateway",
            network["gateway"],
            "--bridge",
            network["bridge"],
            "--network",
            network["id"],
        ]
    return tuple(command)


def _start_server(environment: Environment, server: Server) -> bool:
    running = _processes(server)
    if any(tuple(process.cmdline()) == server.command for process in running) and _answers(server):
        return False
    for process in running:
        _stop_process(process)
    if problem := _port_taken(server):
        raise problem
    server.log.parent.mkdir(parents=True, exist_ok=True)
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            server.command,
            cwd=settings.ROOT,
            env=process_environment({**server.variables, "PYTHONPATH": str(settings.ROOT)}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _answers(server):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise PlatformError(
                f"the {server.title} did not start",
                "\n".join(log_tail(server.log)),
                f"the whole log: {server.log.relative_to(settings.ROOT)}",
            )
        progress.doing(f"waiting for the {server.title}")
        time.sleep(0.1)
    return True


def log_tail(log: Path, lines: int = 15) -> list[str]:
    """The last lines of a log file."""
    if not log.exists():
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _processes(server: Server) -> list[Any]:
    """The running processes of a server: same program, folder, kind and port, whatever the network."""
    import psutil

    start = server.command[1:6]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if tuple((process.info["cmdline"] or [])[1:6]) == start:
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()) == settings.ROOT and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def _stop_process(process: Any) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        process.resume()  # one that was suspended could not end
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_SECONDS)


def _answers(server: Server) -> bool:
    try:
        with urlopen(Request(server.health_url), timeout=5) as response:
            return bool(response.status == 200)
    except HTTPError as error:
        return error.code in (401, outages.RATE_LIMITED)
    except (URLError, OSError):
        return False


def _port_taken(server: Server) -> PlatformError | None:
    import psutil

    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (server.port,):
            owner = "another program"
            with contextlib.suppress(psutil.Error):
                if connection.pid:
                    owner = f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            return PlatformError(
                f"port {server.port} for the {server.title} is taken",
                f"{owner} listens on it",
                "stop that program, or choose another port in environments/local.tfvars",
            )
    return None


@contextlib.contextmanager
def _lock(environment: Environment) -> Iterator[None]:
    """One process at a time starts or stops the servers."""
    file = environment.folder.parent / f"{environment.name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
