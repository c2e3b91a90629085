import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from environments import progress
from environments.errors import PlatformError
from environments.settings import Environment, fields
from infra import plans, terraform, terraform_process
from infra.terraform import Outputs
from unit_tests.conftest import FakeTerraform

TAG = "0123456789abcdef"


def _change(address: str, *actions: str) -> dict[str, Any]:
    return {"address": address, "change": {"actions": list(actions)}}


def _plan(of: Environment, /, *changes: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """What Terraform says of a plan, as far as it is looked at."""
    settings = {name: getattr(of, name) for name in fields()}
    given = {"environment": of.name, "agent_image_tag": TAG, **settings, **variables}
    return {
        "format_version": "1.2",
        "variables": {name: {"value": value} for name, value in given.items()},
        "resource_changes": list(changes),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file that the fake of Terraform takes for a plan."""
    file = tmp_path / "plan"
    file.touch()
    return file


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans.checks, "account", lambda _: None)


def _apply(environment: Environment, saved: Path) -> Path | None:
    return plans.to_apply(environment, TAG, str(saved), False, saved.parent)


def test_plan_of_these_settings_and_this_image_is_taken(
    environment: Environment, fake_terraform: FakeTerraform, saved: Path
) -> None:
    own = dataclasses.replace(environment, workflow_cpu=1024)
    fake_terraform.answers("show", json.dumps(_plan(own)))

    assert _apply(own, saved) == saved
    assert fake_terraform.arguments("show")[-1] == str(saved)


def test_plan_says_lists_in_an_order_of_its_own(environment: Environment) -> None:
    assert plans._normal(("b", "a")) == plans._normal(["a", "b"])
    assert plans._normal({"x": 1, "y": ["a"]}) == plans._normal({"y": ("a",), "x": 1})
    assert plans._normal(("a",)) != plans._normal(("b",))
    assert plans._normal(1) != plans._normal("1")


@pytest.mark.parametrize(
    ("variables", "what", "why"),
    [
        ({"environment": "prod"}, "of another environment", "it was made for prod, this is dev"),
        ({"agent_image_tag": "fedc"}, "for another agent image", f"made for fedc, this checkout's agent is {TAG}"),
        ({"workflow_cpu": 2048}, "for other settings", "workflow_cpu: planned 2048, now 512"),
    ],
)
def test_plan_of_anything_else_is_refused(
    environment: Environment,
    fake_terraform: FakeTerraform,
    saved: Path,
    variables: dict[str, Any],
    what: str,
    why: str,
) -> None:
    """Terraform would apply it: to that other environment, or with that other image."""
    fake_terraform.answers("show", json.dumps(_plan(environment, **variables)))
    with pytest.raises(PlatformError) as caught:
        _apply(environment, saved)

    assert what in caught.value.what
    assert why in caught.value.why
    assert "invoke plan --env dev --out FILE" in caught.value.todo


def test_file_that_is_no_plan_is_refused(environment: Environment, fake_terraform: FakeTerraform, saved: Path) -> None:
    fake_terraform.answers("show", stderr="Error: Failed to read the given file", code=1)
    with pytest.raises(PlatformError, match="plan is not a plan that can be applied") as caught:
        _apply(environment, saved)

    assert "Failed to read" in caught.value.why


def test_missing_plan_is_told_before_anybody_is_asked(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans.checks, "account", lambda _: pytest.fail("the file is missing"))
    with pytest.raises(PlatformError, match="there is no plan"):
        _apply(environment, tmp_path / "missing")


def test_environments_other_than_prod_are_not_asked_about(environment: Environment, tmp_path: Path) -> None:
    assert plans.to_apply(environment, TAG, "", False, tmp_path) is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def prod(environment: Environment, fake_terraform: FakeTerraform, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(plans.checks, "require", lambda _: None)
    return dataclasses.replace(environment, name="prod")


def test_prod_shows_its_plan_and_applies_exactly_that(
    prod: Environment, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_terraform.answers("plan", code=2)
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    saved = plans.to_apply(prod, TAG, "", False, tmp_path)

    assert saved
    assert f"-out={saved}" in fake_terraform.arguments("plan")


@pytest.mark.parametrize("answer", ["no\n", "\n", ""])
def test_prod_stays_as_it_is_when_the_plan_is_not_wanted(
    prod: Environment, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake_terraform.answers("plan", code=2)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(PlatformError, match="nothing was changed"):
        plans.to_apply(prod, TAG, "", False, tmp_path)


def test_prod_without_changes_is_not_asked_about(
    prod: Environment, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_terraform.answers("plan", code=0)
    monkeypatch.setattr(sys, "stdin", Terminal("never read"))

    assert plans.to_apply(prod, TAG, "", False, tmp_path)
    assert sys.stdin.read() == "never read"


def test_prod_where_nobody_can_be_asked_is_not_even_planned(
    prod: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    monkeypatch.setattr(plans.terraform, "plan", lambda *_: pytest.fail("too late then"))
    with pytest.raises(PlatformError, match="not confirmed") as caught:
        plans.to_apply(prod, TAG, "", False, tmp_path)

    assert "--yes" in caught.value.todo


def test_prod_with_yes_is_not_asked_about(prod: Environment, tmp_path: Path) -> None:
    assert plans.to_apply(prod, TAG, "", True, tmp_path) is None


def test_plan_of_prod_that_would_not_be_seen_is_not_made(prod: Environment, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="has to be shown first") as caught:
        plans.to_apply(prod, TAG, "", False, tmp_path, silent=True)

    assert "--yes" in caught.value.todo
    assert plans.to_apply(prod, TAG, "", True, tmp_path, silent=True) is None


def test_markdown_says_what_happens_to_which_resource(environment: Environment) -> None:
    changes = [
        _change('aws_ecr_repository.this["a"]', "create"),
        _change("aws_vpc.this", "update"),
        _change("aws_subnet.public[0]", "delete", "create"),
        _change("aws_subnet.public[1]", "create", "delete"),
        _change("aws_sqs_queue.old", "delete"),
        _change("data.aws_iam_policy_document.x", "read"),
        _change("aws_ecs_cluster.this", "no-op"),
    ]
    lines = plans.as_markdown(environment, _plan(environment, *changes), "# the plan").splitlines()

    assert lines[0] == "## Plan for environment dev: changes"
    assert "**3 to add, 1 to change, 3 to destroy**" in lines
    assert [line for line in lines if line.startswith("| ")] == [
        "| action | resource |",
        "| --- | --- |",
        '| create | `aws_ecr_repository.this["a"]` |',
        "| update | `aws_vpc.this` |",
        "| **replace** | `aws_subnet.public[0]` |",
        "| **replace** | `aws_subnet.public[1]` |",
        "| **delete** | `aws_sqs_queue.old` |",
    ]
    assert lines[-5:] == ["```text", "# the plan", "```", "", "</details>"]


def test_markdown_of_no_changes_says_so(environment: Environment) -> None:
    text = plans.as_markdown(environment, _plan(environment, _change("aws_vpc.this", "no-op")), "No changes.")

    assert text.startswith("## Plan for environment dev: no changes\n")
    assert "| action |" not in text


def test_markdown_names_outputs_when_they_are_all_that_changes(environment: Environment) -> None:
    described = {**_plan(environment), "output_changes": {"a": {"actions": ["update"]}, "b": {"actions": ["no-op"]}}}
    text = plans.as_markdown(environment, described, "x")

    assert text.startswith("## Plan for environment dev: changes\n")
    assert "only outputs: `a`." in text


def test_nothing_in_a_plan_gets_out_of_its_fence(environment: Environment) -> None:
    words = "a\n```\n</details>\n````` b\n# not a heading"
    text = plans.as_markdown(environment, _plan(environment, _change('x["`|\n# y"]', "create")), words)
    fences = re.findall(r"^(`{3,})(?:text)?$", text, re.MULTILINE)

    assert fences == ["`" * 6, "```", "`" * 6]
    assert '| create | `x["???# y"]` |' in text
    assert "\n# y" not in text


@pytest.mark.parametrize("resources", [1, 3000])
def test_markdown_fits_into_a_comment(environment: Environment, resources: int) -> None:
    changes = [_change(f"aws_vpc.number_{number}", "create") for number in range(resources)]
    text = plans.as_markdown(environment, _plan(environment, *changes), "line of the plan ``\n" * 10_000)

    assert len(text) <= plans.COMMENT_LIMIT
    assert f"**{resources} to add," in text
    assert text.endswith("\n```\n\n</details>\n")
    assert "cut here" in text


def test_plan_is_written_for_a_comment_and_on_the_page_of_the_job(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.chdir(tmp_path)
    fake_terraform.answers("show", json.dumps(_plan(environment, _change("aws_vpc.this", "create"))))
    fake_terraform.answers("plan", code=2)

    assert plans.show(environment, TAG, "plan", "plan.md") == 2
    assert "aws_vpc.this" in Path("plan.md").read_text()
    assert Path("summary.md").read_text() == Path("plan.md").read_text()
    assert f"-out={tmp_path / 'plan'}" in fake_terraform.arguments("plan")


def test_plan_that_is_only_looked_at_is_not_described(environment: Environment, fake_terraform: FakeTerraform) -> None:
    assert plans.show(environment, TAG) == 0
    assert fake_terraform.calls() == ["init", "plan"]


@pytest.mark.parametrize("option", ["out", "markdown"])
def test_file_that_can_not_be_written_is_told_at_once(environment: Environment, tmp_path: Path, option: str) -> None:
    """There is no Terraform here that could have been run."""
    with pytest.raises(PlatformError, match="can't be written"):
        plans.show(environment, TAG, **{option: str(tmp_path / "nosuch" / "file")})


def test_plan_that_fails_leaves_no_older_one(
    environment: Environment, fake_terraform: FakeTerraform, saved: Path
) -> None:
    """A pipeline might take it for the one that was asked for."""
    fake_terraform.answers("plan", stderr="Error: no", code=1)
    with pytest.raises(PlatformError):
        plans.show(environment, TAG, str(saved))

    assert not saved.exists()


@pytest.fixture
def planned_before(environment: Environment, fake_terraform: FakeTerraform, outputs: Outputs) -> FakeTerraform:
    """Terraform on a machine that has deployed the environment before."""
    told = {field.name: {"value": getattr(outputs, field.name)} for field in dataclasses.fields(outputs)}
    fake_terraform.answers("output", json.dumps(told))
    folder = terraform_process.data_folder(environment) / "providers/registry/hashicorp/aws/6.0.0/linux_amd64"
    folder.mkdir(parents=True)
    (folder / "terraform-provider-aws_v6.0.0").touch()
    terraform.init(environment)
    return fake_terraform


def _made_ahead(environment: Environment, folder: Path, approved: Path | None = None) -> Any:
    with progress.steps() as run:
        step = plans.ahead(run, environment, TAG, approved, folder)
    return step and step.result


def _planning(*changes: str, **outputs: str) -> str:
    events: list[dict[str, Any]] = [
        {"type": "planned_change", "change": {"action": action, "resource": {"addr": address}}}
        for action, address in (change.split() for change in changes)
    ]
    events.append({"type": "outputs", "outputs": {name: {"action": action} for name, action in outputs.items()}})
    return "".join(json.dumps(event) + "\n" for event in events)


def test_plan_is_made_ahead_under_the_lock(
    environment: Environment, planned_before: FakeTerraform, outputs: Outputs, tmp_path: Path
) -> None:
    planned_before.answers("plan", _planning("read data.x", "update aws_vpc.this", agent_image="noop"))
    made = _made_ahead(environment, tmp_path)

    assert (made.changes, made.outputs) == (["update aws_vpc.this"], outputs)
    assert made.has_repository
    assert f"-out={made.file}" in planned_before.arguments("plan")
    assert "-lock=false" not in planned_before.arguments("plan")


@pytest.mark.parametrize(
    ("told", "changes", "repository"),
    [
        (_planning(), [], True),
        (_planning(agent_image="update"), ["update output agent_image"], True),
        (_planning("create aws_ecr_repository.agent"), ["create aws_ecr_repository.agent"], False),
    ],
)
def test_plan_made_ahead_says_what_would_change(
    environment: Environment,
    planned_before: FakeTerraform,
    tmp_path: Path,
    told: str,
    changes: list[str],
    repository: bool,
) -> None:
    planned_before.answers("plan", told)
    made = _made_ahead(environment, tmp_path)

    assert (made.changes, made.has_repository) == (changes, repository)


def test_plan_that_can_not_be_made_ahead_is_no_error_yet(
    environment: Environment, planned_before: FakeTerraform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned_before.answers("plan", code=1)

    assert _made_ahead(environment, tmp_path) is None
    assert "not yet" in capsys.readouterr().out


def test_nothing_is_planned_ahead_of_what_was_shown_or_on_a_new_machine(
    environment: Environment, planned_before: FakeTerraform, tmp_path: Path
) -> None:
    assert _made_ahead(environment, tmp_path, approved=tmp_path / "plan") is None
    (terraform_process.data_folder(environment) / "ready").unlink()

    assert _made_ahead(environment, tmp_path) is None
    assert "plan" not in planned_before.calls()


def test_nothing_is_planned_or_saved_ahead_of_the_checks_where_a_state_is_not_saved_yet(
    environment: Environment, planned_before: FakeTerraform, tmp_path: Path
) -> None:
    (environment.folder / terraform_process.UNSAVED_STATE).write_text("{}")

    assert _made_ahead(environment, tmp_path) is None
    assert not {"plan", "state push"} & set(planned_before.calls())
