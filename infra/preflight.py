"""Whether an environment is set up for the pipelines of GitHub, before a job plans or deploys it.

A fork has pipelines before it has an account. An environment that nobody has set up is skipped with a notice that says
what comes next; one that was set up and lacks something is an error. Set up is what has an account of its own, and
either roles that this job can assume or a GitHub environment. A pull request gets no access keys of AWS: where the
roles are assumed with such keys, it has no plan.
"""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from environments import console, github_actions
from environments.errors import PlatformError
from environments.settings import Environment
from infra.plans import PRODUCTION
from infra.roles import role_arn

EXAMPLE_ACCOUNT = "111111111111"
"""The account in the settings of the template."""
ASKED_WITHIN_SECONDS = 20


def look(environment: Environment, assumed: bool, deploys: bool) -> bool:
    """Tell whether a job can go on with an environment; under GitHub Actions also its next steps, as output `ready`.

    Args:
        environment: which one.
        assumed: whether the job has been able to assume the environment's plan role.
        deploys: whether a deploy follows, for which there must be a GitHub environment.

    Returns:
        False when nobody has set the environment up.

    Raises:
        PlatformError: it was set up and lacks something, or this is no job of GitHub Actions.
    """
    if not github_actions.active():
        raise PlatformError("this is not a job of GitHub Actions", todo=f"invoke doctor --env {environment.name}")
    rules = None if environment.aws_account_id == EXAMPLE_ACCOUNT else _protection_rules(environment.name)
    of_pull_request = os.environ.get("GITHUB_EVENT_NAME") == "pull_request"
    missing = _not_set_up(environment, assumed, rules is not None and not of_pull_request)
    if missing and rules is not None:
        github_actions.warn(f"{missing}. With access keys that is as it should be", "this pull request has no plan")
    elif missing:
        github_actions.notice(missing, f"environment {environment.name} is not set up")
        console.say(f"environment {environment.name} is not set up: {missing}", "yellow")
    else:
        _require_github_environment(environment, rules, deploys)
        console.say(f"environment {environment.name} is set up", "bold")
    github_actions.output("ready", str(not missing).lower())
    return not missing


def _not_set_up(environment: Environment, assumed: bool, must_be: bool) -> str:
    """What comes next where nobody has set the environment up; empty where somebody has.

    Raises:
        PlatformError: it must be set up, and this job cannot assume its role.
    """
    name = environment.name
    if environment.aws_account_id == EXAMPLE_ACCOUNT:
        return (
            f"environments/{name}.tfvars still has the account {EXAMPLE_ACCOUNT} of the template. "
            f"Set your own, then run: invoke bootstrap-account --env {name}"
        )
    if assumed:
        return ""
    role = role_arn(environment, "plan")
    repository = os.environ.get("GITHUB_REPOSITORY", "OWNER/NAME")
    command = f"invoke bootstrap-account --env {name} --repository {repository}"
    if not must_be:
        return f"this job cannot assume {role}. Run: {command}"
    raise PlatformError(
        f"this job cannot assume the plan role of environment {name}",
        f"AWS refused {role} to {repository} at {os.environ.get('GITHUB_REF', 'this ref')}; the log of the step before "
        "says why",
        f"{command}; with access keys, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be secrets of the repository, "
        "because a plan belongs to no GitHub environment",
    )


def _require_github_environment(environment: Environment, rules: list[dict[str, Any]] | None, deploys: bool) -> None:
    """Refuse to deploy without a GitHub environment, and warn when nobody reviews production.

    Raises:
        PlatformError: there is none. GitHub would create it, with neither rules nor secrets.
    """
    name = environment.name
    if rules is None and deploys:
        raise PlatformError(
            f"this repository has no GitHub environment {name}",
            "a job that names a missing environment creates it, without branch rules, reviewers and secrets",
            f"invoke bootstrap-account --env {name} lists what it must have",
        )
    unreviewed = rules is not None and not any(rule.get("type") == "required_reviewers" for rule in rules)
    if name == PRODUCTION and unreviewed:
        github_actions.warn(
            f"whoever can push to a branch that deploys {name} changes production. Set reviewers under Settings > "
            "Environments; in private repositories that takes GitHub Enterprise",
            f"the GitHub environment {name} has no required reviewers",
        )


def _protection_rules(name: str) -> list[dict[str, Any]] | None:
    """The protection rules of a GitHub environment of the job's repository; None when it has no such environment.

    It takes the permission `actions: read`.
    https://docs.github.com/en/rest/deployments/environments#get-an-environment

    Raises:
        PlatformError: GitHub did not answer, or does not let this job look.
    """
    address = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    url = f"{address}/repos/{os.environ.get('GITHUB_REPOSITORY', '')}/environments/{name}"
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    if token := github_actions.git_token():
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=ASKED_WITHIN_SECONDS
        ) as answer:
            rules: list[dict[str, Any]] = json.load(answer).get("protection_rules") or []
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        todo = "the job needs the permission actions: read" if error.code in (401, 403) else "run the job again"
        raise _unanswered(name, f"{url} answered {error.code} {error.reason}", todo) from error
    except (OSError, ValueError) as error:
        raise _unanswered(name, f"{url}: {error}", "run the job again") from error
    return rules


def _unanswered(name: str, why: str, todo: str) -> PlatformError:
    return PlatformError(f"GitHub does not say whether there is an environment {name}", why, todo)
