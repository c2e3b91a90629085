"""How the emulated ECS makes room for another deployment of a service: as AWS does, not at the cost of who serves.

The emulator takes every running task for a healthy one: when a rollout is taken back, it could stop the agent that
serves and keep one of the bad release. On AWS a task with a health check is healthy when that has passed, and a
service's `minimumHealthyPercent` counts healthy tasks only:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_definition_parameters.html

The function replaced here is a private one of a pinned version: the functional tests run through it.
"""

from typing import Any


def keep_who_serves(ecs: Any) -> None:
    """Stop the tasks of earlier deployments that never became healthy before anything else of the service is stopped.

    Args:
        ecs: the emulator's ECS module.
    """
    reconcile = ecs._reconcile_service_tasks

    def reconcile_healthy_last(cluster: str, key: str) -> None:
        service = ecs._services.get(key)
        for task in _never_healthy(ecs, service) if service else ():
            ecs._stop_task({"task": task["taskArn"], "cluster": cluster, "reason": "Deployment taken back"})
        reconcile(cluster, key)

    ecs._reconcile_service_tasks = reconcile_healthy_last


def _never_healthy(ecs: Any, service: dict[str, Any]) -> list[dict[str, Any]]:
    newest = ecs._primary_deployment(service)
    return [
        task
        for task in list(ecs._tasks.values())
        if task.get("group") == f"service:{service['serviceName']}"
        and task.get("clusterArn") == service["clusterArn"]
        and task["lastStatus"] == "RUNNING"
        and task.get("_health_check")
        and task.get("healthStatus") != "HEALTHY"
        and ecs._deployment_for_task(service, task) is not newest
    ]
