"""The settings of an environment: one tfvars file, read by Terraform and by Python, checked as a whole.

`load("dev")` reads `environments/dev.tfvars` into an `Environment`, the first argument of every component
function. Each field below carries its own check, and one error lists every wrong value at once.
"""

import dataclasses
import difflib
import functools
import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environments.errors import PlatformError
from environments.fargate import size_problem

ROOT = Path(__file__).resolve().parent.parent
SETTINGS_FOLDER = ROOT / "environments"
EXECUTION_ENVIRONMENTS: dict[str, dict[str, str]] = {
    "ecs_fargate": {"capacity_provider": "FARGATE", "compatibility": "FARGATE"},
    "ecs_fargate_spot": {"capacity_provider": "FARGATE_SPOT", "compatibility": "FARGATE"},
}
"""Where a workflow can run, and the job variables that bring it there; the one table of the choices there are.

A capacity provider must belong to the workflows cluster (infra/clusters.tf); compatibility is FARGATE or EC2.
"""
LOG_RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
"""https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html"""


NAME = r"[a-z][a-z0-9]{1,15}"
MAXIMUM_PORT = 65535
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PREFECT_API_URL = (
    rf"https?://[A-Za-z0-9.-]+(:[0-9]{{1,5}})?(/[A-Za-z0-9._~-]+)*/api(/accounts/{UUID}/workspaces/{UUID})?"
)
PRIVATE_BLOCKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _is_url(pattern: str) -> Callable[[Any], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None and 1 <= _port(value) <= MAXIMUM_PORT


def _is_vpc_cidr(value: str) -> bool:
    if not re.fullmatch(r"[0-9.]+/[0-9]{2}", value):
        return False
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return 16 <= network.prefixlen <= 24 and any(map(network.subnet_of, PRIVATE_BLOCKS))


def _setting(allowed: str, valid: Callable[[Any], bool], default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"allowed": allowed, "valid": valid})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment: its name and its settings, all valid. Cpu in CPU units, memory in MiB."""

    name: str
    role: str = "deploy"
    """As whom local's commands speak to the emulated AWS, `deploy` or `register`; on AWS the credentials say that."""
    aws_account_id: str = _setting("the 12 digits of an AWS account", _matches("[0-9]{12}"))
    aws_region: str = _setting('an AWS region such as "eu-west-1"', _matches("[a-z]{2}(-[a-z]+)+-[0-9]"))
    aws_endpoint_url: str | None = _setting(
        'a loopback URL with a port such as "http://127.0.0.1:4566", only in local',
        _is_url(r"http://127\.0\.0\.1:[0-9]{2,5}"),
        default=None,
    )
    prefect_api_url: str = _setting(
        'the URL of a Prefect API, it ends in /api or is "https://api.prefect.cloud/api/accounts/<id>/workspaces/<id>"',
        _is_url(PREFECT_API_URL),
    )
    vpc_cidr: str = _setting(
        'a private IPv4 block of size /16 to /24 such as "10.20.0.0/16"', _is_vpc_cidr, default="10.20.0.0/16"
    )
    agent_count: int = _setting("a whole number from 0 to 10", lambda value: 0 <= value <= 10, default=1)
    agent_cpu: int = _setting("a Fargate cpu size", lambda value: value > 0, default=256)
    agent_memory: int = _setting("a Fargate memory size", lambda value: value > 0, default=512)
    workflow_cpu: int = _setting("a Fargate cpu size", lambda value: value > 0, default=512)
    workflow_memory: int = _setting("a Fargate memory size", lambda value: value > 0, default=1024)
    execution_environment: str = _setting(
        "one of " + ", ".join(EXECUTION_ENVIRONMENTS),
        lambda value: value in EXECUTION_ENVIRONMENTS,
        default="ecs_fargate",
    )
    log_retention_days: int = _setting(
        "one of " + ", ".join(map(str, LOG_RETENTION_DAYS)),
        lambda value: value in LOG_RETENTION_DAYS,
        default=30,
    )

    @property
    def prefix(self) -> str:
        """The name of the Prefect project, and what every AWS name of this environment starts with."""
        return f"{self.name}_dataflow_automation"

    @property
    def agent_name(self) -> str:
        """What the agent is called on AWS: its cluster, service, image repository and log group."""
        return f"{self.prefix}_agent"

    @property
    def is_local(self) -> bool:
        """Whether AWS is emulated on this machine."""
        return self.aws_endpoint_url is not None

    @property
    def uses_prefect_cloud(self) -> bool:
        """Whether Prefect Cloud schedules (API key) and not an own Prefect server (auth string)."""
        return urlsplit(self.prefect_api_url).hostname == "api.prefect.cloud"

    @property
    def operator_prefect_api_url(self) -> str:
        """The Prefect API as this machine reaches it: in local, containers know it by another host name."""
        if not self.is_local:
            return self.prefect_api_url
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def aws_port(self) -> int:
        """The port of the emulated AWS on this machine; only in local."""
        return _port(self.aws_endpoint_url or "")

    @property
    def prefect_port(self) -> int:
        """The port of the Prefect server, from its URL."""
        return _port(self.prefect_api_url)

    @property
    def prefect_page_url(self) -> str:
        """Where a browser on this machine finds Prefect's page."""
        if self.uses_prefect_cloud:
            accounts = self.prefect_api_url.partition("/accounts/")[2].replace("workspaces", "workspace")
            return f"https://app.prefect.cloud/account/{accounts}"
        return self.operator_prefect_api_url.removesuffix("/api")

    @property
    def tfvars(self) -> Path:
        """The file these settings come from."""
        return SETTINGS_FOLDER / f"{self.name}.tfvars"

    @property
    def folder(self) -> Path:
        """Where this machine keeps what belongs to the environment; git ignores it."""
        return ROOT / ".local" / self.name


