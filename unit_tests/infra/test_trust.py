import dataclasses
import re
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate_trust_policy

from environments.errors import PlatformError
from environments.settings import Environment
from infra.roles import ROLES
from infra.trust import Trust, branches, repositories, trust_policy

ACME = Trust("acme/platform", ("acme/etl",))
WITH_IDS = Trust("acme@1/platform@2", ("acme@1/etl@3",))
GITHUB = "token.actions.githubusercontent.com"
SUBJECTS = {
    "dev": ["pull_request", "ref:refs/heads/feature/*", "ref:refs/heads/main"],
    "test": ["pull_request", "ref:refs/heads/develop", "ref:refs/heads/main"],
    "prod": ["pull_request", "ref:refs/heads/main", "ref:refs/heads/master"],
    "staging": ["pull_request", "ref:refs/heads/main"],
}
"""Where jobs may read, by environment; each branch is one that deploys it, and main has the search for drift."""


def _subjects(document: Any) -> list[str]:
    [statement] = document["Statement"]
    found: list[str] = statement["Condition"]["StringLike"][f"{GITHUB}:sub"]
    return found


def _takes(document: Any, subject: str, audience: str = "sts.amazonaws.com", account: str = "123456789012") -> bool:
    """Whether a job gets the role, as the emulator's evaluator sees it."""
    provider = f"arn:aws:iam::{account}:oidc-provider/{GITHUB}"
    context = EvalContext(
        principal_arn=provider,
        principal_type="FederatedUser",
        principal_account=account,
        action="sts:AssumeRoleWithWebIdentity",
        resource_arn="*",
        region="",
        service_context={f"{GITHUB}:sub": subject, f"{GITHUB}:aud": audience},
    )
    taken: bool = evaluate_trust_policy(document, provider, context)
    return taken


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_exactly_these(environment: Environment, name: str) -> None:
    """GitHub says the ids of owner and repository, too, of those that are new."""
    of_name = dataclasses.replace(environment, name=name)
    subjects = {role: set(_subjects(trust_policy(of_name, role, ACME))) for role in ROLES}
    platform, etl = ("acme/platform", "acme@*/platform@*"), ("acme/etl", "acme@*/etl@*")

    assert subjects == {
        "deploy": {f"repo:{form}:environment:{name}" for form in platform},
        "register": {f"repo:{form}:environment:{name}" for form in (*platform, *etl)},
        "plan": {f"repo:{form}:{where}" for form in platform for where in SUBJECTS[name]},
    }


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_of_repositories_named_with_ids_are_those_alone(environment: Environment, name: str) -> None:
    of_name = dataclasses.replace(environment, name=name)
    subjects = {role: set(_subjects(trust_policy(of_name, role, WITH_IDS))) for role in ROLES}

    assert subjects == {
        "deploy": {f"repo:acme@1/platform@2:environment:{name}"},
        "register": {f"repo:acme@1/platform@2:environment:{name}", f"repo:acme@1/etl@3:environment:{name}"},
        "plan": {f"repo:acme@1/platform@2:{where}" for where in SUBJECTS[name]},
    }


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_no_wildcard_stands_for_a_repository_and_tokens_must_be_for_aws(
    environment: Environment, name: str, role: str
) -> None:
    document = trust_policy(dataclasses.replace(environment, name=name), role, ACME)
    [statement] = document["Statement"]

    subject = r"repo:(acme/(platform|etl)|acme@\*/(platform|etl)@\*):[^*?]+(feature/\*)?"  # ids are digits
    assert all(re.fullmatch(subject, text) for text in _subjects(document))
    assert statement["Condition"]["StringEquals"] == {f"{GITHUB}:aud": "sts.amazonaws.com"}
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::123456789012:oidc-provider/{GITHUB}"}
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"


@pytest.mark.parametrize(
    ("role", "subject", "taken"),
    [
        ("deploy", "repo:acme/platform:environment:dev", True),
        ("deploy", "repo:acme@1/platform@2:environment:dev", True),
        ("deploy", "repo:acme@1/platform@2:environment:prod", False),
        ("deploy", "repo:acme@1/platform2@2:environment:dev", False),
        ("deploy", "repo:acme2@1/platform@2:environment:dev", False),
        ("deploy", "repo:acme@1/etl@3:environment:dev", False),
        ("deploy", "repo:acme@1/other@2:ref:refs/heads/a/platform@1", False),
        ("deploy", "repo:acme/platform:environment:development", False),
        ("deploy", "repo:acme/platform:environment:prod", False),
        ("deploy", "repo:acme/platform:ref:refs/heads/main", False),
        ("deploy", "repo:acme/platform:ref:refs/heads/feature/x", False),
        ("deploy", "repo:acme/platform:pull_request", False),
        ("deploy", "repo:acme/etl:environment:dev", False),
        ("deploy", "repo:acme/platform2:environment:dev", False),
        ("deploy", "repo:notacme/platform:environment:dev", False),
        ("register", "repo:acme/etl:environment:dev", True),
        ("register", "repo:acme/etl:pull_request", False),
        ("register", "repo:acme/other:environment:dev", False),
        ("plan", "repo:acme/platform:pull_request", True),
        ("plan", "repo:acme/platform:ref:refs/heads/feature/a/b", True),
        ("plan", "repo:acme/platform:ref:refs/heads/develop", False),
        ("plan", "repo:acme/platform:ref:refs/tags/feature/x", False),
        ("plan", "repo:acme/etl:pull_request", False),
    ],
)
def test_jobs_get_a_role_only_from_where_they_should(
    environment: Environment, role: str, subject: str, taken: bool
) -> None:
    document = trust_policy(environment, role, ACME)

    assert _takes(document, subject) is taken
    assert not _takes(document, subject, audience="https://github.com/acme")
    assert not _takes(document, subject, account="999999999999")


