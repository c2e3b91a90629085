import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from agent import teardown
from environments.errors import PlatformError
from environments.settings import Environment
from infra import terraform_errors
from infra.images import ensure_repository
from infra.state import bucket_name, ensure_bucket

Aws = Callable[[str], Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the teardown does beside AWS, in order; Prefect and Terraform are not played by moto."""
    done: list[str] = []
    monkeypatch.setattr(teardown.project, "delete", lambda _: done.append("project"))
    monkeypatch.setattr(teardown.terraform, "destroy", lambda *_: done.append("terraform"))
    return done


def _workflows(aws_mocked: Aws, environment: Environment) -> None:
    """What register and the runs of an environment leave at AWS."""
    ecs = aws_mocked("ecs")
    ecs.create_cluster(clusterName=f"{environment.prefix}_workflows")
    for family in (f"{environment.prefix}_workflow_sales", f"{environment.prefix}_agent"):
        ecs.register_task_definition(
            family=family, containerDefinitions=[{"name": "workflow", "image": "x", "memory": 512}]
        )
    ensure_repository(environment, f"{environment.name}_sales")


def _left(aws_mocked: Aws) -> tuple[list[str], list[str]]:
    repositories = [entry["repositoryName"] for entry in aws_mocked("ecr").describe_repositories()["repositories"]]
    arns = aws_mocked("ecs").list_task_definitions(status="ACTIVE")["taskDefinitionArns"]
    return sorted(repositories), sorted(arn.rsplit("/", 1)[-1] for arn in arns)


def test_everything_of_the_environment_goes(environment: Environment, aws_mocked: Aws, calls: list[str]) -> None:
    _workflows(aws_mocked, environment)
    teardown.destroy(environment)

    assert calls == ["project", "terraform"]
    assert _left(aws_mocked) == ([], [])


def test_state_bucket_stays_for_the_next_deploy(environment: Environment, aws_mocked: Aws, calls: list[str]) -> None:
    """It belongs to the account, and the deploy role may not make it again."""
    ensure_bucket(environment)
    teardown.destroy(environment)

    assert [bucket["Name"] for bucket in aws_mocked("s3").list_buckets()["Buckets"]] == [bucket_name(environment)]


@pytest.mark.parametrize("name", ["dev2", "prod", "de"])
def test_other_environments_of_the_account_stay(
    environment: Environment, aws_mocked: Aws, calls: list[str], name: str
) -> None:
    other = dataclasses.replace(environment, name=name)
    _workflows(aws_mocked, environment)
    _workflows(aws_mocked, other)
    ensure_bucket(other)
    teardown.destroy(environment)
    repositories, definitions = _left(aws_mocked)

    assert repositories == [f"{name}_sales"]
    assert [definition.startswith(f"{name}_") for definition in definitions] == [True, True]
    assert [bucket["Name"] for bucket in aws_mocked("s3").list_buckets()["Buckets"]] == [bucket_name(other)]


def test_destroying_what_is_gone_is_fine(environment: Environment, aws_mocked: Aws, calls: list[str]) -> None:
    teardown.destroy(environment)
    teardown.destroy(environment)

    assert _left(aws_mocked) == ([], [])


def test_environment_without_a_state_bucket_was_not_deployed(
    environment: Environment, aws_mocked: Aws, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def destroy(*_: Any) -> None:
        raise terraform_errors.failure(
            environment, "init", f'Error: S3 bucket "{bucket_name(environment)}" does not exist.'
        )

    monkeypatch.setattr(teardown.terraform, "destroy", destroy)
    _workflows(aws_mocked, environment)
    teardown.destroy(environment)

    assert _left(aws_mocked) == ([], [])


def test_terraform_that_fails_ends_the_teardown(
    environment: Environment, aws_mocked: Aws, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def destroy(*_: Any) -> None:
        raise PlatformError("terraform destroy failed", "DependencyViolation")

    monkeypatch.setattr(teardown.terraform, "destroy", destroy)
    _workflows(aws_mocked, environment)
    with pytest.raises(PlatformError, match="DependencyViolation"):
        teardown.destroy(environment)

    assert _left(aws_mocked)[0] == ["dev_sales"]


def test_credentials_of_another_account_destroy_nothing(
    environment: Environment, aws_mocked: Aws, calls: list[str]
) -> None:
    _workflows(aws_mocked, environment)
    other = dataclasses.replace(environment, aws_account_id="999999999999")
    with pytest.raises(PlatformError, match="these AWS credentials are for account 123456789012"):
        teardown.destroy(other)

    assert calls == []
    assert _left(aws_mocked)[0] == ["dev_sales"]


def test_local_goes_with_its_servers(local: Environment, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated AWS may be down: nothing is asked of it."""
    monkeypatch.setattr(teardown.local_stack, "state", lambda _: {"emulated AWS": "stopped"})
    teardown.destroy(local)

    assert calls == []


def test_repositories_that_register_did_not_make_stay(
    environment: Environment, aws_mocked: Aws, calls: list[str]
) -> None:
    """Other teams of the account may well call theirs `dev_...` or `test_...`."""
    _workflows(aws_mocked, environment)
    aws_mocked("ecr").create_repository(repositoryName=f"{environment.name}_of_another_team")
    teardown.destroy(environment)

    assert _left(aws_mocked)[0] == [f"{environment.name}_of_another_team"]


class Answer:
    """A terminal on which somebody types one line."""

    def __init__(self, line: str) -> None:
        self.line = line

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self.line}\n"


@pytest.mark.parametrize(
    ("yes", "name", "typed", "goes"),
    [
        (False, "", "prod", True),
        (False, "", "yes", False),
        (True, "", "yes", False),
        (True, "", "prod", True),
        (False, "prod", None, True),
        (True, "prod", None, True),
        (True, "dev", None, False),
    ],
)
def test_prod_goes_only_by_its_name(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, yes: bool, name: str, typed: str | None, goes: bool
) -> None:
    if typed:
        monkeypatch.setattr(sys, "stdin", Answer(typed))
    prod = dataclasses.replace(environment, name="prod")
    with contextlib.nullcontext() if goes else pytest.raises(PlatformError, match="nothing was changed"):
        teardown.confirm(prod, yes, name)


def test_scripts_are_told_what_to_say_for_prod(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is not `--yes`, which a script for dev may have been copied with."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(PlatformError) as caught:
        teardown.confirm(dataclasses.replace(environment, name="prod"), True, "")

    assert "--name prod" in caught.value.todo
    assert "--yes" not in caught.value.todo


@pytest.mark.parametrize(
    ("yes", "name", "typed", "goes"),
    [
        (True, "", "", True),
        (False, "dev", "", True),
        (False, "", "yes", True),
        (False, "", "dev", False),
        (True, "prod", "", False),
    ],
)
def test_other_environments_go_with_a_yes(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, yes: bool, name: str, typed: str, goes: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Answer(typed))
    with contextlib.nullcontext() if goes else pytest.raises(PlatformError, match="nothing was changed"):
        teardown.confirm(environment, yes, name)
