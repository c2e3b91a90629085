import dataclasses
import json
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate_trust_policy

from environments.errors import PlatformError
from environments.settings import Environment
from infra.roles import ROLES
from infra.trust import Trust, branches, default_branch, repositories, trust_policy, without_ids

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
CLAIMS = {
    "repository": "acme/platform",
    "environment": "dev",
    "ref": "refs/heads/feature/x",
    "job_workflow_ref": "acme/platform/.github/workflows/platform.yaml@refs/heads/feature/x",
}
"""Of a job that deploys dev, beside the subject."""


def _subjects(document: Any) -> list[str]:
    [statement] = document["Statement"]
    found: list[str] = statement["Condition"]["StringLike"][f"{GITHUB}:sub"]
    return found


def _takes(document: Any, subject: str, account: str = "123456789012", **claims: str | None) -> bool:
    """Whether a job gets the role, as the emulator's evaluator sees it; a claim that is None is not in the token."""
    provider = f"arn:aws:iam::{account}:oidc-provider/{GITHUB}"
    of_subject = {"repository": without_ids(subject.split(":")[1]), "sub": subject, "aud": "sts.amazonaws.com"}
    told = {**CLAIMS, **of_subject, **claims}
    context = EvalContext(
        principal_arn=provider,
        principal_type="FederatedUser",
        principal_account=account,
        action="sts:AssumeRoleWithWebIdentity",
        resource_arn="*",
        region="",
        service_context={f"{GITHUB}:{claim}": value for claim, value in told.items() if value is not None},
    )
    taken: bool = evaluate_trust_policy(document, provider, context)
    return taken


