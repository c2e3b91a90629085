"""The network of the emulated AWS: flow logs, NAT gateways and VPC endpoints as EC2 describes them, in use or not.

ministack forgets most of what a flow log and an interface endpoint were created with, so that every plan would replace
or change them; it creates and deletes them, and NAT gateways, at once; and it deletes what is still in use, so that a
wrong order of a destroy would go unnoticed.

The functions replaced here are private ones of a pinned version (1.5.33): the functional tests run through them.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from environments.emulated_iam import first_refused, service_may_assume
from environments.emulated_permissions import Permission
from environments.emulated_record import Recorder

CHANGE_SECONDS = 1.0
"""How long a NAT gateway or an interface endpoint is pending or deleting; on AWS it takes a minute or two."""
FLOW_LOG_FORMAT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} "
    "${bytes} ${start} ${end} ${action} ${log-status}"
)
"""The default: https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html"""
FLOW_LOG_SECONDS = 600
"""The default of MaxAggregationInterval."""
FLOW_LOGS = "vpc-flow-logs.amazonaws.com"

Answer = tuple[int, dict[str, str], bytes]
Action = Callable[[dict[str, Any]], Answer]


def complete_network(ec2: Any, recorder: Recorder) -> None:
    """Replace the actions of the emulator's EC2 module that are named above; decisions about roles are recorded."""
    complete_flow_logs(ec2, recorder)
    complete_nat_gateways(ec2)
    complete_endpoints(ec2)
    refuse_to_remove_what_is_in_use(ec2)


def complete_flow_logs(ec2: Any, recorder: Recorder) -> None:
    """Keep and describe role, format, interval and tags of a flow log, and whether its role may write the log.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_FlowLog.html
    """
    create, describe = ec2._ACTION_MAP["CreateFlowLogs"], ec2._ACTION_MAP["DescribeFlowLogs"]

    def create_in_full(parameters: dict[str, Any]) -> Answer:
        role = ec2._p(parameters, "DeliverLogsPermissionArn")
        if role and not service_may_assume(role, FLOW_LOGS, f"arn:aws:ec2:{_place(ec2)}:vpc-flow-log/fl-1"):
            return _error(ec2, "InvalidParameter", "Unable to assume given IAM role")
        answer: Answer = create(parameters)
        for name, log in _named(answer, ec2._flow_logs):
            group = re.sub(r":\*$", "", log["LogDestination"]).rpartition(":log-group:")[2]
            log |= {
                "DeliverLogsPermissionArn": role,
                "LogFormat": ec2._p(parameters, "LogFormat") or FLOW_LOG_FORMAT,
                "MaxAggregationInterval": ec2._p(parameters, "MaxAggregationInterval") or FLOW_LOG_SECONDS,
                "LogGroupName": group,
            }
            # The emulator looks for tags of a "flow-log"; AWS calls the type of resource vpc-flow-log.
            ec2._parse_tag_specs(parameters, "vpc-flow-log", name)
        return answer

    def describe_in_full(parameters: dict[str, Any]) -> Answer:
        def fields(match: re.Match[str]) -> str:
            log = ec2._flow_logs[match[1]]
            told = {
                "deliverLogsPermissionArn": log.get("DeliverLogsPermissionArn"),
                "logFormat": log.get("LogFormat"),
                "maxAggregationInterval": log.get("MaxAggregationInterval"),
                "logGroupName": log.get("LogGroupName"),
                **_delivery(ec2, log, recorder),
            }
            return match[0] + _xml(told)

        return _with(describe(parameters), r"<flowLogId>(fl-\w+)</flowLogId>", fields)

    ec2._ACTION_MAP |= {"CreateFlowLogs": create_in_full, "DescribeFlowLogs": describe_in_full}


def _delivery(ec2: Any, log: dict[str, Any], recorder: Recorder) -> dict[str, str]:
    """Whether records arrive in the log group; AWS finds that out when it delivers the first.

    https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-iam-role.html
    """
    stream = f"arn:aws:logs:{_place(ec2)}:log-group:{log.get('LogGroupName')}:log-stream:eni-1-all"
    wanted = [Permission(f"logs:{name}", stream) for name in ("CreateLogStream", "DescribeLogStreams", "PutLogEvents")]
    wanted.append(Permission("logs:DescribeLogGroups"))
    if first_refused(str(log.get("DeliverLogsPermissionArn")), wanted, recorder):
        return {"deliverLogsStatus": "FAILED", "deliverLogsErrorMessage": "Access error"}
    return {"deliverLogsStatus": "SUCCESS"}


