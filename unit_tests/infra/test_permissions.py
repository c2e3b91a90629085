"""What each role may do; the evaluator of the emulated AWS decides about single requests."""

import dataclasses
import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

from environments.settings import Environment
from infra.permissions import OF_ROLES, TASK_ROLES, documents, policy_arn
from infra.roles import ROLES, role_arn

LIMIT = 6144
"""Characters of a managed policy: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
VPC, KEY = "vpc-0123456789abcdef0", "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
CHOSEN = tuple(f"arn:aws:iam::123456789012:policy/{number:0>128}" for number in range(10))
CHOICES: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "own-network-and-key": {"vpc_id": VPC, "subnet_ids": ("subnet-0123456789abcdef0",), "kms_key_arn": KEY},
    "chosen-policies": {"workflow_policy_arns": CHOSEN},
}
WITHOUT_RESOURCE = {
    *("ecr:GetAuthorizationToken", "kms:ListAliases", "logs:DescribeLogGroups"),
    *("ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions"),
}
"""Actions for which AWS knows no resource, or (logs) lists what it is asked to look for; beside ec2:Describe*.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""
READS_OF_OTHERS = {
    *("ec2:DescribeVpcAttribute", "ecr:DescribeRepositories", "ecr:ListTagsForResource"),
    "cloudwatch:DescribeAlarms",
}
"""Read what is nobody's secret, before it is known whose it is."""
WITH_ANY_KEY = {"kms:Decrypt", "kms:RetireGrant"}
"""With any KMS key: decrypting the environment's own secrets, and retiring what a grant lets the caller retire."""
IAM_OF_DEPLOY = {
    *("CreateRole", "PutRolePermissionsBoundary", "PutRolePolicy"),
    *("DeleteRole", "DeleteRolePolicy", "DetachRolePolicy", "TagRole", "UntagRole", "UpdateAssumeRolePolicy"),
    *("UpdateRole", "UpdateRoleDescription", "PassRole"),
    *("GetRole", "GetRolePolicy", "ListAttachedRolePolicies", "ListInstanceProfilesForRole", "ListRolePolicies"),
}
IAM_CHANGES = (
    *("AttachRolePolicy", "CreateRole", "DeleteRole", "DeleteRolePermissionsBoundary", "DeleteRolePolicy"),
    *("DetachRolePolicy", "PassRole", "PutRolePermissionsBoundary", "PutRolePolicy", "TagRole", "UntagRole"),
    *("UpdateAssumeRolePolicy", "UpdateRole", "UpdateRoleDescription"),
)
IAM_WITH_BOUNDARY = ("AttachRolePolicy", "CreateRole", "PutRolePermissionsBoundary", "PutRolePolicy")
"""The changes of roles by which somebody gets more rights, and of which IAM tells the boundary."""


@pytest.fixture(params=CHOICES)
def chosen(environment: Environment, request: pytest.FixtureRequest) -> Environment:
    return dataclasses.replace(environment, **CHOICES[request.param])


def _statements(environment: Environment, role: str) -> Iterator[dict[str, Any]]:
    for name in OF_ROLES[role]:
        yield from documents(environment)[name]["Statement"]


def _all(environment: Environment) -> list[dict[str, Any]]:
    """Every statement that gives something; the boundary only limits."""
    return [
        statement
        for name, document in documents(environment).items()
        if name != "boundary"
        for statement in document["Statement"]
    ]


def _named(environment: Environment, resource: str) -> bool:
    """Whether a pattern can only mean what is called after the environment."""
    name = resource.split(":", 5)[5]
    return any(
        part.startswith((f"{environment.prefix}_", f"{environment.name}_", f"{environment.name}-dataflow-automation-"))
        for part in name.replace(":", "/").split("/")
    )


def _tagged(environment: Environment, statement: dict[str, Any]) -> bool:
    equals = statement.get("Condition", {}).get("StringEquals", {})
    return any(equals.get(f"aws:{kind}Tag/environment") == environment.name for kind in ("Resource", "Request"))