@pytest.mark.parametrize("name", SUBJECTS)
def test_conditions_are_exactly_these(environment: Environment, name: str) -> None:
    """The subject of a new repository has the ids of owner and repository, too."""
    of_name = dataclasses.replace(environment, name=name)
    platform = ("acme/platform", "acme@*/platform@*")
    inside = f"environment:{name}"
    branch = {"dev": ["feature/*"], "test": ["develop"], "prod": ["main", "master"], "staging": ["main"]}[name]
    found = {role: trust_policy(of_name, role, ACME)["Statement"] for role in ROLES}
    conditions = {role: one["Condition"] for role, [one] in found.items()}

    assert conditions["deploy"] == {
        "StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com"},
        "StringLike": {
            f"{GITHUB}:sub": [f"repo:{form}:{inside}" for form in platform],
            f"{GITHUB}:ref": [f"refs/heads/{each}" for each in branch],
            f"{GITHUB}:job_workflow_ref": "acme/platform/.github/workflows/platform.yaml@*",
        },
    }
    assert conditions["register"] == {
        "StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com", f"{GITHUB}:environment": name},
        "StringLike": {
            f"{GITHUB}:sub": [f"repo:acme/*:{inside}", f"repo:acme@*/*:{inside}"],
            f"{GITHUB}:repository": ["acme/platform", "acme/etl"],
        },
    }
    assert conditions["plan"] == {
        "StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com"},
        "StringLike": {f"{GITHUB}:sub": [f"repo:{form}:{where}" for form in platform for where in SUBJECTS[name]]},
    }


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_of_repositories_named_with_ids_are_those_alone(environment: Environment, name: str) -> None:
    of_name = dataclasses.replace(environment, name=name)
    documents = {role: trust_policy(of_name, role, WITH_IDS) for role in ROLES}

    assert {role: set(_subjects(document)) for role, document in documents.items()} == {
        "deploy": {f"repo:acme@1/platform@2:environment:{name}"},
        "register": {f"repo:acme@1/platform@2:environment:{name}", f"repo:acme@1/etl@3:environment:{name}"},
        "plan": {f"repo:acme@1/platform@2:{where}" for where in SUBJECTS[name]},
    }
    assert '"acme/platform/.github/workflows/platform.yaml@*"' in json.dumps(documents["deploy"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("trust", [ACME, WITH_IDS, Trust("acme/platform", ("acme/*", "beta@7/*", "42"))])
def test_every_statement_for_jobs_tests_audience_and_subject_with_operators_that_need_the_claim(
    environment: Environment, trust: Trust, role: str
) -> None:
    for statement in trust_policy(environment, role, trust)["Statement"]:
        condition = statement["Condition"]
        assert condition.keys() == {"StringEquals", "StringLike"}
        assert condition["StringEquals"][f"{GITHUB}:aud"] == "sts.amazonaws.com"
        assert f"{GITHUB}:sub" in condition["StringLike"]
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
        ("register", "repo:acme@1/etl@3:environment:dev", True),
        ("register", "repo:acme/platform:environment:dev", True),
        ("register", "repo:acme/other:environment:dev", False),
        ("register", "repo:acme@1/other@2:environment:dev", False),
        ("register", "repo:mallory/etl:environment:dev", False),
        ("register", "repo:acme/etl:environment:prod", False),
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
    assert not _takes(document, subject, aud="https://github.com/acme")
    assert not _takes(document, subject, account="999999999999")


INSIDE = "repo:acme/platform:environment:dev"
WORKFLOWS = "acme/platform/.github/workflows"


@pytest.mark.parametrize(
    ("claims", "taken"),
    [
        ({"ref": "refs/heads/feature/a/b"}, True),
        ({"ref": "refs/heads/main"}, False),
        ({"ref": "refs/heads/features/x"}, False),
        ({"ref": "refs/heads/x/refs/heads/feature/x"}, False),
        ({"ref": "refs/tags/feature/x"}, False),
        ({"ref": "refs/pull/7/merge"}, False),
        ({"ref": ""}, False),
        ({"ref": None}, False),
        ({"job_workflow_ref": f"{WORKFLOWS}/platform.yaml@0123456789abcdef0123456789abcdef01234567"}, True),
        ({"job_workflow_ref": f"{WORKFLOWS}/development.yaml@refs/heads/feature/x"}, False),
        ({"job_workflow_ref": f"{WORKFLOWS}/evil-platform.yaml@refs/heads/feature/x"}, False),
        ({"job_workflow_ref": f"{WORKFLOWS}/evil.yaml@refs/heads/feature/platform.yaml@x"}, False),
        ({"job_workflow_ref": f"mallory/platform/.github/workflows/platform.yaml@{WORKFLOWS}"}, False),
        ({"job_workflow_ref": None}, False),
    ],
)
def test_deploy_is_for_one_workflow_file_on_the_branches_that_deploy(
    environment: Environment, claims: dict[str, str | None], taken: bool
) -> None:
    """A job of any other workflow, or of any other branch, may be in the GitHub environment too."""
    for trust in (ACME, dataclasses.replace(ACME, platform="acme@1/platform@2")):
        subject = INSIDE if trust == ACME else "repo:acme@1/platform@2:environment:dev"
        assert _takes(trust_policy(environment, "deploy", trust), subject, **claims) is taken


@pytest.mark.parametrize(
    ("subject", "claims", "taken"),
    [
        ("repo:acme/any:environment:dev", {}, True),
        ("repo:acme@1/any@9:environment:dev", {}, True),
        ("repo:acme/any:environment:prod", {"environment": "prod"}, False),
        ("repo:acme/any:environment:x:environment:dev", {"environment": "x:environment:dev"}, False),
        ("repo:acme/any:environment:dev", {"environment": None}, False),
        ("repo:acme/any:environment:dev", {"repository": None}, False),
        ("repo:acme2/any:environment:dev", {}, False),
        ("repo:beta@7/any@9:environment:dev", {}, True),
        ("repo:beta@77/any@9:environment:dev", {}, False),
        ("repo:beta/any:environment:dev", {}, False),
        ("repo:gamma/any:environment:dev", {"repository_id": "42"}, True),
        ("repo:gamma@5/any@42:environment:dev", {"repository_id": "42"}, True),
        ("repo:gamma/any:environment:dev", {"repository_id": "421"}, False),
        ("repo:gamma/any:environment:dev", {}, False),
        ("repo:gamma/any:pull_request", {"repository_id": "42", "environment": None}, False),
    ],
)
def test_owners_and_ids_are_trusted_to_register(
    environment: Environment, subject: str, claims: dict[str, str | None], taken: bool
) -> None:
    trust = Trust("platforms/one", ("acme/*", "beta@7/*", "42"))

    assert _takes(trust_policy(environment, "register", trust), subject, **claims) is taken
    assert not _takes(trust_policy(environment, "deploy", trust), subject, **claims)
    assert not _takes(trust_policy(environment, "plan", trust), subject, **claims)


def test_names_and_ids_in_one_policy_do_not_widen_each_other(environment: Environment) -> None:
    document = trust_policy(environment, "register", Trust("acme/platform", ("acme@1/etl@3", "42")))

    assert _takes(document, "repo:acme@1/etl@3:environment:dev")
    assert not _takes(document, "repo:acme@1/etl@4:environment:dev")
    assert not _takes(document, "repo:acme/etl:environment:dev")


@pytest.mark.parametrize(
    ("name", "branch", "deploys", "reads"),
    [
        ("dev", "trunk", False, True),
        ("dev", "main", False, False),
        ("test", "trunk", False, True),
        ("prod", "trunk", False, True),
        ("prod", "main", True, True),
        ("staging", "trunk", True, True),
        ("staging", "main", False, False),
    ],
)
def test_default_branch_is_the_repositorys_own(
    environment: Environment, name: str, branch: str, deploys: bool, reads: bool
) -> None:
    """Drift runs on a schedule, so on the default branch; any environment but the three is deployed from it."""
    of_name = dataclasses.replace(environment, name=name)
    trust = dataclasses.replace(ACME, default_branch="trunk")
    inside, on_branch = f"repo:acme/platform:environment:{name}", f"repo:acme/platform:ref:refs/heads/{branch}"

    assert _takes(trust_policy(of_name, "deploy", trust), inside, ref=f"refs/heads/{branch}") is deploys
    assert _takes(trust_policy(of_name, "plan", trust), on_branch) is reads


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("branch", ["main", "trunk", "release/1.x"])
def test_default_branch_is_read_back_from_the_policy(environment: Environment, name: str, branch: str) -> None:
    of_name = dataclasses.replace(environment, name=name)
    document = trust_policy(of_name, "plan", dataclasses.replace(ACME, default_branch=branch))

    assert default_branch(of_name, document) == branch
    assert default_branch(of_name, {"Statement": []}) == ""


@pytest.mark.parametrize("branch", ["", "*", "feature/*", "a b", "a:b", "${aws:username}", "-x", "a?"])
def test_what_is_no_branch_is_refused(branch: str) -> None:
    """A wildcard, or a variable of a policy, would make another branch of it."""
    with pytest.raises(PlatformError, match="not the name of a branch"):
        Trust("acme/platform", default_branch=branch)


USUAL = tuple(
    f"acme-data-platform/{name}-{kind}"
    for name in ("customer-churn", "sales", "web-analytics", "finance")
    for kind in ("ingestion", "reporting", "forecasts")
)
"""Twelve repositories with usual names."""


@pytest.mark.parametrize("workflows", [USUAL, tuple(str(1_000_000_000 + n) for n in range(60)), ("acme/*", "beta@7/*")])
def test_usual_trust_fits_into_the_default_quota(environment: Environment, workflows: tuple[str, ...]) -> None:
    """With the longest name of an environment, and users of the account beside the jobs."""
    longest = dataclasses.replace(environment, name="abcdefghijklmnop")
    trust = Trust("acme-data-platform/dataflow-automation-infra", workflows, account=True)
    sizes = {role: len(json.dumps(trust_policy(longest, role, trust), separators=(",", ":"))) for role in ROLES}

    assert len(USUAL) == 12
    assert max(sizes.values()) <= 2048


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
    [
        "acme",
        "acme/",
        "/platform",
        "*/*",
        "acme/*x",
        "acme@*/*",
        "1a",
        "acme/a b",
        "acme/a:b",
        "a/b/c",
        "*",
        "-a/b",
        "a@1/b",
        "a/b@2",
        "a@*/b@*",
    ],
)
def test_what_is_no_repository_is_refused(name: str) -> None:
    """A colon or wildcard would make another subject of it."""
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        Trust(name)
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        Trust("acme/platform", (name,))


@pytest.mark.parametrize("name", ["acme/*", "acme@1/*", "42"])
def test_platform_is_one_repository_by_its_name(name: str) -> None:
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        Trust(name)


def test_repositories_are_read_back_from_the_policy(environment: Environment) -> None:
    several = Trust("acme/platform", ("acme/etl", "acme/my.reports_2"))

    assert repositories(trust_policy(environment, "deploy", several)) == ["acme/platform"]
    assert repositories(trust_policy(environment, "register", several)) == [several.platform, *several.workflows]
    assert repositories(trust_policy(environment, "plan", several)) == ["acme/platform"]
    assert repositories(trust_policy(environment, "deploy", Trust(""))) == []
    assert repositories(trust_policy(environment, "register", WITH_IDS)) == [WITH_IDS.platform, *WITH_IDS.workflows]
    mixed = Trust("acme/platform", ("acme/etl", "beta/*", "acme@1/etl@3", "gamma@5/*", "42"))
    assert repositories(trust_policy(environment, "register", mixed)) == [mixed.platform, *mixed.workflows]


@pytest.mark.parametrize(
    ("subjects", "found"),
    [
        ("repo:acme/platform:*", ["acme/platform"]),
        ("*", []),
        (["repo:acme/*:*", "repo:acme/etl:pull_request"], ["acme/etl"]),
        (
            [f"repo:{form}:environment:dev" for form in ("acme/etl", "acme@*/etl@*", "acme/bi", "acme@*/bi@*")],
            ["acme/etl", "acme/bi"],
        ),
    ],
)
def test_policy_that_somebody_else_wrote_is_read_as_far_as_it_names_repositories(
    subjects: str | list[str], found: list[str]
) -> None:
    condition = {"StringLike": {f"{GITHUB}:sub": subjects}}

    assert repositories({"Statement": [{"Effect": "Allow", "Condition": condition}]}) == found


def test_branches_of_an_environment_that_is_not_one_of_the_three(environment: Environment) -> None:
    assert branches(dataclasses.replace(environment, name="staging")) == ("main",)
    assert branches(dataclasses.replace(environment, name="staging"), "trunk") == ("trunk",)
