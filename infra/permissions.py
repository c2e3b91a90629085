"""What each role of an environment may do: the platform's own need, resource by resource.

`documents` gives the IAM policies of `infra.roles.ROLES` and the permissions boundary; the policies of the roles that
run tasks are Terraform's (iam.tf). Names of another environment begin with another word, so a resource is known by its
name; where it has none of its own choosing (EC2) or where others may have taken a name alike (repositories), by its
tags. "*" stands only where AWS knows no resource:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from typing import Any

from environments.settings import Environment
from infra.roles import ROLES
from infra.state import LOCK_KEY, PLANS, STATE_KEY, bucket_name

Document = dict[str, Any]
OF_ROLES = {"deploy": ("plan", "network", "roles", "deploy"), "register": ("register",), "plan": ("plan",)}
"""Which policies each role has: deploy may what plan may. Several, since IAM limits the size of one."""
TASK_ROLES = ("agent_execution", "agent_task", "workflow_execution", "workflow_task", "flow_logs")
"""The roles that Terraform makes (iam.tf, flow_logs.tf)."""

EC2_CREATES = (
    "AllocateAddress AuthorizeSecurityGroupEgress AuthorizeSecurityGroupIngress CreateFlowLogs CreateInternetGateway "
    "CreateNatGateway CreateRouteTable CreateSecurityGroup CreateSubnet CreateVpc CreateVpcEndpoint"
)
EC2_CHANGES = (
    "AssociateRouteTable AttachInternetGateway AuthorizeSecurityGroupEgress AuthorizeSecurityGroupIngress "
    "CreateFlowLogs CreateNatGateway CreateRoute CreateRouteTable CreateSecurityGroup CreateSubnet CreateVpcEndpoint "
    "DeleteFlowLogs DeleteInternetGateway DeleteNatGateway DeleteRoute DeleteRouteTable DeleteSecurityGroup "
    "DeleteSubnet DeleteVpc DeleteVpcEndpoints DetachInternetGateway DisassociateAddress DisassociateRouteTable "
    "ModifySecurityGroupRules ModifySubnetAttribute ModifyVpcAttribute ModifyVpcEndpoint ReleaseAddress ReplaceRoute "
    "RevokeSecurityGroupEgress RevokeSecurityGroupIngress"
)
EC2_READS = (
    "DescribeAddresses DescribeAddressesAttribute DescribeAvailabilityZones DescribeFlowLogs DescribeInternetGateways "
    "DescribeNatGateways DescribeNetworkAcls DescribeNetworkInterfaces DescribePrefixLists DescribeRouteTables "
    "DescribeSecurityGroupRules DescribeSecurityGroups DescribeSubnets DescribeVpcEndpoints "
    "DescribeVpcs"
)
EC2_KINDS = (
    "elastic-ip internet-gateway natgateway route-table security-group security-group-rule subnet vpc vpc-endpoint "
    "vpc-flow-log"
)
PULL = "BatchCheckLayerAvailability BatchGetImage GetDownloadUrlForLayer"
PUSH = "BatchCheckLayerAvailability BatchGetImage CompleteLayerUpload InitiateLayerUpload PutImage UploadLayerPart"
"""https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html"""
TAG = "TagResource UntagResource"


def documents(environment: Environment) -> dict[str, Document]:
    """The IAM policies of an environment, by name: those in `OF_ROLES`, and the permissions boundary `boundary`."""
    return {
        "deploy": _document([*_containers(environment), *_rest(environment)]),
        "roles": _document(_roles(environment)),
        "network": _document(_network(environment)),
        "register": _document(_register(environment)),
        "plan": _document(_reads(environment)),
        "boundary": _document(_boundary(environment)),
    }


def policy_arn(environment: Environment, name: str) -> str:
    """The ARN of one of the environment's policies, by its name in `documents`."""
    return f"arn:aws:iam::{environment.aws_account_id}:policy/{environment.prefix}_{name}"


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(sid: str, service: str, actions: str, *resources: str, **conditions: Any) -> Document:
    """A statement; `actions` are words, conditions by their operator."""
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": [f"{service}:{action}" for action in actions.split()],
        "Resource": list(resources),
        **({"Condition": conditions} if conditions else {}),
    }


