"""Takes up what a dead run made on AWS and could not write down: into Terraform's state, instead of making it twice.

Terraform writes its state into the bucket every 20 seconds. A run that is killed leaves behind what it made since:
names that are taken, and things without a name of their own (VPC, addresses) that the next run would make once more.
Only what carries this environment's tags is ever taken up.

Source: https://developer.hashicorp.com/terraform/language/import
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environments import progress
from environments.errors import PlatformError
from environments.leftovers import scratch_folder
from environments.settings import Environment
from infra import terraform
from infra.aws import client
from infra.plans import Ahead
from infra.terraform import Outputs
from infra.terraform_errors import ADDRESS_LEFT_BEHIND, NAME_TAKEN, STALE
from infra.terraform_process import FLAG, MODULE, run, stream

Planned = dict[str, Any]
"""What a plan says of a resource that it would make, as far as that is known before."""
IDENTIFYING = ("environment", "project", "managed_by", "Name")
"""The tags by which something is known as the environment's, and as what of it."""
GONE = ("deleting", "deleted", "failed")
"""States of what AWS still lists for a while."""
MISSING = re.compile("NotFound|NoSuch|NonExistent|DoesNotExist")
"""What the codes of AWS's errors for a missing thing have in common."""
SECURITY_GROUP_RULES = ("describe_security_group_rules", "SecurityGroupRules", "SecurityGroupRuleId")
NETWORK = {
    "aws_eip": ("describe_addresses", "Addresses", "AllocationId"),
    "aws_flow_log": ("describe_flow_logs", "FlowLogs", "FlowLogId"),
    "aws_internet_gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "aws_nat_gateway": ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    "aws_route_table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws_security_group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "aws_subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "aws_vpc": ("describe_vpcs", "Vpcs", "VpcId"),
    "aws_vpc_endpoint": ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    "aws_vpc_security_group_egress_rule": SECURITY_GROUP_RULES,
    "aws_vpc_security_group_ingress_rule": SECURITY_GROUP_RULES,
}
"""Parts of the network are known by their tags: the call that lists them, where they are in its answer, their ID."""


def apply(
    environment: Environment,
    image_tag: str,
    on_repository: Callable[[], None] = lambda: None,
    saved: Path | None = None,
    ahead: Ahead | None = None,
) -> Outputs:
    """As `terraform.apply`; when names are taken by what a dead run made, that is taken up first.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.
        on_repository: called as soon as the agent's ECR repository is there.
        saved: the plan that must be applied exactly.
        ahead: a plan that may be applied; when it has no changes, there is nothing to do.

    Raises:
        PlatformError: also when a saved plan does not fit any more after that.
    """
    if ahead and ahead.has_repository:
        on_repository()
    if ahead and not ahead.changes:
        progress.note("no changes")
        return ahead.outputs
    try:
        return terraform.apply(environment, image_tag, on_repository, saved or (ahead.file if ahead else None))
    except PlatformError as error:
        outdated = bool(ahead) and error.what == STALE
        again = outdated or (not saved and ADDRESS_LEFT_BEHIND.search(error.why))
        if not again and (not NAME_TAKEN.search(error.why) or not (found := adopt(environment, image_tag))):
            raise
    if saved:
        raise PlatformError(
            "the plan does not fit any more",
            f"what a run that died had made was taken into the state: {', '.join(found)}",
            f"plan again, and look at it: invoke plan --env {environment.name} --out FILE",
        )
    return terraform.apply(environment, image_tag, on_repository)


