"""Which permissions a request to AWS needs: actions, resources and conditions, as AWS itself asks for them.

`needed` says so for what is used here of CloudWatch and its Logs, EC2, ECR, ECS, EventBridge, IAM, Secrets Manager
and SQS, after https://docs.aws.amazon.com/service-authorization/latest/reference/; the emulated AWS asks for what it
says. One request can need several: one on each resource it is about, iam:PassRole where a role is handed over, and the
tagging action where something is made with tags.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller asks of a service: operation, parameters, and whose region and account (`eu-west-1:0123...`)."""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    place: str
    access_key: str = ""

    def text(self, name: str) -> str:
        """A parameter as text, empty when it was not given."""
        value = self.parameters.get(name) or ""
        return str(value[0]) if isinstance(value, list) and value else str(value or "")

    def texts(self, name: str) -> list[str]:
        """A parameter as a list of texts; callers can send anything."""
        value = self.parameters.get(name) or []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]


@dataclasses.dataclass(frozen=True)
class Permission:
    """One action on one resource, with the condition keys that hold for it."""

    action: str
    resource: str = "*"
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    """Other resources; it is enough that the action is allowed on one of all these."""


def needed(request: Request, guessed: str) -> list[Permission]:
    """The permissions that a request needs.

    Args:
        request: what is asked for.
        guessed: the resource that the emulator takes it to be about; right where nothing else is said here.
    """
    special = SPECIAL.get(request.service)
    action = f"{request.service}:{request.operation}"
    if special:
        found = list(special(request, guessed))
        # Always the action itself, also where nothing is known of what it is about.
        return found if any(one.action == action for one in found) else [Permission(action, guessed), *found]
    if action == "sqs:CreateQueue" and (request.parameters.get("Tags") or request.parameters.get("tags")):
        return [Permission(action, guessed), Permission("sqs:TagQueue", guessed)]
    return [Permission(action, guessed)]


def _ecs(request: Request, _: str) -> Iterator[Permission]:
    data, operation, action = request.parameters, request.operation, f"ecs:{request.operation}"
    cluster = _last(request.text("cluster") or request.text("clusterName") or "default")
    inside = {"ecs:cluster": f"arn:aws:ecs:{request.place}:cluster/{cluster}"}

    def arn(kind: str, name: str) -> str:
        return f"arn:aws:ecs:{request.place}:{kind}/{name}"

    if operation in ("TagResource", "UntagResource", "ListTagsForResource"):
        yield Permission(action, request.text("resourceArn"))
    elif operation == "DescribeClusters":
        yield from (
            Permission(action, arn("cluster", _last(name))) for name in request.texts("clusters") or ["default"]
        )
    elif "Cluster" in operation and operation != "ListClusters":
        yield Permission(action, arn("cluster", cluster))
    elif operation in ("RegisterTaskDefinition", "RunTask"):
        family = request.text("family") or _last(request.text("taskDefinition"))
        definition = arn("task-definition", family if ":" in family else f"{family}:*")
        yield Permission(action, definition, inside if operation == "RunTask" else {})
        overrides = data.get("overrides")
        roles = {**data, **(overrides if isinstance(overrides, dict) else {})}
        for role in filter(None, (roles.get("executionRoleArn"), roles.get("taskRoleArn"))):
            yield Permission("iam:PassRole", str(role), {"iam:PassedToService": "ecs-tasks.amazonaws.com"})
        if data.get("tags"):
            created = arn("task", f"{cluster}/*") if operation == "RunTask" else arn("task-definition", f"{family}:*")
            yield Permission("ecs:TagResource", created, {"ecs:CreateAction": operation})
    elif operation in ("CreateService", "UpdateService", "DeleteService"):
        name = _last(request.text("serviceName") or request.text("service"))
        yield Permission(action, arn("service", f"{cluster}/{name}"), inside)
        if operation == "CreateService" and data.get("tags"):
            yield Permission("ecs:TagResource", arn("service", f"{cluster}/{name}"), {"ecs:CreateAction": operation})
    elif operation in ("DescribeServices", "DescribeTasks", "StopTask"):
        kind = "service" if operation == "DescribeServices" else "task"
        names = request.texts("services") or request.texts("tasks") or [request.text("task")]
        yield from (Permission(action, arn(kind, f"{cluster}/{_last(name)}"), inside) for name in names)
    elif operation == "ListTasks" and request.text("containerInstance"):
        instance = _last(request.text("containerInstance"))
        yield Permission(action, arn("container-instance", f"{cluster}/{instance}"), inside)
    elif operation == "DeleteTaskDefinitions":
        yield from (
            Permission(action, arn("task-definition", _last(name))) for name in request.texts("taskDefinitions")
        )
    elif "TaskDefinition" in operation or operation == "ListClusters":
        yield Permission(action)
    else:
        yield Permission(action, "*", inside)
    if operation == "CreateCluster" and data.get("tags"):
        yield Permission("ecs:TagResource", arn("cluster", cluster), {"ecs:CreateAction": operation})


