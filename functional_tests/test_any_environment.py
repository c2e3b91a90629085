"""What holds for every environment that is deployed: agent up, workflow registered, run COMPLETED, agent down.

Each step needs those before it. They run on local's platform with all other tests, and with `--env test` on the
environment test; afterwards the workflow is gone and the agent as it was, up or down, also when a step failed.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functional_tests.platform import Platform, RealPlatform, wait_for
from functional_tests.repository import Repository
from functional_tests.runner import Result, run_action

pytestmark = pytest.mark.any_environment
FLOW_NAME = "any-environment-flow"
FLOW = """from prefect import flow


@flow(log_prints=True)
def any_environment_flow(rows: int = 3) -> int:
    print(f"counted {rows} rows")
    return rows
"""


@pytest.fixture(scope="module")
def environment(platform: Platform, first_deploy: str) -> Iterator[Platform]:
    """A deployed environment whose agent is down; at the end it is up again if it was."""
    up = service(platform)["desiredCount"] > 0
    try:
        if up:
            platform.invoke("agent", "--down")
        yield platform
    finally:
        platform.invoke("agent", "--up" if up else "--down")


class Team:
    """A team with a repository, whose jobs call the action."""

    def __init__(self, platform: Platform, folder: Path, machine: Path) -> None:
        self.platform, self.machine = platform, machine
        self.repository = Repository(folder / "repository")
        self.commit = self.repository.commit(flow__py=FLOW)

    def job(self, **inputs: str) -> Result:
        """Run the action as a job at the commit would."""
        given = {
            "env": self.platform.name,
            "workflow_path": "workflow",
            "workflow_name": "any_environment",
            "git_url": self.repository.url,
            "prefect_workflow_register_token": self.platform.register_key,
        }
        # On GitHub a step before has put them there; in local the task finds its own.
        real = isinstance(self.platform, RealPlatform)
        credentials = {name: value for name, value in os.environ.items() if real and name.startswith("AWS_")}
        done = run_action(
            self.platform.folder / "register_action",
            given | inputs,
            self.repository.folder,
            self.machine,
            {"sha": self.commit},
            credentials,
        )
        print(f"{done.log}\n[{done.code}]")
        return done


@pytest.fixture(scope="module")
def team(environment: Platform, tmp_path_factory: pytest.TempPathFactory, runners_machine: Path) -> Iterator[Team]:
    """A team that has registered nothing yet; what it registers goes at the end."""
    team = Team(environment, tmp_path_factory.mktemp("team"), runners_machine)
    yield team
    if deployments(environment):
        assert team.job(remove="true").code == 0


def test_the_agent_comes_up_on_ecs_and_online_at_prefect(environment: Platform) -> None:
    environment.invoke("agent", "--up")

    assert service(environment)["runningCount"] == service(environment)["desiredCount"] > 0
    wait_for("the agent online at Prefect", lambda: agents_online(environment))


def test_a_workflow_is_registered_through_the_action(team: Team) -> None:
    done = team.job()

    assert done.code == 0
    assert json.loads(done.outputs["deployments"]) == [f"{FLOW_NAME}/{team.platform.name}"]
    (deployment,) = deployments(team.platform)
    assert deployment["version"] == team.commit
    assert deployment["work_pool_name"] == team.platform.prefix


def test_a_run_of_it_is_completed(team: Team) -> None:
    rows = uuid.uuid4().int % 10_000
    ran = team.platform.invoke("run", f"{FLOW_NAME}/{team.platform.name}", "--param", f"rows={rows}").stdout

    assert f"counted {rows} rows" in ran
    (deployment,) = deployments(team.platform)
    runs = team.platform.prefect("/flow_runs/filter", deployments={"id": {"any_": [deployment["id"]]}})
    assert [(run["state_type"], run["parameters"]) for run in runs] == [("COMPLETED", {"rows": rows})]


def test_the_agent_goes_down_again(environment: Platform) -> None:
    environment.invoke("agent", "--down")

    assert (service(environment)["runningCount"], service(environment)["desiredCount"]) == (0, 0)


def service(platform: Platform) -> dict[str, Any]:
    """The agent's ECS service, as AWS describes it."""
    name = f"{platform.prefix}_agent"
    (described,) = platform.aws("ecs").describe_services(cluster=name, services=[name])["services"]
    return dict(described)


def agents_online(platform: Platform) -> list[str]:
    """Names of the agents that Prefect shows online in the project."""
    workers = platform.prefect(f"/work_pools/{platform.prefix}/workers/filter")
    return [worker["name"] for worker in workers if worker["status"] == "ONLINE"]


def deployments(platform: Platform) -> list[dict[str, Any]]:
    """The deployments that Prefect has of the flow in this environment."""
    body = {"flows": {"name": {"any_": [FLOW_NAME]}}, "deployments": {"name": {"any_": [platform.name]}}}
    return list(platform.prefect("/deployments/filter", **body))
