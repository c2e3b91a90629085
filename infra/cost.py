"""What an environment costs a month on AWS while nothing runs in it, as its settings are; `invoke cost`.

Prices come from prices.toml, counts from the settings as the Terraform module makes things of them; a test holds them
against its plans. Nobody is asked: no AWS, no Terraform.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from environments import console
from environments.errors import PlatformError
from environments.settings import Environment

PRICES = Path(__file__).with_name("prices.toml")
HOURS = 730
"""Of a month: a twelfth of 365 days, as AWS's calculator has it."""
ZONES = 3
"""Zones of a network that is made; an interface endpoint is billed in each: https://aws.amazon.com/privatelink/pricing/"""
ENDPOINTS = 7
SECRETS = 2
ALARMS = 4
CLUSTER_METRICS, SERVICE_METRICS, FAMILY_METRICS = 13, 15, 10
"""What Container Insights reports of a cluster, a service, and a task definition family on Fargate, while a task runs.

Each is billed as a custom metric, by the hour.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html
"""
POLLS = HOURS * 3600 / 20
"""Requests of an agent to the queue of task events; each waits for 20 seconds (prefect_aws/observers/ecs.py)."""
RUN_MINUTES = 10
CHOICES: tuple[dict[str, Any], ...] = (
    {"network": "public"},
    {"network": "private_nat", "nat_gateway_count": 1},
    {"network": "private_nat", "nat_gateway_count": 3},
    {"network": "private_endpoints"},
    {"cpu_architecture": "X86_64"},
    {"cpu_architecture": "ARM64"},
    {"agent_count": 0},
    {"agent_count": 1},
    {"agent_count": 2},
    {"agent_cpu": 256, "agent_memory": 512},
    {"agent_cpu": 512, "agent_memory": 1024},
    {"agent_cpu": 1024, "agent_memory": 2048},
    {"kms_key_arn": "a key that you have"},
    {"container_insights": False},
    {"container_insights": True},
)
"""Settings that move the total, and what they could be."""

Prices = dict[str, float]
"""US dollars by the name of the price."""


@dataclasses.dataclass(frozen=True)
class Item:
    """Something that AWS bills.

    Attributes:
        name: what it is.
        count: how many there are.
        units: what one of them uses in a month: how much, by the name of its price.
        resource: its type in the Terraform module, if it comes from there.
    """

    name: str
    count: int
    units: dict[str, float]
    resource: str = ""

    def each(self, prices: Prices) -> float:
        """What one of them costs."""
        return sum(prices[price] * amount for price, amount in self.units.items())


def prices(region: str) -> Prices:
    """What things cost in a region of AWS.

    Raises:
        PlatformError: the project has no prices of this region.
    """
    return {name: price["usd"] for name, price in _listed(region).items()}


def regions() -> list[str]:
    """The regions whose prices are known."""
    return list(tomllib.loads(PRICES.read_text(encoding="utf-8")))


def dates(region: str) -> str:
    """Between which days the prices of a region were published or read."""
    days = sorted(str(price["date"]) for price in _listed(region).values())
    return f"{days[0]} to {days[-1]}"


def fargate(cpu: int, memory: int, architecture: str, hours: float) -> dict[str, float]:
    """What a task on Fargate uses; cpu in CPU units, memory in MiB."""
    kind = f"fargate_{architecture.lower()}"
    return {f"{kind}_vcpu_hour": hours * cpu / 1024, f"{kind}_gb_hour": hours * memory / 1024}


def idle(environment: Environment) -> list[Item]:
    """What an environment is billed for while nothing runs in it."""
    return [item for item in (*_agent(environment), *_network(environment), *_always(environment)) if item.count]


def by_use(environment: Environment) -> list[Item]:
    """What it is billed for besides, by the run, the hour or the GB."""
    cpu, memory, hours = environment.workflow_cpu, environment.workflow_memory, RUN_MINUTES / 60
    run = fargate(cpu, memory, environment.cpu_architecture, hours)
    if environment.tasks_have_public_ip:
        run["public_ipv4_hour"] = hours
    insights = Item(
        "Container Insights, an hour in which a workflow runs",
        int(environment.container_insights),
        {"metric_month": (CLUSTER_METRICS + FAMILY_METRICS) / HOURS},
    )
    by_gb = {
        "GB of images, kept for a month": "image_gb_month",
        "GB of logs of agent and workflows, written": "log_gb",
        "GB of logs, kept for a month": "log_gb_month",
        "GB to the internet": "data_out_gb",
        "GB through a NAT gateway": "nat_gateway_gb" if _gateways(environment) else "",
        "GB through a VPC endpoint": "vpc_endpoint_gb" if _endpoints(environment) else "",
    }
    return [
        Item(f"run of {RUN_MINUTES} minutes, {_size(cpu, memory)}", 1, run),
        *([insights] if insights.count else []),
        *(Item(name, 1, {price: 1}) for name, price in by_gb.items() if price),
    ]


def total(items: Sequence[Item], prices: Prices) -> float:
    """What all of them cost."""
    return sum(item.count * item.each(prices) for item in items)


def choices(environment: Environment) -> Iterator[tuple[dict[str, Any], list[Item]]]:
    """What it would be billed for with other settings; only those that differ."""
    now = idle(environment)
    for settings in CHOICES:
        items = idle(dataclasses.replace(environment, **settings))
        # Settings with both are refused: Prefect Cloud can't be reached from there.
        possible = settings.get("network") != "private_endpoints" or not environment.uses_prefect_cloud
        if possible and items != now:
            yield settings, items


