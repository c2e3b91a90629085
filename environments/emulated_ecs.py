"""How ECS of the emulated AWS starts a task's containers: as Fargate does, from an unchanged task definition.

- tasks run in their own Docker network, where they reach this machine and not each other;
- images are pulled from the emulated ECR, under the very name that they have on AWS;
- a task gets credentials of its task role, and starts only if its execution role may do what that takes;
- user, memory limit, read-only root file system, scratch volumes, dropped capabilities and the init process apply.

The functions replaced here are private ones of a pinned version: the functional tests run through each of them.
"""

import copy
import secrets
from typing import Any

from environments.fargate import units_of

HOST_NAME = "host.docker.internal"


def adapt_tasks(ecs: Any, port: int, gateway: str, network: str) -> None:
    """Replace the functions that start a task by ones that do what AWS does as well.

    Args:
        ecs: the emulator's ECS module.
        port: the emulator's port; Docker pulls from it.
        gateway: address of this machine in the containers' network.
        network: id of the containers' Docker network.
    """
    from docker.types import Mount

    start_task, register_metadata, run_arguments = (
        ecs._start_task_worker,
        ecs._register_metadata,
        ecs._build_run_kwargs,
    )

    def start_task_from_registry(task: Any, task_definition: Any, overrides: Any, docker_client: Any) -> Any:
        task_definition = sized(task_definition, task.get("overrides") or {})
        for container in task_definition.get("containerDefinitions", []):
            container["image"] = registry_image(container["image"], port)
            container["executionRole"] = task_definition.get("executionRoleArn", "")
        return start_task(task, task_definition, overrides, docker_client)

    def register_metadata_with_role(
        task_arn: str,
        cluster_arn: str,
        task_definition: Any,
        container: Any,
        launch_type: str,
        variables: dict[str, str],
        host_mode: bool,
        address: str | None,
    ) -> Any:
        token = register_metadata(
            task_arn, cluster_arn, task_definition, container, launch_type, variables, host_mode, address
        )
        # botocore refuses a credentials endpoint on this host name, so the credentials travel as variables.
        variables.pop("AWS_CONTAINER_CREDENTIALS_FULL_URI", None)
        variables.pop("AWS_CONTAINER_AUTHORIZATION_TOKEN", None)
        task_id = task_arn.rsplit("/", 1)[-1]
        variables.update(role_credentials(task_definition.get("taskRoleArn", ""), task_id))
        variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = task_arn.split(":")[3]
        return token

    def run_arguments_like_fargate(container: Any, task_definition: Any, *rest: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = run_arguments(container, task_definition, *rest)
        arguments["network"] = network
        arguments["extra_hosts"] = {HOST_NAME: gateway}
        arguments["user"] = container.get("user")
        arguments["read_only"] = bool(container.get("readonlyRootFilesystem"))
        arguments["security_opt"] = ["no-new-privileges"]
        linux = container.get("linuxParameters") or {}
        arguments["cap_drop"] = linux.get("capabilities", {}).get("drop", [])
        arguments["init"] = bool(linux.get("initProcessEnabled"))
        limits = [units for one in (container, task_definition) if (units := units_of(one.get("memory"), "gb"))]
        if limits:
            arguments["mem_limit"] = f"{min(limits)}m"
        scratch = {
            volume["name"]
            for volume in task_definition.get("volumes", [])
            if not volume.get("host", {}).get("sourcePath")
        }
        # On disk, as there: in memory it would count against the limit.
        arguments["mounts"] = [
            Mount(mount["containerPath"], None)
            for mount in container.get("mountPoints", [])
            if mount["sourceVolume"] in scratch
        ]
        return arguments

    ecs._start_task_worker = start_task_from_registry
    ecs._register_metadata = register_metadata_with_role
    ecs._build_run_kwargs = run_arguments_like_fargate


def sized(task_definition: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of a task definition with the sizes that RunTask overrides, those of the task and of each container.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html
    """
    definition = copy.deepcopy(task_definition)
    definition |= {name: overrides[name] for name in ("cpu", "memory") if overrides.get(name)}
    by_name = {one.get("name"): one for one in overrides.get("containerOverrides") or []}
    for container in definition.get("containerDefinitions", []):
        override = by_name.get(container.get("name"), {})
        container |= {name: override[name] for name in ("cpu", "memory", "memoryReservation") if name in override}
    return definition


def registry_image(image: str, port: int) -> str:
    """The name under which Docker pulls an ECR image from the emulator: the registry becomes this machine's port."""
    registry, separator, name = image.partition("/")
    return f"127.0.0.1:{port}/{name}" if separator and ".dkr.ecr." in registry else image


def role_credentials(role_arn: str, session_name: str) -> dict[str, str]:
    """Credentials of a role that last as long as the emulator does, as variables of a container."""
    if not role_arn:
        return {}
    from ministack.services import sts

    key, secret, token = (
        "ASIA" + secrets.token_hex(8).upper(),
        secrets.token_urlsafe(30),
        secrets.token_urlsafe(60),
    )
    account, role_name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}",
            "UserId": f"{sts._role_id(role_arn)}:{session_name}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        },
    )
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}
