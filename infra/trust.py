"""Who may assume an environment's roles: jobs of named GitHub repositories, recognised by the claims of GitHub's token.

No key is stored: a job shows AWS a token that GitHub signed, and the role's trust policy says which claims it needs.

Sources: https://docs.github.com/en/actions/reference/security/oidc for the claims, and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif for those
that a trust policy can test. A condition on a claim that the token lacks does not hold, so it denies: StringEquals and
StringLike need the key. (ForAllValues would hold without it, and ForAnyValue is for keys with several values.)
"""

import dataclasses
import re
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment
from infra.permissions import Document

GITHUB = "token.actions.githubusercontent.com"
"""https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws"""
AUDIENCE = "sts.amazonaws.com"
DEFAULT_BRANCH = "main"
BRANCHES = {"dev": ("feature/*",), "test": ("develop",), "prod": ("main", "master")}
"""Branches whose pushes deploy an environment; any other environment is deployed from the default branch."""
DEPLOYING_WORKFLOW = ".github/workflows/platform.yaml"
"""The only workflow whose jobs may assume the deploy role."""
_OWNER, _NAME = "[A-Za-z0-9][A-Za-z0-9-]{0,38}", "[A-Za-z0-9._-]{1,100}"
REPOSITORY = f"{_OWNER}/{_NAME}|{_OWNER}@[0-9]+/{_NAME}@[0-9]+"
"""owner/name, or with GitHub's ids owner@1/name@2, which nobody else can ever have."""
WORKFLOW_REPOSITORY = rf"{REPOSITORY}|{_OWNER}/\*|{_OWNER}@[0-9]+/\*|[0-9]+"
"""Also all repositories of an owner, owner/* or owner@1/*; and one repository by its id alone."""
BRANCH = r"[A-Za-z0-9_][A-Za-z0-9._/#+=@-]*"
"""A branch; wildcards and policy variables ($) would make another one of it."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Which GitHub repositories act for an environment.

    Attributes:
        platform: the platform's own repository, as `REPOSITORY`; empty for none.
        workflows: the repositories that register workflows, each as `WORKFLOW_REPOSITORY`.
        account: whether users of the AWS account may assume the roles too, for pipelines with access keys.
        default_branch: of the platform's repository; its scheduled workflows run there.

    Raises:
        PlatformError: one of them has another form.
    """

    platform: str
    workflows: tuple[str, ...] = ()
    account: bool = False
    default_branch: str = DEFAULT_BRANCH

    def __post_init__(self) -> None:
        if self.platform and not re.fullmatch(REPOSITORY, self.platform):
            raise PlatformError(
                f"{self.platform!r} is not a repository of GitHub", todo="name it as owner/name, such as acme/platform"
            )
        for repository in self.workflows:
            if not re.fullmatch(WORKFLOW_REPOSITORY, repository):
                raise PlatformError(
                    f"{repository!r} is not a repository of GitHub",
                    todo="name it as owner/name, such as acme/etl; or by its id; or all of an owner as 'acme/*'",
                )
        if not re.fullmatch(BRANCH, self.default_branch):
            raise PlatformError(f"{self.default_branch!r} is not the name of a branch")


def without_ids(repository: str) -> str:
    """A repository as owner/name."""
    return re.sub("@[0-9]+", "", repository)


