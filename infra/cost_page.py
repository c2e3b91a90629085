"""Writes the generated part of docs/cost.md: what `invoke cost` knows of every region, next to Prefect's own stacks.

python -m infra.cost_page
"""

import dataclasses
import sys
from typing import Any

from environments import markdown
from environments.settings import ROOT, Environment
from infra import cost
from infra.cost import HOURS, POLLS, Item

PAGE = ROOT / "docs" / "cost.md"
VARIANTS: tuple[dict[str, Any], ...] = (
    {"network": "public"},
    {"network": "public", "cpu_architecture": "ARM64"},
    {"network": "public", "agent_count": 0},
    {"network": "public", "agent_count": 2},
    {"network": "public", "container_insights": True},
    {"network": "public", "agent_cpu": 512, "agent_memory": 1024},
    {"network": "public", "kms_key_arn": "a key that you have"},
    {"vpc_id": "a VPC that you have"},
    {"network": "private_nat", "nat_gateway_count": 1},
    {"network": "private_nat", "nat_gateway_count": 3},
    {"network": "private_endpoints"},
)
WORKER = (
    Item("worker", 1, cost.fargate(1024, 2048, "X86_64", HOURS)),
    Item("secret", 1, {"secret_month": 1}),
    Item("polls", 1, {"sqs_request": POLLS}),
)
"""What both stacks with a worker make, in a VPC that is there; neither of them makes a network."""
GATEWAY = (
    Item("NAT gateway", 1, {"nat_gateway_hour": HOURS}),
    Item("its address", 1, {"public_ipv4_hour": HOURS}),
)
"""Its tasks get no public address, so that one of these must be there."""
STACKS: dict[str, tuple[Item, ...]] = {
    "`prefect work-pool create --type ecs:push --provision-infra`": (),
    "`prefect-aws ecs-worker deploy-service`, in a VPC that is there": WORKER,
    "module `terraform-prefect-ecs-worker`, in a VPC that is there": WORKER,
    "either of these two, and a NAT gateway": (*WORKER, *GATEWAY),
}
UNPRICED = {
    "a property of something else": (
        *("aws_ecs_cluster_capacity_providers", "aws_ecs_task_definition", "aws_cloudwatch_log_metric_filter"),
        *("aws_sqs_queue_policy", "aws_sqs_queue_redrive_allow_policy", "aws_sqs_queue_redrive_policy"),
    ),
    "billed by use, above": ("aws_cloudwatch_log_group", "aws_ecr_repository"),
    "billed by the GB as vended logs: some bytes for a connection in ten minutes": ("aws_flow_log",),
    "EventBridge takes the events of AWS's services for nothing": (
        *("aws_cloudwatch_event_rule", "aws_cloudwatch_event_target"),
    ),
    "IAM is free": ("aws_iam_role", "aws_iam_role_policy", "aws_iam_role_policy_attachment"),
    "a VPC is free but for its gateways, interface endpoints and public addresses": (
        *("aws_internet_gateway", "aws_route", "aws_route_table", "aws_route_table_association"),
        *("aws_security_group", "aws_subnet", "aws_vpc"),
        *("aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule"),
    ),
}
"""Why no item is made for these types of resources of the Terraform module."""


def content() -> str:
    """The generated part: tables, and a line that says what each is."""
    first, *_ = cost.regions()
    environment, prices = with_defaults(first), cost.prices(first)
    public = cost.idle(dataclasses.replace(environment, network="public"))
    unpriced = [(why, ", ".join(f"`{name}`" for name in names)) for why, names in UNPRICED.items()]
    parts = [
        "US dollars a month while nothing runs, all other settings at their defaults:",
        _by_region("setting", {f"`{cost.written(settings)}`": _items(settings) for settings in VARIANTS}),
        f"What that is, with `network = public` in {first}:",
        markdown.table(("what", "count", "each", "US dollars"), cost.item_rows(public, prices)),
        "What Prefect's own stacks cost idle, with their defaults and the same prices:",
        _by_region("stack", {name: dict.fromkeys(cost.regions(), items) for name, items in STACKS.items()}),
        f"What use adds in {first}, with the default network:",
        markdown.table(("use", "US dollars"), cost.use_rows(environment, prices)),
        "What nothing is counted for:",
        markdown.table(("why", "resources"), unpriced, left=2),
        "Prices: " + "; ".join(f"{region} of {cost.dates(region)}" for region in cost.regions()) + ".",
    ]
    return "\n\n".join(parts)


def with_defaults(region: str) -> Environment:
    """An environment that says no more than it must; with an own Prefect server, so that each network is possible."""
    return Environment(
        name="any", aws_account_id="0" * 12, aws_region=region, prefect_api_url="https://prefect.internal/api"
    )


def _items(settings: dict[str, Any]) -> dict[str, tuple[Item, ...]]:
    """What an environment with these settings is billed for, by region."""
    environments = {region: dataclasses.replace(with_defaults(region), **settings) for region in cost.regions()}
    return {region: tuple(cost.idle(environment)) for region, environment in environments.items()}


def _by_region(what: str, rows: dict[str, dict[str, tuple[Item, ...]]]) -> str:
    """A table of totals with a column for each region."""
    totals = [
        (name, *(f"{cost.total(items, cost.prices(region)):.2f}" for region, items in of.items()))
        for name, of in rows.items()
    ]
    return markdown.table((what, *cost.regions()), totals)


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(markdown.fill(PAGE.read_text(encoding="utf-8"), content()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
