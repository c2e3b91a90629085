"""The emulated network: the emulator's own EC2 with our functions in place, asked and answering as over HTTP."""

import json
import re
import types
from collections.abc import Callable
from typing import Any

import pytest
from ministack.services import ec2 as emulated
from ministack.services import iam

from environments import emulated_network
from environments.emulated_network import CHANGE_SECONDS, FLOW_LOG_FORMAT, complete_network
from environments.emulated_record import Recorder

ROLE = "arn:aws:iam::000000000000:role/flow_logs"
GROUP = "arn:aws:logs:us-east-1:000000000000:log-group:flows"
WRITING = ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents", "logs:DescribeLogGroups")
TRUST = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": "vpc-flow-logs.amazonaws.com"},
    "Condition": {
        "StringEquals": {"aws:SourceAccount": "000000000000"},
        "ArnLike": {"aws:SourceArn": "arn:aws:ec2:us-east-1:000000000000:vpc-flow-log/*"},
    },
}

Ask = Callable[..., str]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the emulated network goes by, which a test may change."""
    now = [1000.0]
    monkeypatch.setattr(emulated_network, "time", types.SimpleNamespace(time=lambda: now[0]))
    return now


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> Ask:
    """Asks EC2 for an action, and gives the text of the answer; an empty account to begin with."""
    for store in (
        *("_addresses", "_flow_logs", "_internet_gateways", "_nat_gateways", "_network_interfaces", "_route_tables"),
        *("_security_groups", "_subnets", "_tags", "_vpc_endpoints", "_vpcs"),
    ):
        monkeypatch.setattr(emulated, store, {})
    monkeypatch.setattr(emulated, "_ACTION_MAP", dict(emulated._ACTION_MAP))
    monkeypatch.setattr(emulated, "_vpce_fields_xml", emulated._vpce_fields_xml)
    complete_network(emulated, Recorder())

    def asked(operation: str, **parameters: str) -> str:
        named = {re.sub(r"_(\d+)", r".\1", name): value for name, value in parameters.items()}
        text: str = emulated._ACTION_MAP[operation](named)[2].decode()
        return text

    return asked


def _made(text: str, kind: str) -> str:
    return str(re.findall(rf"\b{kind}-\w+", text)[0])


@pytest.fixture
def vpc(ask: Ask) -> str:
    return _made(ask("CreateVpc", CidrBlock="10.0.0.0/16"), "vpc")


@pytest.fixture
def subnet(ask: Ask, vpc: str) -> str:
    return _made(ask("CreateSubnet", VpcId=vpc, CidrBlock="10.0.0.0/24"), "subnet")


@pytest.fixture
def group(ask: Ask, vpc: str) -> str:
    return _made(ask("CreateSecurityGroup", VpcId=vpc, GroupName="tasks", GroupDescription="x"), "sg")


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the role of the flow log, with these permissions and this statement of trust."""

    def make(actions: tuple[str, ...] = WRITING, trust: dict[str, Any] = TRUST) -> None:
        policy = json.dumps({"Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]})
        document = json.dumps({"Statement": [trust]})
        known = {"RoleName": "flow_logs", "InlinePolicies": {"own": policy}, "AssumeRolePolicyDocument": document}
        monkeypatch.setitem(iam._roles, "flow_logs", known)

    return make


def _flow_log(ask: Ask, vpc: str) -> str:
    tags = {"TagSpecification_1.ResourceType": "vpc-flow-log"}
    tags |= {"TagSpecification_1.Tag_1.Key": "Name", "TagSpecification_1.Tag_1.Value": "ours"}
    return ask("CreateFlowLogs", ResourceId_1=vpc, LogDestination=GROUP, DeliverLogsPermissionArn=ROLE, **tags)


def test_flow_log_is_described_as_it_was_created(ask: Ask, vpc: str, role: Callable[..., None]) -> None:
    role()
    name = _made(_flow_log(ask, vpc), "fl")
    told = ask("DescribeFlowLogs", FlowLogId_1=name)

    assert f"<deliverLogsPermissionArn>{ROLE}</deliverLogsPermissionArn>" in told
    assert f"<logFormat>{FLOW_LOG_FORMAT}</logFormat>" in told
    assert "<maxAggregationInterval>600</maxAggregationInterval>" in told
    assert "<logGroupName>flows</logGroupName>" in told
    assert "<key>Name</key><value>ours</value>" in told
    assert "<deliverLogsStatus>SUCCESS</deliverLogsStatus>" in told


@pytest.mark.parametrize("missing", WRITING)
def test_flow_log_is_not_delivered_by_a_role_that_may_not_write_it(
    ask: Ask, vpc: str, role: Callable[..., None], missing: str
) -> None:
    role(tuple(action for action in WRITING if action != missing))
    _flow_log(ask, vpc)
    told = ask("DescribeFlowLogs")

    assert "<deliverLogsStatus>FAILED</deliverLogsStatus>" in told
    assert "<deliverLogsErrorMessage>Access error</deliverLogsErrorMessage>" in told


@pytest.mark.parametrize(
    "change",
    [
        {"Principal": {"Service": "ecs-tasks.amazonaws.com"}},
        {"Condition": {"StringEquals": {"aws:SourceAccount": "111111111111"}}},
        {"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:ec2:us-east-1:000000000000:vpc/*"}}},
        {"Effect": "Deny"},
    ],
)
def test_role_that_flow_logs_cannot_assume_is_refused(
    ask: Ask, vpc: str, role: Callable[..., None], change: dict[str, Any]
) -> None:
    role(trust={**TRUST, **change})

    assert "Unable to assume given IAM role" in _flow_log(ask, vpc)
    assert "fl-" not in ask("DescribeFlowLogs")


