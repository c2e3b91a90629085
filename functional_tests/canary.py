"""Search for a secret where none may be: its forms, what was seen in places, and the processes of this machine.

A place is a stream of `Found`: a name and the bytes there. `leaks` gives the names where a secret is, in any form.
"""

import base64
import contextlib
import gzip
import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from functional_tests.runner import Result

Found = tuple[str, bytes]
SAMPLE_SECONDS = 0.05
YOUNG_SECONDS = 1.0
"""A process becomes another program within that time, if ever: until then each sample reads it, later each second."""
CLEAN = "clean"


def forms(secret: str) -> list[bytes]:
    """A secret as it may be written: plain, URL-quoted, in JSON, and in base64.

    An auth string `user:password` is looked for by its password, which is the secret in it. A base64 text may begin
    anywhere before the secret and end anywhere behind it, as in the header of HTTP's basic authentication
    (https://datatracker.ietf.org/doc/html/rfc7617); so those characters count that the secret alone decides.
    """
    plain = secret.rpartition(":")[2] or secret
    written = {plain, quote(plain, safe=""), json.dumps(plain)[1:-1]}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain.encode()).decode()
        decided = encoded[(8 * before + 5) // 6 : (before + len(plain.encode())) * 8 // 6]
        written |= {decided, decided.replace("+", "-").replace("/", "_")}
    return [form.encode() for form in sorted(written)]


def leaks(secret: str, contents: Iterable[Found]) -> list[str]:
    """Names of those contents that have the secret in any of its forms."""
    return hits({"": secret}, contents)[""]


def hits(secrets: dict[str, str], contents: Iterable[Found]) -> dict[str, list[str]]:
    """For each secret, by its name, the names of those contents that have it; under CLEAN those that have none.

    All are looked for in one pass, so that contents may be too large to be kept.
    """
    written = {name: forms(secret) for name, secret in secrets.items()}
    found: dict[str, list[str]] = {name: [] for name in (*secrets, CLEAN)}
    for where, text in opened(contents):
        has = [name for name, candidates in written.items() if any(form in text for form in candidates)]
        for name in has or [CLEAN]:
            found[name].append(where)
    return found


def opened(contents: Iterable[Found]) -> Iterator[Found]:
    """These contents, and what is inside of those that are archives: saved plans are zip files, layers may be gzip."""
    for where, raw in contents:
        yield where, raw
        if raw.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                yield from ((f"{where} {name}", archive.read(name)) for name in archive.namelist())
        elif raw.startswith(b"\x1f\x8b"):
            yield where, gzip.decompress(raw)


def files(*paths: Path) -> Iterator[Found]:
    """These files, and every file below these folders; links are left out."""
    for path in paths:
        for file in (path, *sorted(path.rglob("*"))):
            if file.is_file() and not file.is_symlink():
                yield str(file), file.read_bytes()


def of_job(done: Result, machine: Path) -> Iterator[Found]:
    """All that a job on a runner leaves where others can read it, and the files its steps wrote; not its tools."""
    yield "log", done.log.encode()
    yield "summary", done.summary.encode()
    yield "outputs and annotations", json.dumps([done.outputs, done.annotations]).encode()
    temp = machine / "_temp"
    yield from files(*(entry for entry in temp.iterdir() if not (entry / ".complete").exists()))


@contextlib.contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """While the block runs, the command line of every process of this machine, containers included.

    Looks many times a second: what a task starts is seen while it runs, not only what is left when it has ended.
    """
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        young_until: dict[str, float] = {}
        all_at = 0.0
        while not over.wait(SAMPLE_SECONDS):
            now = time.monotonic()
            young_until = {process: young_until.get(process, now + YOUNG_SECONDS) for process in processes()}
            due = [process for process, until in young_until.items() if now < until or now >= all_at]
            all_at = now + YOUNG_SECONDS if now >= all_at else all_at
            seen.update(command_lines(due))

    thread = threading.Thread(target=watch, daemon=True, name="watched processes")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        seen.update(command_lines(processes()))


def processes() -> list[str]:
    """Ids of all processes there are now."""
    return [entry for entry in os.listdir("/proc") if entry.isdigit()]


def command_lines(ids: Iterable[str]) -> Iterator[bytes]:
    """Command lines of processes (https://man7.org/linux/man-pages/man5/proc_pid_cmdline.5.html)."""
    for process in ids:
        with contextlib.suppress(OSError):
            handle = os.open(f"/proc/{process}/cmdline", os.O_RDONLY)
            try:
                line = os.read(handle, 1 << 17)
            finally:
                os.close(handle)
            if line:
                yield line
