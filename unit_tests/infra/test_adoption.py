import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import adoption, terraform
from infra.plans import Ahead
from infra.terraform import Outputs
from unit_tests.conftest import REGION, FakeTerraform

Aws = Callable[[str], Any]
TAG = "0123456789abcdef"
PREFIX = "dev_dataflow_automation"
TAGS = {"environment": "dev", "project": "dataflow-automation-infra", "managed_by": "terraform"}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def _tags(name: str = PREFIX, **others: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in {**TAGS, "Name": name, **others}.items()]


def _specified(kind: str, name: str = PREFIX, **others: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": _tags(name, **others)}]


def _planned(address: str, actions: tuple[str, ...] = ("create",), name: str = PREFIX, **known: Any) -> dict[str, Any]:
    after = {"name": name, "tags_all": {**TAGS, "Name": name, "team": "new"}, **known}
    return {
        "address": address,
        "type": address.partition(".")[0],
        "change": {"actions": list(actions), "after": after},
    }


@pytest.fixture
def plan(fake_terraform: FakeTerraform, outputs: Outputs) -> Callable[..., None]:
    """Say what Terraform would do, and what its state knows; there is none if it knows nothing."""
    told = json.dumps({name: {"value": value} for name, value in vars(outputs).items()})
    fake_terraform.ends_with("apply", json.dumps({"type": "outputs", "outputs": json.loads(told)}) + "\n")

    def made(*changes: dict[str, Any], known: tuple[str, ...] = ()) -> None:
        state = {"values": {"root_module": {"resources": [{"address": address} for address in known]}}}
        fake_terraform.answers("show", json.dumps({"resource_changes": changes, **(state if known else {})}))

    return made


@pytest.fixture
def network(aws_mocked: Aws) -> dict[str, str]:
    """What a dead run made of a network: import IDs by address."""
    ec2 = aws_mocked("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=_specified("vpc"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(
        VpcId=vpc, CidrBlock="10.20.0.0/20", TagSpecifications=_specified("subnet", f"{PREFIX}_public_1")
    )["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway(TagSpecifications=_specified("internet-gateway"))["InternetGateway"]
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=_specified("route-table"))["RouteTable"]["RouteTableId"]
    ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway["InternetGatewayId"])
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway["InternetGatewayId"])
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=_specified("elastic-ip"))["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address, TagSpecifications=_specified("natgateway"))[
        "NatGateway"
    ]["NatGatewayId"]
    group = ec2.create_security_group(
        GroupName=PREFIX, Description="x", VpcId=vpc, TagSpecifications=_specified("security-group")
    )["GroupId"]
    endpoint = ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", TagSpecifications=_specified("vpc-endpoint")
    )["VpcEndpoint"]["VpcEndpointId"]
    return {
        "aws_vpc.this[0]": vpc,
        "aws_subnet.public[0]": subnet,
        "aws_internet_gateway.this[0]": gateway["InternetGatewayId"],
        "aws_route_table.public[0]": table,
        "aws_route.internet[0]": f"{table}_0.0.0.0/0",
        "aws_route_table_association.public[0]": f"{subnet}/{table}",
        "aws_eip.nat[0]": address,
        "aws_nat_gateway.this[0]": nat,
        "aws_security_group.tasks": group,
        "aws_vpc_endpoint.s3[0]": endpoint,
    }


@pytest.fixture
def named(aws_mocked: Aws) -> dict[str, str]:
    """What a dead run made that has a name: import IDs by address."""
    ecs, name = aws_mocked("ecs"), f"{PREFIX}_agent"
    lower = [{"key": tag["Key"], "value": tag["Value"]} for tag in _tags(name)]
    aws_mocked("iam").create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, Tags=_tags(name))
    aws_mocked("logs").create_log_group(logGroupName=name, tags={**TAGS, "Name": name})
    aws_mocked("ecr").create_repository(repositoryName=name, tags=_tags(name))
    secret = aws_mocked("secretsmanager").create_secret(Name=name, Tags=_tags(name))["ARN"]
    queue = aws_mocked("sqs").create_queue(QueueName=name, tags={**TAGS, "Name": name})["QueueUrl"]
    ecs.create_cluster(clusterName=name, tags=lower)
    ecs.register_task_definition(family=name, containerDefinitions=[{"name": "agent", "image": "x", "memory": 128}])
    ecs.create_service(cluster=name, serviceName=name, taskDefinition=name, desiredCount=0, tags=lower)
    return {
        'aws_iam_role.this["agent_task"]': name,
        'aws_cloudwatch_log_group.this["agent"]': name,
        "aws_ecr_repository.agent": name,
        "aws_secretsmanager_secret.prefect_key": secret,
        "aws_sqs_queue.task_events": queue,
        'aws_ecs_cluster.this["agent"]': name,
        "aws_ecs_service.agent": f"{name}/{name}",
    }


