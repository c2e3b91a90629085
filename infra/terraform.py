"""What Terraform does with the root module in this folder: apply, plan, destroy, tell its outputs, let go of a lock."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environments import leftovers, outages, progress
from environments.errors import PlatformError
from environments.settings import Environment
from infra.images import repository_exists
from infra.state import STATE_KEY, bucket_name, lock
from infra.terraform_errors import ADDRESS_LEFT_BEHIND, PASSING, failure, readable
from infra.terraform_process import (
    FLAG,
    MODULE,
    UNSAVED_STATE,
    command_line,
    configuration,
    data_folder,
    located,
    program,
    run,
    started,
    stream,
)

AGENT_REPOSITORY_ADDRESS = "aws_ecr_repository.agent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """What Terraform tells the other components; names, ARNs and ids of AWS. See outputs.tf."""

    aws_region: str
    agent_cluster: str
    agent_service: str
    agent_task_definition_arn: str
    agent_image: str
    agent_log_group: str
    workflows_cluster_arn: str
    workflows_log_group: str
    workflow_execution_role_arn: str
    workflow_task_role_arn: str
    subnet_ids: tuple[str, ...]
    security_group_id: str
    prefect_key_secret_arn: str
    workflow_prefect_key_secret_arn: str
    task_events_queue: str


def apply(
    environment: Environment,
    image_tag: str,
    on_repository: Callable[[], None] | None = None,
    saved: Path | None = None,
) -> Outputs:
    """Bring AWS to what the settings say; changes nothing when it is there already.

    Args:
        environment: which one.
        image_tag: tag of the agent's image; the task definition names it, the service does not start it yet.
        on_repository: called as soon as the agent's ECR repository is there, while the rest is still being made.
        saved: a plan of `plan`; exactly that is applied, or nothing when the state has changed since.

    Raises:
        PlatformError: Terraform failed; its own words are the reason. Or the saved plan is stale.
    """
    init(environment)
    save_unsaved_state(environment)
    made = changed = 0
    made_outputs: dict[str, Any] = {}

    def watch(event: dict[str, Any]) -> None:
        nonlocal made, changed
        if event["type"] == "outputs":
            made_outputs.update(event["outputs"])  # after the plan without values, at the end with them
        resource = event.get("hook", {}).get("resource", {}).get("addr", "")
        if event["type"] == "apply_complete" and event["hook"].get("action") != "read":
            made += 1
        if resource == AGENT_REPOSITORY_ADDRESS and on_repository:
            # What was refreshed may turn out to be gone.
            known = event["type"] == "refresh_complete" and repository_exists(environment, environment.agent_name)
            if known or event["type"] == "apply_complete":
                on_repository()
        if event["type"] == "change_summary":
            changes = event["changes"]
            changed = changes["add"] + changes["change"] + changes["remove"]
        if event["type"] in ("apply_start", "apply_progress", "apply_complete", "refresh_start"):
            progress.doing(f"{made} of {changed} changes made, {resource}" if changed else f"comparing {resource}")

    if saved:
        # Settings and image are in the plan; Terraform takes no others beside it.
        stream(environment, "apply", watch, str(saved), input=False)
    else:
        stream(environment, "apply", watch, auto_approve=True, **inputs(environment, image_tag))
    progress.note(f"{changed} resources changed" if changed else "no changes")
    return _typed_outputs(environment, made_outputs)


def plan(environment: Environment, image_tag: str, out: Path | None = None) -> int:
    """Show what apply would change, in Terraform's own words. It only reads, and takes no lock.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.
        out: where to save the plan.

    Returns:
        0 when nothing would change, 2 when something would, as Terraform's -detailed-exitcode.

    Raises:
        PlatformError: Terraform failed; its own words are the reason.
    """
    init(environment)
    colour = None if sys.stdout.isatty() else FLAG
    options = {"detailed_exitcode": FLAG, "lock": False, "no_color": colour, "out": str(out) if out else None}
    command = command_line("plan", **options, **inputs(environment, image_tag))
    sys.stdout.flush()  # what was printed before stands before it
    with started(environment, command, None, subprocess.PIPE) as process:
        errors = process.stderr.read() if process.stderr else ""
    if process.returncode not in (0, 2):
        raise failure(environment, "plan", readable(errors))
    return process.returncode


def drift(environment: Environment, image_tag: str, out: Path | None = None) -> list[str]:
    """What apply would do, and to which resource; as `plan`, and nothing is printed.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.
        out: where to save the plan; it is made under the lock then, as one that is to be applied.
    """
    init(environment)
    changes: list[str] = []

    def watch(event: dict[str, Any]) -> None:
        if event["type"] == "planned_change" and event["change"]["action"] != "read":
            changes.append(f"{event['change']['action']} {event['change']['resource']['addr']}")
        if event["type"] == "outputs":
            told = event["outputs"].items()
            changes.extend(f"update output {name}" for name, output in told if output.get("action") != "noop")
        if event["type"] == "refresh_start":
            progress.doing(f"comparing {event['hook']['resource']['addr']}")

    options = {"out": str(out), "lock": True} if out else {"lock": False}
    stream(environment, "plan", watch, **options, **inputs(environment, image_tag))
    return changes


def described(environment: Environment, saved: Path) -> dict[str, Any]:
    """A saved plan as data: https://developer.hashicorp.com/terraform/internals/json-format.

    Raises:
        PlatformError: it is no plan, or one of another version of Terraform.
    """
    init(environment)
    content: dict[str, Any] = json.loads(run(environment, "show", str(saved), json=FLAG))
    return content


def words(environment: Environment, saved: Path) -> str:
    """A saved plan in Terraform's own words, after `plan` or `described`."""
    return run(environment, "show", str(saved))


