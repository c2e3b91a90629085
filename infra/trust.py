"""Who may take on an environment's roles: jobs of named GitHub repositories, known by what GitHub says of each job.

No key is kept anywhere: a job shows AWS a token of GitHub's, and the role's trust policy says for which it is good.
"""

import dataclasses
import re

from environments.errors import PlatformError
from environments.settings import Environment
from infra.permissions import Document

GITHUB = "token.actions.githubusercontent.com"
"""https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws"""
AUDIENCE = "sts.amazonaws.com"
BRANCHES = {"dev": ("feature/*",), "test": ("develop",), "prod": ("main", "master")}
"""The branches whose pushes deploy an environment; any other environment has main."""
_OWNER, _NAME = "[A-Za-z0-9][A-Za-z0-9-]{0,38}", "[A-Za-z0-9._-]{1,100}"
REPOSITORY = f"{_OWNER}/{_NAME}|{_OWNER}@[0-9]+/{_NAME}@[0-9]+"
"""owner/name; or with GitHub's ids owner@1/name@2, which nobody else can ever have."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Which GitHub repositories act for an environment: the platform's own, and those that register workflows.

    With `account`, so do users of the AWS account whose own policies allow it: for pipelines that must use access keys.

    Raises:
        PlatformError: a name is not that of a repository, as owner/name.
    """

    platform: str
    workflows: tuple[str, ...] = ()
    account: bool = False

    def __post_init__(self) -> None:
        for repository in filter(None, (self.platform, *self.workflows)):
            if not re.fullmatch(REPOSITORY, repository):
                raise PlatformError(
                    f"{repository!r} is not a repository of GitHub", todo="name it as owner/name, such as acme/platform"
                )


def branches(environment: Environment) -> tuple[str, ...]:
    """The branches that deploy an environment, as patterns of a trust policy."""
    return BRANCHES.get(environment.name, ("main",))


def provider_arn(environment: Environment) -> str:
    """The ARN of GitHub as an identity provider of the account."""
    return f"arn:aws:iam::{environment.aws_account_id}:oidc-provider/{GITHUB}"


def trust_policy(environment: Environment, role: str, trust: Trust) -> Document:
    """The trust policy of one of the environment's roles.

    `deploy` and `register` are for jobs in the GitHub environment of that name, which GitHub's own rules protect;
    `plan` also for pull requests and for the branches that deploy. Nobody else's jobs get any of them.

    Source: https://docs.github.com/en/actions/reference/security/oidc#example-subject-claims
    """
    inside = (f"environment:{environment.name}",)
    reading = ("pull_request", *(f"ref:refs/heads/{name}" for name in dict.fromkeys((*branches(environment), "main"))))
    subjects = {
        "deploy": _subjects(trust.platform, inside),
        "register": [subject for name in (trust.platform, *trust.workflows) for subject in _subjects(name, inside)],
        "plan": _subjects(trust.platform, reading),
    }[role]
    jobs = {
        "Sid": "GitHub",
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn(environment)},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{GITHUB}:aud": AUDIENCE}, "StringLike": {f"{GITHUB}:sub": subjects}},
    }
    users = {
        "Sid": "Account",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{environment.aws_account_id}:root"},
        "Action": "sts:AssumeRole",
    }
    # In local the commands take the roles on themselves; and a role has to trust somebody.
    by_account = trust.account or environment.is_local or not subjects
    statements = [*([jobs] if subjects else []), *([users] if by_account else [])]
    return {"Version": "2012-10-17", "Statement": statements}


def _subjects(repository: str, jobs: tuple[str, ...]) -> list[str]:
    """What GitHub says of these jobs of a repository; nothing without one.

    Of a repository made since July 2026 it says the ids, too. Whoever names none trusts the name, in either form:
    https://github.blog/changelog/2026-04-23-immutable-subject-claims-for-github-actions-oidc-tokens
    """
    if not repository:
        return []
    owner, _, name = repository.partition("/")
    forms = [repository] if "@" in repository else [repository, f"{owner}@*/{name}@*"]
    return [f"repo:{form}:{job}" for form in forms for job in jobs]


def repositories(document: Document) -> list[str]:
    """The repositories that a trust policy names, in its order; what somebody else wrote into it may name none."""
    found: list[str] = []
    for statement in document["Statement"]:
        subjects = statement.get("Condition", {}).get("StringLike", {}).get(f"{GITHUB}:sub", [])
        told = [
            re.match(f"repo:({REPOSITORY}):", text) for text in ([subjects] if isinstance(subjects, str) else subjects)
        ]
        found += [match[1] for match in told if match]
    return list(dict.fromkeys(found))