class _Names:
    """ARNs of what belongs to an environment."""

    def __init__(self, environment: Environment) -> None:
        prefix, account = environment.prefix, environment.aws_account_id
        place = f"{environment.aws_region}:{account}"
        self.bucket = f"arn:aws:s3:::{bucket_name(environment)}"
        self.state = f"{self.bucket}/{STATE_KEY}"
        self.lock = f"{self.bucket}/{LOCK_KEY}"
        self.plans = f"{self.bucket}/{PLANS}*"
        self.network = tuple(f"arn:aws:ec2:{place}:{kind}/*" for kind in EC2_KINDS.split())
        self.vpcs = f"arn:aws:ec2:{place}:vpc/*"
        self.clusters = f"arn:aws:ecs:{place}:cluster/{prefix}_*"
        self.services = f"arn:aws:ecs:{place}:service/{prefix}_agent/*"
        self.definitions = f"arn:aws:ecs:{place}:task-definition/{prefix}_*"
        self.tasks = f"arn:aws:ecs:{place}:task/{prefix}_*"
        self.logs = f"arn:aws:logs:{place}:log-group:{prefix}_*"
        self.agent_images = f"arn:aws:ecr:{place}:repository/{prefix}_agent"
        self.images = f"arn:aws:ecr:{place}:repository/{environment.name}_*"
        self.every_repository = f"arn:aws:ecr:{place}:repository/*"
        self.roles = tuple(f"arn:aws:iam::{account}:role/{prefix}_{role}" for role in TASK_ROLES)
        self.rules = f"arn:aws:events:{place}:rule/{prefix}_*"
        self.queues = f"arn:aws:sqs:{place}:{prefix}_*"
        self.alarms = f"arn:aws:cloudwatch:{place}:alarm:{prefix}_*"
        self.every_alarm = f"arn:aws:cloudwatch:{place}:alarm:*"
        self.vpc = (f"arn:aws:ec2:{place}:vpc/{environment.vpc_id}",) if environment.vpc_id else ()
        self.key = environment.kms_key_arn or f"arn:aws:kms:{place}:key/*"
        # For conditions on what is encrypted: the key may be one of earlier settings, and of another account.
        self.any_key = f"arn:aws:kms:{environment.aws_region}:*:key/*"
        self.secret = f"arn:aws:secretsmanager:{place}:secret:{prefix}_prefect_key*"


def _reads(environment: Environment) -> list[Document]:
    """What a plan needs: all that Terraform compares with the settings, no secret's value, and a place to keep it."""
    name = _Names(environment)
    roles = "GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies"
    key = {"StringEquals": _of_the_key(environment)} if _of_the_key(environment) else {}
    repository = "DescribeRepositories GetLifecyclePolicy ListTagsForResource"
    return [
        _allow("FindState", "s3", "GetBucketVersioning ListBucket", name.bucket),
        _allow("ReadState", "s3", "GetObject", name.state),
        _allow("KeepPlans", "s3", "PutObject", name.plans),
        _allow("ReadNetwork", "ec2", EC2_READS, "*"),
        _allow("ReadVpcs", "ec2", "DescribeVpcAttribute", name.vpcs),
        _allow("ReadClusters", "ecs", "DescribeClusters ListTagsForResource", name.clusters),
        _allow("ReadServices", "ecs", "DescribeServices ListTagsForResource", name.services),
        _allow("ReadTaskDefinitions", "ecs", "DescribeTaskDefinition", "*"),
        _allow("ReadTags", "ecs", "ListTagsForResource", name.definitions),
        _allow("FindLogs", "logs", "DescribeLogGroups", "*"),
        _allow("ReadLogGroups", "logs", "DescribeMetricFilters ListTagsForResource", name.logs),
        _allow("ReadRepository", "ecr", repository, name.agent_images),
        _allow("ReadRoles", "iam", roles, *name.roles),
        _allow("ReadRules", "events", "DescribeRule ListTagsForResource ListTargetsByRule", name.rules),
        _allow("ReadQueues", "sqs", "GetQueueAttributes ListQueueTags", name.queues),
        _allow("FindAlarms", "cloudwatch", "DescribeAlarms", name.every_alarm),
        _allow("ReadAlarms", "cloudwatch", "ListTagsForResource", name.alarms),
        _allow("ReadSecret", "secretsmanager", "DescribeSecret GetResourcePolicy", name.secret),
        _allow("FindKey", "kms", "ListAliases", "*"),
        _allow("ReadKey", "kms", "DescribeKey", name.key, **key),
    ]