def destroy(environment: Environment, image_tag: str) -> None:
    """Remove everything that Terraform made."""
    init(environment)
    save_unsaved_state(environment)

    def watch(event: dict[str, Any]) -> None:
        if resource := event.get("hook", {}).get("resource", {}).get("addr"):
            progress.doing(f"{event['type'].replace('_', ' ')}: {resource}")

    outages.repeated(
        lambda: stream(environment, "destroy", watch, auto_approve=True, **inputs(environment, image_tag)),
        lambda error: ADDRESS_LEFT_BEHIND.search(str(error)) is not None,
    )


def outputs(environment: Environment) -> Outputs:
    """Read the outputs of what was applied last.

    Raises:
        PlatformError: the environment has not been deployed.
    """
    init(environment)
    return _typed_outputs(environment, json.loads(run(environment, "output", json=FLAG)))


def _typed_outputs(environment: Environment, found: dict[str, Any]) -> Outputs:
    values = {name: output["value"] for name, output in found.items() if "value" in output}
    if missing := {field.name for field in dataclasses.fields(Outputs)} - values.keys():
        raise PlatformError(
            f"environment {environment.name} is not deployed",
            f"Terraform's state has no {', '.join(sorted(missing))}",
            f"invoke deploy --env {environment.name}",
        )
    values["subnet_ids"] = tuple(values["subnet_ids"])
    return Outputs(**{field.name: values[field.name] for field in dataclasses.fields(Outputs)})


def init(environment: Environment) -> None:
    """Make Terraform ready for the environment's state; takes no time when it is.

    Raises:
        PlatformError: there is no state bucket: the environment has not been deployed.
    """
    if is_ready(environment):
        return
    program()  # new enough?
    backend, stamp = _backend(environment), data_folder(environment) / "ready"
    stamp.unlink(missing_ok=True)
    # It only reads, and asks AWS who it is: a broken answer is not repeated by Terraform itself.
    outages.repeated(
        lambda: run(environment, "init", input=False, reconfigure=FLAG, backend_config=backend),
        lambda error: PASSING.search(str(error)) is not None,
    )
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(_ready(environment), encoding="utf-8")


def is_ready(environment: Environment) -> bool:
    """Whether `init` has nothing to do: nothing has changed that it depends on, and what it installed is there."""
    stamp = data_folder(environment) / "ready"
    providers = (data_folder(environment) / "providers").glob("*/*/*/*/*/terraform-provider-*")
    return any(providers) and stamp.exists() and stamp.read_text(encoding="utf-8") == _ready(environment)


def _ready(environment: Environment) -> str:
    """A hash over all that `terraform init` depends on."""
    found = Path(located())
    files = [*(MODULE / name for name in ("versions.tf", ".terraform.lock.hcl")), configuration()]
    parts = [json.dumps(_backend(environment)), str(found), str(found.stat().st_mtime_ns)]
    parts += [file.read_text(encoding="utf-8") if file.exists() else "" for file in files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _backend(environment: Environment) -> dict[str, str]:
    """Where the state is."""
    return {
        "bucket": bucket_name(environment),
        "key": STATE_KEY,
        "region": environment.aws_region,
        **({"use_path_style": "true"} if environment.is_local else {}),
    }


def has_unsaved_state(environment: Environment) -> bool:
    """Whether S3 did not take the state at the end of the last run: a plan would not know what that run made."""
    return (environment.folder / UNSAVED_STATE).exists()


def save_unsaved_state(environment: Environment) -> None:
    """Save the state that S3 did not take at the end of the last run: without it, what that run made is not known.

    Raises:
        PlatformError: S3 does not take it now, or another run has changed the state since.
    """
    if not has_unsaved_state(environment):
        return
    state = environment.folder / UNSAVED_STATE
    try:
        run(environment, "state push", str(state))
    except PlatformError as error:
        raise PlatformError(
            "the state of the last run, which S3 did not take then, can't be saved now",
            error.why,
            "the same command tries again; if another run has brought all up since, "
            f"remove .local/{environment.name}/{state.name}",
        ) from error
    state.unlink()


def inputs(environment: Environment, image_tag: str) -> dict[str, Any]:
    """The options that hand the settings over to Terraform, and with them the tag of the agent's image."""
    return {
        "input": False,
        "var_file": str(environment.tfvars),
        "var": [f"environment={environment.name}", f"agent_image_tag={image_tag}"],
    }


def own_lock(environment: Environment) -> str:
    """Return the ID of the lock that a killed command of this machine holds; empty when none does.

    A Terraform that is still at work for such a command is waited for: it releases the lock by itself.

    Raises:
        PlatformError: it does not end, or another Terraform is at work on this machine, whose lock it may be.
    """
    import psutil

    held = lock(environment)
    if not held or str(held.get("Who", "")).rpartition("@")[2] != os.uname().nodename:
        return ""
    leftovers.clear()
    held = lock(environment)
    if held and any(process.info["name"] == "terraform" for process in psutil.process_iter(["name"])):
        raise PlatformError(
            "a Terraform is at work on this machine",
            f"the lock {held.get('ID')} may belong to it",
            "wait for it to end, and try again",
        )
    return str(held.get("ID", "")) if held else ""


def unlock(environment: Environment, lock_id: str) -> None:
    """Release the lock that a dead run left behind.

    Raises:
        PlatformError: there is no such lock, or the id is none.
    """
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lock_id):
        raise PlatformError(f"{lock_id!r} is not the ID of a lock", todo="copy it from the message that names the lock")
    init(environment)
    run(environment, "force-unlock", lock_id, force=FLAG)
