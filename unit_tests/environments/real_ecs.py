"""The emulator's own ECS module, with state of its own: for tests of what is replaced in it."""

import importlib.util
import json
from typing import Any

CLUSTER = "workflows"
ROLE = "arn:aws:iam::000000000000:role/dev_workflow_task"
IMAGE = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/dev_etl@sha256:0"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}


def real_ecs() -> Any:
    """A copy of the emulator's ECS module that finds no Docker engine and has one cluster."""
    spec = importlib.util.find_spec("ministack.services.ecs")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._get_docker = lambda: None
    module._ACTION_MAP["CreateCluster"]({"clusterName": CLUSTER})
    return module


def call(ecs: Any, action: str, **data: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a request."""
    status, _, body = ecs._dispatch_action(action, data)
    return status, json.loads(body)


def definition(**changes: Any) -> dict[str, Any]:
    """A task definition for Fargate that AWS would take."""
    container = {
        "name": "workflow",
        "image": IMAGE,
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "dev"}},
    }
    return {
        "family": "etl",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": ROLE,
        "taskRoleArn": ROLE,
        "volumes": [{"name": "tmp"}],
        "containerDefinitions": [container],
        **changes,
    }


def run_request(**changes: Any) -> dict[str, Any]:
    """A request for one task on Fargate that AWS would take."""
    strategy = [{"capacityProvider": "FARGATE", "weight": 1}]
    return {
        "cluster": CLUSTER,
        "taskDefinition": "etl",
        "capacityProviderStrategy": strategy,
        "networkConfiguration": NETWORK,
        **changes,
    }
