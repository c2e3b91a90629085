"""What the emulated ECS refuses because AWS does: requests that break a rule of RegisterTaskDefinition or RunTask.

Error codes and messages are those of AWS where somebody has published them; each says where. Where AWS documents a rule
and not its message, the message is ours. The sizes of Fargate are in fargate.py.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from environments.fargate import size_problem, units_of

Refusal = tuple[str, str]
"""Code and message of an error."""

DEFINITION_BYTES = 65_536
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html"""
OVERRIDES_CHARACTERS = 8_192
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html, `overrides`"""
MOST_TAGS = 50
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Tag.html, for these and the characters below"""
TAG_KEY_CHARACTERS = 128
TAG_VALUE_CHARACTERS = 256
TAG_CATEGORIES = "LZN"
"""Of Unicode: letters, separators and numbers."""
TAG_PUNCTUATION = "_.:/=+-@"
TASKS_AT_ONCE = 10
TOKEN = re.compile(r"[!-~]{1,64}")
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html, `clientToken`"""
STARTED_BY = re.compile(r"[A-Za-z0-9/_-]{1,128}")
FAMILY = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html"""
STOP_TIMEOUT_SECONDS = 120
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html, `stopTimeout`"""
REGISTRATION_SECONDS = 0.1
"""How long AWS is taken to be at work on a registration: a second one of the same family is refused meanwhile."""
TOO_MANY_REGISTRATIONS = "Too many concurrent attempts to create a new revision of the specified family."
"""https://github.com/dask/dask-cloudprovider/issues/290"""


def refuse_as_aws(ecs: Any) -> None:
    """Let RegisterTaskDefinition, RunTask and requests about tasks refuse what AWS refuses.

    Args:
        ecs: the emulator's ECS module.
    """
    from ministack.core.iam_evaluator import validate_role_arn

    refuse_unknown_clusters(ecs)
    register, run = ecs._ACTION_MAP["RegisterTaskDefinition"], ecs._ACTION_MAP["RunTask"]
    registering, guard = set[tuple[str, str, str]](), threading.Lock()

    def register_if_valid(data: dict[str, Any]) -> Any:
        if refusal := next(registration_refusals(data, validate_role_arn), None):
            return ecs.error_response_json(*refusal, 400)
        family = (ecs.get_account_id(), ecs.get_region(), data["family"])
        with guard:
            if family in registering:
                return ecs.error_response_json("ClientException", TOO_MANY_REGISTRATIONS, 400)
            registering.add(family)
        try:
            answer = register(data)
            time.sleep(REGISTRATION_SECONDS)
            return answer
        finally:
            registering.discard(family)

    def run_if_valid(data: dict[str, Any]) -> Any:
        definition = ecs._task_defs.get(ecs._resolve_td_key(data.get("taskDefinition", "")))
        cluster = ecs._clusters.get(ecs._resolve_cluster_name(data.get("cluster", "default")))
        launch_type, strategy, _ = ecs._launch_choice(data, cluster)
        fargate = ecs._task_capacity(launch_type, strategy)[0] == "FARGATE"
        if refusal := next(run_refusals(data, definition, fargate, validate_role_arn), None):
            return ecs.error_response_json(*refusal, 400)
        return run(data)

    ecs._ACTION_MAP["RegisterTaskDefinition"], ecs._ACTION_MAP["RunTask"] = register_if_valid, run_if_valid


