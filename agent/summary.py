"""What a user sees of an environment: its settings, the summary after a deploy, and its status."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.status import Seen
from environments import checking, console, github_actions, progress, settings
from environments.secrets import key_file
from environments.settings import Environment, fields
from infra.images import Image
from infra.preflight import EXAMPLE_ACCOUNT
from infra.roles import ROLES, role_arn

RUNS_SHOWN = 5
RUNNERS = {"X86_64": "ubuntu-24.04", "ARM64": "ubuntu-24.04-arm"}
"""Label of GitHub's runner that builds images for an architecture.

https://docs.github.com/en/actions/reference/runners/github-hosted-runners
"""


def show(environment: Environment, image: Image, steps: list[progress.Step], as_json: bool = False) -> None:
    """Print what a deploy made, where it is, how long each step took, and what to type next."""
    if as_json:
        told = {
            "environment": environment.name,
            "project": environment.prefix,
            "prefect_page": environment.prefect_page_url,
            "agent_image": image.uri,
            "aws_account_id": environment.aws_account_id,
            "aws_region": environment.aws_region,
            "steps": _steps(steps),
        }
        print(json.dumps(told, indent=2))
        return
    rows = [
        ("Prefect project", environment.prefix),
        ("Prefect page", environment.prefect_page_url),
        ("Agent image", image.uri),
        (
            "AWS",
            f"account {environment.aws_account_id}, {environment.aws_region}"
            + (f", emulated at {environment.aws_endpoint_url}" if environment.is_local else ""),
        ),
    ]
    if environment.is_local:
        rows.insert(2, ("Key for the page", f"cat {key_file(environment).relative_to(settings.ROOT)}"))
    console.say()
    console.say(f"environment {environment.name} is up", "bold green")
    console.table(rows)
    slowest = sorted((step for step in steps if step.seconds >= 0.1), key=lambda step: -step.seconds)
    console.say("took   " + ", ".join(f"{step.name} {step.seconds:.1f} s" for step in slowest), "dim")
    option = "" if environment.name == "local" else f" --env {environment.name}"
    console.say(f"next: .venv/bin/invoke register --workflow-path examples/sample_workflow/workflow{option}", "bold")


def _steps(steps: list[progress.Step]) -> list[dict[str, Any]]:
    first = min((step.begin for step in steps if step.begin is not None), default=0.0)
    return [
        {
            "name": step.name,
            "state": step.state,
            "needs": [need.name for need in step.needs],
            "begin": None if step.begin is None else round(step.begin - first, 3),
            "seconds": round(step.seconds, 3),
            "note": step.note,
        }
        for step in dict.fromkeys((*steps, *(need for step in steps for need in step.needs)))  # milestones, too
    ]


def show_status(environment: Environment, seen: Seen, as_json: bool) -> int:
    """Print every component, the newest runs and every workflow; gives 0 when all components are well, else 1."""
    if as_json:
        well = all(part.ok for part in seen.parts)
        print(
            json.dumps(
                {
                    "environment": environment.name,
                    "ok": well,
                    "prefect_page": environment.prefect_page_url,
                    "components": [dataclasses.asdict(part) for part in seen.parts],
                    "workflows": seen.workflows,
                    "runs": seen.runs,
                },
                indent=2,
            )
        )
        return 0 if well else 1
    console.say(f"environment {environment.name}  {environment.prefect_page_url}", "bold")
    code = checking.show(seen.parts)
    if seen.runs:
        rows = [(run["name"], run["deployment"], run["state"], _age(run["since"])) for run in seen.runs[:RUNS_SHOWN]]
        console.say()
        console.table(rows, ("run", "of workflow", "state", "since"))
    if seen.workflows:
        console.say()
        console.table(
            [(flow["name"], flow["version"][:12], flow["last_run"]) for flow in seen.workflows],
            ("workflow", "version", "last run"),
        )
    return code


def _age(moment: str) -> str:
    """How long ago a time of Prefect's was, in its largest unit."""
    past = max(datetime.now(UTC) - datetime.fromisoformat(moment), timedelta())
    units = {"d": timedelta(days=1), "h": timedelta(hours=1), "min": timedelta(minutes=1), "s": timedelta(seconds=1)}
    unit = next((name for name, length in units.items() if past >= length), "s")
    return f"{past // units[unit]} {unit} ago"


def show_settings(environment: Environment, as_json: bool) -> None:
    """Print all settings, defaults included, and the ARN of each role; hand what a pipeline needs to its next steps."""
    values = {name: getattr(environment, name) for name in fields()}
    roles = {f"{role}_role": role_arn(environment, role) for role in ROLES}
    if as_json:
        print(json.dumps({"environment": environment.name, **values, **roles}, indent=2))
    else:
        shown = {name: "" if value is None else _as_text(value) for name, value in {**values, **roles}.items()}
        console.table(list(shown.items()), ("setting", f"environment {environment.name}"))
    own_account = str(environment.aws_account_id != EXAMPLE_ACCOUNT).lower()
    runner = RUNNERS[environment.cpu_architecture]
    for name, value in {
        "aws_region": environment.aws_region,
        "own_account": own_account,
        "runner": runner,
        **roles,
    }.items():
        github_actions.output(name, value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
