"""Every network through plan, apply, a plan without changes and destroy, with IAM enforced.

The environments live beside `local` on its emulated AWS. No task runs in them: the network of a container is Docker's.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from functional_tests.platform import Platform

SECONDS = 500
SETTINGS: dict[str, dict[str, Any]] = {
    "public": {"network": "public", "flow_logs": True},
    "nat": {"network": "private_nat", "flow_logs": True},
    "endpoints": {"network": "private_endpoints", "flow_logs": False},
    "existing": {},
}
"""By name of the environment; `existing` gets the IDs of its VPC and subnets."""
NAMES = sorted(SETTINGS)
NEVER_REFUSED = re.compile("ec2:DisassociateAddress")
"""The association of an address goes with its NAT gateway; the next attempt sees that (infra/terraform_errors.py)."""
DELETED = ("deleted", "deleting")
EVERYWHERE = "0.0.0.0/0"

Made = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def account(platform: Platform, first_deploy: str) -> Platform:
    """The platform with its emulated account, also after a test that has taken it away."""
    platform.invoke("plan", check=False)
    return platform


@pytest.fixture(scope="module")
def existing_vpc(account: Platform) -> Iterator[dict[str, Any]]:
    """A VPC with two subnets of somebody else, who still has them afterwards."""
    ec2 = account.aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.99.{number}.0/24")["Subnet"]["SubnetId"] for number in range(2)
    ]
    yield {"vpc_id": vpc, "subnet_ids": subnets}
    for subnet in subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


@pytest.fixture(scope="module")
def made(platform: Platform, existing_vpc: dict[str, Any]) -> Iterator[Made]:
    """All environments side by side, applied; by name what `up` of functional_tests/networks.py reports."""
    for name, settings in SETTINGS.items():
        write(platform, name, settings or existing_vpc)
    with ThreadPoolExecutor() as pool:
        reports = pool.map(lambda name: run(platform, "up", name), NAMES)
        yield {name: json.loads(report) for name, report in zip(NAMES, reports, strict=True)}
    for name in NAMES:
        (platform.folder / "environments" / f"{name}.tfvars").unlink()


@pytest.fixture(scope="module")
def removed(platform: Platform, made: Made) -> None:
    """All environments side by side, destroyed."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: run(platform, "down", name), NAMES))


def write(platform: Platform, name: str, settings: dict[str, Any]) -> None:
    """Write the settings of an environment that shares the emulated account with `local`."""
    folder = platform.folder / "environments"
    lines = (folder / "local.tfvars").read_text().splitlines()
    kept = [line for line in lines if not re.match("(network|flow_logs) ", line)]
    (folder / f"{name}.tfvars").write_text(
        "\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), ""])
    )
    own = platform.folder / ".local" / name
    own.mkdir(exist_ok=True)
    for key in ("aws_secret_key", "prefect_key"):
        (own / key).unlink(missing_ok=True)
        (own / key).symlink_to(platform.folder / ".local" / "local" / key)


