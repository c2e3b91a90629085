"""The platform's environment on GitHub: what to set up by hand, or with gh by `invoke bootstrap-account --github`.

`prepare` reads what GitHub has, shows what will change and asks; `apply` changes it. A second run changes nothing but
the secrets, whose values GitHub shows to nobody: they are set again.

Sources: https://docs.github.com/en/rest/deployments/environments, https://docs.github.com/en/rest/deployments/branch-policies,
https://docs.github.com/en/rest/actions/secrets and https://cli.github.com/manual
"""

import dataclasses
import json
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import quote

from environments import leftovers
from environments.console import confirm, say, table
from environments.errors import PlatformError
from environments.secrets import (
    AGENT_TOKEN,
    REGISTER_TOKEN,
    TOKENS,
    WORKFLOW_TOKEN,
    is_set,
    prefect_key,
    process_environment,
)
from environments.settings import Environment
from infra.roles import role_arn
from infra.trust import Trust, branches, without_ids

HOST = "github.com"
SECONDS = 60
LOGIN_NEEDED = 4
"""Exit code of gh without a login: https://cli.github.com/manual/gh_help_exit-codes"""
MOST_REVIEWERS = 6
CUSTOM_RULES = {"protected_branches": False, "custom_branch_policies": True}
"""Deployment branches are those of a list of patterns."""
PLANS = "https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments"
"""Required reviewers in a private repository need GitHub Enterprise; environments there need GitHub Pro or Team."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is to be done on GitHub.

    Attributes:
        repository: the platform's, as owner/name.
        path: of the environment in GitHub's REST API.
        rows: what is shown of it: what happens, to what, and its value or a remark.
        rules: body of the request that creates or updates the environment; empty when it is as it should be.
        without_reviewers: the same with the reviewers that there are now, for when GitHub refuses the named ones.
        patterns: deployment branches to add.
        secrets: names of the secrets to set, each from the environment variable of that name.
    """

    repository: str
    path: str
    rows: tuple[tuple[str, str, str], ...]
    rules: dict[str, Any]
    without_reviewers: dict[str, Any]
    patterns: tuple[str, ...]
    secrets: tuple[str, ...]


def next_steps(environment: Environment, trust: Trust, done: bool = False) -> list[str]:
    """What to set up on GitHub by hand, line by line.

    Args:
        environment: whose GitHub environments.
        trust: the repositories.
        done: whether the platform's own repository is set up already.
    """
    own = [
        f"In GitHub, repository {without_ids(trust.platform)}, Settings > Environments > New environment: "
        f"{environment.name}",
        f"  Deployment branches  {', '.join(deployment_branches(environment, trust))}",
        f"  Environment secrets  {AGENT_TOKEN}, {REGISTER_TOKEN}",
        f"                       {WORKFLOW_TOKEN} too, to give workflows a key of their own",
        f"  With the command line tool gh: invoke bootstrap-account --env {environment.name} --github",
    ]
    if environment.name == "prod":
        own.insert(
            2,
            "  Required reviewers   who approves deploys to prod; in a private repository with GitHub Enterprise only",
        )
    others = [
        "In each repository with workflows, an environment of the same name:",
        "  Deployment branches    those that register; for previews refs/pull/*/merge and the default branch, too",
        f"  Environment secrets    {REGISTER_TOKEN}",
        f"  Environment variables  AWS_REGION = {environment.aws_region}",
        f"                         AWS_REGISTER_ROLE = {role_arn(environment, 'register')}",
        f"  Trusted now: {', '.join(trust.workflows) or 'none'}",
        "  To trust others, name them all: --workflow-repository OWNER/NAME, or 'OWNER/*' for all of an owner",
    ]
    return [*own, *others] if trust.platform and not done else others


def deployment_branches(environment: Environment, trust: Trust) -> tuple[str, ...]:
    """The branches that deploy an environment, as patterns of GitHub's deployment branches: `*` does not match `/`.

    https://docs.github.com/en/rest/deployments/branch-policies#create-a-deployment-branch-policy
    """
    patterns = branches(environment, trust.default_branch)
    return tuple(
        form
        for name in patterns
        for form in ([name, f"{name.removesuffix('*')}**/*"] if name.endswith("/*") else [name])
    )


def prepare(environment: Environment, trust: Trust, github: bool, reviewers: list[str], yes: bool) -> Setup | None:
    """Show what will change on GitHub, and ask; changes nothing.

    Args:
        environment: whose GitHub environment.
        trust: the repositories.
        github: whether GitHub is to be set up at all.
        reviewers: logins of the users who must approve deploys; without any, the reviewers stay as they are.
        yes: don't ask.

    Returns:
        What to do; None when gh cannot be used, which it says, or when nothing is to be done with GitHub.

    Raises:
        PlatformError: the options do not fit, GitHub lacks something, or the user does not confirm.
    """
    if not github:
        if reviewers:
            raise PlatformError("--reviewer goes with --github")
        return None
    if environment.is_local:
        raise PlatformError("environment local has no GitHub environment", todo="name another one with --env")
    if reason := _unavailable():
        say(f"GitHub is not set up: {reason}. The list at the end says what to do there by hand.", "yellow")
        return None
    setup = _read(environment, trust, reviewers)
    say(f"GitHub environment {environment.name} of repository {setup.repository}:", "bold")
    table(setup.rows)
    say()
    if setup.rules or setup.patterns or setup.secrets:
        confirm(f"GitHub and the AWS account {environment.aws_account_id} are changed.", yes)
    return setup


