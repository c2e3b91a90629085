"""Bad luck: each has its own clear error, nothing is lost, and the next deploy goes on."""

import os
import re
import socket

import psutil

from functional_tests.platform import Platform, wait_for

PREFIX = "local_dataflow_automation"
AGENT_REPOSITORY = f"{PREFIX}_agent"


def test_a_wrong_key_in_the_secret_is_told_with_the_agents_last_words(deployed: Platform) -> None:
    deployed.invoke("agent", "--down")
    secrets = deployed.aws("secretsmanager")
    secrets.put_secret_value(SecretId=f"{PREFIX}_prefect_key", SecretString="local:wrong")
    failed = deployed.invoke("agent", "--up", check=False)
    assert failed.returncode == 1
    assert "does not accept the key (401)" in failed.stdout
    assert "exited with 1" in failed.stdout
    deployed.invoke("deploy")
    assert deployed.status()["ok"] is True


def test_a_wrong_key_of_the_user_is_refused_before_anything_changes(deployed: Platform) -> None:
    before = deployed.only_agent()
    refused = deployed.invoke("deploy", check=False, PREFECT_AGENT_TOKEN="local:wrong")
    assert refused.returncode == 1
    assert "does not accept the key" in refused.stdout
    assert "AWS infrastructure" not in refused.stdout
    assert deployed.agent_containers[0].id == before.id


def test_a_second_deploy_at_the_same_time_says_who_holds_the_lock(deployed: Platform) -> None:
    both = [deployed.start("deploy") for _ in range(2)]
    outputs = {process.wait(300): process.stdout.read() for process in both if process.stdout}
    assert sorted(outputs) == [0, 1], outputs
    assert "another run holds the lock" in outputs[1]
    assert f"@{os.uname().nodename} since " in outputs[1]
    assert re.search(r"invoke unlock [0-9a-f-]{36} --env local", outputs[1])


def test_an_orderly_restart_of_both_servers_loses_nothing(sample_workflow: Platform) -> None:
    for process in sample_workflow.servers().values():
        psutil.Process(process).terminate()
    wait_for("both servers to stop", lambda: not sample_workflow.servers())
    healed = sample_workflow.invoke("deploy").stdout
    assert "no changes" in healed
    assert "already in ECR" in healed
    assert sample_workflow.status()["ok"] is True
    assert "sample-workflow/local" in sample_workflow.invoke("workflows").stdout


def test_after_a_crash_of_both_servers_the_next_deploy_heals(sample_workflow: Platform) -> None:
    for process in sample_workflow.servers().values():
        psutil.Process(process).kill()
    wait_for("both servers to be gone", lambda: not sample_workflow.servers())
    sample_workflow.invoke("deploy")
    assert sample_workflow.status()["ok"] is True
    assert "Completed" in sample_workflow.invoke("run", "sample_workflow").stdout


def test_after_a_crash_that_lost_the_saved_state_the_next_deploy_heals(sample_workflow: Platform) -> None:
    psutil.Process(sample_workflow.servers()["aws"]).kill()
    wait_for("the emulated AWS to be gone", lambda: "aws" not in sample_workflow.servers())
    for file in (sample_workflow.folder / ".local/local/aws/state").glob("*.json"):
        file.unlink()
    sample_workflow.invoke("deploy")
    wrong = [part["name"] for part in sample_workflow.status()["components"] if not part["ok"]]
    assert wrong == ["workflow images"]  # those are to be registered again, and status says so
    sample_workflow.invoke("register", "--workflow-path", "examples/sample_workflow/workflow")
    assert sample_workflow.status()["ok"] is True
    assert "Completed" in sample_workflow.invoke("run", "sample_workflow").stdout


def test_a_killed_agent_is_replaced(deployed: Platform) -> None:
    before = deployed.only_agent()
    before.kill()
    wait_for("another agent", lambda: [c for c in deployed.agent_containers if c.id != before.id])
    wait_for("the agent online", lambda: deployed.status()["ok"])


def test_a_taken_port_is_named_with_its_owner(deployed: Platform) -> None:
    psutil.Process(deployed.servers()["prefect"]).terminate()
    wait_for("the Prefect server to stop", lambda: "prefect" not in deployed.servers())
    with socket.create_server(("127.0.0.1", deployed.prefect_port)):
        refused = deployed.invoke("deploy", check=False)
    assert refused.returncode == 1
    assert f"port {deployed.prefect_port} for the Prefect server is taken" in refused.stdout
    assert f"process {os.getpid()}" in refused.stdout
    deployed.invoke("deploy")


def test_an_engine_that_does_not_answer_is_told_before_anything_changes(deployed: Platform) -> None:
    refused = deployed.invoke("deploy", check=False, DOCKER_HOST="unix:///tmp/no-engine-here.sock")
    assert refused.returncode == 1
    assert "no Docker engine answers" in refused.stdout
    assert "AWS infrastructure" not in refused.stdout


def test_a_prefect_server_that_hangs_is_told_and_the_next_deploy_heals_it(deployed: Platform) -> None:
    psutil.Process(deployed.servers()["prefect"]).suspend()
    refused = deployed.invoke("run", "sample_workflow", check=False)
    assert refused.returncode == 1
    assert "Prefect server: not answering" in refused.stdout
    deployed.invoke("deploy")
    assert deployed.status()["ok"] is True
