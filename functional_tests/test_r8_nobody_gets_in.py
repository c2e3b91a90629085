"""Nobody gets in: not from another host, not from a workflow, and not by a text that we print."""

import hashlib
import json
import re
import secrets
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import psutil
import pytest

from functional_tests import intruders, runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform

pytestmark = pytest.mark.reliability
PREFIX, OTHER = "local_dataflow_automation", "other_dataflow_automation"
ACCOUNT, REGION = "000000000000", "eu-west-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/{PREFIX}"
STATE = {"Bucket": f"local-dataflow-automation-state-{ACCOUNT}", "Key": "terraform.tfstate"}
FAMILY = f"{PREFIX}_workflow_intruder"
OWN, FOREIGN = "its-own-data", "data-of-others"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
CONTAINERS = [{"name": "workflow", "image": "x"}]
LAYERS = "initiate_layer_upload"
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("secretsmanager", "get_secret_value", {"SecretId": f"{PREFIX}_prefect_key"}),
    ("secretsmanager", "get_secret_value", {"SecretId": f"{PREFIX}_prefect_key_workflow"}),
    ("secretsmanager", "get_secret_value", {"SecretId": f"{OTHER}_prefect_key"}),
    ("secretsmanager", "put_secret_value", {"SecretId": f"{PREFIX}_prefect_key", "SecretString": "x"}),
    ("secretsmanager", "list_secrets", {}),
    ("secretsmanager", "get_secret_value", {"SecretId": "another_workflows_secret"}),
    ("ecs", "list_clusters", {}),
    ("ecs", "list_tasks", {"cluster": f"{PREFIX}_workflows"}),
    ("ecs", "describe_tasks", {"cluster": f"{PREFIX}_agent", "tasks": ["0" * 32]}),
    ("ecs", "describe_task_definition", {"taskDefinition": f"{PREFIX}_agent"}),
    ("ecs", "run_task", {"cluster": f"{PREFIX}_workflows", "taskDefinition": FAMILY}),
    ("ecs", "run_task", {"cluster": f"{PREFIX}_agent", "taskDefinition": f"{PREFIX}_agent"}),
    ("ecs", "stop_task", {"cluster": f"{PREFIX}_agent", "task": "0" * 32}),
    ("ecs", "update_service", {"cluster": f"{PREFIX}_agent", "service": f"{PREFIX}_agent", "desiredCount": 0}),
    *(
        (
            "ecs",
            "register_task_definition",
            {"family": FAMILY, "taskRoleArn": f"{ROLE}_{role}", "containerDefinitions": CONTAINERS},
        )
        for role in ("workflow_task", "agent_task", "deploy")
    ),
    *(
        ("sts", "assume_role", {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{role}", "RoleSessionName": "intruder"})
        for role in (
            *(f"{PREFIX}_{part}" for part in ("deploy", "register", "plan", "agent_task", "agent_execution")),
            f"{OTHER}_workflow_task",
        )
    ),
    ("iam", "list_roles", {}),
    ("iam", "get_role", {"RoleName": f"{PREFIX}_agent_task"}),
    ("iam", "get_role", {"RoleName": f"{OTHER}_agent_task"}),
    ("iam", "create_user", {"UserName": "x"}),
    ("iam", "put_role_policy", {"RoleName": f"{PREFIX}_workflow_task", "PolicyName": "x", "PolicyDocument": TRUST}),
    ("s3", "list_buckets", {}),
    ("s3", "get_object", STATE),
    ("s3", "put_object", {**STATE, "Body": "x"}),
    ("s3", "get_object", {"Bucket": FOREIGN, "Key": "x"}),
    ("ecr", "get_authorization_token", {}),
    ("ecr", LAYERS, {"repositoryName": f"{PREFIX}_agent"}),
    ("ecr", LAYERS, {"repositoryName": "local_intruder"}),
    ("sqs", "list_queues", {}),
    ("sqs", "get_queue_url", {"QueueName": f"{PREFIX}_task_events"}),
    ("logs", "filter_log_events", {"logGroupName": f"{PREFIX}_agent"}),
    ("logs", "filter_log_events", {"logGroupName": f"{PREFIX}_workflows"}),
    ("events", "list_rules", {}),
    ("kms", "list_keys", {}),
    ("ssm", "describe_parameters", {}),
    ("ec2", "describe_instances", {}),
]
"""What a workflow may not do with the role that it has."""
REFUSALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
UNKNOWN = {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
OTHERS_KEYS = ("local", "test", ACCOUNT, "AKIAIOSFODNN7EXAMPLE")
"""Ids of access keys that one may guess: the root user's of the emulated account, and those that emulators know."""
PAGES = (
    ("POST", "/_ministack/reset"),
    ("POST", "//_ministack/reset"),
    ("POST", "/_ministack/config"),
    ("GET", "/_ministack/sqs/messages"),
    ("GET", "/_localstack/init"),
    ("GET", f"/v4/{'x' * 43}/task"),
    ("GET", "/v2/_catalog"),
    ("GET", f"/v2/{PREFIX}_agent/tags/list"),
    ("GET", f"/{STATE['Bucket']}/{STATE['Key']}"),
)
FILES = ("/x", "/opt/workflow/flow.py", "/opt/venv/x", "/etc/x", "/usr/x", "/var/x", "/opt/agent/x")
WORDS = ("\x1b]0;owned\x07", "\x1b[2J", "::error title=owned::x", "##[error]owned", "x\n00:00:00  state    Completed")


def test_no_other_host_gets_an_answer(sample_workflow: Platform, faults: Faults) -> None:
    ports = intruders.listening(sample_workflow)
    own = ports.pop("")
    assert own == {sample_workflow.aws_port, sample_workflow.prefect_port}
    assert ports, "there is no container"
    wanted = [(address, port) for address in intruders.own_addresses() for port in own]
    wanted += [(address, port) for address, inside in ports.items() for port in {8080, *inside}]
    with intruders.neighbour() as other, socket.create_server((other.here, 0)) as listener:
        control = listener.getsockname()
        answered = other.knock([*wanted, control])
    assert control in answered, "that host reaches nothing of this machine"
    fault = faults.record("knocks at ports from another host", len(wanted), len(answered) - 1)
    assert answered == [control]
    assert fault.lost == 0


@pytest.fixture(scope="module")
def addresses(sample_workflow: Platform) -> list[tuple[str, int]]:
    """Where a workflow may find somebody: what listens on this machine at its network's gateway, other containers."""
    gateway = network(sample_workflow)["Gateway"]
    everything = {each.laddr[1] for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    found = [(gateway, port) for port in sorted(everything)]
    inside = intruders.listening(sample_workflow)
    found += [(address, port) for address, ports in inside.items() if address for port in {8080, *ports}]
    own = (sample_workflow.aws_port, sample_workflow.prefect_port)
    return [*found, *((address, port) for address in intruders.own_addresses() for port in own if address != gateway)]


def network(platform: Platform) -> dict[str, Any]:
    """The agent's connection to the containers' network."""
    ((connection,),) = [list(each.attrs["NetworkSettings"]["Networks"].values()) for each in platform.agent_containers]
    return dict(connection)


@pytest.fixture(scope="module")
def granted(sample_workflow: Platform) -> Iterator[None]:
    """Workflows have a policy of their own, for one bucket; there is another bucket, another secret."""
    s3, iam, manager = (sample_workflow.aws(service) for service in ("s3", "iam", "secretsmanager"))
    for bucket in (OWN, FOREIGN):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=bucket, Key="x", Body=b"x")
    for name in ("another_workflows_secret", f"{OTHER}_prefect_key"):
        manager.create_secret(Name=name, SecretString="x")
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{OWN}/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    policy = iam.create_policy(PolicyName="own_data", PolicyDocument=document)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=f"{PREFIX}_workflow_task", PolicyArn=policy)
    yield
    iam.detach_role_policy(RoleName=f"{PREFIX}_workflow_task", PolicyArn=policy)
    iam.delete_policy(PolicyArn=policy)
    for name in ("another_workflows_secret", f"{OTHER}_prefect_key"):
        manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    for bucket in (OWN, FOREIGN):
        s3.delete_object(Bucket=bucket, Key="x")
        s3.delete_bucket(Bucket=bucket)


@pytest.fixture(scope="module")
def tried(sample_workflow: Platform, granted: None, addresses: list[tuple[str, int]]) -> tuple[Any, str]:
    """The container of a workflow that tries everything, and what its run printed."""
    gateway, others = network(sample_workflow)["Gateway"], secrets.token_urlsafe(30)
    guessed = [{"aws_access_key_id": name, "aws_secret_access_key": others} for name in OTHERS_KEYS]
    calls = [{"service": service, "operation": operation, "parameters": told} for service, operation, told in CALLS]
    calls += [{"service": "iam", "operation": "list_roles", "parameters": {}, "keys": keys} for keys in guessed]
    calls.append({"service": "s3", "operation": "get_object", "parameters": {"Bucket": OWN, "Key": "x"}})
    pages = [(method, f"http://{gateway}:{sample_workflow.aws_port}{path}") for method, path in PAGES]
    pages.append(("GET", f"http://{gateway}:{sample_workflow.prefect_port}/api/admin/version"))
    told = {
        "calls": calls,
        "pages": pages,
        "addresses": addresses,
        "files": FILES,
        "words": WORDS,
    }
    sample_workflow.invoke("register", "--workflow-path", "functional_tests/intruder")
    parameters = [part for name, value in told.items() for part in ("--param", f"{name}={json.dumps(value)}")]
    return runs.run_and_see(sample_workflow, "intruder", *parameters)


@pytest.fixture(scope="module")
def printed(tried: tuple[Any, str]) -> str:
    """What the run of a workflow printed that tries everything."""
    return tried[1]


@pytest.fixture(scope="module")
def outcome(printed: str) -> dict[str, Any]:
    """What came of each attempt."""
    (line,) = re.findall(r"outcome: (\{.*\})$", printed, re.MULTILINE)
    return dict(json.loads(line))


def test_a_workflow_is_refused_what_is_not_its_own(outcome: dict[str, Any], faults: Faults) -> None:
    *refused, own = outcome["calls"]
    assert own == "", "not even what its policy allows"
    allowed = [call for call, code in zip(CALLS, refused, strict=False) if code not in REFUSALS]
    taken_for_others = [name for name, code in zip(OTHERS_KEYS, refused[len(CALLS) :], strict=True) if not code]
    known = [code for code in refused[len(CALLS) :] if code not in UNKNOWN]
    open_pages = [status for status in outcome["pages"] if 200 <= status < 400]
    lost = len(allowed) + len(taken_for_others) + len(open_pages)
    faults.record("attempts from inside a workflow", len(refused) + len(outcome["pages"]), lost)
    assert allowed == []
    assert known == []
    assert dict(zip([*(path for _, path in PAGES), "Prefect"], outcome["pages"], strict=True)) == {
        **dict.fromkeys((path for _, path in PAGES[:6]), 404),
        **dict.fromkeys((path for _, path in PAGES[6:8]), 401),
        PAGES[8][1]: 403,
        "Prefect": 401,
    }


def test_a_workflow_reaches_both_servers_and_nobody_else(
    sample_workflow: Platform, outcome: dict[str, Any], addresses: list[tuple[str, int]], faults: Faults
) -> None:
    gateway = network(sample_workflow)["Gateway"]
    needed = {(gateway, sample_workflow.aws_port), (gateway, sample_workflow.prefect_port)}
    # Other programs of this machine that anybody on its network can reach are not ours to close.
    public = {each.laddr[1] for each in psutil.net_connections("tcp") if ip_address(each.laddr[0]).is_unspecified}
    connected = {(host, port) for host, port in outcome["connected"]}
    # Nor is what lies beyond this machine, where the network of another test was that is gone by now.
    here = {*intruders.own_addresses(), *intruders.listening(sample_workflow)}
    beyond = {(host, port) for host, port in connected - needed if port not in public and host in here}
    faults.record("knocks at ports from inside a workflow", len(addresses) - len(needed), len(beyond))
    assert needed <= connected
    assert beyond == set()


def test_a_workflow_has_no_privileges_and_writes_to_its_scratch_space_only(outcome: dict[str, Any]) -> None:
    process = dict(outcome["process"])
    assert outcome["written"] == []
    assert process.pop("scratch") is True
    assert process.pop("NoNewPrivs") == 1
    assert process.pop("key")
    assert (process.pop("user"), process.pop("group")) == (10001, 10001)
    assert not any(process.values()), process


def test_a_workflow_has_its_own_prefect_key_and_not_the_agents(
    sample_workflow: Platform, outcome: dict[str, Any]
) -> None:
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (sample_workflow.workflow_key, sample_workflow.key)]
    assert digests[0] != digests[1]
    assert outcome["process"]["key"] == digests[0]


def test_containers_are_confined(sample_workflow: Platform, tried: tuple[Any, str]) -> None:
    agents = sample_workflow.agent_containers
    assert agents
    for container in (tried[0], *agents):
        host = container.attrs["HostConfig"]
        assert container.attrs["Config"]["User"] == "10001:10001"
        assert (host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == (True, False, ["ALL"])
        assert (host["CapAdd"], host["SecurityOpt"], host["PidMode"]) == (None, ["no-new-privileges"], "")
        assert [(mount["Type"], mount["Destination"]) for mount in container.attrs["Mounts"]] == [("volume", "/tmp")]
        assert not host["PortBindings"]


def test_what_a_workflow_prints_is_shown_and_not_obeyed(printed: str) -> None:
    shown = ("\\x1b]0;owned\\x07", "\\x1b[2J", "::error title=owned::x", "\\x23#[error]owned")
    assert [word for word in shown if word not in printed] == []
    assert [letter for letter in set(printed) if not letter.isprintable() and letter != "\n"] == []
    assert not re.search(r"^\s*::|##\[|^00:00:00", printed, re.MULTILINE)
