"""Measures, each against what one would do instead, in one run: `nox -s bench`.

- start-up: `invoke --list` here, and with an empty tasks.py
- first-deploy: `invoke deploy` from nothing, and the same steps typed one after the other
- unchanged: `invoke deploy` when nothing has changed, and `terraform plan` alone; `invoke status`
- register: `invoke register` of 20 flows, and `prefect deploy --all` of the same; and of 200
- run: from creating a run to its code starting, with our agent and with Prefect's own worker
- images: what the agent's image adds to Debian's with Python, and a workflow's to the agent's

Ratios count; absolute times depend on the machine. Exit code 1 when a ratio is over its limit. A run of everything
writes docs/performance.md, too; `nox -s bench -- run images` measures only these.
"""

import contextlib
import io
import json
import os
import platform as machine
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import psutil

from functional_tests import instead, performance_page, runs
from functional_tests.instead import call, timed
from functional_tests.performance_page import Bar, Measured, Row
from functional_tests.platform import BASE_IMAGE, COMPILED, INVOKE, ROOT, Platform

START_UP_RUNS = 15
START_UP_LIMIT = 1.2
STATUS_RUNS = 5
STATUS_SECONDS = 1.5
FIRST_DEPLOY_LIMIT = 0.7
DEPLOY_RUNS = 7
DEPLOY_LIMIT = 1.15
FLOWS, MANY_FLOWS = 20, 200
UNCHANGED_RUNS = 3
UNCHANGED_LIMIT = 0.35
FIRST_REGISTER_LIMIT = 1.0
MANY_LIMIT = 3.0
RUNS = 10
RUN_LIMIT = 0.5
POLL_SECONDS = 10.0
"""Of Prefect's own worker, by default: runs are created at all moments between two of its polls."""
AGENT_MEGABYTES = 200.0
WORKFLOW_MEGABYTES = 5.0
FLOW = """from prefect import flow, task


@task
def extract(count: int) -> list[int]:
    return list(range(count))


@flow(log_prints=True)
def {name}(count: int = {number}, label: str = "sum") -> int:
    \"""Sum of numbers, number {number}.\"""
    print(label, sum(extract(count)))
    return count
"""
PACKAGE_SIZES = """
import collections, json, pathlib
packages, sizes = pathlib.Path("/opt/venv/lib/python3.11/site-packages"), collections.Counter()
for file in packages.rglob("*"):
    if file.is_file() and not file.is_symlink():
        sizes[file.relative_to(packages).parts[0]] += file.stat().st_size
print(json.dumps(dict(sizes)))
"""


def main() -> int:
    """Measure what is named on the command line, or everything; print a table; 1 when a limit is exceeded."""
    measures = {
        "start-up": start_up,
        "first-deploy": first_deploy,
        "unchanged": unchanged,
        "register": register,
        "run": run,
        "images": images,
    }
    chosen = sys.argv[1:] or list(measures)
    if unknown := set(chosen) - measures.keys():
        sys.exit(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(measures)}")
    memory = psutil.virtual_memory().total / 2**30
    on = f"{os.cpu_count()} processors, {memory:.0f} GiB, {machine.system()} {machine.machine()}, "
    on += f"Python {machine.python_version()}"
    print(on, flush=True)
    os.environ.update(COMPILED)  # for both sides
    measured = Measured()
    for name in chosen:
        print(f"measuring {name} ...", flush=True)
        part = quietly(measures[name])
        for row in part.rows:
            print(row, flush=True)
        measured += part
    if not sys.argv[1:]:
        performance_page.write(on, measured)
    return 0 if all(row.holds for row in measured.rows) else 1


def quietly(measure: Callable[[], Measured]) -> Measured:
    """Measure; what commands print meanwhile is shown only when something goes wrong."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            return measure()
        except BaseException:
            print(printed.getvalue(), file=sys.stderr)
            raise


def start_up() -> Measured:
    """Median time of `invoke --list` in this project and in a folder with an empty tasks.py, run in turns."""
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "tasks.py").write_text("from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n")
        actions = [partial(call, [*INVOKE, "--list"], folder) for folder in (ROOT, Path(empty))]
        ours, theirs = in_turns(*actions, times=START_UP_RUNS)
    return Measured([Row("`invoke --list`", ours, "an empty `tasks.py`", theirs, START_UP_LIMIT)])


def first_deploy() -> Measured:
    """Time of a deploy from nothing, and of its steps by hand; both build the agent's image without any cache."""
    with tempfile.TemporaryDirectory() as folder:
        with taken_away(fresh_platform(Path(folder, "ours").resolve())) as platform:
            begin = time.monotonic()
            steps = json.loads(platform.invoke("deploy", "--json", stderr=False).stdout)["steps"]
            ours = time.monotonic() - begin
        with taken_away(fresh_platform(Path(folder, "theirs").resolve())) as platform:
            by_hand = instead.by_hand(platform)
    theirs = sum(by_hand.values())
    row = Row("`invoke deploy` from nothing", ours, "the same steps one after the other", theirs, FIRST_DEPLOY_LIMIT)
    bars = {"invoke deploy": [Bar(step["name"], step["begin"], step["seconds"]) for step in steps if step["seconds"]]}
    begin = 0.0
    bars["the same steps, typed"] = []
    for name, seconds in by_hand.items():
        bars["the same steps, typed"].append(Bar(name, begin, seconds))
        begin += seconds
    return Measured([row], bars)


