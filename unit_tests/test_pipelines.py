"""The pipelines, read: pins, permissions, secrets, and in what the three differ. How they go: test_pipeline_runs.py."""

import re
from pathlib import Path
from typing import Any

import yaml

from environments.settings import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yaml"))
CALLERS = {
    "development.yaml": (["feature/**"], "dev", "github_action_development"),
    "integration.yaml": (["develop"], "test", "github_action_test"),
    "production.yaml": (["main", "master"], "prod", "github_action_prod"),
}
SECRETS = {
    "PREFECT_AGENT_TOKEN": "pnu_4g3nt",
    "PREFECT_WORKFLOW_REGISTER_TOKEN": "pnu_r3g1st3r",
    "PREFECT_WORKFLOW_TOKEN": "pnu_w0rkfl0w",
}
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def read(file: Path) -> dict[str, Any]:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in workflow.items()}


def jobs() -> dict[str, dict[str, Any]]:
    """All jobs by file and name."""
    return {f"{file.name}:{name}": job for file in FILES for name, job in read(file)["jobs"].items()}


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(where, step) for where, job in jobs().items() for step in job.get("steps", [])]


def test_nobody_gets_a_permission_that_a_job_does_not_ask_for() -> None:
    assert {file.name: read(file)["permissions"] for file in FILES} == {file.name: {} for file in FILES}
    writes = {where: job["permissions"] for where, job in jobs().items() if "steps" in job}
    tags = {"platform.yaml:check_tag", "platform.yaml:tag"}
    assert {where for where, each in writes.items() if each.get("contents") == "write"} == tags
    tokens = {"plan.yaml:plan", "platform.yaml:attest", "platform.yaml:deploy", "scorecard.yaml:scorecard"}
    assert {where for where, each in writes.items() if "id-token" in each} == tokens
    scans = {"codeql.yaml:analyze", "scorecard.yaml:scorecard"}
    assert {where for where, each in writes.items() if each.get("security-events") == "write"} == scans
    attesting = {where for where, each in writes.items() if each.get("attestations") == "write"}
    assert attesting == {"platform.yaml:attest"}
    others = {"attestations", "contents", "id-token", "security-events"}
    assert {level for each in writes.values() for name, level in each.items() if name not in others} == {"read"}


def test_every_job_ends_in_time() -> None:
    longest = {where: job.get("timeout-minutes", 999) for where, job in jobs().items() if "steps" in job}
    assert {where for where, minutes in longest.items() if minutes > 60} == {"gate.yaml:gate"}
    assert longest["gate.yaml:gate"] == 90


def test_long_steps_are_the_process_that_a_cancelled_job_signals() -> None:
    commands = ("bootstrap.sh", ".venv/bin/nox", ".venv/bin/invoke")
    lines = [
        line.strip()
        for _, step in steps()
        for line in step.get("run", "").splitlines()
        if any(command in line for command in commands)
    ]

    assert len(lines) >= 10
    assert [line for line in lines if not line.startswith("exec ")] == []


def test_what_others_wrote_is_pinned_to_a_commit_and_says_which_version_that_is() -> None:
    examples = sorted((ROOT / "examples").glob("*/.github/workflows/*.yaml"))
    lines = [line for file in [*FILES, *examples] for line in file.read_text(encoding="utf-8").splitlines()]
    used = {line.partition("uses: ")[2] for line in lines if re.match(r"\s*(- )?uses: ", line)}
    others = {name for name in used if not name.startswith(("$/", "your-org/"))}
    pinned = {
        match[1]: match[0] for name in others if (match := re.fullmatch(r"(\S+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", name))
    }

    assert len(others) >= 4
    assert set(pinned.values()) == others  # one version of each in the whole project
    assert {name for name in used if name.startswith("./")} == set()