def test_name_that_went_to_somebody_else_is_worth_nothing_where_ids_are_named(environment: Environment) -> None:
    document = trust_policy(environment, "deploy", WITH_IDS)

    assert _takes(document, "repo:acme@1/platform@2:environment:dev")
    assert not _takes(document, "repo:acme@7/platform@8:environment:dev")
    assert not _takes(document, "repo:acme@1/platform@22:environment:dev")
    assert not _takes(document, "repo:acme/platform:environment:dev")


@pytest.mark.parametrize("role", ROLES)
def test_users_of_the_account_get_no_role_unless_that_is_said(environment: Environment, role: str) -> None:
    user = "arn:aws:iam::123456789012:user/ann"
    trusting = trust_policy(environment, role, dataclasses.replace(ACME, account=True))

    assert not evaluate_trust_policy(trust_policy(environment, role, ACME), user)
    assert evaluate_trust_policy(trusting, user)
    assert not evaluate_trust_policy(trusting, "arn:aws:iam::999999999999:user/ann")
    assert trusting["Statement"][0] == trust_policy(environment, role, ACME)["Statement"][0]


@pytest.mark.parametrize("role", ROLES)
def test_local_also_trusts_its_own_account_whose_root_takes_the_roles_on(local: Environment, role: str) -> None:
    github, account = trust_policy(local, role, ACME)["Statement"]
    [alone] = trust_policy(local, role, Trust(""))["Statement"]

    assert github["Principal"] == {"Federated": f"arn:aws:iam::{local.aws_account_id}:oidc-provider/{GITHUB}"}
    assert account == alone
    assert alone["Principal"] == {"AWS": f"arn:aws:iam::{local.aws_account_id}:root"}


@pytest.mark.parametrize("role", ROLES)
def test_role_without_a_repository_names_no_job(environment: Environment, role: str) -> None:
    [statement] = trust_policy(environment, role, Trust(""))["Statement"]

    assert statement["Action"] == "sts:AssumeRole"
    assert "Federated" not in statement["Principal"]


@pytest.mark.parametrize(
    "name",
    ["acme", "acme/", "/platform", "acme/*", "acme/a b", "acme/a:b", "a/b/c", "*", "-a/b", "a@1/b", "a/b@2", "a@*/b@*"],
)
def test_what_is_no_repository_is_refused(name: str) -> None:
    """A colon or wildcard would make another subject of it."""
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        Trust(name)
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        Trust("acme/platform", (name,))


def test_repositories_are_read_back_from_the_policy(environment: Environment) -> None:
    several = Trust("acme/platform", ("acme/etl", "acme/my.reports_2"))

    assert repositories(trust_policy(environment, "deploy", several)) == ["acme/platform"]
    assert repositories(trust_policy(environment, "register", several)) == [several.platform, *several.workflows]
    assert repositories(trust_policy(environment, "plan", several)) == ["acme/platform"]
    assert repositories(trust_policy(environment, "deploy", Trust(""))) == []
    assert repositories(trust_policy(environment, "register", WITH_IDS)) == [WITH_IDS.platform, *WITH_IDS.workflows]


@pytest.mark.parametrize(
    ("subjects", "found"),
    [
        ("repo:acme/platform:*", ["acme/platform"]),
        ("*", []),
        (["repo:acme/*:*", "repo:acme/etl:pull_request"], ["acme/etl"]),
    ],
)
def test_policy_that_somebody_else_wrote_is_read_as_far_as_it_names_repositories(
    subjects: str | list[str], found: list[str]
) -> None:
    condition = {"StringLike": {f"{GITHUB}:sub": subjects}}

    assert repositories({"Statement": [{"Effect": "Allow", "Condition": condition}]}) == found


def test_branches_of_an_environment_that_is_not_one_of_the_three(environment: Environment) -> None:
    assert branches(dataclasses.replace(environment, name="staging")) == ("main",)
