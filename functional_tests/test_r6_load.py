"""Many runs at once: none is lost, none runs twice, the agent keeps to its memory, and no run waits longer for it."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import docker.errors
import pytest

from functional_tests import runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = [pytest.mark.reliability, pytest.mark.full]
SIZES = (50, 200, 500)
SECONDS_FOR_EACH = 15
AGENT_MEMORY = 512 * 2**20
"""The default of `agent_memory`."""
NO_WORSE_THAN_LINEAR = 1.15
"""Of the seconds for each run, most against fewest runs: measuring is not exact."""
FLOW = """from prefect import flow


@flow
def tick(number: int) -> int:
    return number
"""


class Usage:
    """Watches what the agent takes: CPU time, and memory at most, without what the kernel would give back."""

    def __init__(self, platform: Platform) -> None:
        self.memory, self._platform, self._over = 0, platform, threading.Event()
        self._processor: dict[str, tuple[int, int]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Usage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all containers since the beginning."""
        return sum(last - first for first, last in self._processor.values()) / 1e9

    def _watch(self) -> None:
        engine = docker.from_env().api
        while not self._over.wait(1):
            for container in self._platform.agent_containers:
                with contextlib.suppress(docker.errors.NotFound, KeyError):  # it has ended meanwhile
                    self._note(container.id, engine.stats(container.id, stream=False))

    def _note(self, container: str, stats: dict[str, Any]) -> None:
        memory = stats["memory_stats"]
        given_back = memory["stats"].get("inactive_file", memory["stats"].get("total_inactive_file", 0))
        self.memory = max(self.memory, memory["usage"] - given_back)
        nanoseconds = stats["cpu_stats"]["cpu_usage"]["total_usage"]
        first, _ = self._processor.get(container, (nanoseconds, nanoseconds))
        self._processor[container] = first, nanoseconds


@pytest.fixture(scope="module")
def deployment(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a registered workflow that does next to nothing."""
    return runs.register(platform, tmp_path_factory.mktemp("load") / "ticking", "tick", FLOW)


@pytest.fixture(scope="module")
def worked_off(platform: Platform, deployment: str, faults: Faults) -> dict[int, float]:
    """Seconds for each run, by how many there were at once."""
    return {size: work_off(platform, deployment, faults, size) / size for size in SIZES}


def work_off(platform: Platform, deployment: str, faults: Faults, size: int) -> float:
    """Create runs at once and wait for the end of all; gives the seconds."""
    begin = time.monotonic()
    with Usage(platform) as usage:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n: runs.create(platform, deployment, parameters={"number": n}), range(size)))
        wait_for(f"{size} runs to end", lambda: not unfinished(platform, deployment), SECONDS_FOR_EACH * size)
        seconds = time.monotonic() - begin
    lost = size - len(completed_once(platform, made))
    agent = f"at most {usage.memory / 2**20:.0f} MiB and {usage.cpu_seconds / size:.2f} CPU seconds a run in the agent"
    fault = faults.record(f"{size} runs created at once, worked off ({agent})", size, lost, [seconds])
    assert fault.lost == 0
    assert 0 < usage.memory < AGENT_MEMORY
    return seconds


def unfinished(platform: Platform, deployment: str) -> int:
    """How many runs of a deployment have not ended."""
    going = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]
    filters = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": going}}}}
    count: int = platform.prefect("/flow_runs/count", filters)
    return count


def completed_once(platform: Platform, made: list[str]) -> list[str]:
    """Those of the runs that are COMPLETED, have run once, and had one ECS task."""
    filters: dict[str, Any] = {"id": {"any_": made}, "state": {"type": {"any_": ["COMPLETED"]}}}
    completed = []
    for offset in range(0, len(made), 200):  # no answer has more
        completed += platform.prefect("/flow_runs/filter", {"flow_runs": filters, "offset": offset, "limit": 200})
    ecs, cluster = platform.aws("ecs"), f"{platform.prefix}_workflows"

    def tasks(run: str) -> int:
        listed = [
            ecs.list_tasks(cluster=cluster, startedBy=run, desiredStatus=status)["taskArns"]
            for status in ("RUNNING", "STOPPED")
        ]
        return sum(map(len, listed))

    return [run["id"] for run in completed if run["run_count"] == 1 and tasks(run["id"]) == 1]


def test_many_runs_at_once_take_no_longer_each(worked_off: dict[int, float]) -> None:
    assert worked_off[max(SIZES)] <= NO_WORSE_THAN_LINEAR * worked_off[min(SIZES)], worked_off


def test_the_agent_still_serves_after_that(worked_off: dict[int, float], sample_workflow: Platform) -> None:
    assert "Completed" in sample_workflow.invoke("run", "sample_workflow").stdout
    assert sample_workflow.status()["ok"] is True
