"""Least privilege, with IAM enforced: what each role may do to its own environment, and may not do to anything else.

The calls go to the emulated AWS with the credentials that the commands, the agent and the workflows really have.
Another environment, `other`, stands in the same account.
"""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from functional_tests import runs
from functional_tests.platform import Platform, wait_for

ACCOUNT, REGION = "000000000000", "eu-west-1"
REFUSALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "AuthorizationError"}
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/{{p}}_boundary"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/{{p}}"
RULE = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{{p}}_task_events"
BUCKET = f"{{e}}-dataflow-automation-state-{ACCOUNT}"
AGENT_REPOSITORY = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{{p}}_agent"
ALARM = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{{p}}_agent_down"
CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{{p}}_agent"
LOG_GROUP = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{p}}_agent"
QUEUE_URL = f"http://127.0.0.1/{ACCOUNT}/{{p}}_task_events"
LAYER = f"sha256:{'0' * 64}"
NO_TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
OURS = {"environment": "{e}"}
CONTAINERS = [{"name": "x", "image": "x"}]

Call = tuple[str, str, str, dict[str, Any]]
"""Role, service, operation, parameters; {e} is the environment's name, {p} the beginning of its names."""

OWN_NOT_OTHERS: list[Call] = [
    ("deploy", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
    ("deploy", "ecs", "describe_services", {"cluster": "{p}_agent", "services": ["{p}_agent"]}),
    ("deploy", "ecs", "update_service", {"cluster": "{p}_agent", "service": "{p}_agent", "desiredCount": 1}),
    ("deploy", "ecs", "describe_clusters", {"clusters": ["{p}_workflows"]}),
    ("deploy", "ecs", "list_tasks", {"cluster": "{p}_workflows"}),
    ("deploy", "ecr", "initiate_layer_upload", {"repositoryName": "{p}_agent"}),
    (
        "deploy",
        "ecr",
        "tag_resource",
        {"resourceArn": AGENT_REPOSITORY, "tags": [{"Key": "environment", "Value": "{e}"}]},
    ),
    ("deploy", "logs", "put_retention_policy", {"logGroupName": "{p}_agent", "retentionInDays": 7}),
    ("deploy", "logs", "filter_log_events", {"logGroupName": "{p}_workflows"}),
    ("deploy", "iam", "get_role", {"RoleName": "{p}_agent_task"}),
    ("deploy", "iam", "tag_role", {"RoleName": "{p}_agent_task", "Tags": [{"Key": "environment", "Value": "{e}"}]}),
    ("deploy", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
    ("deploy", "sqs", "get_queue_url", {"QueueName": "{p}_task_events"}),
    ("deploy", "events", "tag_resource", {"ResourceARN": RULE, "Tags": [{"Key": "environment", "Value": "{e}"}]}),
    ("deploy", "cloudwatch", "enable_alarm_actions", {"AlarmNames": ["{p}_agent_down"]}),
    ("deploy", "ec2", "create_tags", {"Resources": ["{vpc}"], "Tags": [{"Key": "environment", "Value": "{e}"}]}),
    ("plan", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
    ("plan", "ecs", "describe_clusters", {"clusters": ["{p}_agent"]}),
    ("plan", "iam", "get_role", {"RoleName": "{p}_workflow_task"}),
    ("plan", "secretsmanager", "describe_secret", {"SecretId": "{p}_prefect_key"}),
    ("register", "ecr", "describe_images", {"repositoryName": "{e}_sample_workflow"}),
    ("register", "ecr", "initiate_layer_upload", {"repositoryName": "{e}_sample_workflow"}),
    ("agent", "ecs", "describe_tasks", {"cluster": "{p}_workflows", "tasks": ["0" * 32]}),
    ("agent", "ecs", "list_tasks", {"cluster": "{p}_workflows"}),
    ("agent", "sqs", "get_queue_url", {"QueueName": "{p}_task_events"}),
    (
        "agent",
        "ecs",
        "register_task_definition",
        {
            "family": "{p}_workflow_permissions",
            "taskRoleArn": f"{ROLE}_workflow_task",
            "containerDefinitions": CONTAINERS,
        },
    ),
]
"""Each works on what belongs to `local` and is refused on the same thing of `other`."""

SELDOM: list[Call] = [
    ("deploy", "cloudwatch", "untag_resource", {"ResourceARN": ALARM, "TagKeys": ["x"]}),
    ("deploy", "ec2", "delete_tags", {"Resources": ["{vpc}"], "Tags": [{"Key": "x"}]}),
    ("deploy", "ecr", "untag_resource", {"resourceArn": AGENT_REPOSITORY, "tagKeys": ["x"]}),
    ("deploy", "ecr", "delete_lifecycle_policy", {"repositoryName": "{p}_agent"}),
    ("deploy", "ecr", "get_lifecycle_policy", {"repositoryName": "{p}_agent"}),
    ("deploy", "ecr", "get_download_url_for_layer", {"repositoryName": "{p}_agent", "layerDigest": LAYER}),
    ("deploy", "ecr", "describe_image_scan_findings", {"repositoryName": "{p}_agent", "imageId": {"imageTag": "x"}}),
    ("deploy", "ecr", "batch_delete_image", {"repositoryName": "{p}_agent", "imageIds": [{"imageTag": "x"}]}),
    ("deploy", "ecr", "put_image_tag_mutability", {"repositoryName": "{p}_agent", "imageTagMutability": "IMMUTABLE"}),
    (
        "deploy",
        "ecr",
        "put_image_scanning_configuration",
        {"repositoryName": "{p}_agent", "imageScanningConfiguration": {"scanOnPush": True}},
    ),
    ("deploy", "ecs", "list_tags_for_resource", {"resourceArn": CLUSTER}),
    ("deploy", "ecs", "untag_resource", {"resourceArn": CLUSTER, "tagKeys": ["x"]}),
    ("deploy", "ecs", "update_cluster", {"cluster": "{p}_agent"}),
    (
        "deploy",
        "ecs",
        "update_cluster_settings",
        {"cluster": "{p}_agent", "settings": [{"name": "containerInsights", "value": "disabled"}]},
    ),
    ("deploy", "ecs", "stop_task", {"cluster": "{p}_agent", "task": "0" * 32}),
    ("deploy", "events", "untag_resource", {"ResourceARN": RULE, "TagKeys": ["x"]}),
    ("deploy", "iam", "untag_role", {"RoleName": "{p}_agent_task", "TagKeys": ["x"]}),
    ("deploy", "iam", "update_role", {"RoleName": "{p}_agent_task", "MaxSessionDuration": 3600}),
    (
        "deploy",
        "iam",
        "update_role_description",
        {"RoleName": "{p}_agent_task", "Description": "agent task role of environment {e}"},
    ),
    (
        "deploy",
        "iam",
        "put_role_permissions_boundary",
        {"RoleName": "{p}_agent_task", "PermissionsBoundary": BOUNDARY},
    ),
    ("deploy", "iam", "detach_role_policy", {"RoleName": "{p}_workflow_task", "PolicyArn": ADMINISTRATOR}),
    ("deploy", "logs", "untag_resource", {"resourceArn": LOG_GROUP, "tagKeys": ["x"]}),
    ("deploy", "s3", "get_bucket_versioning", {"Bucket": BUCKET}),
    ("deploy", "secretsmanager", "untag_resource", {"SecretId": "{p}_prefect_key", "TagKeys": ["x"]}),
    (
        "deploy",
        "secretsmanager",
        "update_secret",
        {
            "SecretId": "{p}_prefect_key",
            "Description": "Key of the Prefect API for the agent part of environment {e}",
        },
    ),
    ("deploy", "sqs", "untag_queue", {"QueueUrl": QUEUE_URL, "TagKeys": ["x"]}),
    ("plan", "ecs", "list_tags_for_resource", {"resourceArn": CLUSTER}),
    ("plan", "ecr", "get_lifecycle_policy", {"repositoryName": "{p}_agent"}),
    ("plan", "s3", "get_bucket_versioning", {"Bucket": BUCKET}),
    ("register", "ecr", "delete_lifecycle_policy", {"repositoryName": "{e}_sample_workflow"}),
    ("register", "ecr", "get_lifecycle_policy", {"repositoryName": "{e}_sample_workflow"}),
    ("register", "ecr", "get_download_url_for_layer", {"repositoryName": "{e}_sample_workflow", "layerDigest": LAYER}),
    ("agent", "ecs", "stop_task", {"cluster": "{p}_workflows", "task": "0" * 32}),
    (
        "agent",
        "sqs",
        "change_message_visibility",
        {"QueueUrl": QUEUE_URL, "ReceiptHandle": "x", "VisibilityTimeout": 30},
    ),
]
"""What is needed only after a change by hand or of the settings, or on another machine; nothing changes here."""

NEVER: list[Call] = [
    ("deploy", "iam", "create_user", {"UserName": "x"}),
    ("deploy", "iam", "create_access_key", {"UserName": "x"}),
    ("deploy", "iam", "create_role", {"RoleName": "anything", "AssumeRolePolicyDocument": NO_TRUST}),
    ("deploy", "iam", "create_role", {"RoleName": "{p}_agent_task", "AssumeRolePolicyDocument": NO_TRUST}),
    ("deploy", "iam", "put_role_policy", {"RoleName": "{p}_deploy", "PolicyName": "x", "PolicyDocument": EVERYTHING}),
    ("deploy", "iam", "attach_role_policy", {"RoleName": "{p}_workflow_task", "PolicyArn": ADMINISTRATOR}),
    ("deploy", "iam", "attach_role_policy", {"RoleName": "{p}_deploy", "PolicyArn": ADMINISTRATOR}),
    ("deploy", "iam", "update_assume_role_policy", {"RoleName": "{p}_deploy", "PolicyDocument": NO_TRUST}),
    ("deploy", "iam", "delete_role_permissions_boundary", {"RoleName": "{p}_agent_task"}),
    (
        "deploy",
        "iam",
        "put_role_permissions_boundary",
        {"RoleName": "{p}_agent_task", "PermissionsBoundary": ADMINISTRATOR},
    ),
    ("deploy", "iam", "create_policy_version", {"PolicyArn": BOUNDARY, "PolicyDocument": EVERYTHING}),
    ("deploy", "iam", "delete_role", {"RoleName": "{p}_register"}),
    ("deploy", "sts", "assume_role", {"RoleArn": f"{ROLE}_register", "RoleSessionName": "test"}),
    (
        "deploy",
        "ecs",
        "register_task_definition",
        {"family": "{p}_agent", "taskRoleArn": f"{ROLE}_deploy", "containerDefinitions": CONTAINERS},
    ),
    ("deploy", "ecs", "run_task", {"cluster": "{p}_agent", "taskDefinition": "{p}_agent"}),
    ("deploy", "s3", "delete_bucket", {"Bucket": BUCKET}),
    ("deploy", "s3", "put_bucket_policy", {"Bucket": BUCKET, "Policy": NO_TRUST}),
    ("deploy", "s3", "put_object", {"Bucket": BUCKET, "Key": "elsewhere", "Body": b""}),
    ("deploy", "s3", "list_buckets", {}),
    ("deploy", "ecr", "initiate_layer_upload", {"repositoryName": "{e}_sample_workflow"}),
    ("deploy", "ec2", "create_vpc", {"CidrBlock": "10.9.0.0/16"}),
    ("deploy", "ec2", "create_tags", {"Resources": ["{vpc}"], "Tags": [{"Key": "environment", "Value": "other"}]}),
    ("deploy", "ec2", "delete_tags", {"Resources": ["{vpc}"], "Tags": [{"Key": "environment"}]}),
    ("deploy", "ec2", "run_instances", {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1}),
    ("plan", "s3", "put_object", {"Bucket": BUCKET, "Key": "terraform.tfstate", "Body": b""}),
    ("plan", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
    ("plan", "ecs", "update_service", {"cluster": "{p}_agent", "service": "{p}_agent", "desiredCount": 0}),
    ("plan", "ecr", "get_authorization_token", {}),
    ("plan", "iam", "tag_role", {"RoleName": "{p}_agent_task", "Tags": [{"Key": "x", "Value": "x"}]}),
    ("plan", "ec2", "delete_vpc", {"VpcId": "{vpc}"}),
    ("plan", "cloudwatch", "disable_alarm_actions", {"AlarmNames": ["{p}_agent_down"]}),
    ("plan", "logs", "filter_log_events", {"logGroupName": "{p}_workflows"}),
    ("register", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
    ("register", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
    ("register", "ecs", "run_task", {"cluster": "{p}_workflows", "taskDefinition": "{p}_workflow_x"}),
    ("register", "ecs", "update_service", {"cluster": "{p}_agent", "service": "{p}_agent", "desiredCount": 0}),
    ("register", "ecr", "create_repository", {"repositoryName": "{e}_untagged"}),
    ("register", "ecr", "initiate_layer_upload", {"repositoryName": "{p}_agent"}),
    ("register", "ecr", "batch_delete_image", {"repositoryName": "{p}_agent", "imageIds": [{"imageTag": "x"}]}),
    (
        "register",
        "ecr",
        "tag_resource",
        {"resourceArn": AGENT_REPOSITORY, "tags": [{"Key": "managed_by", "Value": "register"}]},
    ),
    ("register", "ecr", "set_repository_policy", {"repositoryName": "{e}_sample_workflow", "policyText": EVERYTHING}),
    ("register", "iam", "list_roles", {}),
    ("register", "sts", "assume_role", {"RoleArn": f"{ROLE}_deploy", "RoleSessionName": "test"}),
    ("agent", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
    ("agent", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key_workflow"}),
    ("agent", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
    ("agent", "ecs", "run_task", {"cluster": "{p}_agent", "taskDefinition": "{p}_workflow_permissions"}),
    ("agent", "ecs", "run_task", {"cluster": "{p}_workflows", "taskDefinition": "{p}_agent"}),
    ("agent", "ecs", "stop_task", {"cluster": "{p}_agent", "task": "0" * 32}),
    ("agent", "ecs", "list_tasks", {"cluster": "{p}_agent"}),
    ("agent", "ecs", "update_service", {"cluster": "{p}_agent", "service": "{p}_agent", "desiredCount": 0}),
    (
        "agent",
        "ecs",
        "register_task_definition",
        {"family": "{p}_workflow_x", "taskRoleArn": f"{ROLE}_agent_task", "containerDefinitions": CONTAINERS},
    ),
    (
        "agent",
        "ecs",
        "run_task",
        {
            "cluster": "{p}_workflows",
            "taskDefinition": "{p}_workflow_permissions",
            "overrides": {"taskRoleArn": f"{ROLE}_deploy"},
        },
    ),
    ("agent", "ecr", "get_authorization_token", {}),
    ("agent", "iam", "list_roles", {}),
    ("workflow", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
    ("workflow", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
    ("workflow", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key_workflow"}),
    ("workflow", "ecs", "run_task", {"cluster": "{p}_workflows", "taskDefinition": "{p}_workflow_permissions"}),
    ("workflow", "sqs", "receive_message", {"QueueUrl": QUEUE_URL}),
    ("workflow", "ecr", "get_authorization_token", {}),
    ("workflow", "logs", "filter_log_events", {"logGroupName": "{p}_workflows"}),
    ("workflow", "iam", "list_roles", {}),
    ("workflow", "sts", "assume_role", {"RoleArn": f"{ROLE}_deploy", "RoleSessionName": "test"}),
]
"""Each is refused, although it is about the role's own environment or about nobody's."""


class Account:
    """The emulated account, with sessions of every role."""

    def __init__(self, platform: Platform, roles: dict[str, dict[str, str]], networks: dict[str, str]) -> None:
        self.platform, self.roles, self.networks = platform, roles, networks

    def client(self, role: str, service: str) -> Any:
        """A client with a role's own credentials."""
        make: Any = boto3.session.Session().client
        return make(service, REGION, endpoint_url=f"http://127.0.0.1:{self.platform.aws_port}", **self.roles[role])

    def call(self, call: Call, environment: str) -> str:
        """Make a call about an environment; gives the error's code, empty when there was none."""
        role, service, operation, parameters = call
        told = filled(parameters, e=environment, p=f"{environment}_dataflow_automation", vpc=self.networks[environment])
        try:
            getattr(self.client(role, service), operation)(**told)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return ""


def filled(value: Any, **names: str) -> Any:
    """Parameters with the names of an environment in place."""
    if isinstance(value, dict):
        return {key: filled(item, **names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, **names) for item in value]
    if isinstance(value, str) and not value.startswith('{"'):
        return value.format(**names)
    return value


@pytest.fixture(scope="module")
def account(sample_workflow: Platform) -> Iterator[Account]:
    """The account with a second environment in it, and what the roles' holders have of credentials."""
    networks = make_other(sample_workflow)
    sts = sample_workflow.aws("sts")
    roles = {}
    for role in ("deploy", "register", "plan"):
        arn = f"{ROLE}_{role}".format(p="local_dataflow_automation")
        roles[role] = keys(sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"])
    agent = sample_workflow.only_agent()
    workflow, _ = runs.run_and_see(sample_workflow, "sample-workflow")
    roles |= {"agent": keys_of_container(agent), "workflow": keys_of_container(workflow)}
    yield Account(sample_workflow, roles, networks)
    remove_other(sample_workflow, networks)


def keys(credentials: dict[str, str]) -> dict[str, str]:
    """Credentials of STS as boto3 takes them."""
    names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey"}
    return {name: credentials[key] for name, key in {**names, "aws_session_token": "SessionToken"}.items()}


def keys_of_container(container: Any) -> dict[str, str]:
    """The credentials that a task got from ECS."""
    variables = dict(line.split("=", 1) for line in container.attrs["Config"]["Env"])
    return {
        name: variables[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    }


def make_other(platform: Platform) -> dict[str, str]:
    """Make what another environment would have, as the account's root user; gives both VPCs."""
    name, told = "other_dataflow_automation", {"environment": "other", "project": "dataflow-automation-infra"}
    tags = [{"Key": key, "Value": value} for key, value in told.items()]
    ecr, ecs, iam, ec2 = (platform.aws(service) for service in ("ecr", "ecs", "iam", "ec2"))
    for repository, owner in ((f"{name}_agent", "terraform"), ("other_sample_workflow", "register")):
        ecr.create_repository(repositoryName=repository, tags=[*tags, {"Key": "managed_by", "Value": owner}])
    for part in ("agent", "workflows"):
        ecs.create_cluster(
            clusterName=f"{name}_{part}", tags=[{"key": key, "value": value} for key, value in told.items()]
        )
        platform.aws("logs").create_log_group(logGroupName=f"{name}_{part}")
    for role in ("agent_task", "workflow_task"):
        iam.create_role(RoleName=f"{name}_{role}", AssumeRolePolicyDocument=NO_TRUST)
    platform.aws("secretsmanager").create_secret(Name=f"{name}_prefect_key", SecretString="other", Tags=tags)
    platform.aws("sqs").create_queue(QueueName=f"{name}_task_events", tags=told)
    platform.aws("events").put_rule(Name=f"{name}_task_events", EventPattern='{"source":["aws.ecs"]}')
    s3, bucket = platform.aws("s3"), BUCKET.format(e="other")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=bucket, Key="terraform.tfstate", Body=b"{}")
    own = ec2.describe_vpcs(Filters=[{"Name": "tag:environment", "Values": ["local"]}])["Vpcs"][0]["VpcId"]
    other = ec2.create_vpc(CidrBlock="10.99.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}])["Vpc"]
    return {"local": own, "other": other["VpcId"]}


def remove_other(platform: Platform, networks: dict[str, str]) -> None:
    """Remove the other environment, and the task definitions of these tests."""
    name, bucket = "other_dataflow_automation", BUCKET.format(e="other")
    ecs, iam, s3 = (platform.aws(service) for service in ("ecs", "iam", "s3"))
    for repository in (f"{name}_agent", "other_sample_workflow"):
        platform.aws("ecr").delete_repository(repositoryName=repository, force=True)
    for part in ("agent", "workflows"):
        ecs.delete_cluster(cluster=f"{name}_{part}")
        platform.aws("logs").delete_log_group(logGroupName=f"{name}_{part}")
    for role in ("agent_task", "workflow_task"):
        iam.delete_role(RoleName=f"{name}_{role}")
    platform.aws("secretsmanager").delete_secret(SecretId=f"{name}_prefect_key", ForceDeleteWithoutRecovery=True)
    queue = platform.aws("sqs").get_queue_url(QueueName=f"{name}_task_events")["QueueUrl"]
    platform.aws("sqs").delete_queue(QueueUrl=queue)
    platform.aws("events").delete_rule(Name=f"{name}_task_events")
    s3.delete_object(Bucket=bucket, Key="terraform.tfstate")
    s3.delete_bucket(Bucket=bucket)
    platform.aws("ec2").delete_vpc(VpcId=networks["other"])
    family = "local_dataflow_automation_workflow_permissions"
    for arn in ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"]:
        ecs.deregister_task_definition(taskDefinition=arn)


def named(call: Call) -> str:
    """What a test of this call is called."""
    return "-".join(call[:3])


@pytest.mark.parametrize("call", OWN_NOT_OTHERS, ids=named)
def test_a_role_works_on_its_own_environment_and_on_no_other(account: Account, call: Call) -> None:
    assert account.call(call, "local") == ""
    assert account.call(call, "other") in REFUSALS


@pytest.mark.parametrize("call", SELDOM, ids=named)
def test_a_role_may_repair_its_own_environment_and_no_other(account: Account, call: Call) -> None:
    assert account.call(call, "local") not in REFUSALS
    assert account.call(call, "other") in REFUSALS


def test_deploy_may_set_the_trust_of_roles_that_terraform_makes(account: Account) -> None:
    iam, role = account.client("deploy", "iam"), "local_dataflow_automation_agent_task"
    trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))

    assert iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"] == trust


@pytest.mark.parametrize("call", NEVER, ids=named)
def test_a_role_may_not(account: Account, call: Call) -> None:
    assert account.call(call, "local") in REFUSALS


def test_the_boundary_holds_whatever_policy_a_role_is_given(account: Account) -> None:
    iam, role = account.platform.aws("iam"), "local_dataflow_automation_workflow_task"
    iam.put_role_policy(RoleName=role, PolicyName="everything", PolicyDocument=EVERYTHING)
    try:
        assert account.client("workflow", "sqs").list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
        for refused in (
            ("workflow", "s3", "get_object", {"Bucket": BUCKET, "Key": "terraform.tfstate"}),
            ("workflow", "iam", "list_roles", {}),
            ("workflow", "iam", "create_user", {"UserName": "x"}),
            ("workflow", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key"}),
            ("workflow", "secretsmanager", "get_secret_value", {"SecretId": "{p}_prefect_key_workflow"}),
        ):
            assert account.call(refused, "local") in REFUSALS
        for operation in (
            ("workflow", "sqs", "get_queue_url", {"QueueName": "{p}_task_events"}),
            ("workflow", "ecs", "describe_clusters", {"clusters": ["{p}_workflows"]}),
            ("workflow", "ecr", "initiate_layer_upload", {"repositoryName": "{e}_sample_workflow"}),
        ):
            assert account.call(operation, "local") == ""
            assert account.call(operation, "other") in REFUSALS
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="everything")


PLATFORM_WORKFLOW = "acme/platform/.github/workflows/platform.yaml@refs/heads/main"
DEPLOYING = {"ref": "refs/heads/main", "environment": "local", "job_workflow_ref": PLATFORM_WORKFLOW}
"""Claims of a job that deploys, beside subject and repository."""


@pytest.mark.parametrize(
    ("role", "subject", "others", "taken"),
    [
        ("deploy", "repo:acme/platform:environment:local", {}, True),
        ("deploy", "repo:acme@12/platform@345:environment:local", {}, True),
        ("deploy", "repo:acme@12/platform-copy@345:environment:local", {}, False),
        ("deploy", "repo:acme-copy@12/platform@345:environment:local", {}, False),
        ("deploy", "repo:acme@12/platform@345:pull_request", {}, False),
        ("deploy", "repo:acme/platform:environment:prod", {}, False),
        ("deploy", "repo:acme/platform:pull_request", {}, False),
        ("deploy", "repo:acme/platform:ref:refs/heads/main", {}, False),
        ("deploy", "repo:acme/platform-copy:environment:local", {}, False),
        ("deploy", "repo:acme/etl:environment:local", {}, False),
        ("deploy", "repo:acme/platform:environment:local", {"aud": "https://github.com/acme"}, False),
        ("deploy", "repo:acme/platform:environment:local", {"ref": "refs/heads/feature/x"}, False),
        ("deploy", "repo:acme/platform:environment:local", {"ref": "refs/pull/7/merge"}, False),
        ("deploy", "repo:acme/platform:environment:local", {"ref": None}, False),
        ("deploy", "repo:acme/platform:environment:local", {"job_workflow_ref": None}, False),
        (
            "deploy",
            "repo:acme/platform:environment:local",
            {"job_workflow_ref": PLATFORM_WORKFLOW.replace("platform.yaml", "other.yaml")},
            False,
        ),
        (
            "deploy",
            "repo:acme/platform:environment:local",
            {"job_workflow_ref": PLATFORM_WORKFLOW.replace("acme/", "mallory/")},
            False,
        ),
        ("register", "repo:acme/etl:environment:local", {}, True),
        ("register", "repo:acme@12/etl@346:environment:local", {}, True),
        ("register", "repo:acme/platform:environment:local", {}, True),
        ("register", "repo:acme/etl:environment:local", {"ref": None, "job_workflow_ref": None}, True),
        ("register", "repo:acme/etl:pull_request", {"environment": None}, False),
        ("register", "repo:acme/other:environment:local", {}, False),
        ("register", "repo:acme/etl:environment:local", {"repository": None}, False),
        ("register", "repo:mallory/etl:environment:local", {}, False),
        ("plan", "repo:acme/platform:pull_request", {}, True),
        ("plan", "repo:acme/platform:ref:refs/heads/main", {}, True),
        ("plan", "repo:acme/platform:ref:refs/heads/elsewhere", {}, False),
        ("plan", "repo:acme/etl:pull_request", {}, False),
    ],
)
def test_only_jobs_of_named_repositories_take_a_role_on(
    trusting: Platform, role: str, subject: str, others: dict[str, str | None], taken: bool
) -> None:
    repository = re.sub("@[0-9]+", "", subject.split(":")[1])
    told = {"aud": "sts.amazonaws.com", "repository": repository, **DEPLOYING, "sub": subject, **others}
    claims = {"iss": "https://token.actions.githubusercontent.com", **{k: v for k, v in told.items() if v}}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "RS256"}, claims)
    ]
    asked: dict[str, str] = {
        "RoleArn": f"{ROLE}_{role}".format(p="local_dataflow_automation"),
        "RoleSessionName": "job",
        "WebIdentityToken": ".".join([*parts, "signature"]),
    }
    try:
        trusting.aws("sts").assume_role_with_web_identity(**asked)
        code = ""
    except ClientError as error:
        code = error.response["Error"]["Code"]
    assert code == ("" if taken else "AccessDenied")


@pytest.fixture(scope="module")
def trusting(account: Account) -> Platform:
    """The platform, bootstrapped for two repositories by the command that operators use."""
    platform = account.platform
    named_repositories = ("--repository", "acme/platform", "--workflow-repository", "acme/etl")
    told = platform.invoke("bootstrap-account", *named_repositories).stdout
    assert "AWS_REGISTER_ROLE = arn:aws:iam::000000000000:role/local_dataflow_automation_register" in told
    again = platform.invoke("bootstrap-account", *named_repositories).stdout
    assert "unchanged" in again
    return platform


def test_what_is_not_signed_is_refused(account: Account) -> None:
    address = f"http://127.0.0.1:{account.platform.aws_port}/{BUCKET.format(e='local')}/terraform.tfstate"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address, timeout=10)
    assert refused.value.code == 403


def test_the_registry_wants_a_login_and_allows_what_its_role_may(account: Account) -> None:
    def ask(method: str, path: str, login: str) -> int:
        headers = {"Authorization": f"Basic {login}"} if login else {}
        address = f"http://127.0.0.1:{account.platform.aws_port}/v2/{path}"
        request = urllib.request.Request(address, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    answer = account.client("register", "ecr").get_authorization_token()["authorizationData"][0]
    login = answer["authorizationToken"]
    agents = account.platform.aws("ecr").describe_images(repositoryName="local_dataflow_automation_agent")[
        "imageDetails"
    ]

    assert ask("GET", "", "") == 401
    assert ask("GET", "", base64.b64encode(b"AWS:guessed").decode()) == 401
    assert ask("GET", "", login) == 200
    assert ask("POST", "local_sample_workflow/blobs/uploads/", login) == 202
    assert ask("POST", "local_dataflow_automation_agent/blobs/uploads/", login) == 403
    assert ask("POST", "other_sample_workflow/blobs/uploads/", login) == 403
    assert ask("HEAD", f"local_dataflow_automation_agent/manifests/{agents[0]['imageTags'][0]}", login) == 200


def test_a_task_does_not_start_on_a_key_that_its_execution_role_may_not_read(account: Account) -> None:
    ecs = account.platform.aws("ecs")
    other = account.platform.aws("secretsmanager").describe_secret(SecretId="other_dataflow_automation_prefect_key")[
        "ARN"
    ]
    (agent,) = ecs.describe_services(
        cluster="local_dataflow_automation_agent", services=["local_dataflow_automation_agent"]
    )["services"]
    definition = ecs.describe_task_definition(taskDefinition=agent["taskDefinition"])["taskDefinition"]
    (container,) = definition["containerDefinitions"]
    made = ecs.register_task_definition(
        family="local_dataflow_automation_workflow_permissions",
        executionRoleArn=f"{ROLE}_workflow_execution".format(p="local_dataflow_automation"),
        containerDefinitions=[
            {"name": "x", "image": container["image"], "secrets": [{"name": "KEY", "valueFrom": other}]}
        ],
    )["taskDefinition"]["taskDefinitionArn"]
    started = ecs.run_task(cluster="local_dataflow_automation_workflows", taskDefinition=made)["tasks"][0]["taskArn"]

    def reason() -> str:
        (task,) = ecs.describe_tasks(cluster="local_dataflow_automation_workflows", tasks=[started])["tasks"]
        return str(task.get("stoppedReason", "")) if task["lastStatus"] == "STOPPED" else ""

    assert "not authorized to perform: secretsmanager:GetSecretValue" in wait_for("the task stops", reason)
