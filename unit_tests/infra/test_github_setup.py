"""What is set up on GitHub, by hand or with gh; a program named gh plays GitHub's REST API for these tests."""

import dataclasses
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context

import tasks
from environments.errors import PlatformError
from environments.settings import Environment
from infra import account, checks
from infra.github_setup import Setup, apply, deployment_branches, next_steps, prepare
from infra.trust import Trust

ACME = Trust("acme/platform", ("acme/etl", "acme/reports"))
KEYS = {"PREFECT_AGENT_TOKEN": "pnu_agent", "PREFECT_WORKFLOW_REGISTER_TOKEN": "pnu_register"}
GH = '''#!{python}
"""gh, with a GitHub that is a file: https://docs.github.com/en/rest, https://cli.github.com/manual."""
import json, os, re, sys
from pathlib import Path

file = Path(__file__).with_name("github.json")
github, arguments = json.loads(file.read_text()), sys.argv[1:]
typed = "" if sys.stdin is None else sys.stdin.read()
with Path(__file__).with_name("calls.jsonl").open("a") as calls:
    print(json.dumps({{"arguments": arguments, "environment": dict(os.environ), "typed": typed}}), file=calls)
if not github["login"]:
    print("To get started with GitHub CLI, please run:  gh auth login", file=sys.stderr)
    sys.exit(4)
if github["offline"]:
    print("error connecting to api.github.com", file=sys.stderr)
    sys.exit(1)
environments = github["environments"]


def end(status, body=None):
    file.write_text(json.dumps(github))
    if "--include" in arguments:
        print(f"HTTP/2.0 {{status}} Words\\nContent-Type: application/json\\r\\nX-Request-Id: 1\\r\\n", end="\\r\\n")
    print(json.dumps(body or {{}}))
    if status > 299:
        print(f"gh: {{(body or {{}}).get('message')}} (HTTP {{status}})", file=sys.stderr)
    sys.exit(status > 299)


def refuse(status, message, *errors):
    end(status, {{"message": message, "errors": list(errors)}} if errors else {{"message": message}})


if arguments[:2] == ["secret", "set"]:
    options = dict(zip(arguments[3::2], arguments[4::2]))
    assert options["--repo"] == "github.com/acme/platform", options
    if options["--env"] not in environments:
        sys.exit("failed to fetch public key: HTTP 404: Not Found")
    if arguments[2] in github["refused_secrets"]:
        sys.exit("failed to set secret: HTTP 403: Resource not accessible by personal access token")
    environments[options["--env"]]["secrets"][arguments[2]] = typed.rstrip("\\r\\n")
    end(201)

assert arguments[:3] == ["api", "--hostname", "github.com"], arguments
method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "GET"
path = next(one for one in reversed(arguments) if re.match("repos/|users/|rate_limit$", one))
path, body = path.partition("?")[0], json.loads(typed) if typed else {{}}
if github["login"] == "expired":
    refuse(401, "Bad credentials")
if path == "rate_limit":
    end(200, {{"resources": {{}}}})
if path.startswith("users/"):
    user = github["users"].get(path[6:])
    end(200, {{"login": path[6:], "id": user}}) if user else refuse(404, "Not Found")
if not path.startswith("repos/acme/platform"):
    refuse(404, "Not Found")
if path == "repos/acme/platform":
    end(200, {{"default_branch": github["default_branch"], "permissions": {{"admin": github["admin"]}}}})
name, _, rest = path.removeprefix("repos/acme/platform/environments/").partition("/")
if method == "PUT" and not rest:
    own = environments.setdefault(name, {{"rules": {{}}, "policies": [], "secrets": {{}}}})
    policy = body.get("deployment_branch_policy")
    if policy and policy["protected_branches"] == policy["custom_branch_policies"]:
        refuse(422, "Validation Failed")
    if github["no_environments"]:
        refuse(422, "Failed to create the environment protection rule. Please ensure the billing plan supports it.")
    if github["no_reviewers"] and body.keys() & {{"reviewers", "wait_timer", "prevent_self_review"}}:
        refuse(422, "Validation Failed", "Please ensure the billing plan supports the required reviewers rule.")
    if any(one["id"] in github["refused_reviewers"] for one in body.get("reviewers", [])):
        refuse(422, "Validation Failed", {{"message": "reviewers is invalid"}})
    accepted = [one for one in body.get("reviewers", []) if one["id"] not in github["strangers"]]
    own["rules"] = {{**body, "reviewers": accepted}}
    if not (policy or {{}}).get("custom_branch_policies"):
        own["policies"] = []
if name not in environments:
    refuse(404, "Not Found")
own = environments[name]
if rest == "deployment-branch-policies" and method == "POST":
    if not (own["rules"].get("deployment_branch_policy") or {{}}).get("custom_branch_policies"):
        refuse(404, "Not Found")
    if body["name"] in github["refused_branches"]:
        refuse(422, "Validation Failed", {{"message": "name is invalid"}})
    own["policies"].append({{"id": len(own["policies"]) + 1, **body}})
    end(200, own["policies"][-1])
if rest == "deployment-branch-policies":
    end(200, {{"total_count": len(own["policies"]), "branch_policies": own["policies"]}})
if rest == "secrets":
    end(200, {{"total_count": len(own["secrets"]), "secrets": [{{"name": one}} for one in own["secrets"]]}})
rules = own["rules"]
logins = {{number: login for login, number in github["users"].items()}}
people = []
for one in rules.get("reviewers", []):
    named = {{"login": logins[one["id"]]}} if one["type"] == "User" else {{"slug": "ops"}}
    people.append({{"type": one["type"], "reviewer": {{"id": one["id"], **named}}}})
protection = [{{"id": 1, "type": "branch_policy"}}] if rules.get("deployment_branch_policy") else []
if rules.get("wait_timer"):
    protection.append({{"id": 2, "type": "wait_timer", "wait_timer": rules["wait_timer"]}})
if people:
    own_review = rules.get("prevent_self_review", False)
    protection.append({{"id": 3, "type": "required_reviewers", "prevent_self_review": own_review, "reviewers": people}})
policy = rules.get("deployment_branch_policy")
end(200, {{"name": name, "protection_rules": protection, "deployment_branch_policy": policy}})
'''
GITHUB: dict[str, Any] = {
    "login": "ann",
    "offline": False,
    "default_branch": "main",
    "admin": True,
    "users": {"ann": 11, "bob": 22, "eve": 99},
    "strangers": [99],
    "refused_reviewers": [],
    "environments": {},
    "no_environments": False,
    "no_reviewers": False,
    "refused_branches": [],
    "refused_secrets": [],
}
CUSTOM = {"protected_branches": False, "custom_branch_policies": True}