def run(platform: Platform, *arguments: str) -> str:
    """Run functional_tests/networks.py in the platform's checkout, and return what it prints."""
    command = [sys.executable, "-m", "functional_tests.networks", *arguments]
    done = subprocess.run(command, cwd=platform.folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(f"$ {' '.join(arguments)}\n{done.stdout}{done.stderr}[{done.returncode}]")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_plan_of_the_plan_role_creates_everything_and_then_nothing(made: Made, name: str) -> None:
    before = [change for change in made[name]["before"] if " output " not in change]

    assert {change.partition(" ")[0] for change in before} == {"create"}
    assert "create aws_ecs_service.agent" in before
    assert ("create aws_vpc.this[0]" in before) is (name != "existing")
    assert made[name]["after"] == []


@pytest.mark.parametrize("name", NAMES)
def test_service_of_the_agent_is_in_the_subnets_of_the_network(platform: Platform, made: Made, name: str) -> None:
    outputs, agent = made[name]["outputs"], f"{name}_dataflow_automation_agent"
    (service,) = platform.aws("ecs").describe_services(cluster=agent, services=[agent])["services"]
    configuration = service["networkConfiguration"]["awsvpcConfiguration"]

    assert sorted(configuration["subnets"]) == sorted(outputs["subnet_ids"])
    assert configuration["securityGroups"] == [outputs["security_group_id"]]
    assert configuration["assignPublicIp"] == ("ENABLED" if name == "public" else "DISABLED")


@pytest.mark.parametrize("name", ["nat", "public"])
def test_flow_log_is_written_to_the_encrypted_log_group(platform: Platform, made: Made, name: str) -> None:
    ec2, logs = platform.aws("ec2"), platform.aws("logs")
    (log,) = [each for each in ec2.describe_flow_logs()["FlowLogs"] if each["ResourceId"] == vpc_of(platform, name)]
    (group,) = logs.describe_log_groups(logGroupNamePrefix=f"{name}_dataflow_automation_flow_logs")["logGroups"]

    assert log["DeliverLogsStatus"] == "SUCCESS", "its role may not write the log"
    assert log["DeliverLogsPermissionArn"].endswith(f"role/{name}_dataflow_automation_flow_logs")
    assert (log["LogGroupName"], log["TrafficType"]) == (group["logGroupName"], "ALL")
    assert ":key/" in group["kmsKeyId"]


def test_public_subnets_lead_to_the_internet(platform: Platform, made: Made) -> None:
    vpc, ec2 = vpc_of(platform, "public"), platform.aws("ec2")
    (table,) = tables(platform, vpc)

    assert len(made["public"]["outputs"]["subnet_ids"]) == 3
    assert [route["GatewayId"][:4] for route in ways_out(table)] == ["igw-"]
    assert [each for each in ec2.describe_nat_gateways()["NatGateways"] if each["VpcId"] == vpc] == []


def test_private_subnets_lead_out_through_a_nat_gateway_with_a_fixed_address(platform: Platform, made: Made) -> None:
    vpc, ec2 = vpc_of(platform, "nat"), platform.aws("ec2")
    (gateway,) = [each for each in ec2.describe_nat_gateways()["NatGateways"] if each["VpcId"] == vpc]
    (address,) = gateway["NatGatewayAddresses"]
    private, public = sorted(tables(platform, vpc), key=lambda table: "GatewayId" in ways_out(table)[0])

    assert gateway["State"] == "available"
    assert gateway["SubnetId"] not in made["nat"]["outputs"]["subnet_ids"]
    assert address["PublicIp"] in [each["PublicIp"] for each in ec2.describe_addresses()["Addresses"]]
    assert [route["NatGatewayId"] for route in ways_out(private)] == [gateway["NatGatewayId"]]
    assert sorted(link["SubnetId"] for link in private["Associations"]) == sorted(made["nat"]["outputs"]["subnet_ids"])
    assert [link["SubnetId"] for link in public["Associations"]] == [gateway["SubnetId"]]


def test_subnets_with_endpoints_reach_the_platforms_services_and_nothing_else(platform: Platform, made: Made) -> None:
    vpc, outputs, ec2 = vpc_of(platform, "endpoints"), made["endpoints"]["outputs"], platform.aws("ec2")
    endpoints = [each for each in ec2.describe_vpc_endpoints()["VpcEndpoints"] if each["VpcId"] == vpc]
    interfaces = [each for each in endpoints if each["VpcEndpointType"] == "Interface"]
    (gateway,) = [each for each in endpoints if each["VpcEndpointType"] == "Gateway"]
    (group,) = {group["GroupId"] for each in interfaces for group in each["Groups"]}
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]

    assert [ways_out(table) for table in tables(platform, vpc)] == [[]]
    assert {each["ServiceName"].removeprefix("com.amazonaws.eu-west-1.") for each in interfaces} == {
        *("ecr.api", "ecr.dkr", "ecs", "logs", "secretsmanager", "sqs", "sts")
    }
    assert all(each["PrivateDnsEnabled"] and each["State"] == "available" for each in endpoints if each != gateway)
    assert all(sorted(each["SubnetIds"]) == sorted(outputs["subnet_ids"]) for each in interfaces)
    assert gateway["RouteTableIds"] == [table["RouteTableId"] for table in tables(platform, vpc)]
    assert [(rule["FromPort"], rule["ToPort"], peers(rule)) for rule in rules] == [
        (443, 443, [outputs["security_group_id"]])
    ]


