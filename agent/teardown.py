"""Takes an environment down: what Terraform made, and what register and the rollout made beside it."""

from agent import image, project
from environments import console, local_stack, progress
from environments.errors import PlatformError
from environments.settings import Environment
from infra import images, terraform
from infra.aws import check_account, client
from infra.plans import PRODUCTION


def confirm(environment: Environment, yes: bool, name: str) -> None:
    """Go on only when the user wants the environment gone; for prod its name says so, typed or given, nothing else.

    Raises:
        PlatformError: the user does not, the name is another environment's, or nobody can be asked.
    """
    if name and name != environment.name:
        raise PlatformError(
            "not confirmed, nothing was changed", f"--name is {name}, the environment is {environment.name}"
        )
    question = f"Everything of environment {environment.name} goes, its workflows' images and logs included."
    if environment.name == PRODUCTION:
        console.confirm(question, bool(name), wanted=PRODUCTION, option=f"--name {PRODUCTION}")
    else:
        console.confirm(question, yes or bool(name))


def destroy(environment: Environment) -> None:
    """Remove everything of the environment; parts that are gone already are passed over.

    State bucket, roles and OIDC provider stay: they belong to the account, and a pipeline could not make them again.
    In local, where all of AWS goes with its server, Terraform has nothing to do.
    """
    if environment.is_local:
        running = set(local_stack.state(environment).values())
        progress.note("goes with the emulated AWS" if "running" in running else "was not running")
        return
    check_account(environment)
    take_down(environment)


def take_down(environment: Environment) -> None:
    """Remove from AWS and Prefect what deploy, rollout and register made; the deploy role may do all of it."""
    project.delete(environment)
    _stop_workflows(environment)
    try:
        terraform.destroy(environment, image.name(environment).tag)
    except PlatformError as error:
        if "is not deployed" not in error.what:
            raise
        progress.note("nothing was deployed")
    _remove_workflow_repositories(environment)
    _deregister_task_definitions(environment)


def _stop_workflows(environment: Environment) -> None:
    ecs, cluster = client(environment, "ecs"), f"{environment.prefix}_workflows"
    try:
        for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="RUNNING"):
            for task in page["taskArns"]:
                ecs.stop_task(cluster=cluster, task=task, reason="environment is being destroyed")
    except ecs.exceptions.ClusterNotFoundException:
        return


def _remove_workflow_repositories(environment: Environment) -> None:
    """Only those that register made for this environment: others in the account may have names that begin alike."""
    ecr = client(environment, "ecr")
    ours = images.register_tags(environment)
    for page in ecr.get_paginator("describe_repositories").paginate():
        for repository in page["repositories"]:
            if repository["repositoryName"].startswith(f"{environment.name}_"):
                tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
                if all(tag in tags for tag in ours):
                    ecr.delete_repository(repositoryName=repository["repositoryName"], force=True)


def _deregister_task_definitions(environment: Environment) -> None:
    ecs = client(environment, "ecs")
    for page in ecs.get_paginator("list_task_definitions").paginate(status="ACTIVE"):
        for arn in page["taskDefinitionArns"]:
            if arn.rsplit("/", 1)[-1].startswith(f"{environment.prefix}_"):
                ecs.deregister_task_definition(taskDefinition=arn)