def _of_the_key(environment: Environment) -> dict[str, str]:
    """The condition by which the environment's own key is known; a key of the settings is known by its ARN."""
    return {} if environment.kms_key_arn else {"aws:ResourceTag/environment": environment.name}


def _grants(environment: Environment) -> list[Document]:
    """What ECR requires to create repositories with the key of the settings, and to delete those of any key.

    A repository keeps the key that it was created with, whatever the settings say later; without one it has a key that
    AWS manages, and whose grants are retired in the name of the caller as well.
    https://docs.aws.amazon.com/AmazonECR/latest/userguide/encryption-at-rest.html
    """
    by_ecr = {"kms:ViaService": f"ecr.{environment.aws_region}.amazonaws.com"}
    retiring = _allow("RetireGrants", "kms", "RetireGrant", _Names(environment).any_key, StringEquals=by_ecr)
    if not environment.kms_key_arn:
        return [retiring]
    return [
        retiring,
        _allow("GrantKey", "kms", "CreateGrant", environment.kms_key_arn, StringEquals=by_ecr),
        _allow("ReadKeyOfImages", "kms", "DescribeKey", environment.kms_key_arn),
    ]


def _network(environment: Environment) -> list[Document]:
    network, vpc = _Names(environment).network, _Names(environment).vpc
    ours = {"aws:ResourceTag/environment": environment.name}
    made_ours = {"aws:RequestTag/environment": environment.name}
    making = {**made_ours, "ec2:CreateAction": EC2_CREATES.split()}
    # AWS makes the zone in which an endpoint has the service's own name; nobody knows its id before.
    zones, endpoints = "arn:aws:route53:::hostedzone/*", environment.network == "private_endpoints"
    not_its_name = {"ForAllValues:StringNotEquals": {"aws:TagKeys": ["environment"]}}
    return [
        _allow("MakeNetwork", "ec2", EC2_CREATES, *network, StringEquals=made_ours),
        _allow("TagWhatIsMade", "ec2", "CreateTags", *network, StringEquals=making),
        _allow("ChangeNetwork", "ec2", EC2_CHANGES, *network, StringEquals=ours),
        # What is ours can be tagged, but not handed to another environment.
        _allow("TagNetwork", "ec2", "CreateTags", *network, StringEquals=ours, StringEqualsIfExists=made_ours),
        _allow("UntagNetwork", "ec2", "DeleteTags", *network, StringEquals=ours, **not_its_name),
        *([_allow("UseExistingVpc", "ec2", "CreateSecurityGroup", *vpc)] if vpc else []),
        *([_allow("NameEndpoints", "route53", "AssociateVPCWithHostedZone", zones)] if endpoints else []),
    ]


