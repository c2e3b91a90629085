"""What a user sees of a registration: on the terminal, as JSON, and on the page of a GitHub Actions job."""

import json
import re
import shlex
from typing import Any

from environments import console, github_actions
from environments.settings import Environment
from infra.images import Image
from register_action.changes import WORDS, Change
from register_action.overview import SHORT, schedule_text
from register_action.workflow import Workflow

"""As much of a commit or digest as people read."""


def show(environment: Environment, workflow: Workflow, image: Image, changes: list[Change], as_json: bool) -> None:
    """Print what was registered, and hand it to the steps of the job that come after.

    Args:
        environment: where.
        workflow: what.
        image: its image in ECR.
        changes: what happened to its deployments.
        as_json: for scripts.
    """
    rows = [_row(environment, change) for change in changes]
    current = [row for row, change in zip(rows, changes, strict=True) if change.payload]  # the flow is still there
    notes = _notes(workflow, changes)
    told = {
        "environment": environment.name,
        "workflow": workflow.name,
        "version": workflow.source.commit or image.tag,
        "image": image.pinned,
        "deployments": rows,
        "notes": notes,
    }
    for note in notes:
        github_actions.warn(note)
    github_actions.output("deployments", json.dumps([row["name"] for row in current]))
    github_actions.output("deployment_urls", json.dumps([row["url"] for row in current]))
    github_actions.output("image", image.pinned)
    github_actions.summary(_markdown(told))
    if as_json:
        print(json.dumps(told, indent=2))
        return
    console.say()
    console.table(
        [(row["name"], row["action"], row["schedule"], row["size"]) for row in rows],
        ("deployment", "", "schedule", "cpu / memory"),
    )
    console.table([("version", str(told["version"])), ("image", image.pinned)])
    for note in notes:
        console.say(f"note: {note}", "yellow")
    if current:
        option = "" if environment.is_local else f" --env {environment.name}"
        console.say(f"next: .venv/bin/invoke run {shlex.quote(current[0]['name'])}{option}", "bold")


def show_plan(
    environment: Environment, workflow: Workflow, image: Image, changes: list[Change] | None, as_json: bool
) -> None:
    """Print what a registration would do.

    Args:
        environment: where.
        workflow: what.
        image: its image; without a digest when it would have to be built.
        changes: what would happen to its deployments; None when only the image, once it is built, can tell.
        as_json: for scripts.
    """
    if changes is None:
        rows = [
            {"name": f"{entry.flow.name or '?'}/{entry.name}", "action": "create or update"}
            for entry in workflow.entries
        ]
    else:
        rows = [{"name": change.full_name, "action": change.action} for change in changes]
    built = "already in ECR" if image.digest else "to be built and pushed"
    notes = _notes(workflow, changes or [])
    if as_json:
        told = {"dry_run": True, "environment": environment.name, "workflow": workflow.name, "image": image.uri}
        print(json.dumps({**told, "build": not image.digest, "deployments": rows, "notes": notes}, indent=2))
        return
    console.say("dry run: nothing was built or changed", "bold")
    console.table([("image", image.uri, built)])
    console.table([(row["name"], row["action"]) for row in rows])
    for note in notes:
        console.say(f"note: {note}", "yellow")


def _row(environment: Environment, change: Change) -> dict[str, Any]:
    variables = change.payload.get("job_variables", {})
    size = f"{variables.get('cpu', environment.workflow_cpu)} / {variables.get('memory', environment.workflow_memory)}"
    return {
        "name": change.full_name,
        "action": WORDS[change.action],
        "schedule": ", ".join(schedule_text(each) for each in change.payload.get("schedules", [])) or "-",
        "size": size if change.payload else "-",
        "capacity_provider": variables.get("capacity_provider"),
        "url": f"{environment.prefect_page_url}/deployments/deployment/{change.identifier}",
    }


def _notes(workflow: Workflow, changes: list[Change]) -> list[str]:
    """What the author should know: of the folder, and of each deployment."""
    gone = [change.full_name for change in changes if change.action == "pause"]
    return [
        *workflow.notes,
        *(f"{name}: its flow is no longer in the folder, so it is paused; --prune deletes it" for name in gone),
        *(f"{change.full_name}: {note}" for change in changes for note in change.notes),
    ]


def _markdown(told: dict[str, Any]) -> str:
    lines = [
        f"### Workflow `{told['workflow']}` in environment `{told['environment']}`",
        "",
        "| deployment | | schedule | cpu / memory | version |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in told["deployments"]:
        name = f"[{_cell(row['name'])}]({row['url']})"
        cells = [name, row["action"], _cell(row["schedule"]), row["size"], told["version"][:SHORT]]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Image `{told['image']}`", *(f"- {_cell(note)}" for note in told["notes"])]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", " ".join(text.split()))
