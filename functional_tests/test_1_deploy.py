"""`invoke deploy` brings the platform up from nothing, and changes nothing the second time."""

import base64
import json
import urllib.error
import urllib.request

import docker
import psutil
import pytest

from functional_tests.platform import Platform
from infra import architecture_page

PREFIX = "local_dataflow_automation"


@pytest.mark.parametrize("arguments", [["status"], ["run", "sample_workflow"], ["outputs"], ["logs", "agent"]])
def test_before_the_first_start_every_task_says_what_to_do(platform: Platform, arguments: list[str]) -> None:
    refused = platform.invoke(*arguments, check=False)
    assert refused.returncode == 1
    assert "invoke deploy starts it" in refused.stdout


def test_plan_before_the_first_deploy_says_what_will_be_made(platform: Platform) -> None:
    planned = platform.invoke("plan", check=False)
    assert planned.returncode == 2
    assert "to add, 0 to change, 0 to destroy" in planned.stdout


def test_status_before_the_first_deploy_says_that_nothing_is_deployed(platform: Platform) -> None:
    status = platform.invoke("status", check=False)
    assert status.returncode == 1
    assert "not deployed" in status.stdout
    assert "Traceback" not in status.stdout


def test_deploy_says_what_was_made_and_what_to_type_next(first_deploy: str, platform: Platform) -> None:
    assert f"http://127.0.0.1:{platform.prefect_port}" in first_deploy
    assert f"{PREFIX} created" in first_deploy
    assert "invoke register --workflow-path examples/sample_workflow/workflow" in first_deploy


def test_the_agent_runs_in_a_container_of_the_image_that_was_pushed(deployed: Platform) -> None:
    images = deployed.aws("ecr").describe_images(repositoryName=f"{PREFIX}_agent")["imageDetails"]
    container = deployed.only_agent()
    digests = {name.partition("@")[2] for name in container.image.attrs["RepoDigests"]}
    assert images[0]["imageDigest"] in digests


def test_the_agent_runs_as_nobody_with_a_read_only_root_and_no_capability(deployed: Platform) -> None:
    container = deployed.only_agent()
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert config["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert host["Memory"] == 512 * 1024 * 1024
    assert container.exec_run(["sh", "-c", "echo x > /opt/platform/agent/x"]).exit_code != 0


def test_the_health_check_of_the_task_definition_passes_in_the_container(deployed: Platform) -> None:
    name = f"{PREFIX}_agent"
    definition = deployed.aws("ecs").describe_task_definition(taskDefinition=name)["taskDefinition"]
    command = definition["containerDefinitions"][0]["healthCheck"]["command"]
    assert command[0] == "CMD"
    container = deployed.only_agent()
    assert container.exec_run(command[1:]).exit_code == 0


def test_the_prefect_page_opens(deployed: Platform) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{deployed.prefect_port}/", timeout=10) as answer:
        assert answer.status == 200
        assert b"Prefect" in answer.read()


def test_the_servers_listen_for_this_machine_and_its_containers_only(deployed: Platform) -> None:
    (network,) = docker.from_env().networks.list(names=[f"{PREFIX}_{deployed.aws_port}"])
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    for process in deployed.servers().values():
        connections = psutil.Process(process).net_connections(kind="tcp")
        listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1", gateway}


@pytest.mark.parametrize("key", ["", "local:wrong"])
def test_the_prefect_api_wants_the_key(deployed: Platform, key: str) -> None:
    assert prefect_status(deployed, key) == 401
    assert prefect_status(deployed, deployed.key) == 200


def test_the_project_knows_what_terraform_made(deployed: Platform) -> None:
    outputs = json.loads(deployed.invoke("outputs", "--json").stdout)
    request = prefect_request(deployed, deployed.key)
    with urllib.request.urlopen(request, timeout=10) as answer:
        pool = json.load(answer)
    job = pool["base_job_template"]["job_configuration"]
    assert pool["type"] == "ecs"
    assert job["cluster"] == outputs["workflows_cluster_arn"]
    assert job["task_definition"]["taskRoleArn"] == outputs["workflow_task_role_arn"]
    assert job["task_run_request"]["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == outputs["subnet_ids"]


def test_task_state_changes_reach_the_queue_and_have_a_dead_letter_queue(deployed: Platform) -> None:
    sqs = deployed.aws("sqs")
    queue = sqs.get_queue_url(QueueName=f"{PREFIX}_task_events")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].endswith("_dead_letters")
    (target,) = deployed.aws("events").list_targets_by_rule(Rule=f"{PREFIX}_task_events")["Targets"]
    assert target["Arn"] == attributes["QueueArn"]


def test_everything_that_can_be_tagged_is_tagged_with_its_environment(deployed: Platform) -> None:
    ecs = deployed.aws("ecs")
    for kind, arn in (
        ("service", ecs.list_services(cluster=f"{PREFIX}_agent")["serviceArns"][0]),
        ("cluster", ecs.list_clusters()["clusterArns"][0]),
    ):
        tags = {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}
        assert tags.get("environment") == "local", kind


def test_the_state_bucket_is_versioned_encrypted_and_closed(deployed: Platform) -> None:
    s3 = deployed.aws("s3")
    bucket = "local-dataflow-automation-state-000000000000"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_a_second_deploy_changes_nothing(deployed: Platform) -> None:
    before = deployed.only_agent()
    second = json.loads(deployed.invoke("deploy", "--json", stderr=False).stdout)
    after = deployed.only_agent()
    notes = {step["name"]: step["note"] for step in second["steps"]}
    assert notes["AWS infrastructure"] == "no changes"
    assert notes["Agent image to ECR"] == "already in ECR"
    assert notes["Prefect project"] == f"{PREFIX} unchanged"
    assert before.id == after.id, "the agent was restarted"
    assert deployed.invoke("plan").returncode == 0
    drawn = architecture_page.edges(architecture_page.PAGE.read_text())[-1]
    needs = {(need, step["name"]) for step in second["steps"] for need in step["needs"]}
    assert drawn == needs, "docs/architecture.md shows another process; infra/architecture_page.py draws it anew"


def test_status_shows_every_component_well(deployed: Platform) -> None:
    status = deployed.status()
    assert status["ok"] is True
    assert {part["name"] for part in status["components"]} >= {
        "emulated AWS",
        "Prefect server",
        "agent at ECS",
        "agent at Prefect",
        "Prefect project",
    }


def test_the_agent_goes_down_and_up_again(deployed: Platform) -> None:
    deployed.invoke("agent", "--down")
    assert deployed.agent_containers == []
    assert deployed.status()["ok"] is False
    deployed.invoke("agent", "--up")
    assert len(deployed.agent_containers) == 1
    assert deployed.status()["ok"] is True


def prefect_request(platform: Platform, key: str) -> urllib.request.Request:
    login = {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()} if key else {}
    return urllib.request.Request(f"http://127.0.0.1:{platform.prefect_port}/api/work_pools/{PREFIX}", headers=login)


def prefect_status(platform: Platform, key: str) -> int:
    try:
        with urllib.request.urlopen(prefect_request(platform, key), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
