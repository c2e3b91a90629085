"""What is registered in an environment and how it runs: an entry for each deployment, and the newest runs.

Read by plain HTTP: `invoke status` and `invoke workflows` are to answer at once.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from environments import console
from environments.prefect_rest import ask, ask_all, of_project
from environments.settings import Environment
from register_action.registered import BASE, PREVIEW, WORKFLOW

SHORT = 12
NEWEST = 50
"""Runs that are read at once; only a deployment without one among them is asked for on its own."""
AT_ONCE = 8


def read(environment: Environment) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is registered, by name; and the newest runs that were to start by now, the newest first.

    Raises:
        PlatformError: Prefect does not answer, or not as it should.
    """
    of_pool = of_project(environment)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reading = pool.submit(ask_all, environment, "/deployments/filter", **of_pool)
        naming = pool.submit(ask_all, environment, "/flows/filter", **of_pool)
        runs = _newest(environment, NEWEST, expected_start_time={"before_": datetime.now(UTC).isoformat()})
        flows = {flow["id"]: flow["name"] for flow in naming.result()}
        known = {each["id"]: each for each in reading.result() if each["flow_id"] in flows}
        names = {each: f"{flows[known[each]['flow_id']]}/{known[each]['name']}" for each in known}
        last = {run["deployment_id"]: run for run in reversed(runs) if run["start_time"]}
        rest = [each for each in known if each not in last] if len(runs) == NEWEST else []
        last |= zip(rest, pool.map(lambda each: _last(environment, each), rest), strict=True)
    rows = [_workflow(names[each], known[each], last.get(each)) for each in sorted(known, key=lambda each: names[each])]
    return rows, [_run(names.get(run["deployment_id"], ""), run) for run in runs]


def _newest(environment: Environment, limit: int, **which: Any) -> list[dict[str, Any]]:
    body = {**of_project(environment, **which), "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
    runs: list[dict[str, Any]] = ask(environment, "/flow_runs/filter", body)
    return runs


def _last(environment: Environment, deployment: str) -> dict[str, Any] | None:
    """The last run of a deployment that has started."""
    which = {"deployment_id": {"any_": [deployment]}, "start_time": {"is_null_": False}}
    return next(iter(_newest(environment, 1, **which)), None)


def _workflow(name: str, deployment: dict[str, Any], last: dict[str, Any] | None) -> dict[str, Any]:
    labels = deployment["labels"] or {}
    started = f"{datetime.fromisoformat(last['start_time']):%Y-%m-%d %H:%M} UTC" if last else ""
    return {
        "name": name,
        "workflow": str(labels.get(WORKFLOW, "")),
        "version": deployment["version"] or "",
        "image": str((deployment["job_variables"] or {}).get("image", "")),
        "base_image": labels.get(BASE),
        "schedule": ", ".join(schedule_text(schedule) for schedule in deployment["schedules"]),
        "last_run": f"{last['state_name']} {started}" if last else "never",
        "state": "paused" if deployment["paused"] else "preview" if labels.get(PREVIEW) else "registered",
    }


def _run(deployment: str, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run["name"],
        "deployment": deployment,
        "state": run["state_name"],
        "since": run["start_time"] or run["expected_start_time"],
    }


def schedule_text(schedule: dict[str, Any]) -> str:
    """A schedule of Prefect's REST API in a few words."""
    what = schedule.get("schedule") or {}
    text = str(
        what.get("cron") or what.get("rrule") or (f"every {what['interval']:g} s" if "interval" in what else "?")
    )
    zone = what.get("timezone")
    paused = "" if schedule.get("active", True) else " (off)"
    return text + (f" {zone}" if zone and zone != "UTC" else "") + paused


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print what is registered."""
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        console.say("nothing is registered; invoke register --workflow-path ... hands a workflow over")
    else:
        console.table(
            [
                (
                    row["name"],
                    row["workflow"],
                    row["version"][:SHORT],
                    row["image"].partition("@sha256:")[2][:SHORT] or row["image"],
                    row["schedule"] or "-",
                    row["last_run"],
                    row["state"],
                )
                for row in rows
            ],
            ("deployment", "workflow", "version", "image", "schedule", "last run", "state"),
        )
