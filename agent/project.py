"""The Prefect project of an environment: a work pool of type `ecs` that knows all a run needs on AWS.

Its base job template is filled from Terraform's outputs, so that whoever registers a workflow needs Prefect and an
image and reads no Terraform state. Source for the template's fields:
https://docs.prefect.io/integrations/prefect-aws/ecs_guide and `prefect_aws.workers.ecs_worker`.
"""

import contextlib
import copy
from typing import Any

from environments import prefect_rest, progress
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.settings import EXECUTION_ENVIRONMENTS, MOST_RESTARTS, Environment
from infra.images import Image
from infra.terraform import Outputs

CONTAINER = "workflow"
SCRATCH = "tmp"
"""The one folder that workflows can write to."""
USER = "10001:10001"
"""That of the agent's image: whatever a workflow's own Dockerfile says, its container does not run as root."""
STOP_TIMEOUT_SECONDS = 120
"""From SIGTERM to SIGKILL: the longest that Fargate allows, and what it gives a task on Spot before it takes that back.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#container_definition_timeout
"""


def ensure(environment: Environment, outputs: Outputs, image: Image) -> str:
    """Create the project or put it right; tells in a word what was done.

    A project that is there keeps its image until `use_image`: workflows are built on that of an agent that came up. All
    else follows Terraform at once, since runs could not start in a network that is gone.

    Args:
        environment: whose project.
        outputs: of Terraform.
        image: the agent's image in ECR, for a project that is made.
    """
    description = f"Workflows of environment {environment.name}, run on ECS Fargate in {environment.aws_region}"
    wanted: dict[str, Any] = {"description": description}
    # What the settings don't limit stays as it is on Prefect's page.
    if environment.concurrency_limit is not None:
        wanted["concurrency_limit"] = environment.concurrency_limit
    template = base_job_template(environment, outputs, image)
    pool = _pool(environment)
    if pool:
        template = _with_image(template, _image(pool) or image.pinned)
    wanted["base_job_template"] = template
    if not pool:
        _create(environment, wanted)
        done = "created"
    elif {name: pool[name] for name in wanted} == wanted:
        done = "unchanged"
    else:
        _update(environment, wanted)
        done = "corrected"
    progress.note(f"{environment.prefix} {done}")
    return done


def image_in_use(environment: Environment, patient: bool = True) -> str:
    """The agent's image that workflows are built on; empty when the project names none.

    Args:
        environment: whose project.
        patient: wait for a Prefect that is away.

    Raises:
        PlatformError: there is no project.
    """
    return _image(_there(environment, patient))


def use_image(environment: Environment, image: Image) -> None:
    """Let workflows be built on this image of the agent from now on, and change nothing else of the project."""
    pool = _there(environment)
    if _image(pool) != image.pinned:
        _update(environment, {"base_job_template": _with_image(pool["base_job_template"], image.pinned)})


def _pool(environment: Environment, patient: bool = True) -> dict[str, Any]:
    """The work pool as Prefect has it; empty when it is missing."""
    try:
        pool: dict[str, Any] = prefect_rest.ask(environment, f"/work_pools/{environment.prefix}", patient=patient)
    except prefect_rest.NotThereError:
        return {}
    return pool


def _there(environment: Environment, patient: bool = True) -> dict[str, Any]:
    if pool := _pool(environment, patient):
        return pool
    raise PlatformError(
        f"Prefect at {environment.operator_prefect_api_url} has no project {environment.prefix}",
        "it was deleted, or the key may not see it",
        f"invoke deploy --env {environment.name} makes it",
    )


# Prefect's own client is imported only where something has to be changed: that takes longer than all else here.


def _create(environment: Environment, properties: dict[str, Any]) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    # It may have been made by a request whose answer was lost.
    with prefect_client(environment) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=environment.prefix, type="ecs", **properties))


def _update(environment: Environment, properties: dict[str, Any]) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    with prefect_client(environment) as client:
        client.update_work_pool(environment.prefix, WorkPoolUpdate(**properties))


def _image(pool: dict[str, Any]) -> str:
    try:
        return str(pool["base_job_template"]["variables"]["properties"]["image"]["default"])
    except (KeyError, TypeError):
        return ""


def _with_image(template: dict[str, Any], image: str) -> dict[str, Any]:
    changed = copy.deepcopy(template)
    changed["variables"]["properties"]["image"]["default"] = image
    return changed


def delete(environment: Environment) -> None:
    """Delete the project and with it the deployments' schedules; does nothing when it is gone."""
    from prefect.exceptions import ObjectNotFound

    with prefect_client(environment) as client:
        try:
            client.delete_work_pool(environment.prefix)
        except ObjectNotFound:
            progress.note("was gone")