def adopt(environment: Environment, image_tag: str) -> dict[str, str]:
    """Take up what is there on AWS and not in Terraform's state.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.

    Returns:
        Import ID by address of what was taken up.

    Raises:
        PlatformError: Terraform failed, or AWS has more than one of what there should be one of.
    """
    terraform.init(environment)
    terraform.save_unsaved_state(environment)
    found: dict[str, str] = {}
    with scratch_folder() as scratch:
        module = scratch / "infra"
        shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        open_ends = True
        while open_ends:
            planned = [each for each in _planned(environment, image_tag, module) if each["address"] not in found]
            new = _there(environment, planned)
            # What depends on others (a route on its table) can be looked for when those are known.
            open_ends = 0 < len(new) < len(planned)
            found |= new
            (module / "imports.tf").write_text(_import_blocks(found), encoding="utf-8")
        if found:
            _forget_lost(environment, found)
            options = {**terraform.inputs(environment, image_tag), "target": list(found)}
            stream(environment, "apply", _watch, module=module, auto_approve=True, **options)
    progress.note(f"{len(found)} resources taken up" if found else "nothing to take up")
    return found


def _forget_lost(environment: Environment, found: dict[str, str]) -> None:
    """Forget what the state knows under the same addresses and is gone: Terraform would import nothing over it."""
    # There may be no state at all yet, and then it has no values.
    state = json.loads(run(environment, "show", json=FLAG)).get("values", {}).get("root_module", {})
    known = {resource["address"] for resource in state.get("resources", [])}
    if lost := [address for address in found if address in known]:
        run(environment, "state rm", *lost)


def _planned(environment: Environment, image_tag: str, module: Path) -> list[dict[str, Any]]:
    """What a plan would make of the kinds that can be looked for: address, type and what is known of it."""
    plan = module.parent / "plan"
    options = {**terraform.inputs(environment, image_tag), "lock": False, "out": str(plan)}
    stream(environment, "plan", _watch, module=module, **options)
    described = json.loads(run(environment, "show", str(plan), json=FLAG))
    return [
        change
        for change in described.get("resource_changes", [])
        if change["change"]["actions"] == ["create"] and change["type"] in NETWORK.keys() | FINDERS.keys()
    ]


def _there(environment: Environment, planned: list[dict[str, Any]]) -> dict[str, str]:
    """Import ID by address of what would be made though it is there."""
    ids = {each["address"]: _import_id(environment, each["type"], each["change"]["after"]) for each in planned}
    return {address: known for address, known in ids.items() if known}


def _import_id(environment: Environment, kind: str, planned: Planned) -> str:
    """The ID by which Terraform imports a planned resource; empty when it isn't there, or is somebody else's."""
    from botocore.exceptions import ClientError

    try:
        if kind in NETWORK:
            return _part_of_network(environment, kind, planned)
        return FINDERS[kind](environment, planned)
    except ClientError as error:
        if MISSING.search(error.response["Error"]["Code"]):
            return ""
        raise


def _part_of_network(environment: Environment, kind: str, planned: Planned) -> str:
    call, listed, key = NETWORK[kind]
    ec2 = client(environment, "ec2")
    pages = ec2.get_paginator(call).paginate() if ec2.can_paginate(call) else [getattr(ec2, call)()]
    ids = [
        item[key]
        for page in pages
        for item in page[listed]
        if _is_ours(planned, item.get("Tags", [])) and str(item.get("State")).lower() not in GONE
    ]
    if len(ids) > 1:
        raise PlatformError(
            f"AWS has {len(ids)} of {planned['tags_all']['Name']} ({kind}), and Terraform knows none of them",
            ", ".join(ids),
            f"remove those that nothing uses, then invoke deploy --env {environment.name}",
        )
    return "".join(ids)


def _is_ours(planned: Planned, tags: list[dict[str, str]] | dict[str, str]) -> bool:
    """Whether tags, in either form that AWS gives them in, identify the planned resource."""
    there = tags if isinstance(tags, dict) else {tag.get("Key", tag.get("key", "")): _value(tag) for tag in tags}
    wanted = {name: value for name, value in planned["tags_all"].items() if name in IDENTIFYING}
    return "environment" in wanted and wanted.items() <= there.items()


def _value(tag: dict[str, str]) -> str:
    return tag.get("Value", tag.get("value", ""))