class GitHub:
    """GitHub as the fake gh sees it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.calls_file = folder / "github.json", folder / "calls.jsonl"
        program = folder / "gh"
        program.write_text(GH.format(python=sys.executable), encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.has()

    def has(self, **changes: Any) -> None:
        """Make it another GitHub, which differs from the usual one in this."""
        self.file.write_text(json.dumps({**GITHUB, **changes}), encoding="utf-8")

    @property
    def environments(self) -> Any:
        return json.loads(self.file.read_text(encoding="utf-8"))["environments"]

    @property
    def calls(self) -> list[dict[str, Any]]:
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def changes(self) -> list[list[str]]:
        """Arguments of the calls that change something."""
        told = [call["arguments"] for call in self.calls]
        return [each for each in told if each[0] == "secret" or {"PUT", "POST", "DELETE"} & {*each}]


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    """A GitHub with the platform's repository, and a gh that is logged in; the Prefect keys are set."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PREFECT_WORKFLOW_TOKEN", raising=False)
    return GitHub(folder)


@pytest.fixture
def prod(environment: Environment) -> Environment:
    return dataclasses.replace(environment, name="prod")


def ready(environment: Environment, *reviewers: str, trust: Trust = ACME) -> Setup:
    """What is to be done, confirmed."""
    setup = prepare(environment, trust, True, list(reviewers), True)
    assert setup
    return setup