def test_no_value_is_ever_part_of_a_script() -> None:
    scripts = [step["run"] for _, step in steps() if "run" in step]
    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_no_checkout_leaves_a_token_behind() -> None:
    checkouts = [step["with"] for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 9
    assert [each for each in checkouts if each["persist-credentials"] is not False] == []


def test_secrets_are_only_in_the_steps_that_need_them() -> None:
    roles = {"plan.yaml:plan:Assume the plan role"}
    roles |= {f"platform.yaml:deploy:Assume the {role} role" for role in ("deploy", "register")}
    used: dict[str, set[str]] = {}
    for where, step in steps():
        for name in re.findall(r"secrets\.(\w+)|(github\.token)", str(step)):
            used.setdefault("".join(name), set()).add(f"{where}:{step['name']}")

    assert used == {
        "PREFECT_AGENT_TOKEN": {"platform.yaml:deploy:Deploy what was planned", "platform.yaml:deploy:Run it"},
        "PREFECT_WORKFLOW_TOKEN": {"platform.yaml:deploy:Deploy what was planned"},
        "PREFECT_WORKFLOW_REGISTER_TOKEN": {
            "platform.yaml:deploy:Register a workflow as other repositories do",
            "platform.yaml:deploy:Remove it",
        },
        "github.token": {
            "dependency_review.yaml:review:Look up the dependency graph",
            "plan.yaml:plan:See whether the environment is set up",
            "platform.yaml:check_tag:See that the tag can move",
            "platform.yaml:tag:Make a release",
            "platform.yaml:tag:Move the tag",
            "repository.yaml:repository:Look up the repository",
        },
        "AWS_ACCESS_KEY_ID": roles,
        "AWS_SECRET_ACCESS_KEY": roles,
    }


def test_a_pull_request_knows_of_no_secret() -> None:
    assert "secrets" not in str(read(FOLDER / "pull_request.yaml"))


def test_the_three_pipelines_differ_in_branches_environment_tag_and_gate_only() -> None:
    shapes = []
    for file, (branches, environment, tag) in CALLERS.items():
        workflow = read(FOLDER / file)
        gate, job = workflow["jobs"]["gate"], workflow["jobs"]["platform"]
        assert workflow["on"] == {"push": {"branches": branches}}
        assert gate.get("with", {}) == ({"functional_tests": True} if environment == "test" else {})
        assert job["with"].pop("release", False) == (environment == "prod")
        assert job["with"] == {"environment": environment, "tag": tag}
        assert job["secrets"] == {name: f"${{{{ secrets.{name} }}}}" for name in {*SECRETS, *KEYS}}
        shapes.append((set(workflow), set(workflow["jobs"]), gate["uses"], job["needs"], job["permissions"], set(job)))
    assert [shape for shape in shapes if shape != shapes[0]] == []


def test_every_push_is_tested_and_deploys_of_an_environment_wait_for_each_other_in_order() -> None:
    for file, (_, environment, _) in CALLERS.items():
        workflow = read(FOLDER / file)
        assert "concurrency" not in workflow
        assert "concurrency" not in workflow["jobs"]["gate"]
        assert workflow["jobs"]["platform"]["concurrency"] == {
            "group": f"deploy-{environment}",
            "cancel-in-progress": False,
            "queue": "max",
        }


def test_the_gate_of_pipelines_and_pull_requests_runs_checkers_and_unit_tests() -> None:
    (gate,) = read(FOLDER / "gate.yaml")["jobs"].values()
    runs = {step["name"]: step["run"] for step in gate["steps"] if "run" in step}
    callers = {file.name for file in FILES for job in read(file)["jobs"].values() if "gate.yaml" in job.get("uses", "")}

    assert runs["Checkers"] == "exec .venv/bin/nox -s lint"
    assert runs["Unit tests"] == "exec .venv/bin/nox -s dev-unit"
    assert callers == {*CALLERS, "pull_request.yaml"}


def test_only_the_job_that_deploys_belongs_to_the_protected_environment() -> None:
    protected = {where: job["environment"] for where, job in jobs().items() if "environment" in job}
    assert protected == {"platform.yaml:deploy": "${{ inputs.environment }}"}


def test_the_functional_workflow_goes_through_the_action_as_it_is() -> None:
    action = yaml.safe_load((ROOT / "register_action" / "action.yml").read_text(encoding="utf-8"))["inputs"]
    registering, removing = (step for _, step in steps() if step.get("uses") == "$/register_action")
    required = {name for name, told in action.items() if told.get("required")}
    assert {*required, "workflow_name"} == set(registering["with"])
    assert removing["with"] == {**registering["with"], "remove": "true"}
    assert "always()" in removing["if"]
    assert (ROOT / registering["with"]["workflow_path"] / "flow.py").exists()


def test_the_proof_takes_no_name_that_an_example_has() -> None:
    flows = {
        name for file in (ROOT / "examples").rglob("*.py") for name in re.findall(r"def (\w+)\(", file.read_text())
    }
    proof = (ROOT / "functional_tests" / "proof" / "flow.py").read_text()

    assert re.findall(r'@flow\(name="(\w+)"\)', proof) == ["platform_proof"]
    assert "platform_proof" not in flows