def test_nat_gateway_takes_time_and_holds_address_and_subnet_until_it_is_gone(
    ask: Ask, subnet: str, clock: list[float]
) -> None:
    address = _made(ask("AllocateAddress"), "eipalloc")
    gateway = _made(ask("CreateNatGateway", SubnetId=subnet, AllocationId=address), "nat")
    assert "<state>pending</state>" in ask("DescribeNatGateways")
    clock[0] += CHANGE_SECONDS
    told = ask("DescribeNatGateways")
    assert "<state>available</state>" in told
    assert f"<allocationId>{address}</allocationId>" in told
    assert _made(told, "eni") in ask("DescribeNetworkInterfaces")
    association = _made(ask("DescribeAddresses"), "eipassoc")

    ask("DeleteNatGateway", NatGatewayId=gateway)
    assert "<state>deleting</state>" in ask("DescribeNatGateways")
    assert "<Code>DependencyViolation</Code>" in ask("DeleteSubnet", SubnetId=subnet)
    assert "<Code>AuthFailure</Code>" in ask("DisassociateAddress", AssociationId=association)
    assert "<Code>AuthFailure</Code>" in ask("ReleaseAddress", AllocationId=address)
    clock[0] += CHANGE_SECONDS
    assert "<state>deleted</state>" in ask("DescribeNatGateways")
    assert "eipassoc-" not in ask("DescribeAddresses")
    assert "<return>true</return>" in ask("ReleaseAddress", AllocationId=address)
    assert "<return>true</return>" in ask("DeleteSubnet", SubnetId=subnet)


def test_interface_endpoint_takes_time_and_holds_group_and_subnet_until_it_is_gone(
    ask: Ask, vpc: str, subnet: str, group: str, clock: list[float]
) -> None:
    parameters = {"VpcEndpointType": "Interface", "SubnetId_1": subnet, "SecurityGroupId_1": group}
    made = ask("CreateVpcEndpoint", VpcId=vpc, ServiceName="x.sqs", PrivateDnsEnabled="true", **parameters)
    endpoint = _made(made, "vpce")
    assert "<state>pending</state>" in ask("DescribeVpcEndpoints")
    clock[0] += CHANGE_SECONDS
    told = ask("DescribeVpcEndpoints")
    assert "<state>available</state>" in told
    assert "<privateDnsEnabled>true</privateDnsEnabled>" in told
    assert f"<groupSet><item><groupId>{group}</groupId></item></groupSet>" in told
    assert _made(told, "eni") in ask("DescribeNetworkInterfaces")

    ask("DeleteVpcEndpoints", VpcEndpointId_1=endpoint)
    assert "<Code>DependencyViolation</Code>" in ask("DeleteSecurityGroup", GroupId=group)
    assert "<Code>DependencyViolation</Code>" in ask("DeleteSubnet", SubnetId=subnet)
    clock[0] += CHANGE_SECONDS
    assert "vpce-" not in ask("DescribeVpcEndpoints")
    assert "eni-" not in ask("DescribeNetworkInterfaces")
    assert "<return>true</return>" in ask("DeleteSecurityGroup", GroupId=group)
    assert "<return>true</return>" in ask("DeleteSubnet", SubnetId=subnet)


