"""A workflow that tries to get what is not its own, and prints what came of each attempt as one line of JSON."""

import contextlib
import hashlib
import itertools
import json
import os
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from prefect import flow

OUTCOME = "outcome: "
PATIENT_SECONDS = 5
PATIENCE = Config(retries={"total_max_attempts": 1}, connect_timeout=PATIENT_SECONDS, read_timeout=20)


@flow(log_prints=True)
def intruder(
    calls: list[dict[str, Any]],
    pages: list[list[str]],
    addresses: list[tuple[str, int]],
    files: list[str],
    words: list[str],
) -> None:
    """Try everything.

    Args:
        calls: of AWS: service, operation, parameters, and keys where they are not the workflow's own.
        pages: method and address, asked without a login.
        addresses: host and port, to connect to.
        files: to write to.
        words: printed as they are.
    """
    for word in words:
        print(word)
    with ThreadPoolExecutor(16) as pool:
        outcome = {
            "calls": list(pool.map(call, calls)),
            "pages": list(pool.map(ask, pages)),
            "connected": list(itertools.compress(addresses, pool.map(connects, addresses))),
            "written": [file for file in files if writes(file)],
            "process": process(),
        }
    print(OUTCOME + json.dumps(outcome))


def call(wanted: dict[str, Any]) -> str:
    """The code of the error that a call of AWS ends with; empty when it is answered."""
    session: Any = boto3.session.Session(**wanted.get("keys", {}))
    client = session.client(wanted["service"], config=PATIENCE)
    try:
        getattr(client, wanted["operation"])(**wanted["parameters"])
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def ask(page: list[str]) -> int:
    """The status of an answer, 0 when there is none."""
    method, address = page
    request = urllib.request.Request(address, method=method, data=b"" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=PATIENT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def connects(address: tuple[str, int]) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=PATIENT_SECONDS):
        return True
    return False


def writes(file: str) -> bool:
    """Whether a file can be written."""
    try:
        Path(file).write_text("x")
    except OSError:
        return False
    return True


def process() -> dict[str, Any]:
    """What this process may do, and the key that it has; a digest tells whose."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    key = os.environ["PREFECT_API_AUTH_STRING"]
    return {
        **{name: int(status[name], 16) for name in names},
        "user": os.getuid(),
        "group": os.getgid(),
        "becomes root": succeeds(lambda: os.setuid(0)),
        "changes its host's name": succeeds(lambda: socket.sethostname("x")),
        "scratch": writes(os.path.join(tempfile.gettempdir(), "x")),
        "key": hashlib.sha256(key.encode()).hexdigest(),
    }


def succeeds(action: Callable[[], None]) -> bool:
    """Whether something is permitted."""
    try:
        action()
    except OSError:
        return False
    return True