def apply(environment: Environment, setup: Setup) -> None:
    """Do on GitHub what `prepare` showed.

    Raises:
        PlatformError: GitHub refused some of it; everything else is done.
    """
    refused = _put_environment(environment, setup) if setup.rules else []
    for pattern in setup.patterns:
        # 303 is for a pattern that somebody else has added since.
        status, answer = _api("POST", f"{setup.path}/deployment-branch-policies", {"name": pattern, "type": "branch"})
        if status not in (200, 303):
            refused.append(f"deployment branch {pattern}: {_message(status, answer)}")
    for name in setup.secrets:
        place = ("--env", environment.name, "--repo", f"{HOST}/{setup.repository}")
        done = _gh("secret", "set", name, *place, typed=prefect_key(environment, name))
        if done.returncode:
            refused.append(f"secret {name}: {done.stderr.strip()}")
    if refused:
        raise PlatformError(
            f"GitHub refused a part of environment {environment.name}; the rest is set up",
            "\n".join(refused),
            f"see {PLANS} for what each plan of GitHub has; then run the same command again",
        )
    say(f"GitHub environment {environment.name} of repository {setup.repository} is set up", "bold")


def _put_environment(environment: Environment, setup: Setup) -> list[str]:
    """Create or update the environment; gives what GitHub refused of it."""
    refused: list[str] = []
    rules = setup.rules
    status, answer = _api("PUT", setup.path, rules)
    if status == 422 and rules != setup.without_reviewers:
        refused.append(f"required reviewers: {_message(status, answer)}")
        rules = setup.without_reviewers
        status, answer = _api("PUT", setup.path, rules)
    if status != 200:
        raise PlatformError(
            f"GitHub does not set up environment {environment.name} in {setup.repository}",
            _message(status, answer),
            f"see {PLANS} for what each plan of GitHub has",
        )
    wanted = {(one["type"], one["id"]) for one in rules.get("reviewers", [])}
    accepted = wanted & {(one["type"], one["reviewer"]["id"]) for one in _reviewers(answer)}
    if accepted != wanted:
        refused.append(
            f"required reviewers: GitHub accepted {len(accepted)} of {len(wanted)}; they need access to the repository"
        )
    return refused


def _read(environment: Environment, trust: Trust, reviewers: list[str]) -> Setup:
    """Compare what GitHub has with what it should have.

    Raises:
        PlatformError: the repository or a reviewer is unknown, or gh's account may not administer the repository.
    """
    repository = without_ids(trust.platform)
    _check_repository(repository, trust, environment)
    path = f"repos/{repository}/environments/{quote(environment.name, safe='')}"
    found = _get(path, missing={})
    custom = found.get("deployment_branch_policy") == CUSTOM_RULES
    policies = _get(f"{path}/deployment-branch-policies?per_page=100")["branch_policies"] if custom else []
    secrets = {one["name"] for one in _get(f"{path}/secrets?per_page=100")["secrets"]} if found else set()

    now = [{"type": one["type"], "id": one["reviewer"]["id"]} for one in _reviewers(found)]
    if len(reviewers) > MOST_REVIEWERS:
        raise PlatformError(f"{len(reviewers)} reviewers are named; GitHub takes up to {MOST_REVIEWERS}")
    people = [{"type": "User", "id": _user_id(login)} for login in dict.fromkeys(reviewers)] or now
    protection = {rule["type"]: rule for rule in found.get("protection_rules", [])}

    def rules(reviewers: list[dict[str, Any]]) -> dict[str, Any]:
        """A request must repeat what is to stay; a plan that lacks a rule refuses even the rule's default."""
        settings = {
            "wait_timer": protection.get("wait_timer", {}).get("wait_timer"),
            "prevent_self_review": reviewers and protection.get("required_reviewers", {}).get("prevent_self_review"),
            "reviewers": reviewers,
        }
        return {
            "deployment_branch_policy": CUSTOM_RULES,
            **{name: value for name, value in settings.items() if value},
        }

    same_people = sorted(now, key=str) == sorted(people, key=str)
    same = custom and same_people

    wanted = deployment_branches(environment, trust)
    there = [one["name"] for one in policies if one.get("type", "branch") == "branch"]
    names = reviewers or [one["reviewer"].get("login") or one["reviewer"]["slug"] for one in _reviewers(found)]
    rows = [
        (("unchanged" if same else "update") if found else "create", "environment", environment.name),
        *(("unchanged" if name in there else "create", "deployment branch", name) for name in wanted),
        *(
            ("kept", f"deployment {one.get('type', 'branch')}", one["name"])
            for one in policies
            if one["name"] not in wanted
        ),
    ]
    if names:
        rows.append(("unchanged" if same_people else "update", "required reviewers", ", ".join(names)))
    elif environment.name == "prod":
        rows.append(("missing", "required reviewers", "name the people who approve deploys with --reviewer LOGIN"))
    rows += [_secret_row(name, name in secrets) for name in TOKENS]
    return Setup(
        repository,
        path,
        tuple(rows),
        {} if same else rules(people),
        rules(now),
        tuple(name for name in wanted if name not in there),
        tuple(name for name in TOKENS if is_set(name)),
    )