def set_up(environment: Environment, *reviewers: str, trust: Trust = ACME) -> None:
    apply(environment, ready(environment, *reviewers, trust=trust))


def actions(setup: Setup) -> dict[str, str]:
    """What happens, by what it happens to."""
    return {f"{what} {value.partition(':')[0]}": action for action, what, value in setup.rows}


# --- by hand


def test_next_steps_say_what_to_put_where(environment: Environment) -> None:
    text = "\n".join(next_steps(environment, ACME))

    assert "repository acme/platform," in text
    assert "Deployment branches  feature/*, feature/**/*\n" in text
    assert "PREFECT_AGENT_TOKEN, PREFECT_WORKFLOW_REGISTER_TOKEN" in text
    assert "AWS_REGION = eu-west-1" in text
    assert "AWS_REGISTER_ROLE = arn:aws:iam::123456789012:role/dev_dataflow_automation_register" in text
    assert "acme/etl, acme/reports" in text
    assert "invoke bootstrap-account --env dev --github" in text
    assert "eviewers" not in text


def test_production_gets_reviewers(prod: Environment) -> None:
    text = "\n".join(next_steps(prod, Trust("acme@1/platform@2")))

    assert "Required reviewers" in text
    assert "Deployment branches  main, master\n" in text
    assert "repository acme/platform," in text


@pytest.mark.parametrize(("trust", "done"), [(ACME, True), (Trust(""), False)])
def test_what_is_done_already_or_has_no_repository_is_no_next_step(
    environment: Environment, trust: Trust, done: bool
) -> None:
    text = "\n".join(next_steps(environment, trust, done))

    assert "New environment" not in text
    assert "AWS_REGISTER_ROLE" in text


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("dev", ("feature/*", "feature/**/*")),
        ("test", ("develop",)),
        ("prod", ("main", "master")),
        ("staging", ("trunk",)),
    ],
)
def test_deployment_branches_are_in_the_form_of_github(
    environment: Environment, name: str, patterns: tuple[str, ...]
) -> None:
    trust = dataclasses.replace(ACME, default_branch="trunk")

    assert deployment_branches(dataclasses.replace(environment, name=name), trust) == patterns


# --- with gh


def test_environment_is_created_with_branches_reviewers_and_secrets(prod: Environment, github: GitHub) -> None:
    setup = ready(prod, "ann", "bob")
    assert github.environments == {}
    assert actions(setup) == {
        "environment prod": "create",
        "deployment branch main": "create",
        "deployment branch master": "create",
        "required reviewers ann, bob": "update",
        "secret PREFECT_AGENT_TOKEN": "create",
        "secret PREFECT_WORKFLOW_REGISTER_TOKEN": "create",
        "secret PREFECT_WORKFLOW_TOKEN": "optional",
    }

    apply(prod, setup)
    assert github.environments == {
        "prod": {
            "rules": {
                "deployment_branch_policy": CUSTOM,
                "reviewers": [{"type": "User", "id": 11}, {"type": "User", "id": 22}],
            },
            "policies": [{"id": 1, "name": "main", "type": "branch"}, {"id": 2, "name": "master", "type": "branch"}],
            "secrets": KEYS,
        }
    }


def test_feature_branches_get_both_patterns(environment: Environment, github: GitHub) -> None:
    set_up(environment)

    assert [one["name"] for one in github.environments["dev"]["policies"]] == ["feature/*", "feature/**/*"]


def test_second_run_sets_the_secrets_again_and_nothing_else(prod: Environment, github: GitHub) -> None:
    set_up(prod, "ann")
    before, made = github.environments, len(github.changes)
    again = ready(prod, "ann")
    apply(prod, again)

    assert set(actions(again).values()) == {"unchanged", "update", "optional"}
    assert github.environments == before
    assert [call[:2] for call in github.changes[made:]] == [["secret", "set"]] * 2


