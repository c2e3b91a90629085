"""The settings of an environment: one tfvars file, read by Terraform and by Python, checked as a whole.

`load("dev")` reads `environments/dev.tfvars` into an `Environment`, the first argument of every component
function. Each field below carries its own check, and one error lists every wrong value at once.
"""

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environments import rules, tfvars
from environments.errors import PlatformError
from environments.fargate import ARCHITECTURES, size_problem

ROOT = Path(__file__).resolve().parent.parent
SETTINGS_FOLDER = ROOT / "environments"
EXECUTION_ENVIRONMENTS: dict[str, dict[str, str]] = {
    "ecs_fargate": {"capacity_provider": "FARGATE", "compatibility": "FARGATE"},
    "ecs_fargate_spot": {"capacity_provider": "FARGATE_SPOT", "compatibility": "FARGATE"},
}
"""Where a workflow can run, and the job variables that bring it there; the one table of the choices there are.

A capacity provider must belong to the workflows cluster (infra/clusters.tf); compatibility is FARGATE or EC2.
"""

OF_A_PARTITION = ("aws_region", "workflow_policy_arns", "kms_key_arn", "alarm_topic_arn")
"""The settings that belong to a partition of AWS: commercial regions, China, GovCloud (US), ..."""

MOST_RESTARTS = 10
"""So often a deployment may have a run started again whose task died."""


def _setting(allowed: str, valid: Callable[[Any], bool], default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"allowed": allowed, "valid": valid})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment: its name and its settings, all valid. Cpu in CPU units, memory in MiB."""

    name: str
    role: str = "deploy"
    """As whom local speaks to the emulated AWS: one of infra.roles.ROLES, or `root`; of no meaning elsewhere."""
    aws_account_id: str = _setting("the 12 digits of an AWS account", rules.matches("[0-9]{12}"))
    aws_region: str = _setting('an AWS region such as "eu-west-1"', rules.matches("[a-z]{2}(-[a-z]+)+-[0-9]"))
    aws_endpoint_url: str | None = _setting(
        'a loopback URL with a port such as "http://127.0.0.1:4566", only in local',
        rules.is_url(r"http://127\.0\.0\.[0-9]{1,3}:[0-9]{2,5}"),
        default=None,
    )
    prefect_api_url: str = _setting(
        'the URL of a Prefect API, it ends in /api or is "https://api.prefect.cloud/api/accounts/<id>/workspaces/<id>"',
        rules.is_url(rules.PREFECT_API_URL),
    )
    vpc_id: str | None = _setting(
        'the ID of a VPC such as "vpc-0123456789abcdef0"', rules.matches("vpc-[0-9a-f]{8,17}"), default=None
    )
    subnet_ids: tuple[str, ...] = _setting(
        'up to 16 different IDs of subnets such as ["subnet-0123456789abcdef0"]',
        rules.all_match("subnet-[0-9a-f]{8,17}", 16),
        default=(),
    )
    assign_public_ip: bool = _setting("true or false", lambda _: True, default=False)
    network: str = _setting(
        "one of " + ", ".join(rules.NETWORKS), lambda value: value in rules.NETWORKS, default="private_nat"
    )
    nat_gateway_count: int = _setting("1, 2 or 3", lambda value: 1 <= value <= 3, default=1)
    flow_logs: bool = _setting("true or false", lambda _: True, default=True)
    vpc_cidr: str = _setting(
        'a private IPv4 block of size /16 to /24 such as "10.20.0.0/16"', rules.is_vpc_cidr, default="10.20.0.0/16"
    )
    cpu_architecture: str = _setting(
        "one of " + ", ".join(ARCHITECTURES), lambda value: value in ARCHITECTURES, default="X86_64"
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
    concurrency_limit: int | None = _setting(
        "a whole number from 1 to 10000", lambda value: 1 <= value <= 10_000, default=None
    )
    workflow_policy_arns: tuple[str, ...] = _setting(
        'up to 10 different ARNs of managed policies such as ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"]',
        rules.all_match(r"arn:aws:iam::(aws|[0-9]{12}):policy/[A-Za-z0-9_+=,.@/-]{1,250}", 10),
        default=(),
    )
    extra_tags: dict[str, str] = dataclasses.field(
        default_factory=dict,
        hash=False,
        metadata={"allowed": rules.TAGS, "valid": rules.are_tags},
    )
    kms_key_arn: str | None = _setting(
        "the ARN of a KMS key in aws_region",
        rules.matches("arn:aws:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]{36}"),
        default=None,
    )
    alarm_topic_arn: str | None = _setting(
        "the ARN of an SNS topic in aws_region, not a FIFO topic",
        rules.matches("arn:aws:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}"),
        default=None,
    )
    container_insights: bool = _setting("true or false", lambda _: True, default=False)
    image_retention_count: int = _setting(
        "a whole number from 10 to 1000", lambda value: 10 <= value <= 1000, default=100
    )
    log_retention_days: int = _setting(
        "one of " + ", ".join(map(str, rules.LOG_RETENTION_DAYS)),
        lambda value: value in rules.LOG_RETENTION_DAYS,
        default=365,
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
    def tasks_have_public_ip(self) -> bool:
        """Whether agent and workflows get public IP addresses; infra/network.tf decides it in the same way."""
        return self.assign_public_ip if self.vpc_id else self.network == "public"

    @property
    def image_platform(self) -> str | None:
        """Docker's name of the platform that images are built for; None in local: that of this machine."""
        return None if self.is_local else ARCHITECTURES[self.cpu_architecture]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of what does not come from Terraform; those of the settings, and the platform's."""
        return {**self.extra_tags, "environment": self.name, "project": "dataflow-automation-infra"}

    @property
    def uses_prefect_cloud(self) -> bool:
        """Whether Prefect Cloud schedules (API key) and not an own Prefect server (auth string)."""
        return urlsplit(self.prefect_api_url).hostname == rules.PREFECT_CLOUD

    @property
    def operator_prefect_api_url(self) -> str:
        """The Prefect API as this machine reaches it: in local, containers know it by another host name."""
        if not self.is_local:
            return self.prefect_api_url
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def aws_port(self) -> int:
        """The port of the emulated AWS on this machine; only in local."""
        return rules.port(self.aws_endpoint_url or "")

    @property
    def emulated_registry(self) -> str:
        """Address of the emulated ECR, as names of images in the Docker engine begin with it; only in local."""
        return urlsplit(self.aws_endpoint_url or "").netloc

    @property
    def prefect_port(self) -> int:
        """The port of the Prefect server, from its URL."""
        return rules.port(self.prefect_api_url)

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
        return machine_folder() / self.name