def _in_our_clusters(environment: Environment, statement: dict[str, Any]) -> bool:
    """Whether a statement holds for the environment's own ECS clusters alone."""
    cluster = statement.get("Condition", {}).get("ArnLike", {}).get("ecs:cluster", "")
    return bool(cluster) and _named(environment, cluster)


def _may(
    environment: Environment,
    policies: str,
    action: str,
    resource: str,
    principal: str = "arn:aws:iam::123456789012:role/x",
    **keys: str,
) -> bool:
    """Whether a role, or the boundary, allows a request; condition keys have `__` for a colon, `_to_` for a slash."""
    names = OF_ROLES.get(policies, (policies,))
    context = EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account="123456789012",
        action=action,
        resource_arn=resource,
        region="eu-west-1",
        service_context={key.replace("__", ":").replace("_to_", "/").lower(): value for key, value in keys.items()},
    )
    parsed = [parse_policy_document(documents(environment)[name]) for name in names]
    decision: str = evaluate(context, parsed).decision
    return decision == "Allow"


def test_every_policy_fits_with_the_longest_names_and_all_choices(environment: Environment) -> None:
    longest = dataclasses.replace(
        environment,
        name="abcdefghijklmnop",
        aws_region="ap-southeast-2",
        vpc_id=VPC,
        subnet_ids=("subnet-0123456789abcdef0",),
        kms_key_arn=KEY.replace("eu-west-1", "ap-southeast-2"),
        workflow_policy_arns=CHOSEN,
    )
    for one in (longest, dataclasses.replace(longest, kms_key_arn=None, vpc_id=None, subnet_ids=())):
        sizes = {name: len(json.dumps(document, separators=(",", ":"))) for name, document in documents(one).items()}

        assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_roles_have_no_more_policies_than_iam_attaches(environment: Environment) -> None:
    assert OF_ROLES.keys() == ROLES.keys()
    assert {name for names in OF_ROLES.values() for name in names} | {"boundary"} == documents(environment).keys()
    assert all(len(names) <= 10 for names in OF_ROLES.values())


def test_statements_have_names_of_their_own(chosen: Environment) -> None:
    for document in documents(chosen).values():
        names = [statement["Sid"] for statement in document["Statement"]]

        assert len(set(names)) == len(names)
        assert all(name.isalnum() for name in names)


def test_no_action_is_a_wildcard_and_nothing_is_left_open(chosen: Environment) -> None:
    for statement in _all(chosen):
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert statement["Action"]
        assert statement["Resource"]
        assert not [action for action in statement["Action"] if "*" in action]
        assert len(set(statement["Action"])) == len(statement["Action"])


def test_every_statement_is_about_the_environment_alone(chosen: Environment) -> None:
    """By name, by tag, by cluster, by an ARN of the settings, or because AWS knows no resource."""
    of_settings = {chosen.kms_key_arn, f"arn:aws:ec2:eu-west-1:123456789012:vpc/{chosen.vpc_id}"}
    open_ended = []
    for statement in _all(chosen):
        for resource in statement["Resource"]:
            if _tagged(chosen, statement) or _in_our_clusters(chosen, statement) or resource in of_settings:
                continue
            if resource == "*" or not _named(chosen, resource):
                open_ended += statement["Action"]

    assert {action for action in open_ended if not action.startswith("ec2:Describe")} <= (
        WITHOUT_RESOURCE | READS_OF_OTHERS | WITH_ANY_KEY
    )
    assert all(resource != "*" for one in _all(chosen) if _tagged(chosen, one) for resource in one["Resource"])


def test_everything_is_in_the_account_and_region_of_the_settings(chosen: Environment) -> None:
    arns = [
        resource
        for one in _all(chosen)
        if not set(one["Action"]) <= WITH_ANY_KEY
        for resource in one["Resource"]
        if resource != "*"
    ]

    assert {arn.split(":")[3] for arn in arns} == {"eu-west-1", ""}
    assert {arn.split(":")[4] for arn in arns} == {"123456789012", ""}
    assert {arn.split(":")[2] for arn in arns if not arn.split(":")[4]} == {"s3"}
    assert {arn for arn in arns if arn.startswith("arn:aws:s3") and "123456789012" not in arn} == set()