def test_nothing_to_do_asks_nobody(environment: Environment, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(environment)
    made = len(github.changes)
    for name in KEYS:
        monkeypatch.delenv(name)
    setup = prepare(environment, ACME, True, [], False)

    assert setup
    assert set(actions(setup).values()) == {"unchanged", "optional"}
    apply(environment, setup)
    assert len(github.changes) == made


def test_secret_is_given_by_standard_input_and_by_nothing_else(
    environment: Environment, github: GitHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_WORKFLOW_TOKEN", "pnu_workflow\n")
    monkeypatch.setenv("GH_TOKEN", "gho_login")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.acme.org:3128")
    set_up(environment)
    told = capsys.readouterr()
    setting = [call for call in github.calls if call["arguments"][0] == "secret"]

    assert [call["typed"] for call in setting] == ["pnu_agent", "pnu_register", "pnu_workflow"]
    assert github.environments["dev"]["secrets"] == {**KEYS, "PREFECT_WORKFLOW_TOKEN": "pnu_workflow"}
    assert "pnu_" not in told.out + told.err
    for call in github.calls:
        assert "pnu_" not in json.dumps([call["arguments"], call["environment"]])
        assert call["environment"]["GH_TOKEN"] == "gho_login"
        assert call["environment"]["HTTPS_PROXY"] == "http://proxy.acme.org:3128"
        assert call["environment"]["GH_PROMPT_DISABLED"] == "1"


def test_secret_without_a_value_is_asked_for(
    environment: Environment, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_AGENT_TOKEN")
    setup = ready(environment)
    [row] = [row for row in setup.rows if row[0] == "missing"]

    assert row[2] == "PREFECT_AGENT_TOKEN: set the environment variable of that name and run this again"
    apply(environment, setup)
    assert github.environments["dev"]["secrets"] == {"PREFECT_WORKFLOW_REGISTER_TOKEN": "pnu_register"}


def test_production_without_reviewers_says_how_to_name_some(prod: Environment, github: GitHub) -> None:
    rows = ready(prod).rows

    assert ("missing", "required reviewers", "name the people who approve deploys with --reviewer LOGIN") in rows


def test_rules_of_others_stay(prod: Environment, github: GitHub) -> None:
    """GitHub takes what a request leaves out for its default."""
    theirs = {
        "deployment_branch_policy": {"protected_branches": True, "custom_branch_policies": False},
        "wait_timer": 30,
        "prevent_self_review": True,
        "reviewers": [{"type": "Team", "id": 5}, {"type": "User", "id": 11}],
    }
    github.has(environments={"prod": {"rules": theirs, "policies": [], "secrets": {"OTHER": "x"}}})
    setup = ready(prod)
    apply(prod, setup)

    assert actions(setup)["environment prod"] == "update"
    assert actions(setup)["required reviewers ops, ann"] == "unchanged"
    assert github.environments["prod"]["rules"] == {**theirs, "deployment_branch_policy": CUSTOM}
    assert github.environments["prod"]["secrets"] == {"OTHER": "x", **KEYS}


def test_branches_of_others_stay_and_are_shown(environment: Environment, github: GitHub) -> None:
    policies = [{"id": 1, "name": "feature/*", "type": "branch"}, {"id": 2, "name": "v*", "type": "tag"}]
    rules = {"deployment_branch_policy": CUSTOM}
    github.has(environments={"dev": {"rules": rules, "policies": policies, "secrets": {}}})
    setup = ready(environment)
    apply(environment, setup)

    told = actions(setup)
    assert (told["environment dev"], told["deployment branch feature/*"]) == ("unchanged", "unchanged")
    assert (told["deployment branch feature/**/*"], told["deployment tag v*"]) == ("create", "kept")
    assert [one["name"] for one in github.environments["dev"]["policies"]] == ["feature/*", "v*", "feature/**/*"]


def test_named_reviewers_are_all_that_there_are(prod: Environment, github: GitHub) -> None:
    set_up(prod, "ann")
    set_up(prod, "bob", "bob")

    assert github.environments["prod"]["rules"]["reviewers"] == [{"type": "User", "id": 22}]


def test_order_of_reviewers_is_no_difference(prod: Environment, github: GitHub) -> None:
    set_up(prod, "ann", "bob")

    assert ready(prod, "bob", "ann").rules == {}


def test_plan_of_github_without_reviewers_keeps_everything_else(prod: Environment, github: GitHub) -> None:
    github.has(no_reviewers=True)
    with pytest.raises(PlatformError) as caught:
        set_up(prod, "ann")

    assert "the rest is set up" in caught.value.what
    assert "required reviewers" in caught.value.why
    assert "billing plan" in caught.value.why
    assert "plan of GitHub" in caught.value.todo
    made = github.environments["prod"]
    assert made["rules"] == {"deployment_branch_policy": CUSTOM, "reviewers": []}
    assert [one["name"] for one in made["policies"]] == ["main", "master"]
    assert made["secrets"] == KEYS


def test_plan_of_github_without_environments_is_explained(environment: Environment, github: GitHub) -> None:
    github.has(no_environments=True)
    with pytest.raises(PlatformError) as caught:
        set_up(environment)

    assert caught.value.what == "GitHub does not set up environment dev in acme/platform"
    assert "billing plan" in caught.value.why
    assert github.environments["dev"]["secrets"] == {}


def test_reviewers_stay_when_github_refuses_others(prod: Environment, github: GitHub) -> None:
    """The rules are refused as a whole; without them nobody would have to approve a deploy."""
    theirs = {"deployment_branch_policy": None, "wait_timer": 30, "reviewers": [{"type": "User", "id": 11}]}
    github.has(environments={"prod": {"rules": theirs, "policies": [], "secrets": {}}}, refused_reviewers=[22])
    with pytest.raises(PlatformError) as caught:
        set_up(prod, "ann", "bob")

    assert caught.value.why == "required reviewers: Validation Failed; reviewers is invalid (HTTP 422)"
    assert github.environments["prod"]["rules"] == {**theirs, "deployment_branch_policy": CUSTOM}
    assert [one["name"] for one in github.environments["prod"]["policies"]] == ["main", "master"]


def test_reviewer_whom_github_leaves_out_is_told(prod: Environment, github: GitHub) -> None:
    with pytest.raises(PlatformError) as caught:
        set_up(prod, "ann", "eve")

    assert "GitHub accepted 1 of 2" in caught.value.why
    assert github.environments["prod"]["secrets"] == KEYS


def test_one_refusal_does_not_stop_the_rest(environment: Environment, github: GitHub) -> None:
    github.has(refused_branches=["feature/*"], refused_secrets=["PREFECT_AGENT_TOKEN"])
    with pytest.raises(PlatformError) as caught:
        set_up(environment)

    branch, secret = caught.value.why.splitlines()
    assert branch == "deployment branch feature/*: Validation Failed; name is invalid (HTTP 422)"
    assert secret.startswith("secret PREFECT_AGENT_TOKEN: ")
    assert "HTTP 403" in secret
    made = github.environments["dev"]
    assert [one["name"] for one in made["policies"]] == ["feature/**/*"]
    assert made["secrets"] == {"PREFECT_WORKFLOW_REGISTER_TOKEN": "pnu_register"}


@pytest.mark.parametrize(
    ("changes", "trust", "reviewers", "what", "todo"),
    [
        ({}, Trust("acme/other"), [], "gh cannot read repository acme/other", "--repository OWNER/NAME"),
        ({"admin": False}, ACME, [], "may not administer repository acme/platform", "gh auth login"),
        ({"default_branch": "trunk"}, ACME, [], "default branch of acme/platform is trunk", "--default-branch trunk"),
        ({}, ACME, ["nobody"], "'nobody' is not a user of GitHub", "--reviewer LOGIN"),
        ({}, ACME, list("abcdefg"), "7 reviewers are named; GitHub takes up to 6", ""),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(
    environment: Environment,
    github: GitHub,
    changes: dict[str, Any],
    trust: Trust,
    reviewers: list[str],
    what: str,
    todo: str,
) -> None:
    github.has(**changes)
    with pytest.raises(PlatformError) as caught:
        ready(environment, *reviewers, trust=trust)

    assert what in caught.value.what
    assert todo in caught.value.todo
    assert github.changes == []


def test_repository_named_with_ids_is_the_same_on_github(environment: Environment, github: GitHub) -> None:
    set_up(environment, trust=Trust("acme@1/platform@2"))

    assert github.environments["dev"]["secrets"] == KEYS


def test_nothing_changes_without_a_yes(
    environment: Environment, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PlatformError, match="not confirmed"):
        prepare(environment, ACME, True, [], False)

    shown = capsys.readouterr().out
    assert "GitHub environment dev of repository acme/platform:" in shown
    assert "create    deployment branch  feature/**/*" in shown
    assert github.changes == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"login": ""}, "gh is not logged in"),
        ({"login": "expired"}, "gh is not logged in"),
        ({"offline": True}, "gh does not reach GitHub (error connecting to api.github.com)"),
    ],
)
def test_gh_that_cannot_be_used_is_one_line_and_no_error(
    environment: Environment,
    github: GitHub,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    reason: str,
) -> None:
    github.has(**changes)

    assert prepare(environment, ACME, True, ["ann"], False) is None
    assert reason in capsys.readouterr().out


def test_without_gh_there_is_one_line_and_no_error(
    environment: Environment, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    (github.file.parent / "gh").unlink()

    assert prepare(environment, ACME, True, [], False) is None
    assert "gh is not installed" in capsys.readouterr().out


def test_github_is_left_alone_unless_asked_for(environment: Environment, github: GitHub) -> None:
    assert prepare(environment, ACME, False, [], False) is None
    assert github.calls == []
    with pytest.raises(PlatformError, match="--reviewer goes with --github"):
        prepare(environment, ACME, False, ["ann"], False)


def test_local_has_no_environment_on_github(local: Environment, github: GitHub) -> None:
    with pytest.raises(PlatformError, match="local has no GitHub environment"):
        prepare(local, ACME, True, [], True)


# --- the whole command


@pytest.fixture
def bootstrapped(
    environment: Environment, github: GitHub, aws_mocked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs invoke bootstrap-account against moto and the fake gh; gives the default branch that the roles trust."""
    monkeypatch.setenv("PATH", f"{github.file.parent}:/usr/bin:/bin")
    monkeypatch.setattr(tasks, "load", lambda _: environment)
    monkeypatch.setattr(checks, "ready", lambda given: given)

    def run(**options: Any) -> str:
        tasks.bootstrap_account.body(Context(), "dev", repository="acme/platform", **options)
        return account.trusted(environment).default_branch

    return run


def test_command_sets_up_aws_and_github_after_showing_what(
    bootstrapped: Callable[..., str], github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    github.has(default_branch="trunk")
    assert bootstrapped(github=True, yes=True, default_branch="trunk") == "trunk"
    shown = capsys.readouterr().out

    assert github.environments["dev"]["secrets"] == KEYS
    order = ["create    environment", "role/dev_dataflow_automation_deploy", "is set up", "AWS_REGISTER_ROLE = "]
    assert sorted(order, key=shown.index) == order
    assert "New environment" not in shown


def test_command_changes_nothing_on_aws_before_github_is_confirmed(
    bootstrapped: Callable[..., str], github: GitHub, aws_mocked: Callable[[str], Any]
) -> None:
    with pytest.raises(SystemExit):
        bootstrapped(github=True)

    assert aws_mocked("iam").list_roles()["Roles"] == []
    assert github.environments == {}


def test_command_without_gh_sets_up_aws_and_gives_the_list(
    bootstrapped: Callable[..., str], github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    github.has(login="")
    assert bootstrapped(github=True) == "main"
    shown = capsys.readouterr().out

    assert "gh is not logged in" in shown
    assert "Deployment branches  feature/*, feature/**/*" in shown
    assert github.changes == []