def _containers(environment: Environment) -> list[Document]:
    name = _Names(environment)
    clusters = f"CreateCluster DeleteCluster PutClusterCapacityProviders UpdateCluster UpdateClusterSettings {TAG}"
    # A lifecycle policy is what earlier releases of this platform made: it is only removed.
    settings = "DeleteLifecyclePolicy PutImageScanningConfiguration PutImageTagMutability"
    changes = "BatchDeleteImage CreateRepository DeleteRepository"
    of_register = {"aws:ResourceTag/environment": environment.name, "aws:ResourceTag/managed_by": "register"}
    return [
        _allow("Clusters", "ecs", clusters, name.clusters),
        _allow("Agent", "ecs", f"CreateService DeleteService UpdateService {TAG}", name.services),
        _allow("TaskDefinitions", "ecs", f"RegisterTaskDefinition {TAG}", name.definitions),
        _allow("OldTaskDefinitions", "ecs", "DeregisterTaskDefinition ListTaskDefinitions", "*"),
        _allow("Tasks", "ecs", "DescribeTasks StopTask", name.tasks),
        # AWS evaluates it on "*" unless the request names a container instance, and Fargate has none.
        _allow("FindTasks", "ecs", "ListTasks", "*", ArnLike={"ecs:cluster": name.clusters}),
        _allow("Login", "ecr", "GetAuthorizationToken", "*"),
        # Also pull: an image that was pushed without its SBOM gets one from another machine.
        _allow("Images", "ecr", f"{changes} GetDownloadUrlForLayer {settings} {PUSH} {TAG}", name.agent_images),
        _allow("FindRepositories", "ecr", "DescribeRepositories ListTagsForResource", name.every_repository),
        # Without a condition: a repository that is gone has no tags.
        _allow("FindImages", "ecr", "DescribeImageScanFindings DescribeImages", name.images),
        _allow("RemoveRepositories", "ecr", "DeleteRepository", name.images, StringEquals=of_register),
    ]


def _roles(environment: Environment) -> list[Document]:
    """The roles of tasks, always within the boundary: no role can be made that may do more than it says."""
    name = _Names(environment)
    changes = (
        "DeleteRole DeleteRolePolicy DetachRolePolicy ListInstanceProfilesForRole TagRole UntagRole "
        "UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription"
    )
    bounded = {"iam:PermissionsBoundary": policy_arn(environment, "boundary")}
    policies = list(environment.workflow_policy_arns)
    chosen = {**bounded, "iam:PolicyARN": policies}
    to_ecs = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    to_flow_logs = {"iam:PassedToService": "vpc-flow-logs.amazonaws.com"}
    return [
        _allow(
            "MakeRoles", "iam", "CreateRole PutRolePermissionsBoundary PutRolePolicy", *name.roles, ArnEquals=bounded
        ),
        _allow("ChangeRoles", "iam", changes, *name.roles),
        _allow("PassAgentsRoles", "iam", "PassRole", *name.roles[:2], StringEquals=to_ecs),
        _allow("PassFlowLogsRole", "iam", "PassRole", name.roles[4], StringEquals=to_flow_logs),
        *(
            [_allow("AttachChosenPolicies", "iam", "AttachRolePolicy", name.roles[3], ArnEquals=chosen)]
            if policies
            else []
        ),
    ]


def _rest(environment: Environment) -> list[Document]:
    name = _Names(environment)
    logs = (
        "AssociateKmsKey CreateLogGroup DeleteLogGroup DeleteMetricFilter DescribeLogStreams FilterLogEvents "
        f"GetLogEvents PutMetricFilter PutRetentionPolicy {TAG}"
    )
    alarms = "DeleteAlarms DisableAlarmActions EnableAlarmActions PutMetricAlarm"
    queues = "CreateQueue DeleteQueue GetQueueUrl SetQueueAttributes TagQueue UntagQueue"
    by_secrets = {"kms:ViaService": f"secretsmanager.{environment.aws_region}.amazonaws.com"}
    # Secrets Manager names no secret yet when it tries a key: https://github.com/cdklabs/aws-delivlib grants the same.
    of_ours = {"kms:EncryptionContext:SecretARN": [name.secret, "RequestToValidateKeyAccess"]}
    secret = f"CreateSecret DeleteSecret GetSecretValue ListSecretVersionIds PutSecretValue UpdateSecret {TAG}"
    return [
        _allow("WriteState", "s3", "PutObject", name.state),
        _allow("LockState", "s3", "DeleteObject GetObject PutObject", name.lock),
        _allow("FetchPlans", "s3", "GetObject", name.plans),
        _allow("Logs", "logs", logs, name.logs),
        _allow("Rules", "events", f"DeleteRule PutRule PutTargets RemoveTargets {TAG}", name.rules),
        _allow("Alarms", "cloudwatch", f"{alarms} {TAG}", name.alarms),
        _allow("Queues", "sqs", queues, name.queues),
        _allow("Secret", "secretsmanager", secret, name.secret),
        # Encrypt: what a secret holds is encrypted again when its key changes.
        _allow(
            "EncryptSecret",
            "kms",
            "Encrypt GenerateDataKey",
            name.key,
            StringEquals={**by_secrets, **_of_the_key(environment)},
        ),
        # With any key, since one that the settings no longer name has encrypted what is there.
        _allow("DecryptSecret", "kms", "Decrypt", name.any_key, StringEquals=by_secrets, StringLike=of_ours),
        *_grants(environment),
    ]