def _logs(request: Request, _: str) -> Iterator[Permission]:
    operation, group = request.operation, request.text("logGroupName")
    arn = f"arn:aws:logs:{request.place}:log-group:{group}"
    if operation in ("TagResource", "UntagResource", "ListTagsForResource"):
        arn = request.text("resourceArn")
    elif operation == "DescribeLogGroups":
        arn = "*"
    elif operation in ("CreateLogStream", "PutLogEvents", "GetLogEvents"):
        arn += f":log-stream:{request.text('logStreamName')}"
    elif operation in ("FilterLogEvents", "DescribeLogStreams"):
        arn += ":log-stream:"
    yield Permission(f"logs:{operation}", arn)
    if operation == "CreateLogGroup" and request.parameters.get("tags"):
        yield Permission("logs:TagResource", arn)


def _events(request: Request, _: str) -> Iterator[Permission]:
    name = request.text("Name") or request.text("Rule") or request.text("RuleName")
    arn = request.text("ResourceARN") or (f"arn:aws:events:{request.place}:rule/{name}" if name else "*")
    yield Permission(f"events:{request.operation}", arn)
    if request.operation == "PutRule" and request.parameters.get("Tags"):
        yield Permission("events:TagResource", arn)


def _cloudwatch(request: Request, _: str) -> Iterator[Permission]:
    # Lists come as JSON, or as AlarmNames.member.1, .2 and so on.
    listed = [request.text(name) for name in sorted(request.parameters) if name.startswith("AlarmNames.member.")]
    names = request.texts("AlarmNames") or listed or [request.text("AlarmName") or "*"]
    arns = [f"arn:aws:cloudwatch:{request.place}:alarm:{name}" for name in names]
    for arn in [request.text("ResourceARN")] if "ResourceARN" in request.parameters else arns:
        yield Permission(f"cloudwatch:{request.operation}", arn)
    if request.operation == "PutMetricAlarm" and {"Tags", "Tags.member.1.Key"} & set(request.parameters):
        yield Permission("cloudwatch:TagResource", arns[0])


def _ecr(request: Request, _: str) -> Iterator[Permission]:
    from ministack.services import ecr

    names = request.texts("repositoryNames") or [_last(request.text("resourceArn"), ":repository/")]
    names = [request.text("repositoryName")] if request.text("repositoryName") else names
    if request.operation == "GetAuthorizationToken":
        yield Permission("ecr:GetAuthorizationToken")
        return
    by_ecr = {"kms:ViaService": f"ecr.{request.place.partition(':')[0]}.amazonaws.com"}
    for name in names:
        arn = f"arn:aws:ecr:{request.place}:repository/{name or '*'}"
        repository = ecr._repositories.get(name) or {}
        tags = tag_keys("Resource", repository.get("tags") or [])
        yield Permission(f"ecr:{request.operation}", arn, tags)
        if request.operation == "CreateRepository" and request.parameters.get("tags"):
            # The repository may exist: AWS decides before it looks, with the tags that the repository has.
            yield Permission("ecr:TagResource", arn, tags)
        # https://docs.aws.amazon.com/AmazonECR/latest/userguide/encryption-at-rest.html
        if request.operation == "CreateRepository" and (key := _key_of_repository(request.parameters)):
            yield from (Permission(f"kms:{operation}", key, by_ecr) for operation in ("CreateGrant", "DescribeKey"))
        if request.operation == "DeleteRepository" and repository:
            key = _key_of_repository(repository) or f"arn:aws:kms:{request.place}:key/of-aws-for-ecr"
            yield Permission("kms:RetireGrant", key, by_ecr)


def _key_of_repository(told: Mapping[str, Any]) -> str:
    """The KMS key that somebody chose for a repository."""
    configuration = told.get("encryptionConfiguration")
    return str(configuration.get("kmsKey") or "") if isinstance(configuration, dict) else ""


KNOW_THE_BOUNDARY = {
    *("AttachRolePolicy", "CreateRole", "DeleteRole", "DeleteRolePermissionsBoundary", "DeleteRolePolicy"),
    *("DetachRolePolicy", "GetRole", "PutRolePermissionsBoundary", "PutRolePolicy", "UpdateAssumeRolePolicy"),
    *("UpdateRole", "UpdateRoleDescription"),
}
"""Operations on roles for which IAM evaluates the permissions boundary of the role as a condition key."""