@pytest.mark.parametrize(("one", "other"), [("dev", "deva"), ("deva", "dev"), ("dev", "prod"), ("dev", "dev2")])
def test_names_of_one_environment_never_match_those_of_another(environment: Environment, one: str, other: str) -> None:
    ours, theirs = (dataclasses.replace(environment, name=name) for name in (one, other))
    patterns = {
        resource
        for statement in _all(ours)
        if not _tagged(ours, statement)
        for resource in statement["Resource"]
        if resource != "*" and _named(ours, resource)
    }
    things = {
        resource.replace("*", wildcard)
        for statement in _all(theirs)
        for resource in statement["Resource"]
        if resource != "*" and _named(theirs, resource)
        for wildcard in ("x", "dataflow_automation_agent", f"{one}_x", "")
    }

    assert patterns
    assert things
    assert [(thing, it) for thing in things for it in patterns if fnmatch.fnmatchcase(thing, it)] == []


def test_iam_is_for_deploy_and_reads_alone(environment: Environment) -> None:
    used = {
        role: {
            action.partition(":")[2]
            for statement in _statements(dataclasses.replace(environment, workflow_policy_arns=CHOSEN), role)
            for action in statement["Action"]
            if action.startswith("iam:")
        }
        for role in ROLES
    }

    assert used["deploy"] == IAM_OF_DEPLOY | {"AttachRolePolicy"}
    assert used["register"] == set()
    assert all(action.startswith(("Get", "List")) for action in used["plan"])


@pytest.mark.parametrize("action", IAM_CHANGES)
@pytest.mark.parametrize("role", ROLES)
def test_no_role_changes_a_role_in_which_people_work(chosen: Environment, role: str, action: str) -> None:
    others = [role_arn(chosen, name) for name in ROLES]
    others += [arn.replace("/dev_", "/prod_") for arn in others] + ["arn:aws:iam::123456789012:role/Administrator"]
    keys = {"iam__PermissionsBoundary": policy_arn(chosen, "boundary"), "iam__PolicyARN": CHOSEN[0]}
    for arn in others:
        for service in ("ecs-tasks.amazonaws.com", "vpc-flow-logs.amazonaws.com"):
            assert not _may(chosen, role, f"iam:{action}", arn, iam__PassedToService=service, **keys)


@pytest.mark.parametrize(
    "action", ["CreatePolicyVersion", "DeletePolicy", "DeletePolicyVersion", "SetDefaultPolicyVersion"]
)
@pytest.mark.parametrize("role", ROLES)
def test_no_role_changes_the_boundary_or_its_own_policies(chosen: Environment, role: str, action: str) -> None:
    for name in documents(chosen):
        assert not _may(chosen, role, f"iam:{action}", policy_arn(chosen, name))


@pytest.mark.parametrize("action", IAM_WITH_BOUNDARY)
def test_deploy_gives_no_rights_to_a_role_outside_the_boundary(environment: Environment, action: str) -> None:
    with_policies = dataclasses.replace(environment, workflow_policy_arns=CHOSEN)
    role = "arn:aws:iam::123456789012:role/dev_dataflow_automation_workflow_task"
    of_other = policy_arn(dataclasses.replace(environment, name="prod"), "boundary")
    boundaries = {"": False, of_other: False, policy_arn(environment, "boundary"): True}
    for boundary, expected in boundaries.items():
        keys = {"iam__PermissionsBoundary": boundary} if boundary else {}

        assert _may(with_policies, "deploy", f"iam:{action}", role, iam__PolicyARN=CHOSEN[0], **keys) is expected


def test_deploy_never_takes_a_boundary_off(environment: Environment) -> None:
    for role in TASK_ROLES:
        arn = f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}"
        keys = {"iam__PermissionsBoundary": policy_arn(environment, "boundary")}

        assert not _may(environment, "deploy", "iam:DeleteRolePermissionsBoundary", arn, **keys)