def known() -> list[str]:
    """Names of the environments there are: one tfvars file each."""
    return sorted(file.stem for file in SETTINGS_FOLDER.glob("*.tfvars"))


@functools.cache
def load(name: str, role: str = "deploy") -> Environment:
    """Read and check the settings of one environment.

    Args:
        name: the environment's name, `dev` for `environments/dev.tfvars`.
        role: as whom local's commands speak to the emulated AWS.

    Raises:
        PlatformError: the environment is unknown, its file does not parse, or values are missing, unknown or wrong.
    """
    if name not in known():
        close = difflib.get_close_matches(name, known(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PlatformError(
            f"unknown environment {name!r}",
            f"{hint}known: {', '.join(known())}",
            "choose one with --env, or add environments/<name>.tfvars",
        )
    if not re.fullmatch(NAME, name):
        raise PlatformError(
            f"{name!r} can't be the name of an environment",
            "every name on AWS starts with it: 2 to 16 lower case letters and digits, a letter first",
            f"rename environments/{name}.tfvars",
        )
    file = SETTINGS_FOLDER / f"{name}.tfvars"
    values = _parse(file)
    problems = [*_repeated(file, values), *_unknown(values), *_wrong(values)]
    if not problems:
        problems = _wrong_together(name, values)
    if problems:
        listed = "\n".join(f"{file.relative_to(ROOT)}: {problem}" for problem in problems)
        raise PlatformError(
            f"{len(problems)} wrong setting(s) in environment {name}",
            listed,
            "correct the file and try again",
        )
    return Environment(name=name, role=role, **values)


def fields() -> dict[str, dataclasses.Field[Any]]:
    """The settings there are, by name."""
    return {field.name: field for field in dataclasses.fields(Environment) if field.metadata}


def _parse(file: Path) -> dict[str, Any]:
    import hcl2
    from lark.exceptions import LarkError

    try:
        text = file.read_text(encoding="utf-8")
        values: dict[str, Any] = hcl2.loads(
            text if text.endswith("\n") else text + "\n",
            serialization_options=hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True),
        )
    except (LarkError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        place = f" line {error.line}, column {error.column}" if getattr(error, "line", 0) else ""  # type: ignore[union-attr]
        raise PlatformError(
            f"{file.relative_to(ROOT)}{place} does not parse",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            "write one `name = value` a line, text in double quotes",
        ) from error
    return values


def _repeated(file: Path, values: dict[str, Any]) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [
        f"{name}: given {count} times"
        for name in values
        if (count := len(re.findall(rf"^\s*{re.escape(name)}\s*=", text, re.MULTILINE))) > 1
    ]


def _unknown(values: dict[str, Any]) -> list[str]:
    problems = []
    for name in values.keys() - fields().keys():
        close = difflib.get_close_matches(name, fields(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(fields())}"
        problems.append(f"{name}: unknown setting; {hint}")
    return sorted(problems)


def _wrong(values: dict[str, Any]) -> list[str]:
    problems = []
    for name, field in fields().items():
        allowed = field.metadata["allowed"]
        if name not in values:
            if field.default is dataclasses.MISSING:
                problems.append(f"{name}: missing; allowed: {allowed}")
            continue
        value = values[name]
        expected = int if field.type is int else str
        if value is None and field.default is None:
            continue
        # bool is an int to Python, not to Terraform
        if not isinstance(value, expected) or isinstance(value, bool):
            kind = "a whole number" if expected is int else "text in double quotes"
            problems.append(f"{name}: was {_as_written(value)}, must be {kind}; allowed: {allowed}")
        elif not field.metadata["valid"](value):
            problems.append(f"{name}: was {_as_written(value)}; allowed: {allowed}")
    return problems


def _as_written(value: Any) -> str:
    """A value as a tfvars file has it."""
    if isinstance(value, list) and any(isinstance(item, dict) and "__is_block__" in item for item in value):
        return "a block"
    return json.dumps(value, default=str, ensure_ascii=False)


def _wrong_together(name: str, values: dict[str, Any]) -> list[str]:
    problems = []
    for part in ("agent", "workflow"):
        size = [values.get(f"{part}_{kind}", fields()[f"{part}_{kind}"].default) for kind in ("cpu", "memory")]
        if problem := size_problem(*size):
            problems.append(f"{part}_cpu, {part}_memory: {problem}")
    if (values.get("aws_endpoint_url") is not None) != (name == "local"):
        problems.append("aws_endpoint_url: only local has one, and local must have it; it points to the emulated AWS")
    return problems


def _port(url: str) -> int:
    scheme, _, rest = url.partition("://")
    port = rest.partition("/")[0].partition(":")[2]
    return int(port) if port else (443 if scheme == "https" else 80)
