"""Runs Terraform on the root module in this folder.

python-terraform makes the command lines; the processes are started here, because its own runner can neither stream
Terraform's JSON events, of which the progress is made, nor take an environment of its own.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from environments import console
from environments.errors import PlatformError
from environments.secrets import process_environment
from environments.settings import ROOT, Environment
from infra.aws import aws_variables
from infra.images import repository_exists
from infra.state import STATE_KEY, bucket_name
from infra.terraform_errors import diagnostic, failure, readable

MODULE = ROOT / "infra"
MINIMUM_VERSION = (1, 10)
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
    task_events_queue: str


def program() -> str:
    """Path of the Terraform program: the one that bootstrap.sh fetched, or else the one on PATH.

    Raises:
        PlatformError: there is none, or it is too old.
    """
    found = shutil.which("terraform", path=str(ROOT / ".local" / "bin")) or shutil.which("terraform")
    if not found:
        raise PlatformError("Terraform is missing", "no program of that name on PATH", "./bootstrap.sh gets it")
    try:
        answer = subprocess.run([found, "version", "-json"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise PlatformError(f"{found} does not run", str(error), "remove it and run ./bootstrap.sh") from error
    version = re.search(r'"terraform_version":\s*"(\d+)\.(\d+)', answer.stdout)
    if not version or (int(version[1]), int(version[2])) < MINIMUM_VERSION:
        raise PlatformError(
            "Terraform is too old",
            f"{found} is {'.'.join(version.groups()) if version else 'unknown'}",
            f"install {'.'.join(map(str, MINIMUM_VERSION))} or newer, or take it off PATH and run ./bootstrap.sh",
        )
    return found


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
    _init(environment)
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
            console.progress(f"{made} of {changed} changes made, {resource}" if changed else f"comparing {resource}")

    if saved:
        # Settings and image are in the plan; Terraform takes no others beside it.
        _stream(environment, "apply", watch, str(saved), input=False)
    else:
        _stream(environment, "apply", watch, auto_approve=True, **_inputs(environment, image_tag))
    console.note(f"{changed} resources changed" if changed else "no changes")
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
    _init(environment)
    colour = None if sys.stdout.isatty() else _FLAG
    options = {"detailed_exitcode": _FLAG, "lock": False, "no_color": colour, "out": str(out) if out else None}
    command = _command(environment, "plan", **options, **_inputs(environment, image_tag))
    sys.stdout.flush()  # what was printed before stands before it
    with _started(environment, command, None, subprocess.PIPE) as process:
        errors = process.stderr.read() if process.stderr else ""
    if process.returncode not in (0, 2):
        raise failure(environment, "plan", readable(errors))
    return process.returncode


def described(environment: Environment, saved: Path) -> dict[str, Any]:
    """A saved plan as data: https://developer.hashicorp.com/terraform/internals/json-format.

    Raises:
        PlatformError: it is no plan, or one of another version of Terraform.
    """
    _init(environment)
    content: dict[str, Any] = json.loads(_run(environment, "show", str(saved), json=_FLAG))
    return content


def words(environment: Environment, saved: Path) -> str:
    """A saved plan in Terraform's own words, after `plan` or `described`."""
    return _run(environment, "show", str(saved))


def destroy(environment: Environment, image_tag: str) -> None:
    """Remove everything that Terraform made."""
    _init(environment)

    def watch(event: dict[str, Any]) -> None:
        if resource := event.get("hook", {}).get("resource", {}).get("addr"):
            console.progress(f"{event['type'].replace('_', ' ')}: {resource}")

    _stream(environment, "destroy", watch, auto_approve=True, **_inputs(environment, image_tag))


def outputs(environment: Environment) -> Outputs:
    """Read the outputs of what was applied last.

    Raises:
        PlatformError: the environment has not been deployed.
    """
    _init(environment)
    return _typed_outputs(environment, json.loads(_run(environment, "output", json=_FLAG)))


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


