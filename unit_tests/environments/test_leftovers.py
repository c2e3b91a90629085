import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import psutil
import pytest

from environments import leftovers, settings
from environments.errors import PlatformError

COMMAND = """
import os, subprocess, sys
from environments import leftovers
program = subprocess.Popen(
    leftovers.ending_with_us([sys.executable, "-c", sys.argv[1]]),
    env={**os.environ, **leftovers.variables()}, start_new_session=True, stdout=subprocess.PIPE, text=True,
)
print(leftovers.own_folder(), program.stdout.readline().strip(), flush=True)
program.wait()
"""
"""A command of ours: it starts a program, tells its folder and what the program says first, and waits."""
PROGRAM = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ignored where a shell started us in the background
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
child = subprocess.Popen(
    [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"], stdout=subprocess.PIPE
)
child.stdout.readline()  # a process that is still being started names no folder yet
print(os.getpid(), child.pid, flush=True)
signal.sigwait([signal.SIGINT])
"""
"""A program like Terraform: it ends on Ctrl-C, and leaves a program of its own behind that does not."""


class Container:
    """One that a fake engine has."""

    def __init__(self, label: str) -> None:
        self.label, self.removed = label, False

    def remove(self, **_: bool) -> None:
        self.removed = True


class Engine:
    """A Docker engine with containers, of which it lists those that a label is asked for."""

    def __init__(self) -> None:
        self.all: list[Container] = []
        self.containers = self

    def list(self, filters: dict[str, str], **_: bool) -> list[Container]:
        return [container for container in self.all if container.label == filters["label"]]


class Command:
    """A command of this checkout that has a program at work."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, PROGRAM], cwd=settings.ROOT, stdout=subprocess.PIPE, text=True
        )
        folder, *programs = (self.process.stdout.readline() if self.process.stdout else "").split()
        self.folder = Path(folder)
        self.program, self.child = [psutil.Process(int(pid)) for pid in programs]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, for commands that it starts and for what they left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    leftovers.own_folder.cache_clear()
    yield tmp_path
    leftovers.own_folder.cache_clear()


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(docker, "from_env", lambda: made)
    return made


@pytest.fixture
def command() -> Iterator[Command]:
    started = Command()
    yield started
    for process in (started.process, started.program, started.child):
        with contextlib.suppress(psutil.Error):
            process.kill()
    started.process.wait()


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("fails", [False, True])
def test_scratch_folder_is_empty_and_gone_afterwards(fails: bool) -> None:
    with contextlib.suppress(PlatformError), leftovers.scratch_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        if fails:
            raise PlatformError("no")

    assert not folder.exists()


def test_nothing_is_left_when_a_command_ends_by_itself(temporary: Path) -> None:
    code = "from environments import leftovers; print(leftovers.own_folder())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT, capture_output=True, text=True, check=True)

    assert Path(ended.stdout.strip()).parent == temporary
    assert list(temporary.iterdir()) == []


def test_program_of_a_killed_command_is_told_at_once(command: Command) -> None:
    if not leftovers._system_tells_of_death():
        pytest.skip("this system does not tell programs of their parent's death")
    command.kill()

    assert _eventually(lambda: _ended(command.program))


def test_next_command_takes_away_programs_and_files_of_a_killed_one(command: Command) -> None:
    (command.folder / "half written").write_text("x")
    command.kill()
    leftovers.own_folder()

    assert not command.folder.exists()
    assert _eventually(lambda: _ended(command.program) and _ended(command.child))


def test_next_command_removes_containers_of_a_killed_one_and_no_others(command: Command, engine: Engine) -> None:
    engine.all = [Container(f"{leftovers.VARIABLE}={folder}") for folder in (command.folder, "/tmp/another")]
    command.kill()
    leftovers.own_folder()

    assert [container.removed for container in engine.all] == [True, False]


def test_folder_of_a_killed_command_goes_where_no_engine_answers(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> Engine:
        raise docker.errors.DockerException("no engine")

    monkeypatch.setattr(docker, "from_env", refused)
    command.kill()
    leftovers.own_folder()

    assert not command.folder.exists()


def test_where_the_system_tells_nobody_the_next_command_asks_the_program_to_end(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = command.program.parent()
    assert between
    between.suspend()  # it comes to know of its parent's death as little as on another system
    monkeypatch.setattr(leftovers, "_system_tells_of_death", lambda: False)
    sent: list[tuple[int, signal.Signals]] = []
    send = leftovers._signal

    def resumed(processes: list[psutil.Process], number: signal.Signals) -> None:
        sent.extend((process.pid, number) for process in processes)
        send(processes, number)
        between.resume() if number == signal.SIGINT else None

    monkeypatch.setattr(leftovers, "_signal", resumed)
    command.kill()
    leftovers.own_folder()

    assert sent[0] == (between.pid, signal.SIGINT)
    assert (command.child.pid, signal.SIGKILL) in sent
    assert not command.folder.exists()


def test_program_that_does_not_end_is_named_and_nothing_is_taken_from_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "ORDERLY_END_SECONDS", 0.1)
    command.program.suspend()
    command.kill()
    with pytest.raises(PlatformError, match="left a program at work") as caught:
        leftovers.own_folder()

    assert f"process {command.program.pid}" in caught.value.why
    assert command.folder.exists()
    assert not _ended(command.child)


def test_what_a_living_command_has_stays(command: Command) -> None:
    leftovers.own_folder()

    assert command.folder.exists()
    assert not _ended(command.program)


def test_folder_of_another_checkout_or_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = temporary / "dataflow-00000000-abcd"
    other.mkdir()
    link = Path(f"{temporary / leftovers._prefix()}link")
    link.symlink_to(other)
    foreign = Path(f"{temporary / leftovers._prefix()}foreign")
    foreign.mkdir()
    getuid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: getuid + 1)
    leftovers.clear()

    assert other.exists()
    assert link.exists()
    assert foreign.exists()