def test_existing_vpc_gets_a_security_group_and_nothing_else(
    platform: Platform, made: Made, existing_vpc: dict[str, Any]
) -> None:
    ec2, vpc = platform.aws("ec2"), existing_vpc["vpc_id"]
    (described,) = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]

    assert sorted(made["existing"]["outputs"]["subnet_ids"]) == sorted(existing_vpc["subnet_ids"])
    assert described.get("Tags", []) == []
    assert {group["GroupName"] for group in groups} == {"default", "existing_dataflow_automation"}
    assert ours(platform, "existing") == [("SecurityGroups", made["existing"]["outputs"]["security_group_id"])]


@pytest.mark.parametrize("name", NAMES)
def test_destroy_of_the_deploy_role_leaves_nothing(platform: Platform, removed: None, name: str) -> None:
    prefix = f"{name}_dataflow_automation"
    roles = {role["RoleName"] for role in platform.aws("iam").list_roles()["Roles"]}

    assert ours(platform, name) == []
    assert {role for role in roles if role.startswith(prefix)} == {
        f"{prefix}_{role}" for role in ("deploy", "plan", "register")
    }
    assert platform.aws("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"] == []
    ecs = platform.aws("ecs")
    assert [arn for arn in ecs.list_clusters()["clusterArns"] if prefix in arn] == []
    assert [arn for arn in ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"] if prefix in arn] == []
    assert [url for url in platform.aws("sqs").list_queues().get("QueueUrls", []) if prefix in url] == []


def test_no_role_was_refused_anything(platform: Platform, removed: None) -> None:
    log = (platform.folder / ".local" / "local" / "logs" / "aws.log").read_text()
    roles = re.compile(rf"assumed-role/({'|'.join(NAMES)})_dataflow_automation_\w+/\w+ denied: (.*)")

    assert [match[0] for match in roles.finditer(log) if not NEVER_REFUSED.match(match[2])] == []


def test_administrator_removes_the_rest(platform: Platform, removed: None, existing_vpc: dict[str, Any]) -> None:
    run(platform, "remove", *NAMES)
    roles = {role["RoleName"] for role in platform.aws("iam").list_roles()["Roles"]}
    buckets = {bucket["Name"] for bucket in platform.aws("s3").list_buckets()["Buckets"]}

    assert {name for name in roles if name.partition("_")[0] in NAMES} == set()
    assert {name for name in buckets if name.partition("-")[0] in NAMES} == set()
    assert len(platform.aws("ec2").describe_subnets(SubnetIds=existing_vpc["subnet_ids"])["Subnets"]) == 2


def vpc_of(platform: Platform, name: str) -> str:
    """The VPC that Terraform made for an environment."""
    ((_, vpc),) = [each for each in ours(platform, name) if each[0] == "Vpcs"]
    return vpc


def tables(platform: Platform, vpc: str) -> list[dict[str, Any]]:
    """The route tables of a VPC, without the one that AWS makes."""
    found = platform.aws("ec2").describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    return [table for table in found if not any(link.get("Main") for link in table["Associations"])]


def ways_out(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The default routes of a route table."""
    return [route for route in table["Routes"] if route.get("DestinationCidrBlock") == EVERYWHERE]


def peers(rule: dict[str, Any]) -> list[str]:
    """The security groups that a rule lets in, if nobody else."""
    assert not rule.get("IpRanges")
    return [pair["GroupId"] for pair in rule["UserIdGroupPairs"]]


def ours(platform: Platform, name: str) -> list[tuple[str, str]]:
    """What EC2 has with the tag of an environment: kind and ID of each."""
    ec2, found = platform.aws("ec2"), []
    for call, kind, key in (
        ("describe_addresses", "Addresses", "AllocationId"),
        ("describe_flow_logs", "FlowLogs", "FlowLogId"),
        ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
        ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
        ("describe_route_tables", "RouteTables", "RouteTableId"),
        ("describe_security_groups", "SecurityGroups", "GroupId"),
        ("describe_subnets", "Subnets", "SubnetId"),
        ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
        ("describe_vpcs", "Vpcs", "VpcId"),
    ):
        for thing in getattr(ec2, call)()[kind]:
            if {"Key": "environment", "Value": name} in thing.get("Tags", []) and thing.get("State") not in DELETED:
                found.append((kind, str(thing[key])))
    return found