def _check_repository(repository: str, trust: Trust, environment: Environment) -> None:
    status, answer = _api("GET", f"repos/{repository}")
    if status != 200:
        raise PlatformError(
            f"gh cannot read repository {repository}",
            _message(status, answer),
            "name it with --repository OWNER/NAME, or log in with an account that may read it: gh auth login",
        )
    if not answer.get("permissions", {}).get("admin"):
        raise PlatformError(
            f"gh's account may not administer repository {repository}",
            "only its administrators can set up environments",
            "log in with an administrator's account: gh auth login",
        )
    if answer["default_branch"] != trust.default_branch:
        raise PlatformError(
            f"the default branch of {repository} is {answer['default_branch']}",
            f"the roles would trust {trust.default_branch} instead",
            f"invoke bootstrap-account --env {environment.name} --github --default-branch {answer['default_branch']}",
        )


def _user_id(login: str) -> int:
    status, answer = _api("GET", f"users/{quote(login, safe='')}")
    if status != 200:
        raise PlatformError(f"{login!r} is not a user of GitHub", _message(status, answer), "--reviewer LOGIN")
    return int(answer["id"])


def _reviewers(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The required reviewers of an environment, as GitHub describes it."""
    rules = environment.get("protection_rules", [])
    return [one for rule in rules if rule["type"] == "required_reviewers" for one in rule["reviewers"]]


def _secret_row(name: str, there: bool) -> tuple[str, str, str]:
    """What happens to a secret: GitHub shows no values, so whatever there is a value for is set."""
    if is_set(name):
        return ("update" if there else "create"), "secret", name
    if there:
        return "unchanged", "secret", name
    if name == WORKFLOW_TOKEN:
        return "optional", "secret", f"{name}: without it workflows have the agent's key"
    return "missing", "secret", f"{name}: set the environment variable of that name and run this again"


def _unavailable() -> str:
    """Why gh cannot be used; empty when it can."""
    if not shutil.which("gh"):
        return "gh is not installed (https://cli.github.com)"
    done = _gh("api", "--hostname", HOST, "rate_limit")  # any login may ask for it, and it counts for no limit
    if done.returncode == LOGIN_NEEDED or "HTTP 401" in done.stderr:
        return "gh is not logged in (gh auth login)"
    return f"gh does not reach GitHub ({done.stderr.strip()})" if done.returncode else ""


def _get(path: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """What GitHub has at a path, or `missing` where it has nothing."""
    status, answer = _api("GET", path)
    if status == 404 and missing is not None:
        return missing
    if status != 200:
        raise PlatformError(f"GitHub refuses to show {path.partition('?')[0]}", _message(status, answer))
    found: dict[str, Any] = answer
    return found


def _api(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Send a request to GitHub's REST API; gives the status code and the answer.

    Raises:
        PlatformError: gh got no answer.
    """
    headers = ("--header", "Accept: application/vnd.github+json", "--header", "X-GitHub-Api-Version: 2022-11-28")
    options = ("--hostname", HOST, "--include", "--method", method, *headers)
    given = () if body is None else ("--input", "-")
    done = _gh("api", *options, path, *given, typed="" if body is None else json.dumps(body))
    head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
    status = re.match(r"HTTP/\S+ (\d{3})", head)
    if not status:
        raise PlatformError("gh got no answer from GitHub", done.stderr, "try again")
    return int(status[1]), json.loads(text) if text.strip() else {}


def _message(status: int, answer: Any) -> str:
    """GitHub's own words about a refusal."""
    errors = answer.get("errors") or []
    messages = [answer.get("message"), *([errors] if isinstance(errors, str) else errors)]
    words = [one if isinstance(one, str) else one.get("message") or json.dumps(one) for one in messages if one]
    return f"{'; '.join(words) or 'no reason given'} (HTTP {status})"


def _gh(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run gh, which must not ask for anything.

    Args:
        arguments: gh's own; no secret, as other programs may see them.
        typed: what gh reads from its standard input.

    Raises:
        PlatformError: it does not run or takes too long.
    """
    plain = {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "GH_FORCE_TTY": "", "NO_COLOR": "1"}
    variables = process_environment({**leftovers.label(), **plain, "CLICOLOR_FORCE": "0"})
    try:
        return subprocess.run(
            [shutil.which("gh") or "gh", *arguments],
            input=typed,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=variables,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"gh took longer than {SECONDS} s", todo="try again") from error
    except OSError as error:
        raise PlatformError("gh does not run", str(error), "install gh: https://cli.github.com") from error
