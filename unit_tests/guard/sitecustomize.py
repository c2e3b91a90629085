"""Guard that keeps unit tests, and the Python programs that they start, away from whatever runs on this machine.

Python reports what a process does to its audit hooks, whichever library does it. The hook below refuses:

- connections, unless the process itself listens on that address,
- signals, unless the tests started the process that gets them,
- programs, unless they are on a short list or the test wrote them,
- access to the user's platform and credentials.

A refusal raises an exception. It is also written to a file, from which `conftest` fails the test: the exception may
have been caught, or raised in a thread or in another process.

Python imports a module of this name when it starts. Therefore the guard also holds in every Python program that finds
this folder in PYTHONPATH.

Sources: https://docs.python.org/3.11/library/audit_events.html, https://docs.python.org/3.11/library/site.html
"""

import contextlib
import os
import pwd
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "UNIT_TESTS_REFUSED"
"""Variable with the path of the file of refusals, for the programs that the tests start."""
PROGRAMS = {"bash", "file", "git", "setpriv", "sh", "true", "uname"}
"""Programs that a test may start, besides Python and those that it wrote itself."""
SYSTEM = ("/bin/", "/sbin/", "/usr/")
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
PRIVATE = [str(Path(__file__).parents[2] / ".local"), *(str(HOME / name) for name in (".aws", ".docker", ".prefect"))]
"""Folders of the user's platform and credentials."""

_listeners: list[Any] = []
"""Weak references to the sockets that this process has bound."""
_refusals: Path | None = None
_error: type[BaseException] = SystemExit


def watch(refusals: Path, error: type[BaseException] = SystemExit) -> None:
    """Refuse from now on: write each refusal to a file and raise an error."""
    global _refusals, _error
    _refusals, _error = refusals, error


def unwatch() -> None:
    """Refuse nothing from now on."""
    global _refusals
    _refusals = None


def _bind(listener: Any, address: Any) -> str:
    _listeners.append(weakref.ref(listener))
    return "" if isinstance(address, str | bytes) or _is_this_machine(address[0]) else f"listen on {address}"


def _connect(_: Any, address: Any) -> str:
    own = isinstance(address, tuple) and address[:2] in [_address(reference()) for reference in tuple(_listeners)]
    return "" if own else f"connect to {address}"


def _address(listener: Any) -> Any:
    """Host and port of a bound socket; None once it is closed."""
    try:
        return listener.getsockname()[:2] if listener else None
    except OSError:
        return None


def _look_up(host: Any, *_: Any) -> str:
    return "" if _is_this_machine(host) else f"look up {host}"


def _is_this_machine(host: Any) -> bool:
    text = os.fsdecode(host or "localhost")
    return text in ("localhost", "::1") or text.startswith("127.")


def _signal(pid: int, number: int) -> str:
    import psutil

    if not number or pid == os.getpid():
        return ""
    if pid in (0, -1):  # the process group of the test run, every process
        return f"send signal {int(number)} to {pid}"
    try:
        process = psutil.Process(abs(pid))
        ancestors = {parent.pid for parent in process.parents()}
        if os.getpid() in ancestors or process.environ().get(VARIABLE) == str(_refusals):
            return ""
        return f"send signal {int(number)} to process {pid} ({process.name()})"
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
    except psutil.AccessDenied:
        with contextlib.suppress(psutil.Error):
            # Only root can read the environment of a process that has ended.
            if psutil.Process(abs(pid)).status() == psutil.STATUS_ZOMBIE:
                return ""
        return f"send signal {int(number)} to process {pid} of another user"


def _start(program: Any, words: Any, *_: Any) -> str:
    command = [os.fsdecode(word) for word in ([words] if isinstance(words, str | bytes) else words)]
    started = [os.fsdecode(program), *command[1:]]
    # What leftovers.ending_with_us puts before a program.
    if started[0] == "setpriv" and len(started) > 3:
        started = started[3:]
    if len(started) > 4 and started[3].endswith("interrupt_once.py"):
        started = started[4:]
    path = Path(started[0])
    if path.name in PROGRAMS or path.parent == Path(sys.executable).parent:
        return ""
    written_by_test = path.is_absolute() and not str(path).startswith((*SYSTEM, *PRIVATE))
    return "" if written_by_test else f"start {' '.join(command)}"


def _touch(path: Any, *others: Any) -> str:
    paths = [os.fsdecode(name) for name in (path, *others[:1]) if isinstance(name, str | bytes | os.PathLike)]
    private = [name for name in paths if name.startswith(tuple(PRIVATE))]
    return f"touch {private[0]}" if private else ""


_RULES: dict[str, Callable[..., str]] = {
    "socket.bind": _bind,
    **dict.fromkeys(("socket.connect", "socket.sendto"), _connect),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname"), _look_up),
    **dict.fromkeys(("os.kill", "os.killpg"), _signal),
    **dict.fromkeys(("os.exec", "os.posix_spawn", "subprocess.Popen"), _start),
    **dict.fromkeys(("open", "os.chmod", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename"), _touch),
    **dict.fromkeys(("os.rmdir", "os.scandir", "os.symlink", "os.truncate", "sqlite3.connect"), _touch),
}


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _refusals and (rule := _RULES.get(event)) and (deed := rule(*arguments)):
        with _refusals.open("a", encoding="utf-8") as file:
            file.write(f"a unit test tried to {deed}\n")
        raise _error(f"a unit test tried to {deed}")


sys.addaudithook(_listen)
if __name__ == "sitecustomize" and VARIABLE in os.environ:
    watch(Path(os.environ[VARIABLE]))
