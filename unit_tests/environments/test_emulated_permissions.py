"""Which permissions requests need; the table names, for each, what AWS asks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from environments.emulated_permissions import EC2_MAKES, SPECIAL, Permission, Request, needed

PLACE = "eu-west-1:123456789012"
ECS, EC2, ECR, LOGS, EVENTS = (f"arn:aws:{service}:{PLACE}:" for service in ("ecs", "ec2", "ecr", "logs", "events"))
CLOUDWATCH = f"arn:aws:cloudwatch:{PLACE}:"
ROLE = "arn:aws:iam::123456789012:role/"
IN_WORK = {"ecs:cluster": f"{ECS}cluster/flows"}
IN_DEFAULT = {"ecs:cluster": f"{ECS}cluster/default"}
TO_ECS = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
TAGS = [{"key": "environment", "value": "dev"}]
GUESSED = "arn:guessed"


def _needed(service: str, operation: str, parameters: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    found = needed(Request(service, operation, parameters, PLACE), GUESSED)
    return [(one.action, one.resource, dict(one.context)) for one in found]


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("DescribeClusters", {"clusters": ["a", f"{ECS}cluster/b"]}, [("", "cluster/a", {}), ("", "cluster/b", {})]),
        ("DescribeClusters", {}, [("", "cluster/default", {})]),
        ("CreateCluster", {"clusterName": "flows"}, [("", "cluster/flows", {})]),
        (
            "CreateCluster",
            {"clusterName": "flows", "tags": TAGS},
            [("", "cluster/flows", {}), ("ecs:TagResource", "cluster/flows", {"ecs:CreateAction": "CreateCluster"})],
        ),
        ("DeleteCluster", {"cluster": f"{ECS}cluster/flows"}, [("", "cluster/flows", {})]),
        ("PutClusterCapacityProviders", {"cluster": "flows"}, [("", "cluster/flows", {})]),
        ("ListClusters", {}, [("", "*", {})]),
        ("CreateService", {"cluster": "flows", "serviceName": "s"}, [("", "service/flows/s", IN_WORK)]),
        (
            "CreateService",
            {"cluster": "flows", "serviceName": "s", "tags": TAGS},
            [
                ("", "service/flows/s", IN_WORK),
                ("ecs:TagResource", "service/flows/s", {"ecs:CreateAction": "CreateService"}),
            ],
        ),
        ("UpdateService", {"cluster": "flows", "service": f"{ECS}service/flows/s"}, [("", "service/flows/s", IN_WORK)]),
        ("DeleteService", {"cluster": "flows", "service": "s"}, [("", "service/flows/s", IN_WORK)]),
        (
            "DescribeServices",
            {"cluster": "flows", "services": ["a", "b"]},
            [("", "service/flows/a", IN_WORK), ("", "service/flows/b", IN_WORK)],
        ),
        (
            "DescribeTasks",
            {"cluster": "flows", "tasks": [f"{ECS}task/flows/1", "2"]},
            [("", "task/flows/1", IN_WORK), ("", "task/flows/2", IN_WORK)],
        ),
        ("StopTask", {"cluster": "flows", "task": "1"}, [("", "task/flows/1", IN_WORK)]),
        ("ListTasks", {"cluster": "flows"}, [("", "*", IN_WORK)]),
        (
            "ListTasks",
            {"cluster": "flows", "containerInstance": f"{ECS}container-instance/flows/1"},
            [("", "container-instance/flows/1", IN_WORK)],
        ),
        ("ListTasks", {}, [("", "*", IN_DEFAULT)]),
        ("DescribeTaskDefinition", {"taskDefinition": "f"}, [("", "*", {})]),
        ("DeregisterTaskDefinition", {"taskDefinition": "f:1"}, [("", "*", {})]),
        (
            "DeleteTaskDefinitions",
            {"taskDefinitions": ["f:1", f"{ECS}task-definition/f:2"]},
            [("", "task-definition/f:1", {}), ("", "task-definition/f:2", {})],
        ),
        ("StartTask", {"cluster": "flows", "taskDefinition": "f"}, [("", "*", IN_WORK)]),
        ("TagResource", {"resourceArn": f"{ECS}task/flows/1"}, [("", "task/flows/1", {})]),
        ("ListTagsForResource", {"resourceArn": f"{ECS}cluster/flows"}, [("", "cluster/flows", {})]),
    ],
)
def test_ecs_asks_for_the_resource_and_its_cluster(
    operation: str, parameters: dict[str, Any], expected: list[tuple[str, str, dict[str, str]]]
) -> None:
    wanted = [
        (action or f"ecs:{operation}", name if name == "*" else ECS + name, context)
        for action, name, context in expected
    ]

    assert _needed("ecs", operation, parameters) == wanted


def test_registering_a_task_definition_hands_its_roles_over_and_tags_it() -> None:
    parameters = {"family": "f", "executionRoleArn": f"{ROLE}start", "taskRoleArn": f"{ROLE}task", "tags": TAGS}
    tagging = {"ecs:CreateAction": "RegisterTaskDefinition"}

    assert _needed("ecs", "RegisterTaskDefinition", parameters) == [
        ("ecs:RegisterTaskDefinition", f"{ECS}task-definition/f:*", {}),
        ("iam:PassRole", f"{ROLE}start", TO_ECS),
        ("iam:PassRole", f"{ROLE}task", TO_ECS),
        ("ecs:TagResource", f"{ECS}task-definition/f:*", tagging),
    ]


def test_a_task_may_be_given_other_roles_only_by_who_may_pass_them() -> None:
    parameters = {"cluster": "flows", "taskDefinition": "f:3", "overrides": {"taskRoleArn": f"{ROLE}deploy"}}

    assert _needed("ecs", "RunTask", parameters) == [
        ("ecs:RunTask", f"{ECS}task-definition/f:3", IN_WORK),
        ("iam:PassRole", f"{ROLE}deploy", TO_ECS),
    ]


def test_running_a_task_with_tags_tags_a_task_of_the_cluster() -> None:
    parameters = {"cluster": "flows", "taskDefinition": f"{ECS}task-definition/f:3", "tags": TAGS}

    assert _needed("ecs", "RunTask", parameters) == [
        ("ecs:RunTask", f"{ECS}task-definition/f:3", IN_WORK),
        ("ecs:TagResource", f"{ECS}task/flows/*", {"ecs:CreateAction": "RunTask"}),
    ]


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("DescribeLogGroups", {"logGroupNamePrefix": "g"}, [("", "*")]),
        ("PutRetentionPolicy", {"logGroupName": "g"}, [("", "g")]),
        ("CreateLogGroup", {"logGroupName": "g"}, [("", "g")]),
        ("CreateLogGroup", {"logGroupName": "g", "tags": {"a": "b"}}, [("", "g"), ("logs:TagResource", "g")]),
        ("PutLogEvents", {"logGroupName": "g", "logStreamName": "s"}, [("", "g:log-stream:s")]),
        ("GetLogEvents", {"logGroupName": "g", "logStreamName": "s"}, [("", "g:log-stream:s")]),
        ("CreateLogStream", {"logGroupName": "g", "logStreamName": "s"}, [("", "g:log-stream:s")]),
        ("FilterLogEvents", {"logGroupName": "g"}, [("", "g:log-stream:")]),
        ("DescribeLogStreams", {"logGroupName": "g"}, [("", "g:log-stream:")]),
        ("ListTagsForResource", {"resourceArn": f"{LOGS}log-group:g"}, [("", "g")]),
        ("TagResource", {"resourceArn": f"{LOGS}log-group:g"}, [("", "g")]),
        ("UntagResource", {"resourceArn": f"{LOGS}log-group:g"}, [("", "g")]),
    ],
)
def test_logs_ask_for_group_or_stream(
    operation: str, parameters: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    wanted = [
        (action or f"logs:{operation}", name if name == "*" else f"{LOGS}log-group:{name}", {})
        for action, name in expected
    ]

    assert _needed("logs", operation, parameters) == wanted


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("PutRule", {"Name": "r"}, [("events:PutRule", f"{EVENTS}rule/r")]),
        (
            "PutRule",
            {"Name": "r", "Tags": TAGS},
            [("events:PutRule", f"{EVENTS}rule/r"), ("events:TagResource", f"{EVENTS}rule/r")],
        ),
        ("PutTargets", {"Rule": "r"}, [("events:PutTargets", f"{EVENTS}rule/r")]),
        ("TagResource", {"ResourceARN": f"{EVENTS}rule/r"}, [("events:TagResource", f"{EVENTS}rule/r")]),
        ("ListRules", {}, [("events:ListRules", "*")]),
    ],
)
def test_events_ask_for_the_rule(operation: str, parameters: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert _needed("events", operation, parameters) == [(action, arn, {}) for action, arn in expected]


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("DescribeAlarms", {}, [("DescribeAlarms", "alarm:*")]),
        ("DescribeAlarms", {"AlarmNamePrefix": "a"}, [("DescribeAlarms", "alarm:*")]),
        ("DescribeAlarms", {"AlarmNames": ["a", "b"]}, [("DescribeAlarms", "alarm:a"), ("DescribeAlarms", "alarm:b")]),
        ("DeleteAlarms", {"AlarmNames.member.1": ["a"]}, [("DeleteAlarms", "alarm:a")]),
        ("PutMetricAlarm", {"AlarmName": "a"}, [("PutMetricAlarm", "alarm:a")]),
        (
            "PutMetricAlarm",
            {"AlarmName": "a", "Tags": TAGS},
            [("PutMetricAlarm", "alarm:a"), ("TagResource", "alarm:a")],
        ),
        (
            "PutMetricAlarm",
            {"AlarmName": "a", "Tags.member.1.Key": "k"},
            [("PutMetricAlarm", "alarm:a"), ("TagResource", "alarm:a")],
        ),
        ("TagResource", {"ResourceARN": f"{CLOUDWATCH}alarm:a"}, [("TagResource", "alarm:a")]),
    ],
)
def test_cloudwatch_asks_for_each_alarm(
    operation: str, parameters: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    wanted = [(f"cloudwatch:{action}", f"{CLOUDWATCH}{alarm}", {}) for action, alarm in expected]

    assert _needed("cloudwatch", operation, parameters) == wanted


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A repository `ours` with tags; gives them as condition keys."""
    from ministack.services import ecr

    tags = [{"Key": "environment", "Value": "dev"}, {"Key": "managed_by", "Value": "register"}]
    monkeypatch.setattr(ecr, "_repositories", {"ours": {"tags": tags}})
    return {"aws:ResourceTag/environment": "dev", "aws:ResourceTag/managed_by": "register"}


