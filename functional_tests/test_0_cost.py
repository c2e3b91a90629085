"""`invoke cost` counts what the Terraform module makes: real Terraform, and an AWS that nobody asks."""

import dataclasses
import os
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from environments.settings import ROOT, load
from infra import architecture_page, cost, offline
from infra.terraform_process import program

SIZE = {"agent_cpu": 512, "agent_memory": 2048}
CHOICES: dict[str, dict[str, Any]] = {
    "public": {"network": "public", **SIZE},
    "one_gateway": {"network": "private_nat", "nat_gateway_count": 1, **SIZE},
    "three_gateways": {"network": "private_nat", "nat_gateway_count": 3, **SIZE},
    "insights": {"network": "public", "container_insights": True, **SIZE},
    "endpoints": {"network": "private_endpoints", "prefect_api_url": "https://prefect.internal/api", **SIZE},
}
COUNTED = ("aws_nat_gateway", "aws_eip", "aws_vpc_endpoint", "aws_secretsmanager_secret", "aws_cloudwatch_metric_alarm")
Made = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What the module makes: by choice and type, the values of each resource."""
    folder = tmp_path_factory.mktemp("cost")
    found: Made = {choice: defaultdict(list) for choice in CHOICES}
    with pytest.MonkeyPatch.context() as variables:
        for name in (name for name in os.environ if name.startswith("TF_")):
            variables.delenv(name)
        variables.setenv("TF_DATA_DIR", str(folder / "data"))
        if (configuration := ROOT / ".local" / "terraform.rc").exists():
            variables.setenv("TF_CLI_CONFIG_FILE", str(configuration))
        subprocess.run([program(), "-chdir=infra", "init", "-backend=false"], cwd=ROOT, check=True, capture_output=True)
        for choice, resource in offline.resources(load("dev"), CHOICES, folder / "module"):
            if resource["mode"] == "managed":
                found[choice][resource["type"]].append(resource["values"])
    return found


@pytest.mark.parametrize("choice", CHOICES)
def test_as_many_are_billed_as_are_made(made: Made, choice: str) -> None:
    items = cost.idle(dataclasses.replace(load("dev"), **CHOICES[choice]))
    billed = Counter({item.resource: item.count for item in items if item.resource in COUNTED})
    there = Counter({kind: len(made[choice][kind]) for kind in COUNTED})
    there["aws_vpc_endpoint"] = len(interface_endpoints(made[choice]))

    assert billed == there
    assert billed["aws_secretsmanager_secret"] > 0


def test_endpoints_are_in_as_many_zones_as_are_billed(made: Made) -> None:
    assert {len(each["subnet_ids"]) for each in interface_endpoints(made["endpoints"])} == {cost.ZONES}


@pytest.mark.parametrize("choice", CHOICES)
def test_layers_of_images_take_no_way_that_bills_by_the_gb(made: Made, choice: str) -> None:
    gateways = [each for each in made[choice]["aws_vpc_endpoint"] if each["vpc_endpoint_type"] == "Gateway"]
    assert len(gateways) == (CHOICES[choice]["network"] != "public")
    assert all(each["service_name"].endswith(".s3") for each in gateways)


@pytest.mark.parametrize("choice", CHOICES)
def test_agents_have_the_size_and_the_address_that_are_billed(made: Made, choice: str) -> None:
    environment = dataclasses.replace(load("dev"), **CHOICES[choice])
    (task,), (service,) = made[choice]["aws_ecs_task_definition"], made[choice]["aws_ecs_service"]
    addresses = [item for item in cost.idle(environment) if item.name == "public IPv4 address of an agent"]

    assert [int(task[kind]) for kind in ("cpu", "memory")] == [environment.agent_cpu, environment.agent_memory]
    assert service["network_configuration"][0]["assign_public_ip"] == bool(addresses)


@pytest.mark.parametrize("choice", CHOICES)
def test_container_insights_are_on_where_they_are_billed(made: Made, choice: str) -> None:
    billed = any(
        "Container Insights" in item.name for item in cost.idle(dataclasses.replace(load("dev"), **CHOICES[choice]))
    )
    settings = [cluster["setting"] for cluster in made[choice]["aws_ecs_cluster"]]

    assert settings == 2 * [[{"name": "containerInsights", "value": "enabled" if billed else "disabled"}]]
    assert billed == (choice == "insights")


def test_the_queue_is_polled_as_often_as_is_billed(made: Made) -> None:
    (queue,) = (each for each in made["public"]["aws_sqs_queue"] if each["name"].endswith("task_events"))

    assert queue["receive_wait_time_seconds"] * cost.POLLS == cost.HOURS * 3600


def test_picture_of_the_resources_is_that_of_terraforms_graph(tmp_path: Path) -> None:
    drawn = architecture_page.edges(architecture_page.PAGE.read_text())[0]

    assert drawn == architecture_page.edges(architecture_page.resources(architecture_page.graph(tmp_path)))[0]
    assert len(drawn) > 10


def interface_endpoints(made: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The endpoints that are billed; that of S3 is a gateway, and free."""
    return [each for each in made["aws_vpc_endpoint"] if each["vpc_endpoint_type"] == "Interface"]
