"""What an idle environment costs, by its settings; and that the page of the documentation says so."""

import dataclasses
import datetime
import inspect
import json
import re
import tomllib
from importlib import resources
from typing import Any

import pytest

from environments import markdown, settings
from environments.errors import PlatformError
from environments.settings import Environment
from infra import cost, cost_page
from infra.terraform_process import MODULE

PUBLIC = {"network": "public"}
COMMITTED = [name for name in settings.known() if settings.load(name).aws_region in cost.regions()]


def _items(environment: Environment, **changes: Any) -> dict[str, tuple[int, float]]:
    """How many of what, and what one of them costs."""
    changed = dataclasses.replace(environment, **changes)
    prices = cost.prices(changed.aws_region)
    return {item.name.partition(",")[0]: (item.count, round(item.each(prices), 2)) for item in cost.idle(changed)}


def test_every_resource_of_the_module_is_billed_or_known_to_cost_nothing() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in MODULE.glob("*.tf"))
    module = set(re.findall(r'^resource "(\w+)"', text, re.MULTILINE))
    environments = [dataclasses.replace(cost_page.with_defaults("eu-west-1"), **each) for each in cost_page.VARIANTS]
    billed = {item.resource for environment in environments for item in cost.idle(environment) if item.resource}
    unpriced = [name for names in cost_page.UNPRICED.values() for name in names]

    assert len(unpriced) == len(set(unpriced))
    assert billed.isdisjoint(unpriced)
    assert billed.union(unpriced) == module


def test_every_price_has_its_source_and_its_date_in_every_region() -> None:
    listed = tomllib.loads(cost.PRICES.read_text(encoding="utf-8"))
    names = [set(prices) for prices in listed.values()]

    assert len(listed) > 1
    assert all(each == names[0] for each in names)
    for price in (price for prices in listed.values() for price in prices.values()):
        assert 0 < price["usd"] < 10
        assert price["source"].startswith("https://")
        assert datetime.date(2026, 1, 1) < price["date"] <= datetime.datetime.now(datetime.UTC).date()


def test_every_price_is_of_use() -> None:
    """One that nothing asks for would look as if it counted."""
    region = cost.regions()[0]
    environments = [dataclasses.replace(cost_page.with_defaults(region), **each) for each in cost_page.VARIANTS]
    items = [item for each in environments for item in (*cost.idle(each), *cost.by_use(each))]

    assert {price for item in items for price in item.units} == cost.prices(region).keys()


def test_agents_cost_by_size_count_and_processor(environment: Environment) -> None:
    assert _items(environment)["agent"] == (1, 9.01)
    assert _items(environment, agent_count=3)["agent"] == (3, 9.01)
    assert _items(environment, agent_cpu=1024, agent_memory=2048)["agent"] == (1, 36.04)
    assert _items(environment, cpu_architecture="ARM64")["agent"] == (1, 7.21)


def test_without_an_agent_nothing_is_billed_that_it_would_use(environment: Environment) -> None:
    assert _items(environment, agent_count=0, **PUBLIC).keys() == {"KMS key", "secret", "alarm"}


@pytest.mark.parametrize(
    ("changes", "billed"),
    [
        (PUBLIC, {"public IPv4 address of an agent": (1, 3.65)}),
        (PUBLIC | {"agent_count": 2}, {"public IPv4 address of an agent": (2, 3.65)}),
        ({}, {"NAT gateway": (1, 35.04), "public IPv4 address of a NAT gateway": (1, 3.65)}),
        ({"nat_gateway_count": 3}, {"NAT gateway": (3, 35.04), "public IPv4 address of a NAT gateway": (3, 3.65)}),
        ({"network": "private_endpoints"}, {"VPC endpoint in 3 zones": (7, 24.09)}),
        ({"vpc_id": "vpc-0123456789abcdef0"}, {}),
        ({"vpc_id": "vpc-0123456789abcdef0", "assign_public_ip": True}, {"public IPv4 address of an agent": (1, 3.65)}),
    ],
)
def test_a_network_costs_its_gateways_endpoints_and_addresses(
    environment: Environment, changes: dict[str, Any], billed: dict[str, tuple[int, float]]
) -> None:
    items = _items(environment, **changes)

    assert {name: found for name, found in items.items() if re.match("NAT|VPC|public", name)} == billed