def _register(environment: Environment) -> list[Document]:
    """Images of workflows, in repositories that register made and tagged itself; never the agent's."""
    name = _Names(environment)
    tags = {"environment": environment.name, "managed_by": "register"}
    made_ours = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    ours = {f"aws:ResourceTag/{key}": value for key, value in tags.items()}
    untagged = {"aws:ResourceTag/managed_by": "true"}
    lifecycle = "DeleteLifecyclePolicy GetLifecyclePolicy"
    images = f"BatchDeleteImage DeleteRepository GetDownloadUrlForLayer {lifecycle} {PUSH}"
    return [
        _allow("Login", "ecr", "GetAuthorizationToken", "*"),
        _allow("BuildOnTheAgentsImage", "ecr", PULL, name.agent_images),
        _allow("MakeRepositories", "ecr", "CreateRepository", name.images, StringEquals=made_ours),
        # Only what belongs to nobody yet, as at its creation: no other's repository becomes ours.
        _allow("TagWhatIsMade", "ecr", "TagResource", name.images, StringEquals=made_ours, Null=untagged),
        # Asked before there is a repository, and so before it has tags.
        _allow("FindImages", "ecr", "DescribeImages DescribeRepositories", name.images),
        _allow("Images", "ecr", images, name.images, StringEquals=ours),
        *_grants(environment),
    ]


def _boundary(environment: Environment) -> list[Document]:
    """What no task of the environment can do, whatever policies somebody gives its role."""
    other = {"StringNotEquals": {"aws:ResourceTag/environment": environment.name}}
    of_project = {"aws:ResourceTag/project": environment.tags["project"]}
    keys = "arn:aws:secretsmanager:*:*:secret:*_dataflow_automation_prefect_key*"
    starters = _Names(environment).roles[0:3:2]
    roles = [f"arn:aws:iam::*:role/*_dataflow_automation_{role}" for role in ROLES]
    return [
        {
            "Sid": "WhatPoliciesMayAllow",
            "Effect": "Allow",
            "NotAction": ["account:*", "iam:*", "organizations:*"],
            "Resource": "*",
        },
        _allow("RolesOfWorkflows", "iam", "PassRole", *_Names(environment).roles[2:4]),
        _deny("StateIsNotForTasks", "s3:*", "arn:aws:s3:::*-dataflow-automation-state-*"),
        # Those that trust the account (trust.py) would take a task in.
        _deny("RolesOfPeopleAndPipelines", "sts:AssumeRole", *roles),
        _deny("KeysOfOtherEnvironments", "secretsmanager:*", keys, **other),
        # ECS reads them to start a task; the code in it may read neither its own nor the agent's.
        _deny("KeysAreNotForTasks", "secretsmanager:*", keys, ArnNotLike={"aws:PrincipalArn": list(starters)}),
        _deny("WhateverElseIsOfOtherEnvironments", "*", "*", StringEquals=of_project, **other),
    ]


def _deny(sid: str, action: str, *resources: str, **conditions: dict[str, Any]) -> Document:
    condition = {"Condition": conditions} if conditions else {}
    return {"Sid": sid, "Effect": "Deny", "Action": action, "Resource": list(resources), **condition}
