"""Takes workflows back: their deployments, and the images that nothing runs any more."""

import difflib
from concurrent.futures import ThreadPoolExecutor

from environments import progress
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import REGISTER_TOKEN
from environments.settings import Environment
from infra import images
from register_action import pull_requests, registered, workflow_image
from register_action.changes import Change
from register_action.deployments import AT_ONCE
from register_action.registered import ORIGIN, WORKFLOW, Registered
from register_action.workflow import Workflow
from register_action.workflow_image import Content


def find(environment: Environment, name: str, origin: str, branch: str, previews_only: bool) -> list[Registered]:
    """The deployments that would go.

    Args:
        environment: whose project.
        name: the workflow's.
        origin: where it comes from, if that is known; one of the same name from elsewhere is not touched.
        branch: whose previews, if only they are meant.
        previews_only: leave the workflow itself.

    Raises:
        PlatformError: the workflow of that name is another one, or there is none.
    """
    if not name:
        raise PlatformError(
            "which workflow?", "neither --name nor --workflow-path is given", "invoke workflows lists the names"
        )
    if previews_only and not branch:
        raise PlatformError("previews are those of a branch", "its name is not known", "add --branch-name")
    everything = registered.of_environment(environment, REGISTER_TOKEN)
    mine = [each for each in everything if each.label(WORKFLOW) == name]
    if not mine and not previews_only:
        known = sorted({each.label(WORKFLOW) for each in everything} - {""})
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PlatformError(
            f"no workflow {name} is registered in environment {environment.name}",
            f"{hint}registered: {', '.join(known) or 'none'}",
            "invoke workflows lists them",
        )
    others = {each.label(ORIGIN) for each in mine} - {"", origin}
    if origin and others:
        raise PlatformError(
            f"workflow {name} of environment {environment.name} is another one",
            f"it was registered from {', '.join(sorted(others))}, this is {origin}",
            "correct --workflow-path, or name it with --name alone",
        )
    return [each for each in mine if not previews_only or each.preview == branch]


def find_abandoned(environment: Environment, origin: str) -> list[Registered]:
    """Find the previews of a repository whose branch has no open pull request, whichever workflow they belong to.

    Args:
        environment: whose project.
        origin: where one of the repository's workflows comes from.

    Raises:
        PlatformError: the repository is not on GitHub, or its open pull requests cannot be read.
    """
    repository = origin.partition("//")[0]
    # Read before the pull requests: a preview that is registered meanwhile is not in this list.
    deployments = registered.of_environment(environment, REGISTER_TOKEN)
    branches = pull_requests.open_branches(repository)
    return [
        deployment
        for deployment in deployments
        if deployment.label(ORIGIN).partition("//")[0] == repository
        and deployment.preview
        and deployment.preview not in branches
    ]


def remove(environment: Environment, name: str, going: list[Registered], whole: bool) -> None:
    """Delete deployments, then the images that no other deployment runs.

    Args:
        environment: whose.
        name: the workflow's.
        going: its deployments that go; previews may be those of several workflows.
        whole: the workflow goes with its ECR repository.
    """
    with prefect_client(environment, REGISTER_TOKEN) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda each: registered.delete(client, each.deployment.id), going))
    if whole:
        repository = workflow_image.repository_name(environment, name)
        gone = images.delete_repository(environment, repository)
        progress.note(f"{len(going)} deployment(s)" + (f", ECR repository {repository}" if gone else ""))
        return
    deleted = 0
    for workflow in sorted({deployment.label(WORKFLOW) for deployment in going}):
        candidates = {deployment.image for deployment in going if deployment.label(WORKFLOW) == workflow}
        deleted += len(_delete_unused(environment, workflow, candidates))
    progress.note(f"{len(going)} deployment(s), {deleted} image(s)")


def superseded(environment: Environment, workflow: Workflow, changes: list[Change]) -> list[str]:
    """Delete the images that a preview ran before this push and that nothing runs now; a real one keeps its history."""
    before = {change.existing.image for change in changes if change.existing and change.action in ("update", "delete")}
    deleted = _delete_unused(environment, workflow.name, before)
    progress.note(f"{len(deleted)} image(s) deleted")
    return deleted


def retire(environment: Environment, workflow: Workflow, content: Content) -> list[str]:
    """Delete the workflow's old images that no deployment runs, once a new one has been pushed.

    Args:
        environment: whose.
        workflow: whose images.
        content: of the image before it was pushed: if ECR had it already, there is no image more than before.
    """
    if content.image.digest:
        progress.note("no new image")
        return []

    gone = images.retire(
        environment, content.image.repository, lambda: {images.version(uri) for uri in _in_use(environment)}
    )
    progress.note(f"{len(gone)} deleted")
    return gone


def _delete_unused(environment: Environment, name: str, candidates: set[str]) -> list[str]:
    if not candidates - {""}:
        return []
    return workflow_image.delete_unused(environment, name, candidates - _in_use(environment))


def _in_use(environment: Environment) -> set[str]:
    """Images that deployments run. Of all workflows: tags can be changed, and deployments copied, at Prefect's page."""
    with prefect_client(environment, REGISTER_TOKEN) as client:
        return {each.image for each in registered.read(client, environment)}