def written(settings: dict[str, Any]) -> str:
    """Settings as a line of text."""
    return ", ".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()
    )


def show(environment: Environment, as_json: bool) -> None:
    """Print what an environment costs, what it would cost with other settings, and what use adds."""
    costs = prices(environment.aws_region)
    items = idle(environment)
    monthly = total(items, costs)
    if as_json:
        print(json.dumps(_as_data(environment, costs), indent=2))
        return
    if environment.is_local:
        console.say("environment local costs nothing: all of it is on this machine. The same settings on AWS:\n")
    console.say(f"${monthly:.2f} a month in {environment.aws_region} while nothing runs", "bold")
    rows = [*item_rows(items, costs), ("total", "", "", f"{monthly:.2f}")]
    console.table(rows, ("what", "count", "each", "US dollars"))
    others = [(written(settings), total(made, costs)) for settings, made in choices(environment)]
    console.say()
    console.table(
        [(name, f"{usd:.2f}", f"{usd - monthly:+.2f}") for name, usd in others], ("with", "a month", "change")
    )
    console.say()
    console.table(use_rows(environment, costs), ("use", "US dollars"))
    console.say(f"\nprices of {dates(environment.aws_region)}, without taxes and free tiers; see docs/cost.md", "dim")


def item_rows(items: Sequence[Item], prices: Prices) -> list[tuple[str, ...]]:
    """Name, count, what one costs and what all of them do, for a table."""
    costs = [(item, item.each(prices)) for item in items]
    return [(item.name, f"{item.count}", f"{each:.2f}", f"{item.count * each:.2f}") for item, each in costs]


def use_rows(environment: Environment, prices: Prices) -> list[tuple[str, ...]]:
    """What is billed by use, and what it costs, for a table."""
    return [(item.name, f"{item.each(prices):.4f}") for item in by_use(environment)]


def _as_data(environment: Environment, costs: Prices) -> dict[str, Any]:
    items = idle(environment)
    return {
        "environment": environment.name,
        "region": environment.aws_region,
        "currency": "USD",
        "prices": dates(environment.aws_region),
        "on_aws": not environment.is_local,
        "monthly": round(total(items, costs), 2),
        "items": [{"name": item.name, "count": item.count, "each": round(item.each(costs), 4)} for item in items],
        "choices": [
            {"settings": settings, "monthly": round(total(made, costs), 2)} for settings, made in choices(environment)
        ],
        "by_use": [{"name": item.name, "each": round(item.each(costs), 6)} for item in by_use(environment)],
    }


def _listed(region: str) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    if region not in known:
        raise PlatformError(
            f"no prices of AWS region {region}",
            f"infra/{PRICES.name} has those of {', '.join(known)}",
            f"add a table [{region}] there with the same names; https://calculator.aws shows what AWS charges",
        )
    return known[region]


def _agent(environment: Environment) -> list[Item]:
    count, cpu, memory = environment.agent_count, environment.agent_cpu, environment.agent_memory
    units = fargate(cpu, memory, environment.cpu_architecture, HOURS)
    addresses = count if environment.tasks_have_public_ip else 0
    metrics = CLUSTER_METRICS + SERVICE_METRICS + FAMILY_METRICS if count and environment.container_insights else 0
    return [
        Item(f"agent, {_size(cpu, memory)}, {environment.cpu_architecture}", count, units, "aws_ecs_service"),
        Item("public IPv4 address of an agent", addresses, {"public_ipv4_hour": HOURS}, "aws_ecs_service"),
        Item("agent that polls the queue of task events", count, {"sqs_request": POLLS}, "aws_sqs_queue"),
        Item("Container Insights metric of the agent", metrics, {"metric_month": 1}, "aws_ecs_cluster"),
    ]


def _network(environment: Environment) -> list[Item]:
    gateways, endpoints = _gateways(environment), _endpoints(environment)
    return [
        Item("NAT gateway", gateways, {"nat_gateway_hour": HOURS}, "aws_nat_gateway"),
        Item("public IPv4 address of a NAT gateway", gateways, {"public_ipv4_hour": HOURS}, "aws_eip"),
        Item(f"VPC endpoint in {ZONES} zones", endpoints, {"vpc_endpoint_hour": ZONES * HOURS}, "aws_vpc_endpoint"),
    ]


def _always(environment: Environment) -> list[Item]:
    return [
        Item("KMS key", 0 if environment.kms_key_arn else 1, {"kms_key_month": 1}),
        Item("secret", SECRETS, {"secret_month": 1}, "aws_secretsmanager_secret"),
        Item("alarm", ALARMS, {"alarm_month": 1}, "aws_cloudwatch_metric_alarm"),
    ]


def _gateways(environment: Environment) -> int:
    made = environment.vpc_id is None and environment.network == "private_nat"
    return environment.nat_gateway_count if made else 0


def _endpoints(environment: Environment) -> int:
    return ENDPOINTS if environment.vpc_id is None and environment.network == "private_endpoints" else 0


def _size(cpu: int, memory: int) -> str:
    return f"{cpu / 1024:g} vCPU, {memory / 1024:g} GB"