def base_job_template(environment: Environment, outputs: Outputs, image: Image) -> dict[str, Any]:
    """The work pool's base job template: a JSON schema of what a deployment may choose, and the ECS job itself."""
    key_secret = (
        "prefect_api_key_secret_arn" if environment.uses_prefect_cloud else "prefect_api_auth_string_secret_arn"
    )

    runs_on = EXECUTION_ENVIRONMENTS[environment.execution_environment]
    # In local ECS starts containers on this machine, whatever its processor is.
    platform = {"operatingSystemFamily": "LINUX", "cpuArchitecture": environment.cpu_architecture}

    def variable(title: str, kind: str, default: Any = None, **more: Any) -> dict[str, Any]:
        return {"title": title, "type": kind, **({} if default is None else {"default": default}), **more}

    return {
        "variables": {
            "type": "object",
            "description": "What a workflow may choose; the rest belongs to the environment.",
            "properties": {
                "env": variable(
                    "Environment variables", "object", {}, additionalProperties={"type": ["string", "null"]}
                ),
                "labels": variable("Labels", "object", {}, additionalProperties={"type": "string"}),
                "command": variable("Command", "string"),
                "image": variable("Image", "string", image.pinned),
                "family": variable("Task definition family, behind the project's name", "string", "any"),
                "cpu": variable("CPU units, 1024 is one vCPU", "integer", environment.workflow_cpu),
                "memory": variable("Memory in MiB", "integer", environment.workflow_memory),
                "capacity_provider": variable(
                    "Capacity provider",
                    "string",
                    runs_on["capacity_provider"],
                    enum=sorted({choice["capacity_provider"] for choice in EXECUTION_ENVIRONMENTS.values()}),
                ),
                "compatibility": variable("Compatibility", "string", runs_on["compatibility"], enum=["FARGATE", "EC2"]),
                "restarts": variable(
                    "Maximum restarts of a run whose task died", "integer", 0, minimum=0, maximum=MOST_RESTARTS
                ),
                "user": variable("User id, not root's", "string", USER, pattern="^[1-9][0-9]*(:[1-9][0-9]*)?$"),
                "readonly_root_filesystem": variable(f"Only /{SCRATCH} can be written to", "boolean", True),
            },
        },
        "job_configuration": {
            # No name: Prefect would fill the agent's environment variables into it, its key among them.
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "command": "{{ command }}",
            "cluster": outputs.workflows_cluster_arn,
            "container_name": CONTAINER,
            "match_latest_revision_in_family": True,
            "restarts": "{{ restarts }}",
            key_secret: outputs.workflow_prefect_key_secret_arn,
            "task_definition": {
                "family": f"{environment.prefix}_workflow_{{{{ family }}}}",
                "requiresCompatibilities": ["{{ compatibility }}"],
                "networkMode": "awsvpc",
                **({} if environment.is_local else {"runtimePlatform": platform}),
                # That of a run is in its request: runs of any size share a revision.
                "cpu": str(environment.workflow_cpu),
                "memory": str(environment.workflow_memory),
                "executionRoleArn": outputs.workflow_execution_role_arn,
                "taskRoleArn": outputs.workflow_task_role_arn,
                "volumes": [{"name": SCRATCH}],
                "containerDefinitions": [
                    {
                        "name": CONTAINER,
                        "image": "{{ image }}",
                        "user": "{{ user }}",
                        "readonlyRootFilesystem": "{{ readonly_root_filesystem }}",
                        "stopTimeout": STOP_TIMEOUT_SECONDS,
                        "mountPoints": [{"sourceVolume": SCRATCH, "containerPath": f"/{SCRATCH}", "readOnly": False}],
                        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
                        "logConfiguration": {
                            "logDriver": "awslogs",
                            "options": {
                                "awslogs-group": outputs.workflows_log_group,
                                "awslogs-region": environment.aws_region,
                                "awslogs-stream-prefix": "{{ family }}",
                            },
                        },
                    }
                ],
            },
            "task_run_request": {
                "cluster": outputs.workflows_cluster_arn,
                "capacityProviderStrategy": [{"capacityProvider": "{{ capacity_provider }}", "weight": 1}],
                "networkConfiguration": {
                    "awsvpcConfiguration": {
                        "subnets": list(outputs.subnet_ids),
                        "securityGroups": [outputs.security_group_id],
                        "assignPublicIp": "ENABLED" if environment.tasks_have_public_ip else "DISABLED",
                    }
                },
                "overrides": {
                    "cpu": "{{ cpu }}",
                    "memory": "{{ memory }}",
                    "containerOverrides": [{"name": CONTAINER, "command": "{{ command }}", "environment": "{{ env }}"}],
                },
                # The worker adds the labels, Prefect's own and those of the deployment.
                "tags": [{"key": key, "value": value} for key, value in environment.tags.items()],
            },
        },
    }