class _Flag:
    """Stands for python-terraform's IsFlagged, which is imported only when a command is made."""


_FLAG = _Flag


def _init(environment: Environment) -> None:
    backend = {
        "bucket": bucket_name(environment),
        "key": STATE_KEY,
        "region": environment.aws_region,
        **({"use_path_style": "true"} if environment.is_local else {}),
    }
    _run(environment, "init", input=False, reconfigure=_FLAG, backend_config=backend)


def _inputs(environment: Environment, image_tag: str) -> dict[str, Any]:
    return {
        "input": False,
        "var_file": str(environment.tfvars),
        "var": [f"environment={environment.name}", f"agent_image_tag={image_tag}"],
    }


def _variables(environment: Environment) -> dict[str, str]:
    additions = {
        "TF_DATA_DIR": str(environment.folder / "terraform"),
        "TF_IN_AUTOMATION": "1",
        **aws_variables(environment),
    }
    configuration = ROOT / ".local" / "terraform.rc"
    if configuration.exists():
        additions["TF_CLI_CONFIG_FILE"] = str(configuration)
    return process_environment(additions)


def _command(environment: Environment, command: str, *arguments: str, **options: Any) -> list[str]:
    from python_terraform import IsFlagged, Terraform

    flags = {name: IsFlagged if value is _FLAG else value for name, value in options.items()}
    made: list[str] = Terraform(working_dir=str(MODULE), terraform_bin_path=program()).generate_cmd_string(
        command, *arguments, **flags
    )
    return made


@contextlib.contextmanager
def _started(
    environment: Environment, command: list[str], output: int | None, errors: int | None
) -> "Iterator[subprocess.Popen[str]]":
    """A running Terraform; Ctrl-C lets it finish what it has begun, and when it has ended nothing of it is left."""
    process = subprocess.Popen(
        command,
        cwd=MODULE,
        env=_variables(environment),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    with console.on_interrupt(lambda: process.send_signal(signal.SIGINT)):
        try:
            yield process
        except BaseException:
            # It must not go on alone, with the lock in its hands.
            process.send_signal(signal.SIGINT)
            raise
        finally:
            process.communicate()
            # An interrupted Terraform can leave its provider behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _run(environment: Environment, command: str, *arguments: str, **options: Any) -> str:
    made = _command(environment, command, *arguments, no_color=_FLAG, **options)
    with _started(environment, made, subprocess.PIPE, subprocess.PIPE) as process:
        output, errors = process.communicate()
    if process.returncode:
        raise failure(environment, command, readable(errors))
    return output


def _stream(
    environment: Environment, command: str, watch: Callable[[dict[str, Any]], None], *arguments: str, **options: Any
) -> None:
    """Run a command with -json and hand each event to `watch`."""
    log = environment.folder / "logs" / f"terraform_{command}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    errors = []
    made = _command(environment, command, *arguments, json=_FLAG, **options)
    with (
        log.open("w", encoding="utf-8") as record,
        _started(environment, made, subprocess.PIPE, subprocess.STDOUT) as process,
    ):
        for event in _events(process, record):
            watch(event)
            if event.get("@level") == "error":
                errors.append("\n".join(diagnostic(event)))
    if process.returncode:
        raise failure(environment, command, "\n".join(errors) or f"see {log.relative_to(ROOT)}")


def _events(process: "subprocess.Popen[str]", record: Any) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        record.write(line)
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # a warning of the program itself, kept in the log
        if isinstance(event, dict):
            yield event


def unlock(environment: Environment, lock_id: str) -> None:
    """Release the lock that a dead run left behind.

    Raises:
        PlatformError: there is no such lock, or the id is none.
    """
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lock_id):
        raise PlatformError(f"{lock_id!r} is not the ID of a lock", todo="copy it from the message that names the lock")
    _init(environment)
    _run(environment, "force-unlock", lock_id, force=_FLAG)
