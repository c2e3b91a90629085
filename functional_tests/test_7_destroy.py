"""`invoke destroy` leaves nothing: no process, container, network, image or file; on AWS only what was there before."""

import subprocess
import sys

import docker
import psutil

from functional_tests import tour
from functional_tests.platform import BASE_IMAGE, ROOT, Platform, folder_of, image_tags

TAKE_DOWN = """
from agent import teardown
from environments.settings import load
from infra import account

environment = load("local")
teardown.take_down(environment)
account.remove(environment)
account.remove(environment)
"""
"""What destroy does on AWS, where local forgets the whole account; and bootstrap-account --remove, twice."""


def test_destroy_asks_first(deployed: Platform) -> None:
    refused = deployed.invoke("destroy", check=False)
    assert refused.returncode == 1
    assert "--yes" in refused.stdout
    assert deployed.servers()


def test_on_aws_the_deploy_role_takes_down_what_it_made_and_an_administrator_the_rest(
    sample_workflow: Platform,
) -> None:
    platform = sample_workflow
    assert platform.aws("ecr").describe_repositories()["repositories"]
    subprocess.run([sys.executable, "-c", TAKE_DOWN], cwd=platform.folder, check=True, timeout=300)

    assert platform.aws("ecr").describe_repositories()["repositories"] == []
    assert platform.aws("ecs").list_clusters()["clusterArns"] == []
    assert platform.aws("ecs").list_task_definitions(status="ACTIVE")["taskDefinitionArns"] == []
    assert platform.aws("secretsmanager").list_secrets()["SecretList"] == []
    assert platform.aws("logs").describe_log_groups()["logGroups"] == []
    assert platform.aws("ec2").describe_vpcs(Filters=[{"Name": "tag:environment", "Values": ["local"]}])["Vpcs"] == []
    roles = {role["RoleName"] for role in platform.aws("iam").list_roles()["Roles"]}
    assert {role for role in roles if not role.startswith("AWSServiceRole")} == set()
    assert platform.aws("s3").list_buckets()["Buckets"] == []


def test_destroy_leaves_nothing(sample_workflow: Platform) -> None:
    platform = sample_workflow
    assert len(platform.servers()) == 2
    engine = docker.from_env()
    # A task's that nobody knows of any more: the agent has gone in the test before.
    engine.containers.run(
        BASE_IMAGE, ["sleep", "infinity"], detach=True, labels=platform.label, network=networks(platform)[0]
    )
    printed = platform.invoke("destroy", "--yes").stdout
    assert last_stop().is_true(printed), "docs/tour.md shows something else"
    assert platform.servers() == {}
    assert platform.containers("", everything=True) == []
    assert networks(platform) == []
    assert [tag for tag in image_tags() if f":{platform.aws_port}/" in tag] == []
    assert not (platform.folder / ".local" / "local").exists()
    assert [p for p in psutil.process_iter() if str(platform.folder) in folder_of(p)] == []


def networks(platform: Platform) -> list[str]:
    """Names of the platform's Docker networks."""
    return [n.name for n in docker.from_env().networks.list() if str(platform.aws_port) in n.name]


def last_stop() -> tour.Stop:
    """The end of the tour."""
    *_, stop = tour.stops((ROOT / "docs" / "tour.md").read_text())
    assert stop.command == ".venv/bin/invoke destroy --yes"
    return stop


def test_destroy_of_nothing_is_no_error(platform: Platform) -> None:
    assert platform.invoke("destroy", "--yes").returncode == 0