def branches(environment: Environment, default_branch: str = DEFAULT_BRANCH) -> tuple[str, ...]:
    """The branches that deploy an environment, as patterns of a trust policy: `*` matches `/` too.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    return BRANCHES.get(environment.name, (default_branch,))


def provider_arn(environment: Environment) -> str:
    """The ARN of GitHub as an identity provider of the account."""
    return f"arn:aws:iam::{environment.aws_account_id}:oidc-provider/{GITHUB}"


def trust_policy(environment: Environment, role: str, trust: Trust) -> Document:
    """The trust policy of one of the environment's roles.

    `deploy` is for jobs in the GitHub environment of that name that run `DEPLOYING_WORKFLOW` on a branch that deploys.
    `register` is for jobs in the GitHub environment of that name. `plan` is for pull requests, the branches that deploy
    and the default branch. No other job may assume any of them.
    """
    jobs = {"deploy": _deploying, "register": _registering, "plan": _planning}[role](environment, trust)
    users = {
        "Sid": "Account",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{environment.aws_account_id}:root"},
        "Action": "sts:AssumeRole",
    }
    # In local the commands assume the roles themselves; and a role must trust somebody.
    by_account = trust.account or environment.is_local or not jobs
    return {"Version": "2012-10-17", "Statement": [*jobs, *([users] if by_account else [])]}


def _deploying(environment: Environment, trust: Trust) -> list[dict[str, Any]]:
    """Jobs that deploy.

    `ref` is the branch of the run, `job_workflow_ref` the workflow file of the job. What follows its @ may be a branch
    or a commit, as the caller named it: the branch of the run is what counts, as only that decides on the caller.
    """
    if not trust.platform:
        return []
    like = {
        "sub": _subjects(trust.platform, (f"environment:{environment.name}",)),
        "ref": [f"refs/heads/{name}" for name in branches(environment, trust.default_branch)],
        "job_workflow_ref": f"{without_ids(trust.platform)}/{DEPLOYING_WORKFLOW}@*",
    }
    return [_statement(environment, "GitHub", {}, like)]


def _planning(environment: Environment, trust: Trust) -> list[dict[str, Any]]:
    """Jobs that read, in no GitHub environment."""
    if not trust.platform:
        return []
    names = dict.fromkeys((*branches(environment, trust.default_branch), trust.default_branch))
    jobs = ("pull_request", *(f"ref:refs/heads/{name}" for name in names))
    return [_statement(environment, "GitHub", {}, {"sub": _subjects(trust.platform, jobs)})]


def _registering(environment: Environment, trust: Trust) -> list[dict[str, Any]]:
    """Jobs that register workflows; one short text for each repository, as a trust policy has room for few.

    A repository by its name is recognised by the claim `repository`, which has no ids; `sub`, which IAM wants to be
    tested and to be more than a wildcard, narrows it to the owner in both of its forms. One with ids is recognised by
    `sub`, which has them; an id alone by `repository_id`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_oidc_secure-by-default.html
    """
    inside = {"environment": environment.name}
    subject = f"environment:{environment.name}"
    repositories = [name for name in (trust.platform, *trust.workflows) if name]
    ids = [name for name in repositories if name.isdecimal()]
    subjects = [f"repo:{name}:{subject}" for name in repositories if "@" in name]
    names = [name for name in repositories if not name.isdecimal() and "@" not in name]
    owners = dict.fromkeys(name.partition("/")[0] for name in names)
    of_owners = [f"repo:{form}/*:{subject}" for owner in owners for form in (owner, f"{owner}@*")]
    statements: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
        "GitHub": (names, inside, {"sub": of_owners, "repository": names}),
        "GitHubSubjects": (subjects, inside, {"sub": subjects}),
        "GitHubIds": (ids, {**inside, "repository_id": ids}, {"sub": f"repo:*:{subject}"}),
    }
    return [_statement(environment, sid, equal, like) for sid, (some, equal, like) in statements.items() if some]


def _statement(environment: Environment, sid: str, equal: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """A statement that lets jobs assume the role.

    Args:
        environment: whose account.
        sid: name of the statement.
        equal: claims and their values.
        like: claims and the patterns of their values.
    """
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn(environment)},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {f"{GITHUB}:{claim}": value for claim, value in {"aud": AUDIENCE, **equal}.items()},
            "StringLike": {f"{GITHUB}:{claim}": value for claim, value in like.items()},
        },
    }


def _subjects(repository: str, jobs: tuple[str, ...]) -> list[str]:
    """The claim `sub` of these jobs of a repository.

    That of a repository created, renamed or transferred since July 2026 has ids. A repository named without ids is
    trusted in either form:
    https://github.blog/changelog/2026-04-23-immutable-subject-claims-for-github-actions-oidc-tokens
    """
    owner, _, name = repository.partition("/")
    forms = [repository] if "@" in repository else [repository, f"{owner}@*/{name}@*"]
    return [f"repo:{form}:{job}" for form in forms for job in jobs]


def repositories(document: Document) -> list[str]:
    """The repositories that a trust policy names, in its order; one that somebody else wrote may name none."""
    found: list[str] = []
    for statement in document["Statement"]:
        names = _values(statement, "StringLike", "repository")
        with_ids = rf"{_OWNER}@[0-9]+/\*"
        subjects = [] if names else _values(statement, "StringLike", "sub")
        matches = [re.match(f"repo:({REPOSITORY}|{with_ids}):", text) for text in subjects]
        found += [name for name in names if re.fullmatch(WORKFLOW_REPOSITORY, name)]
        found += [match[1] for match in matches if match]
        found += [text for text in _values(statement, "StringEquals", "repository_id") if text.isdecimal()]
    return list(dict.fromkeys(found))


def default_branch(environment: Environment, planning: Document) -> str:
    """The default branch that the trust policy of the plan role names; where it is one that deploys, the first of them.

    Empty when it names no branch.
    """
    subjects = [text for one in planning["Statement"] for text in _values(one, "StringLike", "sub")]
    named = [text.rpartition(":ref:refs/heads/")[2] for text in subjects if ":ref:refs/heads/" in text]
    others = [name for name in named if name not in BRANCHES.get(environment.name, ())]
    return next((name for name in (*others, *named) if re.fullmatch(BRANCH, name)), "")


def _values(statement: dict[str, Any], operator: str, claim: str) -> list[str]:
    """The values with which a statement compares a claim."""
    values: str | list[str] = statement.get("Condition", {}).get(operator, {}).get(f"{GITHUB}:{claim}", [])
    return [values] if isinstance(values, str) else values