def _iam(request: Request, guessed: str) -> Iterator[Permission]:
    from ministack.services import iam

    # The boundary that a role will have counts, and else the one it has.
    role = {} if request.operation == "CreateRole" else iam._roles.get(request.text("RoleName")) or {}
    boundary = request.text("PermissionsBoundary") or role.get("PermissionsBoundary")
    attaching = request.operation in ("AttachRolePolicy", "DetachRolePolicy")
    context = {
        "iam:PermissionsBoundary": boundary if request.operation in KNOW_THE_BOUNDARY else None,
        "iam:PolicyARN": request.text("PolicyArn") if attaching else None,
    }
    yield Permission(f"iam:{request.operation}", guessed, {key: value for key, value in context.items() if value})
    if request.operation == "CreateRole" and request.text("Tags.member.1.Key"):
        yield Permission("iam:TagRole", guessed)


EC2_MAKES = {
    "AllocateAddress": "elastic-ip",
    "AuthorizeSecurityGroupEgress": "security-group-rule",
    "AuthorizeSecurityGroupIngress": "security-group-rule",
    "CreateFlowLogs": "vpc-flow-log",
    "CreateInternetGateway": "internet-gateway",
    "CreateNatGateway": "natgateway",
    "CreateRouteTable": "route-table",
    "CreateSecurityGroup": "security-group",
    "CreateSubnet": "subnet",
    "CreateVpc": "vpc",
    "CreateVpcEndpoint": "vpc-endpoint",
}
EC2_NAMES = {
    "AllocationId": "elastic-ip",
    "FlowLogId": "vpc-flow-log",
    "GroupId": "security-group",
    "InternetGatewayId": "internet-gateway",
    "NatGatewayId": "natgateway",
    "RouteTableId": "route-table",
    "SecurityGroupId": "security-group",
    "SubnetId": "subnet",
    "VpcEndpointId": "vpc-endpoint",
    "VpcId": "vpc",
}
"""Parameters of EC2 that name a resource, and its type in an ARN."""
EC2_IDS = {
    "eipalloc": "elastic-ip",
    "fl": "vpc-flow-log",
    "igw": "internet-gateway",
    "nat": "natgateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vpc": "vpc",
    "vpce": "vpc-endpoint",
}
"""How ids of EC2 begin, and the type of resource that they are of."""


def _ec2(request: Request, _: str) -> Iterator[Permission]:
    from ministack.services import ec2

    operation, action = request.operation, f"ec2:{request.operation}"
    if operation.startswith("Describe") and operation != "DescribeVpcAttribute":
        yield Permission(action)
        return

    def existing(kind: str, name: str) -> Permission:
        context = tag_keys("Resource", ec2._tags.get(name) or [])
        if operation in ("CreateTags", "DeleteTags"):
            context |= tag_keys("Request", _query_tags(request.parameters, "Tag"))
        return Permission(action, f"arn:aws:ec2:{request.place}:{kind}/{name}", context)

    named = {"RouteTableId": "route-table"} if operation.endswith("Route") else EC2_NAMES
    for name in sorted(request.parameters):
        if kind := named.get(re.sub(r"(\.member)?\.\d+$", "", name)):
            yield existing(kind, request.text(name))
        if re.fullmatch(r"ResourceId\.\d+", name):
            yield existing(EC2_IDS.get(request.text(name).partition("-")[0], "instance"), request.text(name))
    if operation == "DisassociateRouteTable":
        for table in ec2._route_tables.values():
            for link in table.get("Associations", []):
                if link.get("RouteTableAssociationId") == request.text("AssociationId"):
                    yield existing("route-table", table["RouteTableId"])
                    yield existing("subnet", link["SubnetId"])
    if operation == "DisassociateAddress":
        asked = request.text("AssociationId")
        held = [name for name, address in ec2._addresses.items() if address["AssociationId"] == asked]
        # An association that is gone leads to no address, and so to no tags.
        yield from (existing("elastic-ip", name) for name in held or ["*"])
    if made := EC2_MAKES.get(operation):
        tags = tag_keys("Request", _query_tags(request.parameters, "TagSpecification.1.Tag"))
        arn = f"arn:aws:ec2:{request.place}:{made}/*"
        yield Permission(action, arn, tags)
        if tags:
            yield Permission("ec2:CreateTags", arn, {**tags, "ec2:CreateAction": operation})
    if request.text("PrivateDnsEnabled") == "true":
        yield Permission("route53:AssociateVPCWithHostedZone", "arn:aws:route53:::hostedzone/*")
    if role := request.text("DeliverLogsPermissionArn"):
        yield Permission("iam:PassRole", role, {"iam:PassedToService": "vpc-flow-logs.amazonaws.com"})


def _kms(request: Request, guessed: str) -> Iterator[Permission]:
    from ministack.services import kms

    # A key is meant, by whatever name it is called.
    arn = f"arn:aws:kms:{request.place}:key/{kms._aliases.get(guessed, '')}" if ":alias/" in guessed else guessed
    aliases = [_last(name, ":") for name, key in kms._aliases.items() if _last(str(key)) == _last(arn)]
    yield Permission(f"kms:{request.operation}", arn, {"kms:ResourceAliases": aliases} if aliases else {})