def machine_folder() -> Path:
    """Return the folder of what this machine keeps for the checkout: servers, Terraform, locks; git ignores it."""
    return ROOT / ".local"


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
    if not re.fullmatch(rules.NAME, name):
        raise PlatformError(
            f"{name!r} can't be the name of an environment",
            "every name on AWS starts with it: 2 to 16 lower case letters and digits, a letter first",
            f"rename environments/{name}.tfvars",
        )
    file = SETTINGS_FOLDER / f"{name}.tfvars"
    values, problems = tfvars.read(file, str(file.relative_to(ROOT)))
    problems += [*_unknown(values), *_wrong(values)]
    if not problems:
        values = {setting: tuple(value) if isinstance(value, list) else value for setting, value in values.items()}
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


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a setting has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


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
            if is_required(field):
                problems.append(f"{name}: missing; allowed: {allowed}")
            continue
        value = values[name]
        if value is None and field.default is None:
            continue
        kind = next(kind for kind in rules.KINDS if field.type in (kind.type, kind.type | None))
        if not kind.fits(value):
            problems.append(f"{name}: was {_as_written(value)}, must be {kind.words}; allowed: {allowed}")
        elif name in OF_A_PARTITION and (partition := rules.other_partition(value)):
            problems.append(
                f"{name}: was {_as_written(value)}, which belongs to AWS partition {partition}; only partition aws is "
                "supported, because the ARNs (arn:aws:...) and host names (amazonaws.com) in the platform's policies "
                f"and images differ in the others; allowed: {allowed}"
            )
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
    problems += _wrong_network(values)
    for setting, thing in (("kms_key_arn", "key"), ("alarm_topic_arn", "topic")):
        arn = values.get(setting)
        if arn and arn.split(":")[3] != values["aws_region"]:
            problems.append(f"{setting}: a {thing} of {values['aws_region']} is needed, as aws_region says")
    if (values.get("aws_endpoint_url") is not None) != (name == "local"):
        problems.append("aws_endpoint_url: only local has one, and local must have it; it points to the emulated AWS")
    return problems


def _wrong_network(values: dict[str, Any]) -> list[str]:
    problems = []
    network = values.get("network", fields()["network"].default)
    existing = values.get("vpc_id") is not None
    if existing != bool(values.get("subnet_ids")):
        problems.append("vpc_id, subnet_ids: an existing VPC and its subnets go together")
    if existing:
        for name in ("network", "nat_gateway_count", "flow_logs", "vpc_cidr"):
            if name in values:
                problems.append(f"{name}: is for a network that is made, and vpc_id names an existing one")
    elif values.get("assign_public_ip"):
        problems.append("assign_public_ip: is for an existing VPC; for one that is made, network says it")
    if "nat_gateway_count" in values and network != "private_nat" and not existing:
        problems.append(f"nat_gateway_count: network {network} has none")
    cloud = urlsplit(values["prefect_api_url"]).hostname == rules.PREFECT_CLOUD
    if network == "private_endpoints" and not existing and cloud:
        problems.append(
            "network: Prefect Cloud can't be reached from private_endpoints; take private_nat, or an own Prefect server"
        )
    return problems
