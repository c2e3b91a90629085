import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context

import tasks
from environments.errors import PlatformError
from environments.progress import steps
from environments.secrets import AGENT_TOKEN
from environments.settings import Environment
from functional_tests.github_api import FORK, GitHubApi, github_api, pull_request
from infra import images
from infra.images import Image
from register_action import removal
from register_action.workflow import Choice, Workflow
from register_action.workflow_image import Content
from unit_tests.conftest import ACCOUNT, pushed_one_by_one
from unit_tests.register_action.conftest import (
    ORIGIN,
    OTHER_IMAGE,
    FakePrefect,
    HandOver,
    Register,
    actions,
    http_error,
)

PREVIEW = Choice(preview=True)
DAILY = "deployments: [{name: daily, entrypoint: 'flow.py:sales'}]"


def test_flow_that_is_gone_is_paused_once_and_starts_again_when_it_is_back(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", "stock"))
    gone = register(hand_over("stock"))
    paused = prefect.deployments["sales/dev"]
    still_gone = register(hand_over("stock"))
    back = register(hand_over("sales", "stock"))

    assert actions(gone) == {"stock/dev": "keep", "sales/dev": "pause"}
    assert (paused.paused, paused.tags) == (True, ["dev", "etl", "removed"])
    assert actions(still_gone) == {"stock/dev": "keep", "sales/dev": "keep"}
    assert actions(back) == {"sales/dev": "update", "stock/dev": "keep"}
    assert prefect.deployments["sales/dev"].paused is False
    assert prefect.deployments["sales/dev"].tags == ["dev", "etl"]
    assert prefect.writes[-2:] == [("PATCH", "sales/dev"), ("POST", "sales/dev")]


def test_flow_that_was_paused_by_hand_does_not_start_when_it_is_back(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", "stock"))
    prefect.edit("sales/dev", paused=True)

    assert actions(register(hand_over("stock"))) == {"stock/dev": "keep", "sales/dev": "keep"}
    assert actions(register(hand_over("sales", "stock"), image=OTHER_IMAGE))["sales/dev"] == "update"
    assert prefect.deployments["sales/dev"].paused is True


@pytest.mark.parametrize("paused", [True, False])
def test_prune_deletes_what_is_gone(
    hand_over: HandOver, register: Register, prefect: FakePrefect, paused: bool
) -> None:
    register(hand_over("sales", "stock"))
    if paused:
        register(hand_over("stock"))

    assert actions(register(hand_over("stock"), prune=True)) == {"stock/dev": "keep", "sales/dev": "delete"}
    assert set(prefect.deployments) == {"stock/dev"}


def test_entry_that_is_renamed_leaves_its_old_deployment_paused(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", prefect_yaml=DAILY))

    assert actions(register(hand_over("sales", prefect_yaml=DAILY.replace("daily", "nightly")))) == {
        "sales/dev-nightly": "create",
        "sales/dev-daily": "pause",
    }


@pytest.mark.parametrize("prune", [True, False])
def test_choice_of_flows_leaves_the_others_alone(hand_over: HandOver, register: Register, prune: bool) -> None:
    register(hand_over("sales", "stock", "tax"))
    chosen = hand_over("sales", "stock", choice=Choice(flows=("sales",)))

    assert actions(register(chosen, prune=prune)) == {"sales/dev": "keep"}


def test_previews_and_the_real_ones_leave_each_other_alone(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", "stock"))
    register(hand_over("sales", "stock", choice=PREVIEW, branch="x"))
    register(hand_over("sales", "stock", choice=PREVIEW, branch="y"))
    preview = register(hand_over("stock", choice=PREVIEW, branch="x"))
    real = register(hand_over("sales"))

    assert actions(preview) == {"stock/dev-x": "keep", "sales/dev-x": "delete"}
    assert actions(real) == {"sales/dev": "keep", "stock/dev": "pause"}
    assert set(prefect.deployments) == {"sales/dev", "stock/dev", "stock/dev-x", "sales/dev-y", "stock/dev-y"}


class Ecr:
    """ECR with images of workflow etl, and of others that a test names."""

    def __init__(self, environment: Environment, client: Any) -> None:
        self.environment, self.client = environment, client

    def push(self, tag: str, repository: str = "dev_etl") -> Image:
        """Have an image; gives it with its digest."""
        images.ensure_repository(self.environment, repository)
        manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [{"digest": tag}]})
        made = self.client.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)["image"]
        image = images.image_name(self.environment, repository, tag)
        return dataclasses.replace(image, digest=made["imageId"]["imageDigest"])

    @property
    def tags(self) -> set[str]:
        return self.tags_of("dev_etl")

    def tags_of(self, repository: str) -> set[str]:
        return {each["imageTag"] for each in self.client.list_images(repositoryName=repository)["imageIds"]}


@pytest.fixture
def ecr(environment: Environment, aws_mocked: Callable[[str], Any]) -> Ecr:
    return Ecr(environment, aws_mocked("ecr"))


def _find(environment: Environment, name: str = "etl", origin: str = ORIGIN, branch: str = "") -> list[str]:
    return [each.name for each in removal.find(environment, name, origin, branch, bool(branch))]


@pytest.fixture
def registered(hand_over: HandOver, register: Register) -> None:
    """Workflow etl with previews of two branches, and workflow stock."""
    register(hand_over("sales", "tax"))
    register(hand_over("sales", choice=PREVIEW, branch="x"))
    register(hand_over("sales", choice=PREVIEW, branch="x/y"))
    register(hand_over("count", name="stock"))


@pytest.mark.usefixtures("registered")
def test_whole_workflow_goes_with_its_previews_and_nothing_else(environment: Environment) -> None:
    assert _find(environment) == ["sales/dev", "sales/dev-x", "sales/dev-x-y", "tax/dev"]
    assert _find(environment, "stock") == ["count/dev"]


@pytest.mark.usefixtures("registered")
def test_previews_are_those_of_exactly_one_branch(environment: Environment) -> None:
    assert _find(environment, branch="x") == ["sales/dev-x"]
    assert _find(environment, branch="x/y") == ["sales/dev-x-y"]
    assert _find(environment, branch="never-pushed") == []
    assert _find(environment, "unknown", branch="x") == []


@pytest.mark.parametrize(("name", "hint"), [("elt", "did you mean etl?"), ("warehouse", "registered: etl, stock")])
@pytest.mark.usefixtures("registered")
def test_unknown_workflow_gets_a_suggestion_and_the_list(environment: Environment, name: str, hint: str) -> None:
    with pytest.raises(PlatformError) as caught:
        _find(environment, name)

    assert caught.value.what == f"no workflow {name} is registered in environment dev"
    assert hint in caught.value.why
    assert "registered: etl, stock" in caught.value.why
    assert "invoke workflows" in caught.value.todo


def test_deployments_of_nobodys_are_no_workflow_and_those_of_no_repository_are_anybodys(
    environment: Environment, hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    prefect.add("by-hand/dev")
    with pytest.raises(PlatformError, match="registered: none"):
        _find(environment)

    register(hand_over("sales", origin="", commit=""))
    assert _find(environment) == ["sales/dev"]


@pytest.mark.parametrize("branch", ["", "x"])
@pytest.mark.usefixtures("registered")
def test_workflow_of_the_same_name_from_elsewhere_is_not_touched(environment: Environment, branch: str) -> None:
    with pytest.raises(PlatformError) as caught:
        _find(environment, origin="github.com/other/etl//workflow", branch=branch)

    assert caught.value.what == "workflow etl of environment dev is another one"
    assert ORIGIN in caught.value.why
    assert len(_find(environment, origin="")) == 4  # by its name alone


@pytest.mark.parametrize(
    ("name", "branch", "previews", "missing"), [("", "", False, "--name"), ("etl", "", True, "--branch-name")]
)
@pytest.mark.usefixtures("registered")
def test_what_is_not_named_is_asked_for(
    environment: Environment, name: str, branch: str, previews: bool, missing: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        removal.find(environment, name, "", branch, previews)

    assert missing in caught.value.why + caught.value.todo


def _remove(environment: Environment, branch: str = "") -> str:
    """Take a workflow or a branch's previews back; gives what the user is told."""
    going = removal.find(environment, "etl", ORIGIN, branch, bool(branch))
    with steps() as run:
        step = run("Removal", removal.remove, environment, "etl", going, not branch)
    return step.note


def test_previews_go_with_the_images_that_only_they_used(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr, prefect: FakePrefect
) -> None:
    shared, own, history, copied = map(ecr.push, ("shared", "own", "history", "copied"))
    register(hand_over("sales"), image=history)
    register(hand_over("sales"), image=shared)
    register(hand_over("sales", "tax", choice=PREVIEW, branch="x"), image=own)
    register(hand_over("sales", "tax", choice=PREVIEW, branch="y"), image=shared)
    prefect.edit("tax/dev-y", job_variables={"image": copied.pinned})
    prefect.add("tax/by-hand", job_variables={"image": copied.pinned})  # a copy, without our tags

    assert _remove(environment, branch="x") == "2 deployment(s), 1 image(s)"
    assert set(prefect.deployments) == {"sales/dev", "sales/dev-y", "tax/dev-y", "tax/by-hand"}
    assert ecr.tags == {"shared", "history", "copied"}
    assert _remove(environment, branch="y") == "2 deployment(s), 0 image(s)"
    assert ecr.tags == {"shared", "history", "copied"}


def test_whole_workflow_goes_with_its_repository(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr, prefect: FakePrefect
) -> None:
    register(hand_over("sales"), image=ecr.push("one"))
    register(hand_over("count", name="stock"))

    assert _remove(environment) == "1 deployment(s), ECR repository dev_etl"
    assert ecr.client.describe_repositories()["repositories"] == []
    assert set(prefect.deployments) == {"count/dev"}


@pytest.mark.usefixtures("registered", "aws_mocked")
def test_without_deployments_or_repository_there_is_nothing_to_do(
    environment: Environment, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(AGENT_TOKEN)  # the key to register is enough
    prefect.writes.clear()
    removal.remove(environment, "etl", [], whole=False)

    assert prefect.writes == []
    assert _remove(environment) == "4 deployment(s)"


@pytest.mark.usefixtures("registered", "aws_mocked")
def test_removal_that_was_cut_off_is_finished_by_the_next(environment: Environment, prefect: FakePrefect) -> None:
    going = removal.find(environment, "etl", ORIGIN, "", False)
    prefect.delete_deployment(going[0].deployment.id)
    removal.remove(environment, "etl", going, whole=True)

    assert set(prefect.deployments) == {"count/dev"}


@pytest.mark.usefixtures("registered")
def test_images_stay_when_prefect_refuses(environment: Environment, ecr: Ecr, prefect: FakePrefect) -> None:
    ecr.push("one")
    prefect.refused = {"tax/dev": http_error(500, "database is locked")}
    with pytest.raises(PlatformError, match="database is locked"):
        _remove(environment)

    assert ecr.tags == {"one"}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubApi]:
    """GitHub with the repository acme/etl, for the token that the job has."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_token")
    with github_api("acme/etl", "ghs_token") as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        yield api


OTHER_FOLDER, OTHER_REPOSITORY = "github.com/acme/etl//stock", "github.com/acme/etl2//workflow"


@pytest.fixture
def previews(hand_over: HandOver, register: Register) -> None:
    """Previews of two workflows of a repository, beside the real ones, and of another repository."""
    register(hand_over("sales"))
    register(hand_over("sales", choice=PREVIEW, branch="fix"))
    register(hand_over("sales", "tax", choice=PREVIEW, branch="fix/Typo"))
    register(hand_over("count", choice=PREVIEW, branch="new", name="stock", origin=OTHER_FOLDER))
    register(hand_over("visits", choice=PREVIEW, branch="fix", name="etl2", origin=OTHER_REPOSITORY))
    register(hand_over("by_hand", choice=PREVIEW, branch="fix", name="folder", origin=""))


def _abandoned(environment: Environment, origin: str = ORIGIN) -> list[str]:
    return [preview.name for preview in removal.find_abandoned(environment, origin)]


@pytest.mark.usefixtures("previews")
def test_previews_without_an_open_pull_request_are_abandoned(environment: Environment, github: GitHubApi) -> None:
    assert _abandoned(environment) == ["count/dev-new", "sales/dev-fix", "sales/dev-fix-typo", "tax/dev-fix-typo"]

    github.pulls = [pull_request("fix/Typo"), pull_request("main"), pull_request("fix", FORK)]
    assert _abandoned(environment) == ["count/dev-new", "sales/dev-fix"]
    assert _abandoned(environment, OTHER_FOLDER) == ["count/dev-new", "sales/dev-fix"]

    github.pulls += [pull_request("fix"), pull_request("new")]
    assert _abandoned(environment) == []


@pytest.mark.usefixtures("previews")
def test_nothing_is_abandoned_when_github_cannot_be_asked(
    environment: Environment, github: GitHubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for origin in (OTHER_REPOSITORY, "", "gitlab.com/acme/etl//workflow"):
        with pytest.raises(PlatformError):
            _abandoned(environment, origin)
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_expired")
    with pytest.raises(PlatformError, match="no preview was removed"):
        _abandoned(environment)


def test_preview_that_is_registered_while_github_answers_stays(
    environment: Environment, hand_over: HandOver, register: Register, github: GitHubApi
) -> None:
    register(hand_over("sales", choice=PREVIEW, branch="fix"))

    def open_another() -> None:
        register(hand_over("sales", choice=PREVIEW, branch="new"))

    github.answered = open_another

    assert _abandoned(environment) == ["sales/dev-fix"]


@pytest.mark.usefixtures("github")
def test_abandoned_previews_of_all_workflows_go_with_their_images(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr, prefect: FakePrefect
) -> None:
    real = ecr.push("real")
    register(hand_over("sales"), image=real)
    register(hand_over("sales", choice=PREVIEW, branch="fix"), image=ecr.push("fix"))
    register(hand_over("tax", choice=PREVIEW, branch="same"), image=real)
    stock = hand_over("count", choice=PREVIEW, branch="fix", name="stock", origin=OTHER_FOLDER)
    register(stock, image=ecr.push("stock", "dev_stock"))
    with steps() as run:
        step = run("Removal", removal.remove, environment, "etl", removal.find_abandoned(environment, ORIGIN), False)

    assert step.note == "3 deployment(s), 2 image(s)"
    assert set(prefect.deployments) == {"sales/dev"}
    assert (ecr.tags, ecr.tags_of("dev_stock")) == ({"real"}, set())


Sweep = Callable[..., str]


@pytest.fixture
def sweep(root: Path, previews: None, aws_mocked: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> Sweep:
    """Run `invoke unregister --sweep` for acme/etl in dev; gives what it printed."""
    settings = root / "environments" / "dev.tfvars"
    settings.write_text(settings.read_text().replace("111111111111", ACCOUNT))

    def run(dry_run: bool = False) -> str:
        where = {"workflow_path": "workflow", "git_url": "https://github.com/acme/etl", "env": "dev"}
        tasks.unregister.body(Context(), **where, sweep=True, yes=True, dry_run=dry_run)
        return capsys.readouterr().out

    return run


def test_task_sweeps_previews_and_not_what_is_real(
    github: GitHubApi, prefect: FakePrefect, ecr: Ecr, sweep: Sweep
) -> None:
    before = set(prefect.deployments)
    ecr.push("real")
    github.pulls = [pull_request("fix/Typo")]
    listed = [line.split()[0] for line in sweep(dry_run=True).splitlines()]

    assert listed == ["deployment", "count/dev-new", "sales/dev-fix", "dry"]
    assert set(prefect.deployments) == before

    sweep()
    assert before - set(prefect.deployments) == {"count/dev-new", "sales/dev-fix"}
    assert ecr.tags == {"real"}
    assert sweep().splitlines()[-1] == "nothing to remove"


@pytest.mark.usefixtures("github")
def test_task_that_cannot_ask_github_removes_nothing(
    prefect: FakePrefect, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_expired")
    before = set(prefect.deployments)
    with pytest.raises(SystemExit):
        sweep()
    output = capsys.readouterr().err

    assert "cannot read the open pull requests, so no preview was removed" in output
    assert "pull-requests: read" in output
    assert "ghs_expired" not in output
    assert set(prefect.deployments) == before


def test_push_to_a_preview_deletes_the_image_before_it(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr
) -> None:
    old, new, real = ecr.push("old"), ecr.push("new"), ecr.push("real")
    register(hand_over("sales"), image=real)
    register(hand_over("sales", "tax", choice=PREVIEW, branch="x"), image=old)
    handed_over = hand_over("sales", choice=PREVIEW, branch="x")

    assert removal.superseded(environment, handed_over, register(handed_over, image=new)) == [old.digest]
    assert ecr.tags == {"new", "real"}
    assert removal.superseded(environment, handed_over, register(handed_over, image=new)) == []
    assert removal.superseded(environment, handed_over, register(handed_over, image=real)) == [new.digest]
    assert removal.superseded(environment, handed_over, register(handed_over, image=ecr.push("next"))) == []
    assert ecr.tags == {"real", "next"}


def test_image_of_a_preview_that_is_gone_from_the_folder_is_deleted(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr, prefect: FakePrefect
) -> None:
    old, new = ecr.push("old"), ecr.push("new")
    register(hand_over("sales", "tax", choice=PREVIEW, branch="x"), image=old)
    only_sales = Choice(flows=("sales",), preview=True)
    register(hand_over("sales", "tax", choice=only_sales, branch="x"), image=new)
    handed_over = hand_over("sales", choice=PREVIEW, branch="x")

    assert removal.superseded(environment, handed_over, register(handed_over, image=new)) == [old.digest]
    prefect.keys.clear()
    assert removal.superseded(environment, handed_over, []) == []
    assert prefect.keys == []


def _retire(environment: Environment, workflow: Workflow, image: Image) -> str:
    """Delete old images after a push of this one; gives what the user is told."""
    with steps() as run:
        step = run("Older images", removal.retire, environment, workflow, Content(image, {}))
    return step.note


def test_old_images_go_after_a_push_but_those_that_deployments_run(
    environment: Environment, hand_over: HandOver, register: Register, ecr: Ecr, prefect: FakePrefect
) -> None:
    few = dataclasses.replace(environment, image_retention_count=2)
    by_digest, by_tag, _, _, newest = map(ecr.push, ("by-digest", "by-tag", "old", "recent", "newest"))
    register(hand_over("sales"), image=by_digest)
    prefect.add("tax/by-hand", job_variables={"image": by_tag.uri})
    new, known = dataclasses.replace(newest, digest=""), newest
    pushed_one_by_one("dev_etl")

    assert _retire(few, hand_over("sales"), known) == "no new image"
    assert ecr.tags == {"by-digest", "by-tag", "old", "recent", "newest"}
    assert _retire(few, hand_over("sales"), new) == "1 deleted"
    assert ecr.tags == {"by-digest", "by-tag", "recent", "newest"}


def test_few_images_are_kept_without_asking_prefect(
    environment: Environment, hand_over: HandOver, ecr: Ecr, prefect: FakePrefect
) -> None:
    new = dataclasses.replace(ecr.push("one"), digest="")
    prefect.keys.clear()

    assert _retire(environment, hand_over("sales"), new) == "0 deleted"
    assert prefect.keys == []
