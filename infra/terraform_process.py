"""Terraform as a process: found, started on the root module in this folder, followed, and never left alone.

python-terraform makes the command lines; the processes are started here, because its own runner can neither stream
Terraform's JSON events, of which the progress is made, nor take an environment of its own.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from environments import leftovers, progress, settings
from environments.errors import PlatformError
from environments.secrets import process_environment
from environments.settings import ROOT, Environment
from infra.aws import aws_variables
from infra.terraform_errors import diagnostic, failure, readable

MODULE = ROOT / "infra"
MINIMUM_VERSION = (1, 10)
POLL_SECONDS = 0.1
GARBAGE_COLLECTION = "400"
"""Terraform and its provider collect garbage when the heap is five times what is in use, not twice: the provider's
schemas fill it several times in each command. A plan takes a fifth less time and 200 MB more memory.
https://tip.golang.org/doc/gc-guide
"""
UNSAVED_STATE = "errored.tfstate"
"""Where Terraform leaves a state that it could not save:
https://developer.hashicorp.com/terraform/cli/state/recover
"""


def data_folder(environment: Environment) -> Path:
    """Where Terraform keeps what `init` made for an environment."""
    return environment.folder / "terraform"


def configuration() -> Path:
    """Return the path of Terraform's own configuration, where bootstrap.sh made one."""
    return settings.machine_folder() / "terraform.rc"


def located() -> str:
    """Path of the Terraform program: the one that bootstrap.sh fetched, or else the one on PATH.

    Raises:
        PlatformError: there is none.
    """
    found = shutil.which("terraform", path=str(settings.machine_folder() / "bin")) or shutil.which("terraform")
    if not found:
        raise PlatformError("Terraform is missing", "no program of that name on PATH", "./bootstrap.sh gets it")
    return found


def program() -> str:
    """Path of the Terraform program, which is asked for its version: that takes a tenth of a second.

    Raises:
        PlatformError: there is none, or it is too old.
    """
    found = located()
    try:
        answer = _version_of(found, Path(found).stat().st_mtime_ns)
    except OSError as error:
        raise PlatformError(f"{found} does not run", str(error), "remove it and run ./bootstrap.sh") from error
    version = re.search(r'"terraform_version":\s*"(\d+)\.(\d+)', answer)
    if not version or (int(version[1]), int(version[2])) < MINIMUM_VERSION:
        raise PlatformError(
            "Terraform is too old",
            f"{found} is {'.'.join(version.groups()) if version else 'unknown'}",
            f"install {'.'.join(map(str, MINIMUM_VERSION))} or newer, or take it off PATH and run ./bootstrap.sh",
        )
    return found


@functools.cache
def _version_of(found: str, _changed: int) -> str:
    """What a program says of its version: asked once, and again when the program has changed."""
    return subprocess.run([found, "version", "-json"], capture_output=True, text=True, check=False).stdout


class _Flag:
    """Stands for python-terraform's IsFlagged, which is imported only when a command is made."""


FLAG = _Flag
"""An option without a value."""


def command_line(command: str, *arguments: str, **options: Any) -> list[str]:
    """The command line of a Terraform command; `init` has seen to it that the program is new enough.

    Args:
        command: such as `apply`.
        arguments: what stands behind the options.
        options: by name, as python-terraform takes them; `FLAG` for one without a value.
    """
    from python_terraform import IsFlagged, Terraform

    flags = {name: IsFlagged if value is FLAG else value for name, value in options.items()}
    made: list[str] = Terraform(working_dir=str(MODULE), terraform_bin_path=located()).generate_cmd_string(
        command, *arguments, **flags
    )
    return made


@contextlib.contextmanager
def started(
    environment: Environment,
    command: list[str],
    output: int | IO[bytes] | None,
    errors: int | None,
    module: Path = MODULE,
) -> "Iterator[subprocess.Popen[str]]":
    """A running Terraform; Ctrl-C lets it finish what it has begun, and when it has ended nothing of it is left."""
    process = subprocess.Popen(
        leftovers.ending_with_us(command),
        cwd=module,
        env=_variables(environment),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    with progress.on_interrupt(lambda: process.send_signal(signal.SIGINT)):
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


def run(environment: Environment, command: str, *arguments: str, **options: Any) -> str:
    """Run a command that is over soon, and give what it printed.

    Raises:
        PlatformError: it failed; its own words are the reason.
    """
    made = command_line(command, *arguments, no_color=FLAG, **options)
    with started(environment, made, subprocess.PIPE, subprocess.PIPE) as process:
        output, errors = process.communicate()
    if process.returncode:
        raise failure(environment, command, readable(errors))
    return output


def stream(
    environment: Environment,
    command: str,
    watch: Callable[[dict[str, Any]], None],
    *arguments: str,
    module: Path = MODULE,
    **options: Any,
) -> None:
    """Run a command with -json and hand each event to `watch`.

    It writes into a file and not to us: were we killed, it would die of its next word, with the lock in its hands.

    Args:
        environment: which one.
        command: such as `apply`.
        watch: is called with each event.
        arguments: what stands behind the options.
        module: folder of the root module.
        options: as `command_line` takes them.

    Raises:
        PlatformError: it failed; its own words are the reason.
    """
    log = environment.folder / "logs" / f"terraform_{command}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    errors = []
    made = command_line(command, *arguments, json=FLAG, **options)
    with log.open("wb") as record, started(environment, made, record, subprocess.STDOUT, module) as process:
        for event in _events(process, log):
            watch(event)
            if event.get("@level") == "error":
                errors.append("\n".join(diagnostic(event)))
    if process.returncode:
        if (state := module / UNSAVED_STATE).exists():
            shutil.move(state, environment.folder / UNSAVED_STATE)
        raise failure(environment, command, "\n".join(errors) or f"see {log.relative_to(settings.ROOT)}")


def _events(process: "subprocess.Popen[str]", log: Path) -> Iterator[dict[str, Any]]:
    """The events that a process writes into a file, until it ends."""
    with log.open(encoding="utf-8") as written:
        rest = ""
        while True:
            ended = process.poll() is not None  # what it wrote before is there now
            *lines, rest = (rest + written.read()).split("\n")
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):  # a warning of the program itself, kept in the log
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
            if ended:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)


def _variables(environment: Environment) -> dict[str, str]:
    additions = {
        "TF_DATA_DIR": str(data_folder(environment)),
        "TF_IN_AUTOMATION": "1",
        "GOGC": os.environ.get("GOGC", GARBAGE_COLLECTION),
        **leftovers.variables(),
        **aws_variables(environment),
    }
    if configuration().exists():
        additions["TF_CLI_CONFIG_FILE"] = str(configuration())
    return process_environment(additions)
