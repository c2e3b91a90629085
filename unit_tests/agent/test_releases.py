import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent import image, project, releases, rollout
from agent.releases import CAME_UP, ROLLED_BACK, Release
from environments.errors import PlatformError
from environments.settings import Environment
from unit_tests.conftest import pushed_one_by_one

Aws = Callable[[str], Any]
NAME = "dev_dataflow_automation_agent"


class Agent:
    """The agent's revisions at moto's ECS and their images at its ECR, its service, and the project's image."""

    def __init__(self, aws_mocked: Aws) -> None:
        self.ecs, self.ecr = aws_mocked("ecs"), aws_mocked("ecr")
        self.ecs.create_cluster(clusterName=NAME)
        self.ecr.create_repository(repositoryName=NAME)
        self.arns: dict[int, str] = {}
        self.project_image = ""
        self.moves: list[tuple[str, int]] = []

    def release(self, became: str = "", in_ecr: bool = True) -> None:
        """Register the next revision, as Terraform does."""
        tag = f"image{len(self.arns) + 1}"
        if in_ecr:
            layers = [{"digest": tag}]
            manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
            self.ecr.put_image(repositoryName=NAME, imageManifest=json.dumps(manifest), imageTag=tag)
        definition = self.ecs.register_task_definition(
            family=NAME,
            containerDefinitions=[{"name": "agent", "image": f"registry/{NAME}:{tag}", "memory": 512}],
            tags=[{"key": releases.TAG, "value": became}] if became else [],
        )["taskDefinition"]
        self.arns[definition["revision"]] = definition["taskDefinitionArn"]

    def run(self, revision: int, count: int = 1) -> None:
        """Let the service run a revision, and workflows be built on its image."""
        self.ecs.create_service(cluster=NAME, serviceName=NAME, taskDefinition=self.arns[revision], desiredCount=count)
        digests = self.ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": f"image{revision}"}])
        self.project_image = f"registry/{NAME}@{digests['imageDetails'][0]['imageDigest']}"

    def became(self, revision: int) -> str:
        tags = self.ecs.describe_task_definition(taskDefinition=self.arns[revision], include=["TAGS"])["tags"]
        return "".join(tag["value"] for tag in tags if tag["key"] == releases.TAG)

    def move(self, _: Environment, arn: str, count: int) -> str:
        self.moves.append((arn, count))
        return arn

    def use_image(self, _: Environment, of_agent: Any) -> None:
        self.project_image = of_agent.pinned


@pytest.fixture
def agent(aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch) -> Agent:
    fake = Agent(aws_mocked)
    monkeypatch.setattr(rollout, "move", fake.move)
    monkeypatch.setattr(project, "use_image", fake.use_image)
    monkeypatch.setattr(project, "image_in_use", lambda _: fake.project_image)
    return fake


def _chosen(environment: Environment, to: str = "") -> tuple[int, int]:
    running, target = releases.choose(environment, to)
    return running.revision, target.revision


def test_rollback_goes_to_the_newest_earlier_revision_that_came_up_and_has_its_image(
    environment: Environment, agent: Agent
) -> None:
    for became, in_ecr in ((CAME_UP, True), (CAME_UP, True), (CAME_UP, False), (ROLLED_BACK, True), ("", True)):
        agent.release(became, in_ecr)
    agent.release(CAME_UP)
    agent.release(CAME_UP)
    agent.run(6)

    assert _chosen(environment) == (6, 2)


def test_revisions_count_as_numbers(environment: Environment, agent: Agent) -> None:
    for _ in range(11):
        agent.release(CAME_UP)
    agent.run(11)

    assert _chosen(environment) == (11, 10)


@pytest.mark.parametrize("before", [(), ("",), (ROLLED_BACK, "")])
def test_without_an_earlier_revision_that_came_up_there_is_nothing_to_go_back_to(
    environment: Environment, agent: Agent, before: tuple[str, ...]
) -> None:
    for became in (*before, CAME_UP):
        agent.release(became)
    agent.run(len(before) + 1)
    with pytest.raises(PlatformError, match="nothing to go back to") as caught:
        releases.choose(environment)

    assert "invoke deploy --env dev" in caught.value.todo


def test_agent_that_is_down_is_not_rolled_back(environment: Environment, agent: Agent) -> None:
    agent.release(CAME_UP)
    agent.release(CAME_UP)
    agent.run(2, count=0)
    with pytest.raises(PlatformError, match="the agent is down") as caught:
        releases.choose(environment)

    assert "invoke agent --up --env dev" in caught.value.todo


@pytest.mark.parametrize(
    ("to", "what"),
    [
        ("1", ""),
        ("3", ""),
        ("2", "revision 2 never came up"),
        ("4", "revision 4 runs already"),
        ("5", "the image of revision 5 is gone"),
        ("6", "has no revision 6"),
        ("-1", "has no revision -1"),
        ("one", "has no revision one"),
    ],
)
def test_revision_that_is_named_must_be_one_that_can_run(
    environment: Environment, agent: Agent, to: str, what: str
) -> None:
    for became in (CAME_UP, "", ROLLED_BACK, CAME_UP):
        agent.release(became)
    agent.release(CAME_UP, in_ecr=False)
    agent.run(4)
    if not what:
        assert _chosen(environment, to) == (4, int(to))
        return
    with pytest.raises(PlatformError, match=what) as caught:
        releases.choose(environment, to)

    assert "--env dev" in caught.value.todo


