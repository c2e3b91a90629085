"""Releases of the agent: revisions of its task definition that came up, and the way back to the one before.

What became of a revision is noted in a tag of it, where every machine and every pipeline finds it; Terraform leaves
that tag alone (versions.tf). A revision without one never came up. Its image stays in ECR as long as it is in use or
among the newest `image_retention_count`, and its task definition until the environment is destroyed.
"""

import dataclasses
from datetime import datetime

from agent import image, project, rollout
from environments import console, progress
from environments.errors import PlatformError
from environments.settings import Environment
from infra import images
from infra.aws import client
from infra.plans import PRODUCTION

TAG = "dataflow_automation:rollout"
CAME_UP, ROLLED_BACK, NOT_YET = "came up", "rolled back", "has not come up"
SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Release:
    """A revision of the agent's task definition: its ARN, its image, and what became of it.

    The image has a digest when it is in ECR.
    """

    arn: str
    image: images.Image
    registered: datetime | None
    rollout: str

    @property
    def revision(self) -> int:
        """The revision's number."""
        return rollout.revision_number(self.arn)


def accept(environment: Environment, arn: str, of_agent: images.Image) -> None:
    """Take a revision that came up for good: workflows are built on its image, and a rollback may come back to it."""
    project.use_image(environment, of_agent)
    _note(environment, arn, CAME_UP)
    progress.note(f"revision {rollout.revision_number(arn)}")


def choose(environment: Environment, to: str = "") -> tuple[Release, Release]:
    """The release that runs, and the one to go back to; the same one when a rollback was interrupted.

    Args:
        environment: whose agent.
        to: number of a revision; without, the newest before the running one that came up and was not rolled back.

    Raises:
        PlatformError: there is none, its image is gone, or no agent runs.
    """
    service = rollout.describe(environment)
    if not service["desiredCount"]:
        raise PlatformError(
            "the agent is down",
            "whether a revision comes up can't be seen",
            f"invoke agent --up --env {environment.name}, then roll back",
        )
    running = _release(environment, service["taskDefinition"])
    if to:
        return running, _wanted(environment, running, to)
    if running.rollout == CAME_UP and project.image_in_use(environment) != running.image.pinned:
        return running, running
    for arn in _revisions(environment):
        if rollout.revision_number(arn) < running.revision:
            release = _release(environment, arn)
            if release.rollout == CAME_UP and release.image.digest:
                return running, release
    raise PlatformError(
        f"there is nothing to go back to from revision {running.revision}",
        "no earlier revision came up, was not rolled back and still has its image in ECR",
        f"check out an earlier commit and run invoke deploy --env {environment.name}",
    )


def show_choice(environment: Environment, running: Release, target: Release) -> None:
    """Print the newest revisions, and which of them the environment goes back to."""
    newest = [_release(environment, arn) for arn in _revisions(environment)[:SHOWN]]
    shown = sorted({running, target, *newest}, key=lambda release: -release.revision)
    console.table(
        [
            (
                str(release.revision),
                f"{release.registered:%Y-%m-%d %H:%M}" if release.registered else "",
                release.image.tag if release.image.digest else f"{release.image.tag}, gone from ECR",
                (release.rollout or NOT_YET) + (", runs" if release == running else ""),
            )
            for release in shown
        ],
        ("revision", "registered (UTC)", "image", "rollout"),
    )
    console.say(f"from revision {running.revision} to revision {target.revision}", "bold")


def confirm(environment: Environment, target: Release, yes: bool) -> None:
    """Go on only when the user wants another agent in prod; anywhere else nobody is asked.

    Raises:
        PlatformError: the user does not, or nobody can be asked.
    """
    if environment.name == PRODUCTION:
        console.confirm(f"The agent of environment {environment.name} becomes revision {target.revision}.", yes)


def roll_back(environment: Environment, running: Release, target: Release) -> None:
    """Let the agent be the target's, as a deploy would; what was left is not gone back to without being named."""
    service = rollout.describe(environment)
    rollout.move(environment, target.arn, service["desiredCount"])
    if target.revision < running.revision:
        _note(environment, running.arn, ROLLED_BACK)
    accept(environment, target.arn, target.image)


