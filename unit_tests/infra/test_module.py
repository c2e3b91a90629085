"""What must hold for every resource of the Terraform module, whichever is added next."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

from environments import rules
from environments.fargate import ARCHITECTURES, MEMORY_FOR_CPU
from environments.settings import ROOT
from infra import adoption

FILES = sorted((ROOT / "infra").glob("*.tf"))
TEXT = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
SERVICE_OF = {
    "cloudwatch_event": "events",
    "cloudwatch_log": "logs",
    "cloudwatch_metric_alarm": "cloudwatch",
    "ecr": "ecr",
    "ecs": "ecs",
    "iam": "iam",
    "kms": "kms",
    "secretsmanager": "secretsmanager",
    "sqs": "sqs",
}
EC2 = {
    *("availability_zones", "eip", "flow_log", "internet_gateway", "nat_gateway", "route", "route_table"),
    *("route_table_association", "security_group", "subnet", "vpc", "vpc_endpoint"),
    *("vpc_security_group_egress_rule", "vpc_security_group_ingress_rule"),
}
MADE_BY_TERRAFORM_ALONE = {"iam_policy_document"}
WRITTEN_OVER = {
    *("aws_cloudwatch_event_rule", "aws_cloudwatch_event_target", "aws_cloudwatch_metric_alarm"),
    *("aws_ecs_cluster_capacity_providers", "aws_iam_role_policy"),
    *("aws_iam_role_policy_attachment", "aws_sqs_queue_policy", "aws_sqs_queue_redrive_policy"),
    "aws_sqs_queue_redrive_allow_policy",
    "aws_cloudwatch_log_metric_filter",
    "aws_ecs_task_definition",  # another revision, of which only the newest is used
}
"""What AWS makes once only, however often it is asked to."""


def _bodies(kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Type, name and body of every resource or data source."""
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    for file in FILES:
        for block in hcl2.loads(file.read_text(encoding="utf-8"), serialization_options=options).get(kind, []):
            for type_, named in block.items():
                if type_ != "__is_block__":
                    for name, body in named.items():
                        if name != "__is_block__":
                            yield type_.strip('"'), name.strip('"'), body


def _service(type_: str) -> str:
    short = type_.removeprefix("aws_")
    return "ec2" if short in EC2 else next(service for start, service in SERVICE_OF.items() if short.startswith(start))


def test_local_finds_every_service_of_the_module_on_this_machine() -> None:
    """A service without an endpoint of its own would be the real one of AWS."""
    types = {type_ for kind in ("resource", "data") for type_, _, _ in _bodies(kind)}
    used = {_service(type_) for type_ in types if type_.removeprefix("aws_") not in MADE_BY_TERRAFORM_ALONE}

    assert len(types) > 20
    assert used | {"sts"} == set(re.findall(r"^ +(\w+) += endpoints\.value$", TEXT, re.MULTILINE))


def test_every_role_stays_inside_the_permissions_boundary() -> None:
    roles = [body for type_, _, body in _bodies("resource") if type_ == "aws_iam_role"]

    assert roles
    assert [
        role["name"] for role in roles if "local.permissions_boundary" not in str(role.get("permissions_boundary"))
    ] == []


def test_every_log_group_and_the_key_are_encrypted_with_the_key_of_the_environment() -> None:
    encrypted = [
        body
        for type_, _, body in _bodies("resource")
        if type_ in ("aws_cloudwatch_log_group", "aws_secretsmanager_secret")
    ]

    assert len(encrypted) > 2
    assert [body["name"] for body in encrypted if "local.kms_key_arn" not in str(body.get("kms_key_id"))] == []


def test_everything_that_has_a_name_begins_with_the_environments() -> None:
    """The policies of the roles hold by that."""
    bodies = [body for _, _, body in _bodies("resource")]
    names = [str(body[key]) for body in bodies for key in ("name", "alarm_name") if key in body]
    inside_a_role = {"start_tasks", "run_workflows", "write_flow_logs"}
    ours = re.compile(r"(\$\{)?(local\.(prefix|task_events)|aws_)")

    assert len(names) > 10
    assert [name for name in names if not ours.match(name) and name not in inside_a_role] == []


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [
        ("network", rules.NETWORKS),
        ("cpu_architecture", tuple(ARCHITECTURES)),
        ("agent_cpu", tuple(map(str, MEMORY_FOR_CPU))),
        ("workflow_cpu", tuple(map(str, MEMORY_FOR_CPU))),
        ("log_retention_days", tuple(map(str, rules.LOG_RETENTION_DAYS))),
    ],
)
def test_terraform_and_python_allow_the_same_choices(variable: str, allowed: tuple[str, ...]) -> None:
    [listed] = re.findall(rf"contains\(\[([^]]+)\], var\.{variable}\)", TEXT)

    assert tuple(value.strip(' "') for value in listed.split(",")) == allowed


def test_lock_file_knows_the_provider_that_the_module_asks_for() -> None:
    lock = Path(ROOT, "infra", ".terraform.lock.hcl").read_text(encoding="utf-8")
    [wanted] = re.findall(r'source += "hashicorp/aws"\n +version += "([0-9.]+)"', TEXT)

    assert f'version     = "{wanted}"' in lock


def test_whatever_a_dead_run_made_is_found_again_or_written_over() -> None:
    kinds = {kind for kind, _, _ in _bodies("resource")}

    assert kinds == adoption.NETWORK.keys() | adoption.FINDERS.keys() | WRITTEN_OVER


def test_event_targets_have_ids_that_are_the_same_each_time() -> None:
    targets = [body for kind, _, body in _bodies("resource") if kind == "aws_cloudwatch_event_target"]

    assert targets
    assert all("target_id" in body for body in targets)