def test_gateway_endpoint_is_there_at_once_and_has_no_interface(ask: Ask, vpc: str) -> None:
    ask("CreateVpcEndpoint", VpcId=vpc, ServiceName="x.s3", VpcEndpointType="Gateway")
    told = ask("DescribeVpcEndpoints")

    assert "<state>available</state>" in told
    assert "<privateDnsEnabled>false</privateDnsEnabled>" in told
    assert "eni-" not in ask("DescribeNetworkInterfaces")


def test_security_group_stays_while_a_rule_of_another_names_it(ask: Ask, vpc: str, group: str) -> None:
    other = _made(ask("CreateSecurityGroup", VpcId=vpc, GroupName="endpoints", GroupDescription="x"), "sg")
    rule = {"IpPermissions_1.IpProtocol": "tcp", "IpPermissions_1.FromPort": "443", "IpPermissions_1.ToPort": "443"}
    rule["IpPermissions_1.Groups_1.GroupId"] = group
    ask("AuthorizeSecurityGroupIngress", GroupId=other, **rule)

    assert "<Code>DependencyViolation</Code>" in ask("DeleteSecurityGroup", GroupId=group)
    ask("DeleteSecurityGroup", GroupId=other)
    assert "<return>true</return>" in ask("DeleteSecurityGroup", GroupId=group)


def test_internet_gateway_stays_attached_while_a_nat_gateway_needs_it(
    ask: Ask, vpc: str, subnet: str, clock: list[float]
) -> None:
    gateway = _made(ask("CreateInternetGateway"), "igw")
    ask("AttachInternetGateway", VpcId=vpc, InternetGatewayId=gateway)
    nat = _made(ask("CreateNatGateway", SubnetId=subnet, AllocationId=_made(ask("AllocateAddress"), "eipalloc")), "nat")
    detach = {"VpcId": vpc, "InternetGatewayId": gateway}

    assert "<Code>DependencyViolation</Code>" in ask("DeleteInternetGateway", InternetGatewayId=gateway)
    assert "<Code>DependencyViolation</Code>" in ask("DetachInternetGateway", **detach)
    ask("DeleteNatGateway", NatGatewayId=nat)
    clock[0] += CHANGE_SECONDS
    assert "<return>true</return>" in ask("DetachInternetGateway", **detach)
    assert "<return>true</return>" in ask("DeleteInternetGateway", InternetGatewayId=gateway)


def test_route_table_stays_while_a_subnet_has_it_and_vpc_while_an_endpoint_is_in_it(
    ask: Ask, vpc: str, subnet: str, clock: list[float]
) -> None:
    table = _made(ask("CreateRouteTable", VpcId=vpc), "rtb")
    link = _made(ask("AssociateRouteTable", RouteTableId=table, SubnetId=subnet), "rtbassoc")
    assert "<Code>DependencyViolation</Code>" in ask("DeleteRouteTable", RouteTableId=table)
    ask("DisassociateRouteTable", AssociationId=link)
    assert "<return>true</return>" in ask("DeleteRouteTable", RouteTableId=table)

    endpoint = _made(ask("CreateVpcEndpoint", VpcId=vpc, ServiceName="x.s3"), "vpce")
    ask("DeleteSubnet", SubnetId=subnet)
    assert "<Code>DependencyViolation</Code>" in ask("DeleteVpc", VpcId=vpc)
    ask("DeleteVpcEndpoints", VpcEndpointId_1=endpoint)
    clock[0] += CHANGE_SECONDS
    assert "<return>true</return>" in ask("DeleteVpc", VpcId=vpc)