def _role(environment: Environment, planned: Planned) -> str:
    role = client(environment, "iam").get_role(RoleName=planned["name"])["Role"]
    return planned["name"] if _is_ours(planned, role.get("Tags", [])) else ""


def _log_group(environment: Environment, planned: Planned) -> str:
    logs, name = client(environment, "logs"), planned["name"]
    for group in logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]:
        if group["logGroupName"] == name:
            tags = logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"]
            return name if _is_ours(planned, tags) else ""
    return ""


def _repository(environment: Environment, planned: Planned) -> str:
    ecr = client(environment, "ecr")
    there = ecr.describe_repositories(repositoryNames=[planned["name"]])["repositories"][0]
    tags = ecr.list_tags_for_resource(resourceArn=there["repositoryArn"])["tags"]
    return planned["name"] if _is_ours(planned, tags) else ""


def _secret(environment: Environment, planned: Planned) -> str:
    secret = client(environment, "secretsmanager").describe_secret(SecretId=planned["name"])
    return secret["ARN"] if _is_ours(planned, secret.get("Tags", [])) else ""


def _cluster(environment: Environment, planned: Planned) -> str:
    there = client(environment, "ecs").describe_clusters(clusters=[planned["name"]], include=["TAGS"])["clusters"]
    ours = [each for each in there if each["status"] == "ACTIVE" and _is_ours(planned, each.get("tags", []))]
    return planned["name"] if ours else ""


def _service(environment: Environment, planned: Planned) -> str:
    cluster, name = environment.agent_name, planned["name"]
    there = client(environment, "ecs").describe_services(cluster=cluster, services=[name], include=["TAGS"])["services"]
    ours = [each for each in there if each["status"] == "ACTIVE" and _is_ours(planned, each.get("tags", []))]
    return f"{cluster}/{name}" if ours else ""


def _queue(environment: Environment, planned: Planned) -> str:
    sqs = client(environment, "sqs")
    url: str = sqs.get_queue_url(QueueName=planned["name"])["QueueUrl"]
    return url if _is_ours(planned, sqs.list_queue_tags(QueueUrl=url).get("Tags", {})) else ""


def _route(environment: Environment, planned: Planned) -> str:
    """A route has no tags; it belongs to a table of ours."""
    table, destination = planned.get("route_table_id"), planned["destination_cidr_block"]
    if not table:
        return ""
    (there,) = client(environment, "ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]
    routes = [route for route in there["Routes"] if route.get("DestinationCidrBlock") == destination]
    return f"{table}_{destination}" if routes else ""


def _association(environment: Environment, planned: Planned) -> str:
    """So does a table's association, with a subnet of ours."""
    subnet = planned.get("subnet_id")
    if not subnet:
        return ""
    tables = client(environment, "ec2").describe_route_tables()["RouteTables"]
    there = [
        each["RouteTableId"] for table in tables for each in table["Associations"] if each.get("SubnetId") == subnet
    ]
    return f"{subnet}/{there[0]}" if there else ""


FINDERS: dict[str, Callable[[Environment, Planned], str]] = {
    "aws_cloudwatch_log_group": _log_group,
    "aws_ecr_repository": _repository,
    "aws_ecs_cluster": _cluster,
    "aws_ecs_service": _service,
    "aws_iam_role": _role,
    "aws_route": _route,
    "aws_route_table_association": _association,
    "aws_secretsmanager_secret": _secret,
    "aws_sqs_queue": _queue,
}
"""How everything else is found. What is missing here is only written over when it is made twice."""


def _import_blocks(found: dict[str, str]) -> str:
    return "".join(f"import {{\n  to = {address}\n  id = {json.dumps(known)}\n}}\n" for address, known in found.items())


def _watch(event: dict[str, Any]) -> None:
    if resource := event.get("hook", {}).get("resource", {}).get("addr"):
        progress.doing(f"comparing {resource}")