def refuse_unknown_clusters(ecs: Any) -> None:
    """Refuse requests about the tasks of a cluster that does not exist; RunTask of the emulator would create it."""

    def of_existing_cluster(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def handle_if_exists(data: dict[str, Any]) -> Any:
            if ecs._resolve_cluster_name(data.get("cluster", "default")) not in ecs._clusters:
                return ecs.error_response_json("ClusterNotFoundException", "Cluster not found.", 400)
            return handle(data)

        return handle_if_exists

    for action in ("RunTask", "StopTask", "DescribeTasks", "ListTasks"):
        ecs._ACTION_MAP[action] = of_existing_cluster(ecs._ACTION_MAP[action])


def registration_refusals(data: Mapping[str, Any], role_problem: Callable[[str], Any]) -> Iterator[Refusal]:
    """Why RegisterTaskDefinition refuses a request; nothing when it takes it.

    Args:
        data: the request.
        role_problem: says what is wrong with the ARN of a role.
    """
    if not FAMILY.fullmatch(data.get("family") or ""):
        yield "ClientException", "Family must be 1 to 255 letters, numbers, hyphens and underscores."
    yield from tag_refusals(data)
    definition = {name: value for name, value in data.items() if name != "tags"}
    length = len(_compact(definition).encode())
    if length > DEFINITION_BYTES:
        # https://github.com/awsdocs/amazon-ecs-developer-guide/pull/149
        yield "ClientException", f"Actual length: '{length}'. Max allowed length is '{DEFINITION_BYTES}' bytes."
    containers = data.get("containerDefinitions") or []
    if "FARGATE" in (data.get("requiresCompatibilities") or []):
        yield from _fargate_refusals(data, containers)
    if not data.get("executionRoleArn") and any(container.get("secrets") for container in containers):
        # https://github.com/fabfuel/ecs-deploy/issues/87
        yield (
            "ClientException",
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
        )
    if any(role_problem(data[role]) for role in ("executionRoleArn", "taskRoleArn") if data.get(role)):
        # https://github.com/bradford-hamilton/terraform-ecs-fargate/issues/8
        yield "ClientException", "Role is not valid"


def _fargate_refusals(data: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> Iterator[Refusal]:
    if data.get("networkMode") != "awsvpc":
        yield "ClientException", "Fargate only supports network mode 'awsvpc'."
    for name in ("cpu", "memory"):
        if not data.get(name):
            yield "ClientException", f"Fargate requires that '{name}' be defined at the task level."
    yield from size_refusals(data.get("cpu"), data.get("memory"))
    # https://github.com/virtual-kubelet/virtual-kubelet/issues/193 and
    # https://github.com/hashicorp/terraform-provider-aws/issues/3051
    reasons = {
        "log driver awslogs": any(
            (one.get("logConfiguration") or {}).get("logDriver") == "awslogs" for one in containers
        ),
        "ECR images": any(".dkr.ecr." in str(one.get("image")) for one in containers),
    }
    for reason in (reason for reason, applies in reasons.items() if applies and not data.get("executionRoleArn")):
        words = f"Fargate requires task definition to have execution role ARN to support {reason}."
        yield "ClientException", words
    for one in containers:
        if (one.get("stopTimeout") or 0) > STOP_TIMEOUT_SECONDS:
            words = f"is longer than the {STOP_TIMEOUT_SECONDS} seconds that Fargate allows."
            yield "ClientException", f"The 'stopTimeout' of container '{one.get('name')}' {words}"


def size_refusals(cpu: Any, memory: Any) -> Iterator[Refusal]:
    """Why Fargate does not offer a task size.

    Sources: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html and
    https://github.com/aws-games/cloud-game-development-toolkit/issues/737, both of RegisterTaskDefinition.
    """
    units, mebibytes = units_of(cpu, "vcpu"), units_of(memory, "gb")
    for name, size, parsed in (("cpu", cpu, units), ("memory", memory, mebibytes)):
        if size and parsed is None:
            yield (
                "ClientException",
                f"Invalid '{name}' setting for task. For more information, see the Troubleshooting section of the "
                "Amazon ECS Developer Guide.",
            )
    if units and mebibytes and size_problem(units, mebibytes):
        yield (
            "ClientException",
            f"No Fargate configuration exists for given values: {units} CPU, {mebibytes} memory. "
            "See the Amazon ECS documentation for the valid values.",
        )


def run_refusals(
    data: Mapping[str, Any],
    definition: Mapping[str, Any] | None,
    fargate: bool,
    role_problem: Callable[[str], Any],
) -> Iterator[Refusal]:
    """Why RunTask refuses a request; nothing when it takes it.

    Args:
        data: the request.
        definition: the task definition that it names, if there is one.
        fargate: whether the tasks would run on Fargate.
        role_problem: says what is wrong with the ARN of a role.
    """
    overrides: Mapping[str, Any] = data.get("overrides") or {}
    if "clientToken" in data and not TOKEN.fullmatch(data["clientToken"]):
        yield "InvalidParameterException", "clientToken must be 1 to 64 characters in the range of 33-126."
    if data.get("startedBy") and not STARTED_BY.fullmatch(data["startedBy"]):
        words = "startedBy must be 1 to 128 letters, numbers, hyphens, slashes and underscores."
        yield "InvalidParameterException", words
    if not 1 <= (data.get("count") or 1) <= TASKS_AT_ONCE:
        yield "InvalidParameterException", f"count must be between 1 and {TASKS_AT_ONCE}."
    yield from tag_refusals(data)
    if len(_compact(overrides)) > OVERRIDES_CHARACTERS:
        # https://github.com/convox/rack/issues/1906
        yield "InvalidParameterException", f"Container Overrides length must be at most {OVERRIDES_CHARACTERS}"
    if definition is None:
        # https://github.com/Cloud-CV/EvalAI/issues/2419, of CreateService
        yield "ClientException", "TaskDefinition not found."
        return
    if definition["status"] != "ACTIVE":
        # https://github.com/DefangLabs/defang/pull/775
        yield "InvalidParameterException", "TaskDefinition is inactive"
    known = {container["name"] for container in definition["containerDefinitions"]}
    for override in overrides.get("containerOverrides") or []:
        if override.get("name") not in known:
            # https://github.com/azavea/django-ecsmanage/issues/21
            words = f"Override for container named {override.get('name')} is not a container in the TaskDefinition."
            yield "InvalidParameterException", words
    if definition.get("networkMode") == "awsvpc" and not data.get("networkConfiguration"):
        # https://github.com/tryretool/retool-onpremise/pull/84
        words = "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        yield "InvalidParameterException", words
    if fargate:
        sizes = {name: overrides.get(name) or definition.get(name) for name in ("cpu", "memory")}
        yield from size_refusals(sizes["cpu"], sizes["memory"])
    for name in ("executionRoleArn", "taskRoleArn"):
        role = overrides.get(name) or definition.get(name)
        if role and role_problem(role):
            # https://github.com/aws-samples/aws-modern-application-workshop/issues/88
            yield (
                "ClientException",
                f"ECS was unable to assume the role '{role}' that was provided for this task. Please verify that the "
                "role being passed has the proper trust relationship and permissions and that your IAM user has "
                "permissions to pass this role.",
            )


def tag_refusals(data: Mapping[str, Any]) -> Iterator[Refusal]:
    """Why AWS refuses the tags of a request."""
    tags = data.get("tags") or []
    keys = [str(tag.get("key", "")) for tag in tags]
    if len(tags) > MOST_TAGS:
        yield "InvalidParameterException", f"A resource can have {MOST_TAGS} tags at most, the request has {len(tags)}."
    if len(set(keys)) != len(keys):
        yield "InvalidParameterException", "Duplicate tag keys found."
    for tag in tags:
        key, value = str(tag.get("key", "")), str(tag.get("value", ""))
        if key.lower().startswith("aws:") or value.lower().startswith("aws:"):
            yield "InvalidParameterException", f"The prefix aws: of tag '{key}' is reserved for AWS."
        if not 1 <= len(key) <= TAG_KEY_CHARACTERS or not _for_tags(key):
            yield "InvalidParameterException", f"Invalid tag key: '{key}'."
        if len(value) > TAG_VALUE_CHARACTERS or not _for_tags(value):
            yield "InvalidParameterException", f"Invalid value of tag '{key}'."


def _for_tags(text: str) -> bool:
    return all(unicodedata.category(one)[0] in TAG_CATEGORIES or one in TAG_PUNCTUATION for one in text)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