def _secretsmanager(request: Request, guessed: str) -> Iterator[Permission]:
    """Also the permissions for the secret's KMS key: Secrets Manager uses it on behalf of the caller.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    """
    from ministack.services import secretsmanager

    secret = secretsmanager._resolve(request.text("SecretId"))[1] or {}
    arn, operation = secret.get("ARN") or guessed, request.operation
    yield Permission(f"secretsmanager:{operation}", arn)
    if operation == "CreateSecret" and request.parameters.get("Tags"):
        yield Permission("secretsmanager:TagResource", arn)
    if operation == "GetSecretValue":
        yield from decrypting(request.parameters)
    chosen = request.text("KmsKeyId")
    key = chosen or str(secret.get("KmsKeyId") or "")
    uses: list[tuple[str, str]] = []
    if chosen and operation in ("CreateSecret", "UpdateSecret"):
        # Secrets Manager tries the key before there is a secret that it could name.
        uses += [("GenerateDataKey", VALIDATION), ("Decrypt", VALIDATION)]
    if request.text("SecretString") or request.text("SecretBinary"):
        uses.append(("GenerateDataKey", arn))
    resource = key if key.startswith("arn:") else f"arn:aws:kms:{request.place}:key/{key}"
    for use, named in uses if key else []:  # the key that AWS manages takes no permission
        yield Permission(f"kms:{use}", resource, secret_context(request.place, named))


VALIDATION = "RequestToValidateKeyAccess"
"""What Secrets Manager names in place of a secret when it tries a key."""
VERSION_KEYS = "KmsKeyIds"
"""The KMS keys of a secret's version, as ListSecretVersionIds returns them; emulated_secrets.py keeps them."""
AWS_MANAGED_KEY = "DefaultEncryptionKey"
"""What AWS calls its own key there."""


def version_asked_for(data: Mapping[str, Any]) -> dict[str, Any]:
    """The version of a secret that the emulator has and a GetSecretValue is about; empty when there is none."""
    from ministack.services import secretsmanager

    _, secret = secretsmanager._resolve(data.get("SecretId"))
    if not secret:
        return {}
    if name := data.get("VersionId"):
        return dict(secret["Versions"].get(name) or {})
    return dict(secretsmanager._find_stage_version(secret, data.get("VersionStage", "AWSCURRENT"))[1] or {})


def decrypting(data: Mapping[str, Any]) -> Iterator[Permission]:
    """The use of a KMS key that it takes to read a value of a secret; keys of AWS itself need none."""
    from ministack.services import secretsmanager

    keys = version_asked_for(data).get(VERSION_KEYS, [])
    if keys and AWS_MANAGED_KEY not in keys:
        arn = secretsmanager._resolve(data.get("SecretId"))[1]["ARN"]
        yield Permission(
            "kms:Decrypt", keys[0], secret_context(arn.partition(":secretsmanager:")[2], arn), tuple(keys[1:])
        )


def secret_context(place: str, named: str) -> dict[str, str]:
    """The condition keys of a call to KMS that Secrets Manager makes.

    Args:
        place: region, and whatever follows it after a colon.
        named: what the call names as the secret: its ARN, or `VALIDATION`.
    """
    service = f"secretsmanager.{place.partition(':')[0]}.amazonaws.com"
    return {"kms:ViaService": service, "kms:EncryptionContext:SecretARN": named}


def _query_tags(parameters: Mapping[str, Any], prefix: str) -> list[dict[str, str]]:
    """The tags in a request of the query protocol: <prefix>.1.Key, <prefix>.1.Value and so on."""
    flat = {
        name: str(value[0]) if isinstance(value, list) and value else str(value) for name, value in parameters.items()
    }
    keys = [name for name in flat if re.fullmatch(rf"{re.escape(prefix)}\.\d+\.Key", name)]
    return [{"Key": flat[name], "Value": flat.get(name.removesuffix("Key") + "Value", "")} for name in keys]


def tag_keys(kind: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    """Tags as condition keys: aws:ResourceTag/... or aws:RequestTag/..."""
    return {f"aws:{kind}Tag/{tag['Key']}": tag.get("Value", "") for tag in tags}


def _last(name: str, separator: str = "/") -> str:
    """A name that may be given as an ARN or path."""
    return name.rpartition(separator)[2]


SPECIAL = {
    "cloudwatch": _cloudwatch,
    "ec2": _ec2,
    "ecr": _ecr,
    "ecs": _ecs,
    "events": _events,
    "iam": _iam,
    "kms": _kms,
    "logs": _logs,
    "secretsmanager": _secretsmanager,
}
"""The services for which the emulator's guess is not enough."""