def show_next(environment: Environment, running: Release, target: Release) -> None:
    """Say what runs now, and what the next deploy will do about it."""
    console.say(
        f"revision {target.revision} of the agent runs; workflows are built on {target.image.tag}", "bold green"
    )
    console.say("settings and infrastructure are as they were before: only the agent went back")
    again = image.name(environment).tag == running.image.tag != target.image.tag
    checkout = f"this checkout, which has the image of revision {running.revision}" if again else "this checkout"
    console.say(
        f"next: invoke deploy --env {environment.name} rolls out {checkout}" + ("; correct it first" if again else ""),
        "bold",
    )


def newer(environment: Environment, arn: str) -> str:
    """What became of the newest revision when it is not this one; empty when it is."""
    newest = max(_revisions(environment), key=rollout.revision_number, default=arn)
    if rollout.revision_number(newest) <= rollout.revision_number(arn):
        return ""
    return f"revision {rollout.revision_number(newest)} {_release(environment, newest).rollout or NOT_YET}"


def retire(environment: Environment) -> list[str]:
    """Delete the agent's old images; those of a revision that the service runs and the project's stay, however old."""
    gone = images.retire(environment, environment.agent_name, lambda: _in_use(environment))
    progress.note(f"{len(gone)} deleted")
    return gone


def _in_use(environment: Environment) -> set[str]:
    """Digests of the images that the agent's service runs or may go back to, and that workflows are built on."""
    service = rollout.describe(environment)
    arns = {service["taskDefinition"], *(part["taskDefinition"] for part in service["deployments"])}
    return {
        images.version(project.image_in_use(environment)),
        *(_release(environment, arn).image.digest for arn in arns),
    }


def _wanted(environment: Environment, running: Release, to: str) -> Release:
    """The revision that the user named, when the agent can be that."""
    known = {str(rollout.revision_number(arn)): arn for arn in _revisions(environment)}
    listed = f"invoke rollback --dry-run --env {environment.name} lists what there is"
    if to not in known:
        raise PlatformError(f"the agent has no revision {to}", f"the newest is {max(map(int, known))}", listed)
    target = _release(environment, known[to])
    if target.arn == running.arn:
        raise PlatformError(f"revision {to} runs already", todo=listed)
    if not target.rollout:
        raise PlatformError(f"revision {to} never came up", "going to it would end as its deploy did", listed)
    if not target.image.digest:
        raise PlatformError(
            f"the image of revision {to} is gone",
            f"the newest {environment.image_retention_count} are kept, {target.image.uri} is not among them",
            f"check out its commit and run invoke deploy --env {environment.name}",
        )
    return target


def _revisions(environment: Environment) -> list[str]:
    """ARNs of the revisions that can run, newest first."""
    family = environment.agent_name
    pages = client(environment, "ecs").get_paginator("list_task_definitions").paginate(familyPrefix=family)
    arns = [arn for page in pages for arn in page["taskDefinitionArns"] if arn.split("/")[-1].split(":")[0] == family]
    return sorted(arns, key=rollout.revision_number, reverse=True)


def _release(environment: Environment, arn: str) -> Release:
    answer = client(environment, "ecs").describe_task_definition(taskDefinition=arn, include=["TAGS"])
    definition = answer["taskDefinition"]
    uri = definition["containerDefinitions"][0]["image"]
    named = images.Image(environment.agent_name, uri.rpartition(":")[2], uri)
    tags = {tag["key"]: tag["value"] for tag in answer.get("tags", [])}
    return Release(arn, images.find(environment, named) or named, definition.get("registeredAt"), tags.get(TAG, ""))


def _note(environment: Environment, arn: str, became: str) -> None:
    """Note in its tag what became of a revision, unless it is there already."""
    ecs = client(environment, "ecs")
    tags = ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"]).get("tags", [])
    wanted = {"key": TAG, "value": became}
    if wanted not in tags:
        ecs.tag_resource(resourceArn=arn, tags=[wanted])