def test_only_policies_of_the_settings_are_attached_and_only_to_the_role_of_workflows(
    environment: Environment,
) -> None:
    with_policies = dataclasses.replace(environment, workflow_policy_arns=CHOSEN)
    boundary = {"iam__PermissionsBoundary": policy_arn(environment, "boundary")}
    arns = {role: f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}" for role in TASK_ROLES}

    def attaches(one: Environment, role: str, policy: str) -> bool:
        return _may(one, "deploy", "iam:AttachRolePolicy", arns[role], iam__PolicyARN=policy, **boundary)

    assert {role for role in TASK_ROLES if attaches(with_policies, role, CHOSEN[3])} == {"workflow_task"}
    assert not attaches(with_policies, "workflow_task", "arn:aws:iam::aws:policy/AdministratorAccess")
    assert not any(attaches(environment, role, CHOSEN[3]) for role in TASK_ROLES)


@pytest.mark.parametrize(
    ("role", "service", "passed"),
    [
        ("agent_execution", "ecs-tasks.amazonaws.com", True),
        ("agent_task", "ecs-tasks.amazonaws.com", True),
        ("agent_task", "ec2.amazonaws.com", False),
        ("workflow_task", "ecs-tasks.amazonaws.com", False),
        ("flow_logs", "vpc-flow-logs.amazonaws.com", True),
        ("flow_logs", "ecs-tasks.amazonaws.com", False),
    ],
)
def test_roles_are_passed_to_the_services_that_use_them(
    environment: Environment, role: str, service: str, passed: bool
) -> None:
    arn = f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}"

    assert _may(environment, "deploy", "iam:PassRole", arn, iam__PassedToService=service) is passed