def test_parts_of_a_network_are_found_by_their_tags(
    environment: Environment, network: dict[str, str], plan: Callable[..., None]
) -> None:
    known = {
        "aws_subnet.public[0]": {"name": f"{PREFIX}_public_1"},
        "aws_route.internet[0]": {
            "route_table_id": network["aws_route_table.public[0]"],
            "destination_cidr_block": "0.0.0.0/0",
        },
        "aws_route_table_association.public[0]": {"subnet_id": network["aws_subnet.public[0]"]},
    }
    plan(*(_planned(address, **known.get(address, {})) for address in network))

    assert adoption.adopt(environment, TAG) == network


def test_what_has_a_name_is_found_by_it(
    environment: Environment, named: dict[str, str], plan: Callable[..., None]
) -> None:
    plan(*(_planned(address, name=f"{PREFIX}_agent") for address in named))

    assert adoption.adopt(environment, TAG) == named


def test_what_belongs_to_others_is_never_taken_up(
    environment: Environment, aws_mocked: Aws, plan: Callable[..., None], fake_terraform: FakeTerraform
) -> None:
    ec2, name = aws_mocked("ec2"), f"{PREFIX}_agent"
    ec2.create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=_specified("vpc", environment="test"))
    ec2.create_vpc(CidrBlock="10.20.0.0/16")
    aws_mocked("iam").create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    aws_mocked("ecr").create_repository(repositoryName=name, tags=_tags(managed_by="register"))
    aws_mocked("logs").create_log_group(logGroupName=f"{name}_of_others", tags={**TAGS, "Name": name})
    aws_mocked("secretsmanager").create_secret(Name=name)
    aws_mocked("sqs").create_queue(QueueName=name)
    kinds = ("iam_role", "ecr_repository", "cloudwatch_log_group", "secretsmanager_secret", "sqs_queue", "ecs_service")
    plan(_planned("aws_vpc.this[0]"), *(_planned(f"aws_{kind}.x", name=name) for kind in kinds))

    assert adoption.adopt(environment, TAG) == {}
    assert "apply" not in fake_terraform.calls()


def test_what_the_state_knows_and_what_is_only_written_over_is_not_looked_for(
    environment: Environment, network: dict[str, str], plan: Callable[..., None]
) -> None:
    plan(
        _planned("aws_vpc.this[0]", ("update",)),
        _planned("aws_subnet.public[0]", ("delete", "create"), name=f"{PREFIX}_public_1"),
        _planned("aws_internet_gateway.this[0]", ("no-op",)),
        _planned("aws_iam_role_policy.agent_task"),
    )

    assert adoption.adopt(environment, TAG) == {}


def test_only_what_was_found_is_applied(
    environment: Environment, network: dict[str, str], plan: Callable[..., None], fake_terraform: FakeTerraform
) -> None:
    plan(_planned("aws_vpc.this[0]"), _planned("aws_ecr_repository.agent"))
    adoption.adopt(environment, TAG)
    targets = [argument for argument in fake_terraform.arguments("apply") if argument.startswith("-target")]

    assert targets == ["-target=aws_vpc.this[0]"]
    assert "state" not in fake_terraform.calls()
    assert f"-var=agent_image_tag={TAG}" in fake_terraform.arguments("apply")


def test_what_the_state_has_lost_under_the_same_address_is_forgotten_first(
    environment: Environment, network: dict[str, str], plan: Callable[..., None], fake_terraform: FakeTerraform
) -> None:
    """Terraform imports nothing over what it has in its state, and says nothing of it."""
    plan(_planned("aws_vpc.this[0]"), _planned("aws_eip.nat[0]"), known=("aws_vpc.this[0]", "aws_subnet.public[0]"))
    adoption.adopt(environment, TAG)

    assert fake_terraform.arguments("state")[-1] == "aws_vpc.this[0]"
    assert "aws_eip.nat[0]" not in fake_terraform.arguments("state")
    assert fake_terraform.calls()[-2:] == ["state", "apply"]


def test_two_of_what_there_should_be_one_of_are_named_and_none_is_chosen(
    environment: Environment, network: dict[str, str], aws_mocked: Aws, plan: Callable[..., None]
) -> None:
    second = aws_mocked("ec2").create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=_specified("vpc"))["Vpc"]["VpcId"]
    plan(_planned("aws_vpc.this[0]"))
    with pytest.raises(PlatformError, match=f"AWS has 2 of {PREFIX}") as caught:
        adoption.adopt(environment, TAG)

    assert {network["aws_vpc.this[0]"], second} == set(caught.value.why.split(", "))