def test_ecr_asks_for_each_repository_with_the_tags_it_has(repository: dict[str, str]) -> None:
    put, describe = {"repositoryName": "ours"}, {"repositoryNames": ["ours", "other"]}

    assert _needed("ecr", "PutImage", put) == [("ecr:PutImage", f"{ECR}repository/ours", repository)]
    assert _needed("ecr", "DescribeRepositories", describe) == [
        ("ecr:DescribeRepositories", f"{ECR}repository/ours", repository),
        ("ecr:DescribeRepositories", f"{ECR}repository/other", {}),
    ]
    assert _needed("ecr", "TagResource", {"resourceArn": f"{ECR}repository/ours"}) == [
        ("ecr:TagResource", f"{ECR}repository/ours", repository)
    ]


def test_ecr_asks_for_all_repositories_when_none_is_named(repository: dict[str, str]) -> None:
    assert _needed("ecr", "DescribeRepositories", {}) == [("ecr:DescribeRepositories", f"{ECR}repository/*", {})]
    assert _needed("ecr", "GetAuthorizationToken", {}) == [("ecr:GetAuthorizationToken", "*", {})]


def test_ecr_asks_for_tagging_where_a_repository_is_made_with_tags(repository: dict[str, str]) -> None:
    made = {"repositoryName": "new", "tags": [{"Key": "a", "Value": "b"}]}

    assert _needed("ecr", "CreateRepository", {"repositoryName": "new"}) == [
        ("ecr:CreateRepository", f"{ECR}repository/new", {})
    ]
    assert [action for action, _, _ in _needed("ecr", "CreateRepository", made)] == [
        "ecr:CreateRepository",
        "ecr:TagResource",
    ]


