"""Releases of the agent: a bad one never replaces the one that runs, and there is a way back from a good one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from functional_tests.faults import Faults
from functional_tests.platform import Platform

pytestmark = pytest.mark.reliability

AGENT = "local_dataflow_automation_agent"
BEGIN, CHECK = 'if sys.argv[1:] == ["--check"]:', "return check()"
LAST_WORDS = "this release can't start"
CRASH = f'if not sys.argv[1:]:\n        time.sleep({{seconds}})\n        return stop("{LAST_WORDS}")\n    {BEGIN}'
QUICK_TO_JUDGE = {"interval    = 30": "interval    = 5", "startPeriod = 60": "startPeriod = 5"}
"""The shortest that AWS takes; as it is, an agent that never becomes healthy is given up after some minutes."""
BAD: dict[str, dict[str, dict[str, str]]] = {
    "crashes at once": {"agent/start_agent.py": {BEGIN: CRASH.format(seconds=0)}},
    "crashes after 3 s": {"agent/start_agent.py": {BEGIN: CRASH.format(seconds=3)}},
    "never becomes healthy": {"agent/start_agent.py": {CHECK: "return 1"}, "infra/agent.tf": QUICK_TO_JUDGE},
}
"""Bad releases: in which file what is replaced by what."""


@pytest.fixture
def change(deployed: Platform) -> Iterator[Callable[[str, dict[str, str]], None]]:
    """Changes a file of the platform's checkout until the test has ended."""
    before: dict[Path, str] = {}

    def replace(name: str, words: dict[str, str]) -> None:
        file = deployed.folder / name
        text = before.setdefault(file, file.read_text())
        for old, new in words.items():
            assert text.count(old) == 1, f"{name} has other words: {old}"
            text = text.replace(old, new)
        file.write_text(text)

    yield replace
    for file, text in before.items():
        file.write_text(text)


def test_a_bad_release_never_replaces_the_running_one(
    sample_workflow: Platform,
    change: Callable[[str, dict[str, str]], None],
    often: Callable[[int, int], int],
    faults: Faults,
) -> None:
    platform, kinds = sample_workflow, list(BAD)[: often(1, len(BAD))]
    lost, recoveries = 0, []
    running, template = revision(platform), project(platform)
    for kind in kinds:
        for file, words in BAD[kind].items():
            change(file, words)
        meanwhile = platform.start("run", "sample_workflow")
        refused = platform.invoke("deploy", check=False).stdout
        told = re.search(r"^✗ Agent  ([\d.]+) s", refused, re.MULTILINE)
        assert told, refused
        recoveries.append(float(told[1]))
        assert re.search(r"^✗ revision \d+ of the agent did not come up$", refused, re.MULTILINE)
        assert f"revision {running} serves as before: local_dataflow_automation_" in refused
        assert (LAST_WORDS if kind.startswith("crashes") else "health check") in refused
        assert project(platform) == template, "workflows would be built on the bad image"
        afterwards = platform.invoke("run", "sample_workflow", check=False).returncode
        lost += (meanwhile.wait(60) != 0) + (afterwards != 0)
    assert f"revision {running}; revision " in platform.invoke("status").stdout
    fault = faults.record("bad release of the agent", len(kinds), lost, recoveries)
    assert fault.lost == 0


def test_rollback_goes_back_to_the_release_before_with_its_project(
    deployed: Platform, often: Callable[[int, int], int], faults: Faults
) -> None:
    file = deployed.folder / "agent" / "start_agent.py"
    before, template = revision(deployed), project(deployed)
    file.write_text(f"{file.read_text()}# the next release\n")
    deployed.invoke("deploy")
    released = revision(deployed)
    assert released != before
    assert project(deployed) != template
    shown = deployed.invoke("rollback", "--dry-run").stdout
    assert f"from revision {released} to revision {before}" in shown
    assert revision(deployed) == released
    done = deployed.invoke("rollback").stdout
    assert f"revision {before} of the agent runs" in done
    assert f"the image of revision {released}; correct it first" in done
    status = deployed.status()
    assert status["ok"] is True
    assert f"revision {before}; revision {released} rolled back" in str(status["components"])
    back = revision(deployed) == before and project(deployed) == template
    taken = re.search(r"^✓ Agent  ([\d.]+) s", done, re.MULTILINE)
    assert taken
    fault = faults.record("release taken back by invoke rollback", 1, 0 if back else 1, [float(taken[1])])
    assert fault.lost == 0
    if often(0, 1):
        deployed.invoke("deploy")
        assert revision(deployed) == released


@pytest.mark.parametrize(("to", "words"), [("0", "has no revision 0"), ("x", "has no revision x")])
def test_rollback_to_what_is_not_there_changes_nothing(deployed: Platform, to: str, words: str) -> None:
    before = revision(deployed)
    refused = deployed.invoke("rollback", "--to", to, check=False)
    assert refused.returncode == 1
    assert words in refused.stdout
    assert revision(deployed) == before


def revision(platform: Platform) -> str:
    """Number of the revision that the agent's service runs."""
    services = platform.aws("ecs").describe_services(cluster=AGENT, services=[AGENT])["services"]
    return str(services[0]["taskDefinition"]).rpartition(":")[2]


def project(platform: Platform) -> Any:
    """What the project tells those who register and run workflows."""
    (pool,) = platform.prefect("/work_pools/filter")
    return pool["base_job_template"]