@pytest.mark.parametrize("key", [KEY, KEY.replace("123456789012", "999999999999"), KEY.replace("key/0", "key/1")])
def test_deploy_decrypts_its_own_secrets_with_any_key_and_nothing_else(chosen: Environment, key: str) -> None:
    secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:{}_dataflow_automation_prefect_key_workflow-AbCdEf"
    via = {"kms__ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
    ours, theirs = ({"kms__EncryptionContext__SecretARN": secret.format(name)} for name in ("dev", "prod"))

    assert _may(chosen, "deploy", "kms:Decrypt", key, **via, **ours)
    assert not _may(chosen, "deploy", "kms:Decrypt", key, **via, **theirs)
    assert not _may(chosen, "deploy", "kms:Decrypt", key, **via)
    assert not _may(chosen, "deploy", "kms:Decrypt", key, **ours)
    assert not any(_may(chosen, role, "kms:Decrypt", key, **via, **ours) for role in ("plan", "register"))


def test_deploy_encrypts_with_the_key_of_the_settings_or_else_with_the_environments(environment: Environment) -> None:
    other = KEY.replace("key/0", "key/1")
    chosen = dataclasses.replace(environment, kms_key_arn=KEY)
    via = {"kms__ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
    tag = {"aws__ResourceTag_to_environment": "dev"}
    for action in ("kms:Encrypt", "kms:GenerateDataKey"):
        assert _may(chosen, "deploy", action, KEY, **via)
        assert not _may(chosen, "deploy", action, other, **via, **tag)
        assert not _may(chosen, "deploy", action, KEY)
        assert _may(environment, "deploy", action, other, **via, **tag)
        assert not _may(environment, "deploy", action, other, **via)


@pytest.mark.parametrize("role", ["deploy", "register"])
def test_repositories_are_deleted_whatever_key_they_have_and_created_with_that_of_the_settings(
    environment: Environment, role: str
) -> None:
    chosen = dataclasses.replace(environment, kms_key_arn=KEY)
    via, other = {"kms__ViaService": "ecr.eu-west-1.amazonaws.com"}, KEY.replace("key/0", "key/1")

    assert all(_may(one, role, "kms:RetireGrant", other, **via) for one in (environment, chosen))
    assert not _may(chosen, role, "kms:RetireGrant", KEY)
    assert _may(chosen, role, "kms:CreateGrant", KEY, **via)
    assert not _may(chosen, role, "kms:CreateGrant", other, **via)
    assert not _may(environment, role, "kms:CreateGrant", KEY, **via)


def test_plan_reads_and_reads_no_secret(chosen: Environment) -> None:
    actions = {action for statement in _statements(chosen, "plan") for action in statement["Action"]}

    assert {action for action in actions if not action.partition(":")[2].startswith(("Describe", "Get", "List"))} == {
        "s3:PutObject"
    }
    assert "secretsmanager:GetSecretValue" not in actions
    assert not {action for action in actions if action.startswith("kms:")} - {"kms:DescribeKey", "kms:ListAliases"}
    state = "arn:aws:s3:::dev-dataflow-automation-state-123456789012"
    assert _may(chosen, "plan", "s3:GetObject", f"{state}/terraform.tfstate")
    assert not _may(chosen, "plan", "s3:GetObject", f"{state}/terraform.tfstate.tflock")
    plan = f"{state}/plans/0123456789abcdef0123456789abcdef"
    assert _may(chosen, "plan", "s3:PutObject", plan)
    assert not _may(chosen, "plan", "s3:PutObject", f"{state}/terraform.tfstate")
    assert not _may(chosen, "plan", "s3:GetObject", plan)
    assert _may(chosen, "deploy", "s3:GetObject", plan)
    assert not _may(chosen, "register", "s3:GetObject", plan)


@pytest.mark.parametrize(
    "action",
    [
        *("DescribeAddresses", "DescribeAddressesAttribute", "DescribeFlowLogs", "DescribeNatGateways"),
        *("DescribePrefixLists", "DescribeVpcEndpoints", "DescribeNetworkInterfaces"),
    ],
)
def test_plan_reads_what_private_networks_are_made_of(environment: Environment, action: str) -> None:
    """The network interfaces are those of endpoints: Terraform reads their addresses in each plan."""
    assert _may(environment, "plan", f"ec2:{action}", "*")


def test_register_works_on_repositories_that_it_made_and_tagged(environment: Environment) -> None:
    arn = "arn:aws:ecr:eu-west-1:123456789012:repository/dev_etl"
    agent = "arn:aws:ecr:eu-west-1:123456789012:repository/dev_dataflow_automation_agent"
    ours = {"aws__ResourceTag_to_environment": "dev", "aws__ResourceTag_to_managed_by": "register"}
    making = {"aws__RequestTag_to_environment": "dev", "aws__RequestTag_to_managed_by": "register"}

    assert _may(environment, "register", "ecr:CreateRepository", arn, **making)
    assert not _may(environment, "register", "ecr:CreateRepository", arn)
    assert not _may(environment, "register", "ecr:CreateRepository", arn.replace("/dev_", "/prod_"), **making)
    assert _may(environment, "register", "ecr:TagResource", arn, **making)
    assert not _may(environment, "register", "ecr:TagResource", arn, **making, aws__ResourceTag_to_managed_by="ann")
    for action in ("PutImage", "DeleteRepository", "BatchDeleteImage"):
        assert _may(environment, "register", f"ecr:{action}", arn, **ours)
        assert not _may(environment, "register", f"ecr:{action}", arn)
        assert not _may(environment, "register", f"ecr:{action}", agent, aws__ResourceTag_to_environment="dev")
    assert _may(environment, "register", "ecr:BatchGetImage", agent)


def test_deploy_makes_and_changes_what_is_tagged_as_its_own_in_the_network(environment: Environment) -> None:
    vpc = "arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-1"
    for tag, ours in (("dev", True), ("prod", False)):
        assert _may(environment, "deploy", "ec2:CreateVpc", vpc, aws__RequestTag_to_environment=tag) is ours
        assert _may(environment, "deploy", "ec2:DeleteVpc", vpc, aws__ResourceTag_to_environment=tag) is ours
    for action in ("ec2:CreateVpc", "ec2:DeleteVpc", "ec2:CreateTags", "ec2:RunInstances"):
        assert not _may(environment, "deploy", action, vpc)
    both = {"aws__ResourceTag_to_environment": "dev", "aws__RequestTag_to_environment": "prod"}
    assert not _may(environment, "deploy", "ec2:CreateTags", vpc, **both)


def test_existing_vpc_gets_a_security_group_and_nothing_else(environment: Environment) -> None:
    existing = dataclasses.replace(environment, vpc_id=VPC, subnet_ids=("subnet-0123456789abcdef0",))
    arn = f"arn:aws:ec2:eu-west-1:123456789012:vpc/{VPC}"

    assert _may(existing, "deploy", "ec2:CreateSecurityGroup", arn)
    assert not _may(environment, "deploy", "ec2:CreateSecurityGroup", arn)
    assert not [
        action
        for action in ("DeleteVpc", "CreateSubnet", "CreateTags")
        if _may(existing, "deploy", f"ec2:{action}", arn)
    ]


@pytest.mark.parametrize(
    ("action", "resource", "keys", "allowed"),
    [
        ("s3:GetObject", "arn:aws:s3:::data/x", {}, True),
        ("s3:GetObject", "arn:aws:s3:::dev-dataflow-automation-state-123456789012/terraform.tfstate", {}, False),
        ("s3:GetObject", "arn:aws:s3:::prod-dataflow-automation-state-999999999999/terraform.tfstate", {}, False),
        ("iam:CreateUser", "arn:aws:iam::123456789012:user/x", {}, False),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/dev_dataflow_automation_workflow_task", {}, True),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/dev_dataflow_automation_deploy", {}, False),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/prod_dataflow_automation_workflow_task", {}, False),
        ("organizations:LeaveOrganization", "*", {}, False),
        ("account:CloseAccount", "*", {}, False),
        ("sts:AssumeRole", "arn:aws:iam::999999999999:role/lake_reader", {}, True),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/dev_dataflow_automation_deploy", {}, False),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/prod_dataflow_automation_register", {}, False),
        ("secretsmanager:GetSecretValue", "{secret}database-a1b2c3", {}, True),
        ("secretsmanager:GetSecretValue", "{secret}dev_dataflow_automation_prefect_key-a1b2c3", {"tag": "dev"}, False),
        (
            "secretsmanager:GetSecretValue",
            "{secret}prod_dataflow_automation_prefect_key-a1b2c3",
            {"tag": "prod"},
            False,
        ),
        ("secretsmanager:GetSecretValue", "{secret}prod_dataflow_automation_prefect_key-a1b2c3", {}, False),
    ],
)
def test_boundary_leaves_tasks_what_workflows_need_and_no_way_out(
    environment: Environment, action: str, resource: str, keys: dict[str, str], allowed: bool
) -> None:
    resource = resource.replace("{secret}", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:")
    tags = {"aws__ResourceTag_to_environment": keys["tag"]} if keys else {}

    assert _may(environment, "boundary", action, resource, **tags) is allowed


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("agent_execution", True), ("workflow_execution", True), ("agent_task", False), ("workflow_task", False)],
)
def test_boundary_leaves_keys_to_what_starts_tasks(environment: Environment, role: str, allowed: bool) -> None:
    secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:dev_dataflow_automation_prefect_key-a1b2c3"
    who = f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}"
    own = {"principal": who, "aws__ResourceTag_to_environment": "dev"}

    assert _may(environment, "boundary", "secretsmanager:GetSecretValue", secret, **own) is allowed


@pytest.mark.parametrize(("network", "named"), [("private_endpoints", True), ("private_nat", False), ("public", False)])
def test_names_in_route_53_are_for_networks_with_endpoints_alone(
    environment: Environment, network: str, named: bool
) -> None:
    of_network = dataclasses.replace(environment, network=network)
    actions = {action for statement in _statements(of_network, "deploy") for action in statement["Action"]}

    assert ("route53:AssociateVPCWithHostedZone" in actions) is named


@pytest.mark.parametrize(("cluster", "allowed"), [("dev_dataflow_automation_workflows", True), ("prod_x", False)])
def test_deploy_lists_the_tasks_of_its_own_clusters(environment: Environment, cluster: str, allowed: bool) -> None:
    """AWS evaluates ListTasks on "*": https://github.com/cdklabs/construct-hub/pull/1207."""
    arn = f"arn:aws:ecs:eu-west-1:123456789012:cluster/{cluster}"

    assert _may(environment, "deploy", "ecs:ListTasks", "*", ecs__cluster=arn) is allowed
    assert not _may(environment, "deploy", "ecs:ListTasks", "*")