def test_a_key_that_is_there_anyway_is_not_billed_again(environment: Environment) -> None:
    assert _items(environment)["KMS key"] == (1, 1.0)
    assert "KMS key" not in _items(environment, kms_key_arn="arn:aws:kms:eu-west-1:123456789012:key/1")


def test_other_choices_are_such_as_would_change_something(environment: Environment) -> None:
    prices, now = cost.prices(environment.aws_region), cost.idle(environment)
    offered = {cost.written(chosen): cost.total(items, prices) for chosen, items in cost.choices(environment)}

    assert offered["network = public"] == pytest.approx(cost.total(now, prices) - 35.04)
    assert offered["agent_count = 2"] > cost.total(now, prices)
    assert not offered.keys() & {"network = private_nat, nat_gateway_count = 1", "agent_count = 1"}


def test_no_network_is_offered_from_which_the_prefect_server_is_out_of_reach(environment: Environment) -> None:
    own = dataclasses.replace(environment, prefect_api_url="https://prefect.internal/api")

    assert {"network": "private_endpoints"} not in [chosen for chosen, _ in cost.choices(environment)]
    assert {"network": "private_endpoints"} in [chosen for chosen, _ in cost.choices(own)]


def test_a_network_that_is_there_is_not_to_be_chosen(environment: Environment) -> None:
    existing = dataclasses.replace(environment, vpc_id="vpc-0123456789abcdef0")

    assert [chosen for chosen, _ in cost.choices(existing) if "network" in chosen] == []


def test_a_run_costs_its_size_its_minutes_and_its_address(environment: Environment) -> None:
    def run(**changes: Any) -> float:
        return cost.by_use(dataclasses.replace(environment, **changes))[0].each(cost.prices("eu-west-1"))

    assert run(workflow_cpu=1024, workflow_memory=2048) == pytest.approx((0.04048 + 2 * 0.004445) / 6)
    assert run(**PUBLIC) - run() == pytest.approx(0.005 / 6)


def test_a_region_without_prices_is_told_with_what_to_do(environment: Environment) -> None:
    elsewhere = dataclasses.replace(environment, aws_region="ap-south-1")
    with pytest.raises(PlatformError, match="no prices of AWS region ap-south-1") as caught:
        cost.show(elsewhere, as_json=False)

    assert "eu-west-1, us-east-1" in caught.value.why
    assert "[ap-south-1]" in caught.value.todo


@pytest.mark.parametrize("name", COMMITTED)
def test_what_is_shown_adds_up(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cost.show(settings.load(name), as_json=True)
    told = json.loads(capsys.readouterr().out)
    cost.show(settings.load(name), as_json=False)
    shown = capsys.readouterr().out

    assert sum(item["count"] * item["each"] for item in told["items"]) == pytest.approx(told["monthly"], abs=0.01)
    assert f"${told['monthly']:.2f} a month in {told['region']} while nothing runs" in shown
    assert re.search(rf"^total +{told['monthly']:.2f}$", shown, re.MULTILINE)


def test_local_costs_nothing(local: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    cost.show(local, as_json=True)
    assert json.loads(capsys.readouterr().out)["on_aws"] is False
    cost.show(local, as_json=False)
    assert capsys.readouterr().out.startswith("environment local costs nothing")


def test_the_page_says_what_the_settings_and_prices_give() -> None:
    """After a change of either: python -m infra.cost_page."""
    page = cost_page.PAGE.read_text(encoding="utf-8")

    assert markdown.fill(page, cost_page.content()) == page


def test_prefects_own_stacks_are_made_up_as_the_page_says() -> None:
    """Those that are installed here; the Terraform module has the same size, count and queue."""
    from prefect.infrastructure.provisioners import ecs

    template = json.loads((resources.files("prefect_aws") / "templates" / "ecs" / "service.json").read_text())
    defaults = {name: each.get("Default") for name, each in template["Parameters"].items()}
    push = set(re.findall(r"\.(create_\w+)", inspect.getsource(ecs)))

    assert [defaults[name] for name in ("DesiredCount", "TaskCpu", "TaskMemory")] == [1, 1024, 2048]
    assert not {each["Type"] for each in template["Resources"].values()} & {"AWS::EC2::VPC", "AWS::EC2::NatGateway"}
    assert "create_cluster" in push
    assert not push & {"create_service", "create_nat_gateway", "create_secret", "allocate_address"}