def complete_nat_gateways(ec2: Any) -> None:
    """Let a NAT gateway take its time, and hold an address and a network interface until it is gone.

    https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-basics.html
    """
    create, delete, describe = (
        ec2._ACTION_MAP[name] for name in ("CreateNatGateway", "DeleteNatGateway", "DescribeNatGateways")
    )

    def create_pending(parameters: dict[str, Any]) -> Answer:
        answer: Answer = create(parameters)
        for name, gateway in _named(answer, ec2._nat_gateways):
            _begin(gateway, "pending", [_interface(ec2, name, "nat_gateway", gateway["SubnetId"], [])])
            if address := ec2._addresses.get(gateway["AllocationId"]):
                address["AssociationId"] = gateway["AllocationId"].replace("eipalloc", "eipassoc")
        return answer

    def delete_later(parameters: dict[str, Any]) -> Answer:
        answer: Answer = delete(parameters)
        for _, gateway in _named(answer, ec2._nat_gateways):
            _begin(gateway, "deleting")
        return answer

    def describe_settled(parameters: dict[str, Any]) -> Answer:
        _settle(ec2)

        def addresses(match: re.Match[str]) -> str:
            gateway = ec2._nat_gateways[match[2]]
            address = ec2._addresses.get(gateway["AllocationId"]) or {}
            told = {
                "allocationId": gateway["AllocationId"],
                "networkInterfaceId": "".join(gateway.get("Interfaces", [])),
                "publicIp": address.get("PublicIp", ""),
                "isPrimary": "true",
                "status": "succeeded",
            }
            return f"{match[1]}<natGatewayAddressSet><item>{_xml(told)}</item></natGatewayAddressSet>"

        return _with(
            describe(parameters), r"(<natGatewayId>(nat-\w+)</natGatewayId>.*?)<natGatewayAddressSet/>", addresses
        )

    ec2._ACTION_MAP |= {
        "CreateNatGateway": create_pending,
        "DeleteNatGateway": delete_later,
        "DescribeNatGateways": describe_settled,
    }


def complete_endpoints(ec2: Any) -> None:
    """Keep and describe security groups and private DNS of an interface endpoint; let it take its time.

    It has a network interface in each of its subnets until it is gone:
    https://docs.aws.amazon.com/vpc/latest/privatelink/create-interface-endpoint.html
    """
    create, describe, fields = (
        ec2._ACTION_MAP["CreateVpcEndpoint"],
        ec2._ACTION_MAP["DescribeVpcEndpoints"],
        ec2._vpce_fields_xml,
    )

    def create_in_full(parameters: dict[str, Any]) -> Answer:
        answer: Answer = create(parameters)
        for name, endpoint in _named(answer, ec2._vpc_endpoints):
            endpoint["PrivateDnsEnabled"] = ec2._p(parameters, "PrivateDnsEnabled") or "false"
            if endpoint["VpcEndpointType"] == "Interface":
                groups = endpoint["Groups"] = ec2._parse_member_list(parameters, "SecurityGroupId")
                subnets = endpoint["SubnetIds"]
                _begin(
                    endpoint, "pending", [_interface(ec2, name, "vpc_endpoint", subnet, groups) for subnet in subnets]
                )
        return answer

    def delete_later(parameters: dict[str, Any]) -> Answer:
        for name in ec2._parse_member_list(parameters, "VpcEndpointId"):
            if name in ec2._vpc_endpoints:
                _begin(ec2._vpc_endpoints[name], "deleting")
        answer: Answer = ec2._xml(200, "DeleteVpcEndpointsResponse", "<unsuccessful/>")
        return answer

    def describe_settled(parameters: dict[str, Any]) -> Answer:
        _settle(ec2)
        answer: Answer = describe(parameters)
        return answer

    def fields_in_full(endpoint: dict[str, Any], tag: str = "item") -> str:
        groups = "".join(f"<item><groupId>{group}</groupId></item>" for group in endpoint.get("Groups", []))
        interfaces = "".join(f"<item>{name}</item>" for name in endpoint.get("Interfaces", []))
        more = (
            f"<privateDnsEnabled>{endpoint.get('PrivateDnsEnabled', 'false')}</privateDnsEnabled>"
            f"<groupSet>{groups}</groupSet><networkInterfaceIdSet>{interfaces}</networkInterfaceIdSet>"
        )
        text: str = fields(endpoint, tag)
        return text.removesuffix(f"</{tag}>") + f"{more}</{tag}>"

    ec2._vpce_fields_xml = fields_in_full
    ec2._ACTION_MAP |= {
        "CreateVpcEndpoint": create_in_full,
        "DeleteVpcEndpoints": delete_later,
        "DescribeVpcEndpoints": describe_settled,
    }


def refuse_to_remove_what_is_in_use(ec2: Any) -> None:
    """Refuse what EC2 refuses as long as something else depends on it.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    """
    guards: dict[str, tuple[str, Callable[[Any, str], Iterator[str]]]] = {
        "DeleteInternetGateway": ("InternetGatewayId", _vpcs_of_gateway),
        "DeleteRouteTable": ("RouteTableId", _subnets_of_table),
        "DeleteSecurityGroup": ("GroupId", _users_of_group),
        "DeleteSubnet": ("SubnetId", _users_of_subnet),
        "DeleteVpc": ("VpcId", _endpoints_of_vpc),
        "DetachInternetGateway": ("VpcId", _public_addresses_of_vpc),
        "DisassociateAddress": ("AssociationId", _holders_of_association),
        "ReleaseAddress": ("AllocationId", _holders_of_address),
    }

    def guarded(name: str, parameter: str, users: Callable[[Any, str], Iterator[str]]) -> Action:
        action: Action = ec2._ACTION_MAP[name]

        def unless_in_use(parameters: dict[str, Any]) -> Answer:
            _settle(ec2)
            asked = ec2._p(parameters, parameter)
            if using := sorted(users(ec2, asked)):
                # What EC2 says of an address: https://github.com/kubernetes/kops/issues/1604
                code = "AuthFailure" if name.endswith("Address") else "DependencyViolation"
                return _error(ec2, code, f"{asked} is in use by {', '.join(using)}")
            return action(parameters)

        return unless_in_use

    ec2._ACTION_MAP |= {name: guarded(name, *guard) for name, guard in guards.items()}


