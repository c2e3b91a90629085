"""What the emulated ECS answers about task definitions and tasks: the fields that AWS returns, no more and no fewer.

AWS fills in defaults that the request left out (`cpu: 0`, empty lists, `enableFaultInjection: false`), describes a task
by its effective size, and omits what it has no value for. Sources:

- https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html and API_Task.html there;
- definitions registered with and read back from AWS: https://github.com/getmoto/moto/pull/3584 (a minimal one) and
  https://github.com/hashicorp/terraform-provider-aws/issues/21861;
- the defaults that Terraform's provider expects back: `reduce` in its internal/service/ecs/container_definitions.go.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

CONTAINER_DEFAULTS: dict[str, Any] = {
    "cpu": 0,
    "portMappings": [],
    "essential": True,
    "environment": [],
    "mountPoints": [],
    "volumesFrom": [],
    "systemControls": [],
}
HEALTH_CHECK_DEFAULTS = {"interval": 30, "timeout": 5, "retries": 3}
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html"""
FARGATE_COMPATIBILITIES = ["EC2", "FARGATE", "MANAGED_INSTANCES"]
EPHEMERAL_STORAGE_GIB = 20
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html"""
DESCRIBED_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""
UNKNOWN_DEFINITION = "Unable to describe task definition."
"""https://github.com/hashicorp/terraform/pull/12609"""
REMEMBERED_SECONDS = 3600
CAPABILITY = "com.amazonaws.ecs.capability"


def answer_as_aws(ecs: Any) -> None:
    """Replace the emulator's answers about task definitions and tasks.

    Args:
        ecs: the emulator's ECS module.
    """
    describe_active_revisions(ecs)
    for action in ("RegisterTaskDefinition", "DescribeTaskDefinition", "DeregisterTaskDefinition"):
        ecs._ACTION_MAP[action] = _with_full_definition(ecs, action, ecs._ACTION_MAP[action])
    describe_tasks_in_full(ecs)
    list_tasks_by_desired_status(ecs)
    forget_stopped_tasks(ecs)


def describe_active_revisions(ecs: Any) -> None:
    """Resolve a family without a revision to its newest ACTIVE revision; the emulator takes the newest of all.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTaskDefinition.html
    """
    resolve = ecs._resolve_td_key

    def resolve_active(reference: str) -> Any:
        key = resolve(reference)
        if not key or ":" in reference.rpartition("/")[2]:
            return key
        family = key.partition(":")[0]
        revisions = [
            definition["revision"]
            for definition in list(ecs._task_defs.values())
            if definition["family"] == family and definition["status"] == "ACTIVE"
        ]
        return f"{family}:{max(revisions)}" if revisions else family

    ecs._resolve_td_key = resolve_active