def test_tags_of_an_existing_repository_count_when_it_is_created_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import ecr

    tags = [{"Key": "managed_by", "Value": "register"}]
    monkeypatch.setattr(ecr, "_repositories", {"old": {"tags": tags}})
    asked = _needed("ecr", "CreateRepository", {"repositoryName": "old", "tags": tags})

    assert asked == [
        (f"ecr:{operation}", f"{ECR}repository/old", {"aws:ResourceTag/managed_by": "register"})
        for operation in ("CreateRepository", "TagResource")
    ]


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import iam

    monkeypatch.setattr(iam, "_roles", {"bounded": {"PermissionsBoundary": "arn:boundary"}, "free": {}})


@pytest.mark.parametrize(
    ("operation", "parameters", "keys"),
    [
        ("PutRolePolicy", {"RoleName": "bounded"}, {"iam:PermissionsBoundary": "arn:boundary"}),
        ("PutRolePolicy", {"RoleName": "free"}, {}),
        ("ListRolePolicies", {"RoleName": "bounded"}, {}),
        ("GetRole", {"RoleName": "missing"}, {}),
        ("CreateRole", {"RoleName": "new"}, {}),
        ("CreateRole", {"RoleName": "bounded"}, {}),
        ("CreateRole", {"RoleName": "new", "PermissionsBoundary": "arn:x"}, {"iam:PermissionsBoundary": "arn:x"}),
        (
            "PutRolePermissionsBoundary",
            {"RoleName": "bounded", "PermissionsBoundary": "arn:x"},
            {"iam:PermissionsBoundary": "arn:x"},
        ),
        (
            "AttachRolePolicy",
            {"RoleName": "bounded", "PolicyArn": "arn:p"},
            {"iam:PermissionsBoundary": "arn:boundary", "iam:PolicyARN": "arn:p"},
        ),
    ],
)
def test_iam_tells_the_boundary_that_a_role_has_or_will_have(
    roles: None, operation: str, parameters: dict[str, Any], keys: dict[str, str]
) -> None:
    assert _needed("iam", operation, parameters) == [(f"iam:{operation}", GUESSED, keys)]


