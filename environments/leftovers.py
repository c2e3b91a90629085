"""What a command leaves on this machine when it is killed, and how the next one takes that away.

A command has one temporary folder, which it keeps locked: however the process ends, the system lets go of the lock.
Programs that it starts carry the folder's name in their environment, and so do those that these start; containers have
it as a label. A folder that can be locked belongs to a dead command, and so does whatever names it.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environments import settings
from environments.errors import PlatformError

VARIABLE = "DATAFLOW_COMMAND"
"""Names the folder of the command that a program or a container was started by."""
INTERRUPT_ONCE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("interrupt_once.py")))
SIGNAL_AT_DEATH = ("setpriv", "--pdeathsig", "INT")
ORDERLY_END_SECONDS = 240
"""A NAT gateway takes minutes to be made; a cancelled job of GitHub Actions has five for the steps that tidy up."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards; when the process is killed, the next command removes it."""
    with tempfile.TemporaryDirectory(dir=own_folder(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def variables() -> dict[str, str]:
    """By which a program that we start is found again; its own temporary files go where ours are."""
    return {**label(), "TMPDIR": str(own_folder())}


def label() -> dict[str, str]:
    """By which a container that we start is found again."""
    return {VARIABLE: str(own_folder())}


def ending_with_us(command: list[str]) -> list[str]:
    """Return a command line whose program is interrupted once: by us, or when the thread that starts it ends.

    Where the system can't do that (only Linux does), the next command ends it.
    """
    at_death = SIGNAL_AT_DEATH if _system_tells_of_death() else ()
    return [*at_death, *INTERRUPT_ONCE, *command]


@functools.cache
def _system_tells_of_death() -> bool:
    tried = [*SIGNAL_AT_DEATH, "true"]  # some programs of that name don't know the option
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@functools.cache
def own_folder() -> Path:
    """This command's own folder; making it takes away what dead commands of this checkout have left.

    It is a short path in the system's temporary folder: programs put sockets there, whose names can't be long.

    Raises:
        PlatformError: a program of a dead command does not end.
    """
    with _one_at_a_time():
        _clear()
        folder = Path(tempfile.mkdtemp(prefix=_prefix()))
        _lock(folder)  # until the process ends
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def clear() -> None:
    """End the programs of dead commands, remove their containers and folders.

    Raises:
        PlatformError: one of the programs does not end.
    """
    with _one_at_a_time():
        _clear()


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        handle = _lock(folder)
        if handle is not None:
            _end_programs(folder)
            _remove_containers(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _prefix() -> str:
    import hashlib  # invoke --list does without

    return f"dataflow-{hashlib.sha256(str(settings.ROOT).encode()).hexdigest()[:8]}-"


def _lock(folder: Path) -> int | None:
    """Lock a folder of this user's; None when a living command holds it, or it is somebody else's."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid == os.getuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    except BlockingIOError:
        pass
    os.close(handle)
    return None


def _end_programs(folder: Path) -> None:
    """End what a dead command has started: each program that leads a session in its own way, then the rest."""
    import psutil

    programs = [process for process in psutil.process_iter() if _started_for(process) == str(folder)]
    leaders = [process for process in programs if _leads(process)]
    if not _system_tells_of_death():
        _signal(leaders, signal.SIGINT)
    _, alive = psutil.wait_procs(leaders, ORDERLY_END_SECONDS)
    if alive:
        raise PlatformError(
            "a command that was killed has left a program at work",
            ", ".join(f"{process.name()} (process {process.pid})" for process in _at_work(alive)),
            "wait for it to end, and try again",
        )
    _signal(programs, signal.SIGKILL)


def _at_work(leaders: list[Any]) -> list[Any]:
    """The programs behind the processes that pass interrupts on to them."""
    import psutil

    found: list[Any] = []
    for leader in leaders:
        with contextlib.suppress(psutil.Error):
            found += leader.children() or [leader]
    return found


def _remove_containers(folder: Path) -> None:
    import docker

    # Without an engine there are none.
    with contextlib.suppress(docker.errors.DockerException):
        for container in docker.from_env().containers.list(all=True, filters={"label": f"{VARIABLE}={folder}"}):
            container.remove(force=True, v=True)


def _signal(processes: list[Any], number: signal.Signals) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _started_for(process: Any) -> str:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return str(process.environ().get(VARIABLE, ""))
    return ""


def _leads(process: Any) -> bool:
    pid: int = process.pid
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Between making a folder and locking it, no other command may look for those of the dead."""
    file = settings.machine_folder() / "commands.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