def _users_of_subnet(ec2: Any, subnet: str) -> Iterator[str]:
    yield from (name for name, interface in ec2._network_interfaces.items() if interface["SubnetId"] == subnet)


def _users_of_group(ec2: Any, group: str) -> Iterator[str]:
    for name, interface in ec2._network_interfaces.items():
        if group in [each["GroupId"] for each in interface["Groups"]]:
            yield name
    for name, other in ec2._security_groups.items():
        rules = [*other.get("IpPermissions", []), *other.get("IpPermissionsEgress", [])]
        pairs = [pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs", [])]
        if name != group and group in pairs:
            yield name


def _vpcs_of_gateway(ec2: Any, gateway: str) -> Iterator[str]:
    yield from (each["VpcId"] for each in (ec2._internet_gateways.get(gateway) or {}).get("Attachments", []))


def _subnets_of_table(ec2: Any, table: str) -> Iterator[str]:
    links = (ec2._route_tables.get(table) or {}).get("Associations", [])
    yield from (link["SubnetId"] for link in links if link.get("SubnetId"))


def _endpoints_of_vpc(ec2: Any, vpc: str) -> Iterator[str]:
    yield from (name for name, endpoint in ec2._vpc_endpoints.items() if endpoint["VpcId"] == vpc)


def _public_addresses_of_vpc(ec2: Any, vpc: str) -> Iterator[str]:
    for name, gateway in ec2._nat_gateways.items():
        if gateway["VpcId"] == vpc and gateway["State"] != "deleted":
            yield name


def _holders_of_address(ec2: Any, address: str) -> Iterator[str]:
    for name, gateway in ec2._nat_gateways.items():
        if gateway["AllocationId"] == address and gateway["State"] != "deleted":
            yield name


def _holders_of_association(ec2: Any, association: str) -> Iterator[str]:
    for name, address in ec2._addresses.items():
        if address["AssociationId"] == association:
            yield from _holders_of_address(ec2, name)


def _interface(ec2: Any, owner: str, kind: str, subnet: str, groups: list[str]) -> str:
    """Create the network interface of a NAT gateway or an endpoint, and return its ID."""
    members = {f"SecurityGroupId.{number}": group for number, group in enumerate(groups, 1)}
    answer = ec2._create_network_interface({"SubnetId": subnet, "Description": owner, **members})
    ((name, interface),) = _named(answer, ec2._network_interfaces)
    interface |= {"InterfaceType": kind, "Status": "in-use"}
    if not groups:
        interface["Groups"] = []
    return name


def _begin(thing: dict[str, Any], state: str, interfaces: list[str] | None = None) -> None:
    """Let a NAT gateway or an endpoint begin to change its state."""
    thing |= {"State": state, "Settles": time.time() + CHANGE_SECONDS}
    if interfaces is not None:
        thing["Interfaces"] = interfaces


def _settle(ec2: Any) -> None:
    """Bring what has been pending or deleting for long enough to the state after that."""
    for things in (ec2._nat_gateways, ec2._vpc_endpoints):
        for name, thing in list(things.items()):
            if thing.get("Settles", time.time() + 1) > time.time():
                continue
            del thing["Settles"]
            if thing["State"] == "pending":
                thing["State"] = "available"
                continue
            thing["State"] = "deleted"
            for interface in thing.pop("Interfaces", []):
                ec2._network_interfaces.pop(interface, None)
            if address := ec2._addresses.get(thing.get("AllocationId")):
                address["AssociationId"] = None
            if things is ec2._vpc_endpoints:  # deleted NAT gateways are listed for another hour
                ec2._vpc_endpoints.pop(name)
                ec2._tags.pop(name, None)


def _xml(fields: Mapping[str, Any]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items())


def _place(ec2: Any) -> str:
    return f"{ec2.get_region()}:{ec2.get_account_id()}"


def _named(answer: Answer, things: Any) -> list[tuple[str, dict[str, Any]]]:
    """The things, by ID, whose IDs are in an answer."""
    text = answer[2].decode()
    return [(name, thing) for name, thing in things.items() if name in text]


def _with(answer: Answer, pattern: str, more: Callable[[re.Match[str]], str]) -> Answer:
    """An answer in which each match of a pattern is replaced."""
    status, headers, body = answer
    return status, headers, re.sub(pattern, more, body.decode(), flags=re.DOTALL).encode()


def _error(ec2: Any, code: str, message: str) -> Answer:
    answer: Answer = ec2._error(code, message, 400)
    return answer