def unchanged() -> Measured:
    """Times of a deploy that changes nothing, in turns with `terraform plan` alone; of `invoke status`."""
    with deployed() as platform:
        ours, theirs = in_turns(partial(platform.invoke, "deploy"), instead.terraform_plan(platform), times=DEPLOY_RUNS)
        (status,) = in_turns(partial(platform.invoke, "status"), times=STATUS_RUNS)
    return Measured(
        [
            Row("`invoke deploy`, nothing changed", ours, "`terraform plan` alone", theirs, DEPLOY_LIMIT),
            Row("`invoke status` in `local`", status, "a limit", STATUS_SECONDS, 1.0),
        ]
    )


def register() -> Measured:
    """Times of registering 20 flows, first and unchanged, against `prefect deploy --all`; and 200 against 20."""
    with deployed() as platform, tempfile.TemporaryDirectory() as folder:
        few, many, theirs = (Path(folder, name) for name in ("bench_few", "bench_many", "bench_theirs"))
        write_flows(few, FLOWS)
        write_flows(many, MANY_FLOWS)
        write_flows(theirs, FLOWS)
        actions = (
            *(partial(platform.invoke, "register", "--workflow-path", str(path)) for path in (few, many)),
            instead.prefect_deploy_all(platform, theirs),
        )
        first = in_turns(*actions, times=1)
        again = in_turns(*actions, times=UNCHANGED_RUNS)
    by_prefect = "`prefect deploy --all`"
    rows = []
    for when, (ours, ours_many, prefect), limit in (
        ("the first time", first, FIRST_REGISTER_LIMIT),
        ("nothing changed", again, UNCHANGED_LIMIT),
    ):
        rows.append(Row(f"`invoke register`, {FLOWS} flows, {when}", ours, by_prefect, prefect, limit))
        rows.append(
            Row(f"`invoke register`, {MANY_FLOWS} flows, {when}", ours_many, f"{FLOWS} flows", ours, MANY_LIMIT)
        )
    return Measured(rows)


def run() -> Measured:
    """Median times from creating a run to its code's start, with our agent and Prefect's own worker, in turns."""
    with deployed() as platform, tempfile.TemporaryDirectory() as folder:
        ours = runs.register(platform, Path(folder, "bench_run"), "tick", FLOW.format(name="tick", number=1))
        with instead.stock_worker(platform, ours) as theirs:
            seconds: dict[str, list[float]] = {ours: [], theirs: []}
            for number in range(RUNS + 1):
                for deployment, measured in seconds.items():
                    time.sleep(POLL_SECONDS * number / RUNS)
                    measured.append(instead.seconds_to_running(platform, deployment))
    # The first of each registers its task definition.
    mine, stock = (statistics.median(measured[1:]) for measured in seconds.values())
    return Measured(
        [Row("from a run's creation to its code", mine, "`prefect worker start --type ecs`", stock, RUN_LIMIT)]
    )


def images() -> Measured:
    """Megabytes of the agent's own layers, and of what a workflow's image adds to them; the biggest packages."""
    with deployed() as platform:
        sample = "examples/sample_workflow/workflow"
        platform.invoke("register", "--workflow-path", sample)
        engine = docker.from_env()
        (agent,) = (container.image for container in platform.agent_containers)
        (workflow,) = (
            image
            for image in engine.images.list()
            if any(f":{platform.aws_port}/local_sample" in tag for tag in image.tags)
        )
        sizes = [megabytes(engine, image) for image in (BASE_IMAGE, agent.id, workflow.id)]
        printed = engine.containers.run(
            agent.id, ["python", "-c", PACKAGE_SIZES], remove=True, network_disabled=True, tmpfs={"/tmp": ""}
        )
    base, with_agent, with_workflow = sizes
    rows = [
        Row("agent's image, its own layers", with_agent - base, "a limit", AGENT_MEGABYTES, 1.0, "MB"),
        Row("a workflow's image, what it adds", with_workflow - with_agent, "a limit", WORKFLOW_MEGABYTES, 1.0, "MB"),
    ]
    return Measured(rows, packages={name: size / 1e6 for name, size in json.loads(printed).items()})


def megabytes(engine: Any, image: str) -> float:
    """Size of an image, all its layers included."""
    return float(engine.images.get(image).attrs["Size"]) / 1e6


def in_turns(*actions: Any, times: int) -> list[float]:
    """Median seconds of each action; they take turns, so that what slows the machine down slows all of them down."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(times):
        for action, measured in zip(actions, seconds, strict=True):
            measured.append(timed(action))
    return [statistics.median(measured) for measured in seconds]


@contextlib.contextmanager
def deployed() -> Iterator[Platform]:
    """A platform that is up, until the block ends."""
    with tempfile.TemporaryDirectory() as folder, taken_away(Platform(Path(folder, "platform").resolve())) as platform:
        platform.invoke("deploy")
        yield platform


@contextlib.contextmanager
def taken_away(platform: Platform) -> Iterator[Platform]:
    """A platform of which nothing is left when the block ends."""
    try:
        yield platform
    finally:
        platform.invoke("destroy", "--yes")


def fresh_platform(folder: Path) -> Platform:
    """A platform whose agent image no build cache knows."""
    platform = Platform(folder)
    requirements = folder / "requirements" / "agent.txt"
    requirements.write_text(f"# {uuid.uuid4()}\n{requirements.read_text()}")
    return platform


def write_flows(folder: Path, count: int) -> None:
    """A workflow's folder with one flow in each of its modules."""
    folder.mkdir()
    for number in range(count):
        name = f"{folder.name}_{number:03}"
        (folder / f"{name}.py").write_text(FLOW.format(name=name, number=number))


if __name__ == "__main__":
    sys.exit(main())