def test_rollback_moves_the_agent_then_the_project_and_is_not_undone_by_the_next_one(
    environment: Environment, agent: Agent
) -> None:
    for _ in range(3):
        agent.release(CAME_UP)
    agent.run(3, count=2)
    running, target = releases.choose(environment)
    releases.roll_back(environment, running, target)

    assert agent.moves == [(agent.arns[2], 2)]
    assert agent.project_image == target.image.pinned
    assert [agent.became(revision) for revision in (1, 2, 3)] == [CAME_UP, CAME_UP, ROLLED_BACK]


def test_rollback_that_fails_notes_nothing(
    environment: Environment, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise PlatformError("revision 1 of the agent did not come up")

    monkeypatch.setattr(rollout, "move", fail)
    agent.release(CAME_UP)
    agent.release(CAME_UP)
    agent.run(2)
    image_before = agent.project_image
    with pytest.raises(PlatformError):
        releases.roll_back(environment, *releases.choose(environment))

    assert (agent.became(1), agent.became(2), agent.project_image) == (CAME_UP, CAME_UP, image_before)


def test_rollback_that_was_interrupted_is_finished_before_another_one(environment: Environment, agent: Agent) -> None:
    """The agent had gone back, the project not yet."""
    for became in (CAME_UP, CAME_UP, ROLLED_BACK):
        agent.release(became)
    agent.run(2)
    agent.project_image = "registry/agent@of-revision-3"

    assert _chosen(environment) == (2, 2)


def test_going_forward_marks_nothing_as_rolled_back(environment: Environment, agent: Agent) -> None:
    agent.release(CAME_UP)
    agent.release(ROLLED_BACK)
    agent.run(1)
    releases.roll_back(environment, *releases.choose(environment, "2"))

    assert (agent.became(1), agent.became(2)) == (CAME_UP, CAME_UP)


def test_revision_that_came_up_is_noted_once(environment: Environment, agent: Agent) -> None:
    agent.release()
    agent.run(1)
    of_agent = releases._release(environment, agent.arns[1]).image
    releases.accept(environment, agent.arns[1], of_agent)
    releases.accept(environment, agent.arns[1], of_agent)

    assert agent.became(1) == CAME_UP
    assert agent.project_image == of_agent.pinned


@pytest.mark.parametrize(
    ("newest", "told"), [(CAME_UP, "revision 2 came up"), (ROLLED_BACK, "revision 2 rolled back"), ("", "has not")]
)
def test_status_tells_what_became_of_a_newer_revision(
    environment: Environment, agent: Agent, newest: str, told: str
) -> None:
    agent.release(CAME_UP)
    agent.release(newest)

    assert told in releases.newer(environment, agent.arns[1])
    assert releases.newer(environment, agent.arns[2]) == ""


def test_choice_shows_every_revision_with_what_became_of_it(
    environment: Environment, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.release(CAME_UP)
    agent.release("", in_ecr=False)
    agent.release(CAME_UP)
    agent.run(3)
    releases.show_choice(environment, *releases.choose(environment))
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[0] for line in lines[1:4]] == ["3", "2", "1"]
    assert lines[1].endswith("came up, runs")
    assert "gone from ECR" in lines[2]
    assert lines[2].endswith("has not come up")
    assert lines[4] == "from revision 3 to revision 1"


@pytest.mark.parametrize(("tag", "warns"), [("image2", True), ("image3", False)])
def test_after_a_rollback_it_is_told_what_the_next_deploy_brings(
    environment: Environment,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    warns: bool,
) -> None:
    agent.release(CAME_UP)
    agent.release(CAME_UP)
    agent.run(2)
    running, target = releases.choose(environment)
    checkout = dataclasses.replace(running.image, tag=tag)
    monkeypatch.setattr(image, "name", lambda _: checkout)
    releases.show_next(environment, running, target)
    told = capsys.readouterr().out

    assert "revision 1 of the agent runs" in told
    assert "invoke deploy --env dev rolls out this checkout" in told
    assert ("correct it first" in told) is warns


@pytest.mark.parametrize(("name", "asks"), [("dev", False), ("prod", True)])
def test_only_prod_is_asked_for(environment: Environment, agent: Agent, name: str, asks: bool) -> None:
    agent.release(CAME_UP)
    target: Release = releases._release(environment, agent.arns[1])
    chosen = dataclasses.replace(environment, name=name)
    releases.confirm(chosen, target, yes=True)
    if asks:
        with pytest.raises(PlatformError, match="not confirmed"):
            releases.confirm(chosen, target, yes=False)
    else:
        releases.confirm(chosen, target, yes=False)


def _kept(agent: Agent) -> set[str]:
    details = agent.ecr.describe_images(repositoryName=NAME)["imageDetails"]
    return {tag for image in details for tag in image["imageTags"]}


def test_old_images_go_but_those_of_the_running_revision_and_of_the_project(
    environment: Environment, agent: Agent
) -> None:
    for _ in range(6):
        agent.release(CAME_UP)
    agent.run(2)
    running = agent.project_image
    details = agent.ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": "image3"}])["imageDetails"]
    agent.project_image = running.partition("@")[0] + "@" + details[0]["imageDigest"]
    pushed_one_by_one(NAME)
    releases.retire(dataclasses.replace(environment, image_retention_count=2))

    assert _kept(agent) == {"image2", "image3", "image5", "image6"}


def test_few_images_are_all_kept_and_nobody_is_asked_which_are_in_use(
    environment: Environment, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.release()
    agent.release()
    monkeypatch.setattr(releases, "_in_use", lambda _: pytest.fail("was asked"))

    assert releases.retire(dataclasses.replace(environment, image_retention_count=2)) == []
    assert _kept(agent) == {"image1", "image2"}