def _with_full_definition(ecs: Any, action: str, handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def handle_in_full(data: dict[str, Any]) -> Any:
        status, headers, body = handle(data)
        answer = json.loads(body)
        if status != 200 and answer["message"].startswith(UNKNOWN_DEFINITION[:-1]):
            # The emulator adds which one.
            return ecs.error_response_json(answer["__type"], UNKNOWN_DEFINITION, status)
        if status != 200:
            return status, headers, body
        definition = answer["taskDefinition"]
        if "enableFaultInjection" in data:
            key = f"{definition['family']}:{definition['revision']}"
            ecs._task_defs[key]["enableFaultInjection"] = definition["enableFaultInjection"] = bool(
                data["enableFaultInjection"]
            )
        answer["taskDefinition"] = full_definition(definition)
        if action == "DescribeTaskDefinition" and "TAGS" not in data.get("include", []):
            answer["tags"] = []
        return ecs.json_response(answer)

    return handle_in_full


def full_definition(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A task definition as AWS returns it.

    Args:
        stored: the definition as the emulator keeps it: as it was registered, with nulls and empty texts added.
    """
    definition = {name: copy.deepcopy(value) for name, value in stored.items() if value not in (None, "")}
    awsvpc = definition.get("networkMode") == "awsvpc"
    definition["containerDefinitions"] = [_container(one, awsvpc) for one in definition["containerDefinitions"]]
    definition["volumes"] = [
        {**volume, "host": {}} if set(volume) == {"name"} else volume for volume in definition.get("volumes", [])
    ]
    definition.setdefault("placementConstraints", [])
    definition.setdefault("enableFaultInjection", False)
    definition["requiresAttributes"] = [{"name": name} for name in _required_attributes(definition)]
    if "FARGATE" in definition.get("compatibilities", []):
        definition["compatibilities"] = FARGATE_COMPATIBILITIES
    return definition


def _container(registered: Mapping[str, Any], awsvpc: bool) -> dict[str, Any]:
    container = {**copy.deepcopy(CONTAINER_DEFAULTS), **registered}
    container["portMappings"] = [
        {"protocol": "tcp", **({"hostPort": port["containerPort"]} if awsvpc else {}), **port}
        for port in container["portMappings"]
    ]
    if container.get("healthCheck"):
        container["healthCheck"] = {**HEALTH_CHECK_DEFAULTS, **container["healthCheck"]}
    return container


def _required_attributes(definition: Mapping[str, Any]) -> list[str]:
    """What a container instance would need to run this definition.

    Source of the names: agent/app/agent_capability.go of https://github.com/aws/amazon-ecs-agent.
    """
    containers = definition["containerDefinitions"]
    execution_role = bool(definition.get("executionRoleArn"))
    awslogs = any((one.get("logConfiguration") or {}).get("logDriver") == "awslogs" for one in containers)
    ecr = any(".dkr.ecr." in one["image"] for one in containers)
    needed = {
        f"{CAPABILITY}.logging-driver.awslogs": awslogs,
        "ecs.capability.execution-role-awslogs": awslogs and execution_role,
        f"{CAPABILITY}.ecr-auth": ecr,
        "ecs.capability.execution-role-ecr-pull": ecr and execution_role,
        f"{CAPABILITY}.docker-remote-api.1.19": awslogs,
        f"{CAPABILITY}.docker-remote-api.1.18": True,
        f"{CAPABILITY}.task-iam-role": bool(definition.get("taskRoleArn")),
        "ecs.capability.task-eni": definition.get("networkMode") == "awsvpc",
        "ecs.capability.container-health-check": any(one.get("healthCheck") for one in containers),
        "ecs.capability.secrets.asm.environment-variables": any(one.get("secrets") for one in containers),
    }
    return [name for name, applies in needed.items() if applies]


def describe_tasks_in_full(ecs: Any) -> None:
    """Describe tasks as AWS does, in answers and events alike; DescribeTasks takes up to 100, tags are asked for."""
    sanitize, describe = ecs._sanitize, ecs._ACTION_MAP["DescribeTasks"]

    def sanitize_in_full(value: Any) -> Any:
        clean = sanitize(value)
        is_task = isinstance(clean, dict) and "taskArn" in clean and "clusterArn" in clean
        if not is_task:
            return clean
        subnet = value.get("_subnet") if value.get("_network_mode") == "awsvpc" else None
        return full_task({**clean, **being_stopped(value)}, subnet)

    def describe_some(data: dict[str, Any]) -> Any:
        asked = data.get("tasks") or []
        if not asked or len(asked) > DESCRIBED_AT_ONCE:
            words = "Tasks cannot be empty." if not asked else f"Tasks cannot be more than {DESCRIBED_AT_ONCE}."
            return ecs.error_response_json("InvalidParameterException", words, 400)
        status, headers, body = describe(data)
        answer = json.loads(body)
        if status == 200 and "TAGS" not in data.get("include", []):
            for task in answer["tasks"]:
                task["tags"] = []
            return ecs.json_response(answer)
        return status, headers, body

    ecs._sanitize = sanitize_in_full
    ecs._ACTION_MAP["DescribeTasks"] = describe_some


def being_stopped(task: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that StopTask sets at once, while the containers of the task still run; none without a StopTask.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html

    Args:
        task: the task as the emulator keeps it; `_stopping` holds reason, stop code and time of the first StopTask.
    """
    if not task.get("_stopping"):
        return {}
    reason, code, moment = task["_stopping"]
    return {"desiredStatus": "STOPPED", "stoppedReason": reason, "stopCode": code, "stoppingAt": moment}


def list_tasks_by_desired_status(ecs: Any) -> None:
    """Let ListTasks list a task that is being stopped among the stopped ones, as its desired status is STOPPED.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html, `desiredStatus`
    """
    handle = ecs._ACTION_MAP["ListTasks"]

    def all_of(data: Mapping[str, Any], status: str) -> list[str]:
        everything = {**data, "desiredStatus": status, "maxResults": len(ecs._tasks) + 1, "nextToken": None}
        arns: list[str] = json.loads(handle(everything)[2])["taskArns"]
        return [arn for arn in arns if (task := ecs._tasks.get(arn)) and not _forgotten(task)]

    def list_tasks(data: dict[str, Any]) -> Any:
        running = all_of(data, "RUNNING")
        stopping = [arn for arn in running if ecs._tasks[arn].get("_stopping")]
        stopped = data.get("desiredStatus", "RUNNING") == "STOPPED"
        arns = all_of(data, "STOPPED") + stopping if stopped else [arn for arn in running if arn not in stopping]
        begin, size = (
            int(data.get("nextToken") or 0),
            min(data.get("maxResults") or DESCRIBED_AT_ONCE, DESCRIBED_AT_ONCE),
        )
        more = {"nextToken": str(begin + size)} if begin + size < len(arns) else {}
        return ecs.json_response({"taskArns": arns[begin : begin + size], **more})

    ecs._ACTION_MAP["ListTasks"] = list_tasks


def forget_stopped_tasks(ecs: Any) -> None:
    """Let ECS not know a task any more that stopped an hour ago.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-errors.html
    """
    resolve = ecs._resolve_task

    def resolve_remembered(reference: str, *cluster: str) -> Any:
        task = resolve(reference, *cluster)
        return None if task and _forgotten(task) else task

    ecs._resolve_task = resolve_remembered


def _forgotten(task: Mapping[str, Any]) -> bool:
    if not task.get("stoppedAt"):
        return False
    stopped = datetime.fromisoformat(task["stoppedAt"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - stopped).total_seconds() > REMEMBERED_SECONDS


def full_task(task: Mapping[str, Any], subnet: str | None) -> dict[str, Any]:
    """A task as AWS describes it.

    Args:
        task: the task as the emulator describes it.
        subnet: id of the subnet of its network interface, if it has one of its own.
    """
    full = {name: value for name, value in task.items() if value != ""}
    fargate = full.get("launchType") == "FARGATE"
    family = full["taskDefinitionArn"].rpartition("/")[2].partition(":")[0]
    full.setdefault("group", f"family:{family}")
    full["attributes"] = [{"name": "ecs.cpu-architecture", "value": "x86_64"}]
    if fargate:
        full.pop("containerInstanceArn", None)
        storage = full.setdefault("ephemeralStorage", {"sizeInGiB": EPHEMERAL_STORAGE_GIB})
        full["fargateEphemeralStorage"] = storage
    overrides = dict(full.get("overrides") or {})
    by_name = {one["name"]: one for one in overrides.get("containerOverrides") or [] if "name" in one}
    names = [one["name"] for one in full.get("containers", [])]
    overrides["containerOverrides"] = [by_name.get(name, {"name": name}) for name in names]
    overrides.setdefault("inferenceAcceleratorOverrides", [])
    full["overrides"] = overrides
    full |= {name: overrides[name] for name in ("cpu", "memory") if overrides.get(name)}
    if subnet:
        full["attachments"] = [_attachment(full, subnet)]
    full["containers"] = [_described_container(one, by_name.get(one["name"], {}), full) for one in full["containers"]]
    return full


def _described_container(
    container: Mapping[str, Any], override: Mapping[str, Any], task: Mapping[str, Any]
) -> dict[str, Any]:
    """A container of a task; its size is the one that this task gives it."""
    described = dict(container)
    described |= {name: str(override[name]) for name in ("cpu", "memory", "memoryReservation") if name in override}
    if described.get("memory") == "0":
        del described["memory"]
    if "@sha256:" in described.get("image", ""):
        described["imageDigest"] = described["image"].partition("@")[2]
    described["healthStatus"] = task.get("healthStatus", "UNKNOWN")
    described["networkInterfaces"] = [_interface(attachment) for attachment in task.get("attachments", [])]
    return described


def _interface(attachment: Mapping[str, Any]) -> dict[str, Any]:
    """The network interface of a task as its containers name it."""
    addresses = [detail["value"] for detail in attachment["details"] if detail["name"] == "privateIPv4Address"]
    return {"attachmentId": attachment["id"], **({"privateIpv4Address": addresses[0]} if addresses else {})}


def _attachment(task: Mapping[str, Any], subnet: str) -> dict[str, Any]:
    """The network interface of a task; it is there from the start, with an address once a container has one."""
    known: dict[str, Any] = next(iter(task.get("attachments") or []), {})
    seed = hashlib.sha256(task["taskArn"].encode()).hexdigest()
    details = {
        "subnetId": subnet,
        "networkInterfaceId": f"eni-{seed[:17]}",
        "macAddress": "02:" + ":".join(seed[place : place + 2] for place in range(20, 30, 2)),
        **{detail["name"]: detail["value"] for detail in known.get("details", [])},
    }
    if address := details.get("privateIPv4Address"):
        region = task["taskArn"].split(":")[3]
        details["privateDnsName"] = f"ip-{address.replace('.', '-')}.{region}.compute.internal"
    stopped = task.get("lastStatus") == "STOPPED"
    return {
        "id": f"{seed[:8]}-{seed[8:12]}-{seed[12:16]}-{seed[16:20]}-{seed[20:32]}",
        "type": "ElasticNetworkInterface",
        "status": "DELETED" if stopped else "ATTACHED" if known else "PRECREATED",
        "details": [{"name": name, "value": value} for name, value in details.items()],
    }