def test_role_made_with_tags_must_be_taggable(roles: None) -> None:
    made = _needed("iam", "CreateRole", {"RoleName": "new", "Tags.member.1.Key": "a", "Tags.member.1.Value": "b"})

    assert made == [("iam:CreateRole", GUESSED, {}), ("iam:TagRole", GUESSED, {})]


BY_ECR = {"kms:ViaService": "ecr.eu-west-1.amazonaws.com"}
KMS_KEY = f"arn:aws:kms:{PLACE}:key/1"


def test_repository_with_a_key_of_somebodys_choice_takes_grants_of_that_key() -> None:
    chosen = {"encryptionType": "KMS", "kmsKey": KMS_KEY}

    assert _needed("ecr", "CreateRepository", {"repositoryName": "r", "encryptionConfiguration": chosen}) == [
        ("ecr:CreateRepository", f"{ECR}repository/r", {}),
        ("kms:CreateGrant", KMS_KEY, BY_ECR),
        ("kms:DescribeKey", KMS_KEY, BY_ECR),
    ]
    aws_managed = {"repositoryName": "r", "encryptionConfiguration": {"encryptionType": "KMS"}}
    assert len(_needed("ecr", "CreateRepository", aws_managed)) == 1


@pytest.mark.parametrize(
    ("configuration", "key"), [({"kmsKey": KMS_KEY}, KMS_KEY), ({}, f"arn:aws:kms:{PLACE}:key/of-aws-for-ecr")]
)
def test_who_deletes_a_repository_retires_the_grants_of_its_key(
    monkeypatch: pytest.MonkeyPatch, configuration: dict[str, str], key: str
) -> None:
    from ministack.services import ecr

    monkeypatch.setattr(ecr, "_repositories", {"r": {"encryptionConfiguration": configuration}})

    assert ("kms:RetireGrant", key, BY_ECR) in _needed("ecr", "DeleteRepository", {"repositoryName": "r"})
    assert len(_needed("ecr", "DeleteRepository", {"repositoryName": "missing"})) == 1


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tagged VPC, a route table that is associated with a subnet, and the address of a NAT gateway."""
    from ministack.services import ec2

    link = {"RouteTableAssociationId": "rtbassoc-1", "SubnetId": "subnet-1"}
    monkeypatch.setattr(ec2, "_tags", {"vpc-1": [{"Key": "environment", "Value": "dev"}]})
    monkeypatch.setattr(ec2, "_route_tables", {"rtb-1": {"RouteTableId": "rtb-1", "Associations": [link]}})
    monkeypatch.setattr(ec2, "_addresses", {"eipalloc-1": {"AssociationId": "eipassoc-1"}})


def _ids(found: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return [arn.removeprefix(EC2) for _, arn, _ in found]


def test_ec2_lets_who_may_see_see_everything(network: None) -> None:
    assert _needed("ec2", "DescribeVpcs", {"VpcId.1": "vpc-1"}) == [("ec2:DescribeVpcs", "*", {})]


def test_ec2_asks_for_a_resource_with_the_tags_it_has(network: None) -> None:
    assert _needed("ec2", "DeleteVpc", {"VpcId": "vpc-1"}) == [
        ("ec2:DeleteVpc", f"{EC2}vpc/vpc-1", {"aws:ResourceTag/environment": "dev"})
    ]
    assert _needed("ec2", "DeleteVpc", {"VpcId": "vpc-2"}) == [("ec2:DeleteVpc", f"{EC2}vpc/vpc-2", {})]


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        (
            "CreateRoute",
            {"RouteTableId": "rtb-1", "GatewayId": "igw-1", "NatGatewayId": "nat-1"},
            ["route-table/rtb-1"],
        ),
        (
            "AttachInternetGateway",
            {"InternetGatewayId": "igw-1", "VpcId": "vpc-1"},
            ["internet-gateway/igw-1", "vpc/vpc-1"],
        ),
        (
            "DeleteVpcEndpoints",
            {"VpcEndpointId.1": "vpce-1", "VpcEndpointId.2": "vpce-2"},
            ["vpc-endpoint/vpce-1", "vpc-endpoint/vpce-2"],
        ),
        ("DisassociateAddress", {"AssociationId": "eipassoc-1"}, ["elastic-ip/eipalloc-1"]),
        ("DisassociateAddress", {"AssociationId": "eipassoc-2"}, ["elastic-ip/*"]),
        ("DisassociateRouteTable", {"AssociationId": "rtbassoc-1"}, ["route-table/rtb-1", "subnet/subnet-1"]),
        ("AuthorizeSecurityGroupEgress", {"GroupId": "sg-1"}, ["security-group/sg-1", "security-group-rule/*"]),
        (
            "CreateNatGateway",
            {"SubnetId": "subnet-1", "AllocationId": "eipalloc-1"},
            ["elastic-ip/eipalloc-1", "subnet/subnet-1", "natgateway/*"],
        ),
        ("CreateTags", {"ResourceId.1": "vpc-1", "ResourceId.2": "eipalloc-1"}, ["vpc/vpc-1", "elastic-ip/eipalloc-1"]),
        ("CreateTags", {"ResourceId.1": "i-1"}, ["instance/i-1"]),
        (
            "CreateVpcEndpoint",
            {"VpcId": "vpc-1", "SubnetId.1": "subnet-1", "SecurityGroupId.1": "sg-1"},
            ["security-group/sg-1", "subnet/subnet-1", "vpc/vpc-1", "vpc-endpoint/*"],
        ),
        ("RunInstances", {"ImageId": "ami-1"}, [GUESSED]),
    ],
)
def test_ec2_asks_for_everything_that_a_request_is_about(
    network: None, operation: str, parameters: dict[str, str], expected: list[str]
) -> None:
    found = _needed("ec2", operation, parameters)

    assert _ids(found) == expected
    assert {action for action, _, _ in found} == {f"ec2:{operation}"}


@pytest.mark.parametrize(("operation", "kind"), EC2_MAKES.items())
def test_what_ec2_makes_with_tags_needs_the_right_to_tag_it(network: None, operation: str, kind: str) -> None:
    tagged = {"TagSpecification.1.Tag.1.Key": "environment", "TagSpecification.1.Tag.1.Value": "dev"}
    with_tag = {"aws:RequestTag/environment": "dev"}

    assert _needed("ec2", operation, {}) == [(f"ec2:{operation}", f"{EC2}{kind}/*", {})]
    assert _needed("ec2", operation, tagged) == [
        (f"ec2:{operation}", f"{EC2}{kind}/*", with_tag),
        ("ec2:CreateTags", f"{EC2}{kind}/*", {**with_tag, "ec2:CreateAction": operation}),
    ]


def test_tagging_tells_both_the_tags_there_are_and_those_to_come(network: None) -> None:
    parameters = {"ResourceId.1": "vpc-1", "Tag.1.Key": "environment", "Tag.1.Value": "prod"}
    [(action, _, keys)] = _needed("ec2", "CreateTags", parameters)

    assert action == "ec2:CreateTags"
    assert keys["aws:ResourceTag/environment"] == "dev"
    assert keys["aws:RequestTag/environment"] == "prod"


def test_flow_logs_get_a_role_only_from_who_may_pass_it(network: None) -> None:
    found = _needed("ec2", "CreateFlowLogs", {"ResourceId.1": "vpc-1", "DeliverLogsPermissionArn": f"{ROLE}flow_logs"})

    assert _ids(found)[:2] == ["vpc/vpc-1", "vpc-flow-log/*"]
    assert found[-1] == ("iam:PassRole", f"{ROLE}flow_logs", {"iam:PassedToService": "vpc-flow-logs.amazonaws.com"})


def test_endpoint_with_the_services_own_name_needs_a_right_of_route_53(network: None) -> None:
    found = _needed("ec2", "CreateVpcEndpoint", {"VpcId": "vpc-1", "PrivateDnsEnabled": "true"})

    assert found[-1] == ("route53:AssociateVPCWithHostedZone", "arn:aws:route53:::hostedzone/*", {})
    assert len(_needed("ec2", "CreateVpcEndpoint", {"VpcId": "vpc-1"})) == len(found) - 1


def test_parameter_of_another_operation_takes_nothing_from_what_this_one_needs(network: None) -> None:
    found = _needed("ec2", "RunInstances", {"DeliverLogsPermissionArn": f"{ROLE}flow_logs"})

    assert [action for action, _, _ in found] == ["ec2:RunInstances", "iam:PassRole"]


def test_key_is_known_by_id_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import kms

    alias, arn = f"arn:aws:kms:{PLACE}:alias/dev_dataflow_automation", f"arn:aws:kms:{PLACE}:key/1"
    monkeypatch.setattr(kms, "_aliases", {alias: "1"})
    keys = {"kms:ResourceAliases": ["alias/dev_dataflow_automation"]}

    for guessed in (alias, arn):
        assert needed(Request("kms", "DescribeKey", {}, PLACE), guessed) == [Permission("kms:DescribeKey", arn, keys)]
    other = f"arn:aws:kms:{PLACE}:key/2"
    assert needed(Request("kms", "Decrypt", {}, PLACE), other) == [Permission("kms:Decrypt", other)]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "actions"),
    [
        ("sqs", "CreateQueue", {"tags": {"a": "b"}}, ["sqs:CreateQueue", "sqs:TagQueue"]),
        ("sqs", "CreateQueue", {}, ["sqs:CreateQueue"]),
        ("sqs", "ReceiveMessage", {}, ["sqs:ReceiveMessage"]),
        (
            "secretsmanager",
            "CreateSecret",
            {"Tags": TAGS},
            ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
        ),
        ("secretsmanager", "GetSecretValue", {"SecretId": "x"}, ["secretsmanager:GetSecretValue"]),
        ("s3", "GetObject", {}, ["s3:GetObject"]),
        ("dynamodb", "PutItem", {}, ["dynamodb:PutItem"]),
    ],
)
def test_elsewhere_the_resource_is_what_the_emulator_takes_it_to_be(
    service: str, operation: str, parameters: dict[str, Any], actions: list[str]
) -> None:
    assert _needed(service, operation, parameters) == [(action, GUESSED, {}) for action in actions]


KEY = f"arn:aws:kms:{PLACE}:key/1"
SECRET = f"arn:aws:secretsmanager:{PLACE}:secret:prefect_key-a1b2c3"
TRIED = "RequestToValidateKeyAccess"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import secretsmanager

    found = {"prefect_key": (SECRET, KEY), "own": (SECRET.replace("prefect_key", "own"), None)}
    resolved = {
        name: {
            "ARN": arn,
            "KmsKeyId": key,
            "Versions": {"1": {"Stages": ["AWSCURRENT"], "KmsKeyIds": [key or "DefaultEncryptionKey"]}},
        }
        for name, (arn, key) in found.items()
    }
    monkeypatch.setattr(secretsmanager, "_resolve", lambda name: (name, resolved.get(name)))


@pytest.mark.parametrize(
    ("operation", "parameters", "uses"),
    [
        ("GetSecretValue", {"SecretId": "prefect_key"}, [("Decrypt", SECRET)]),
        ("PutSecretValue", {"SecretId": "prefect_key", "SecretString": "x"}, [("GenerateDataKey", SECRET)]),
        ("UpdateSecret", {"SecretId": "prefect_key", "Description": "x"}, []),
        (
            "UpdateSecret",
            {"SecretId": "prefect_key", "KmsKeyId": KEY},
            [("GenerateDataKey", TRIED), ("Decrypt", TRIED)],
        ),
        ("DescribeSecret", {"SecretId": "prefect_key"}, []),
    ],
)
def test_secret_takes_permissions_for_its_key(
    secret: None, operation: str, parameters: dict[str, Any], uses: list[tuple[str, str]]
) -> None:
    via = {"kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
    base = (f"secretsmanager:{operation}", SECRET, {})

    assert _needed("secretsmanager", operation, parameters) == [
        base,
        *[(f"kms:{use}", KEY, {**via, "kms:EncryptionContext:SecretARN": named}) for use, named in uses],
    ]


def test_new_secret_takes_permissions_for_the_key_that_it_names(secret: None) -> None:
    parameters = {"Name": "new", "KmsKeyId": "1", "SecretString": "x", "Tags": TAGS}
    asked = [(action, resource) for action, resource, _ in _needed("secretsmanager", "CreateSecret", parameters)]

    assert asked == [
        ("secretsmanager:CreateSecret", GUESSED),
        ("secretsmanager:TagResource", GUESSED),
        ("kms:GenerateDataKey", KEY),
        ("kms:Decrypt", KEY),
        ("kms:GenerateDataKey", KEY),
    ]


def test_key_that_aws_manages_takes_no_permission(secret: None) -> None:
    assert [one[0] for one in _needed("secretsmanager", "GetSecretValue", {"SecretId": "own"})] == [
        "secretsmanager:GetSecretValue"
    ]


NAMES = (
    *("cluster", "clusters", "service", "services", "task", "tasks", "taskDefinition", "family", "overrides", "tags"),
    *("repositoryName", "repositoryNames", "resourceArn", "ResourceARN", "logGroupName", "Name", "Tags", "RoleName"),
    *("VpcId", "SubnetId.1", "ResourceId.1", "Tag.1.Key", "TagSpecification.1.Tag.1.Key", "AssociationId"),
    *("taskRoleArn", "executionRoleArn", "DeliverLogsPermissionArn", "PermissionsBoundary", "PolicyArn"),
)
OPERATIONS = (
    *("DescribeClusters", "CreateCluster", "RunTask", "RegisterTaskDefinition", "CreateService", "DescribeServices"),
    *("DescribeTasks", "StopTask", "ListTasks", "TagResource", "CreateLogGroup", "PutRule", "CreateRepository"),
    *("CreateRole", "CreateTags", "CreateVpc", "DisassociateRouteTable", "CreateFlowLogs", "CreateQueue", "Decrypt"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    service=st.sampled_from([*SPECIAL, "sqs", "secretsmanager", "s3", ""]),
    operation=st.sampled_from(OPERATIONS) | st.text(max_size=12),
    parameters=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), VALUES, max_size=5),
    guessed=st.text(max_size=12),
)
def test_whatever_is_asked_something_is_needed(
    service: str, operation: str, parameters: dict[str, Any], guessed: str
) -> None:
    """Nothing needed would mean that everybody may."""
    found = needed(Request(service, operation, parameters, PLACE), guessed)

    assert found
    assert f"{service}:{operation}" in [one.action for one in found]
    assert all(isinstance(one.resource, str) for one in found)