def test_errors_of_aws_are_not_taken_for_something_missing(
    environment: Environment, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def refused(_environment: Environment, _planned: Any) -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetRole")

    monkeypatch.setitem(adoption.FINDERS, "aws_iam_role", refused)
    plan(_planned("aws_iam_role.x"))
    with pytest.raises(ClientError, match="AccessDenied"):
        adoption.adopt(environment, TAG)


@pytest.fixture
def first_apply_fails(monkeypatch: pytest.MonkeyPatch, outputs: Outputs) -> Callable[[str], list[str]]:
    """Let Terraform fail with these words, and succeed from then on; gives what it was called for."""

    def prepared(words: str) -> list[str]:
        calls: list[str] = []

        def apply(_environment: Environment, image_tag: str, *_: Any) -> Outputs:
            calls.append(image_tag)
            if len(calls) == 1:
                raise PlatformError("terraform apply failed", words)
            return outputs

        monkeypatch.setattr(terraform, "apply", apply)
        return calls

    return prepared


def test_deploy_takes_up_what_a_taken_name_tells_of_and_tries_once_more(
    environment: Environment,
    named: dict[str, str],
    plan: Callable[..., None],
    fake_terraform: FakeTerraform,
    first_apply_fails: Callable[[str], list[str]],
    outputs: Outputs,
) -> None:
    calls = first_apply_fails("RepositoryAlreadyExistsException: The repository already exists")
    plan(_planned("aws_ecr_repository.agent", name=f"{PREFIX}_agent"))

    assert adoption.apply(environment, TAG) == outputs
    assert calls == [TAG, TAG]
    assert "-target=aws_ecr_repository.agent" in fake_terraform.arguments("apply")


@pytest.mark.parametrize("words", ["AccessDenied", "RepositoryAlreadyExistsException of somebody else"])
def test_deploy_stops_where_nothing_can_be_taken_up(
    environment: Environment,
    aws_mocked: Aws,
    plan: Callable[..., None],
    first_apply_fails: Callable[[str], list[str]],
    words: str,
) -> None:
    calls = first_apply_fails(words)
    plan(_planned("aws_ecr_repository.agent", name=f"{PREFIX}_agent"))
    with pytest.raises(PlatformError, match=words):
        adoption.apply(environment, TAG)

    assert calls == [TAG]


def test_address_whose_nat_gateway_has_just_gone_is_removed_by_a_second_apply(
    environment: Environment, first_apply_fails: Callable[[str], list[str]], outputs: Outputs, tmp_path: Path
) -> None:
    words = "disassociating EC2 EIP (eipassoc-0123456789abcdef0): api error UnauthorizedOperation"
    calls = first_apply_fails(words)

    assert adoption.apply(environment, TAG) == outputs
    assert calls == [TAG, TAG]
    calls = first_apply_fails(words)
    with pytest.raises(PlatformError, match="UnauthorizedOperation"):
        adoption.apply(environment, TAG, saved=tmp_path / "shown")
    assert calls == [TAG]


def test_plan_that_was_shown_is_never_applied_to_another_state(
    environment: Environment,
    named: dict[str, str],
    plan: Callable[..., None],
    first_apply_fails: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    calls = first_apply_fails("EntityAlreadyExists")
    plan(_planned("aws_ecr_repository.agent", name=f"{PREFIX}_agent"))
    with pytest.raises(PlatformError, match="does not fit any more") as caught:
        adoption.apply(environment, TAG, saved=tmp_path / "plan")

    assert "aws_ecr_repository.agent" in caught.value.why
    assert "invoke plan --env dev" in caught.value.todo
    assert calls == [TAG]


def _ahead(outputs: Outputs, *changes: str) -> Ahead:
    return Ahead(Path("/ahead"), list(changes), outputs)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch, outputs: Outputs) -> list[Path | None]:
    """The plans that Terraform was given to apply; None for one that it is to make itself."""
    calls: list[Path | None] = []

    def apply(_environment: Environment, _tag: str, _on: Callable[[], None], saved: Path | None = None) -> Outputs:
        calls.append(saved)
        if saved == Path("/stale"):
            raise PlatformError("the plan is stale; nothing was changed", "somebody was faster")
        return outputs

    monkeypatch.setattr(terraform, "apply", apply)
    return calls


def test_nothing_is_applied_when_the_plan_made_ahead_has_no_changes(
    environment: Environment, applied: list[Path | None], outputs: Outputs
) -> None:
    told: list[bool] = []

    assert adoption.apply(environment, TAG, lambda: told.append(True), ahead=_ahead(outputs)) == outputs
    assert applied == []
    assert told == [True]


def test_plan_made_ahead_is_what_is_applied(
    environment: Environment, applied: list[Path | None], outputs: Outputs
) -> None:
    told: list[bool] = []
    ahead = _ahead(outputs, "create aws_ecr_repository.agent")

    assert adoption.apply(environment, TAG, lambda: told.append(True), ahead=ahead) == outputs
    assert applied == [Path("/ahead")]
    assert told == []


def test_stale_plan_made_ahead_is_made_anew_and_one_that_was_shown_is_refused(
    environment: Environment, applied: list[Path | None], outputs: Outputs
) -> None:
    ahead = dataclasses.replace(_ahead(outputs, "update aws_vpc.this"), file=Path("/stale"))

    assert adoption.apply(environment, TAG, ahead=ahead) == outputs
    assert applied == [Path("/stale"), None]
    with pytest.raises(PlatformError, match="stale"):
        adoption.apply(environment, TAG, saved=Path("/stale"))
