"""Another KMS key in the settings: secrets stay readable and are written again, and deploy never locks itself out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functional_tests.platform import Platform

PREFIX = "local_dataflow_automation"
SECRETS = (f"{PREFIX}_prefect_key", f"{PREFIX}_prefect_key_workflow")
SETTING = "kms_key_arn"
FLOW = """from prefect import flow


@flow
def encrypted() -> None:
    pass
"""


@pytest.fixture(scope="module")
def keys(platform: Platform, first_deploy: str) -> Iterator[list[str]]:
    """ARNs of two KMS keys that logs may use, and of one that they may not; in the end the platform has its own."""
    kms = platform.aws("kms")
    policy = kms.get_key_policy(KeyId=own_key(platform), PolicyName="default")["Policy"]
    yield [kms.create_key(**options)["KeyMetadata"]["Arn"] for options in ({"Policy": policy}, {"Policy": policy}, {})]
    choose(platform, None)
    platform.invoke("deploy")


def choose(platform: Platform, key: str | None) -> None:
    """Let the settings name a key, or none."""
    settings: Path = platform.folder / "environments" / "local.tfvars"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(SETTING)]
    settings.write_text("\n".join([*lines, *([f'{SETTING} = "{key}"'] if key else []), ""]))


def encrypting(platform: Platform) -> dict[str, list[str]]:
    """By secret, the keys that encrypt its current value."""
    manager = platform.aws("secretsmanager")
    found = {}
    for secret in SECRETS:
        for version in manager.list_secret_version_ids(SecretId=secret)["Versions"]:
            if "AWSCURRENT" in version["VersionStages"]:
                found[secret] = version["KmsKeyIds"]
    return found


def values(platform: Platform) -> list[str]:
    """The values of the secrets."""
    manager = platform.aws("secretsmanager")
    return [manager.get_secret_value(SecretId=secret)["SecretString"] for secret in SECRETS]


def own_key(platform: Platform) -> str:
    """ARN of the key that bootstrap-account made."""
    return str(platform.aws("kms").describe_key(KeyId=f"alias/{PREFIX}")["KeyMetadata"]["Arn"])


def agents(platform: Platform) -> list[str]:
    """IDs of the agent's containers."""
    return [str(container.id) for container in platform.agent_containers]


def test_another_key_encrypts_the_same_values_and_everything_from_now_on(
    sample_workflow: Platform, keys: list[str]
) -> None:
    platform, key = sample_workflow, keys[0]
    before, own = values(platform), own_key(platform)
    assert encrypting(platform) == {secret: [own] for secret in SECRETS}

    choose(platform, key)
    printed = platform.invoke("deploy").stdout

    assert f"logs and images from before still need {own}" in re.sub(r"\s+", " ", printed)
    assert encrypting(platform) == {secret: [key] for secret in SECRETS}
    assert values(platform) == before
    groups = platform.aws("logs").describe_log_groups(logGroupNamePrefix=PREFIX)["logGroups"]
    assert {group["kmsKeyId"] for group in groups} == {key}


def test_tasks_start_with_the_value_that_the_other_key_encrypts(sample_workflow: Platform, keys: list[str]) -> None:
    assert sample_workflow.status()["ok"] is True
    assert "Completed" in sample_workflow.invoke("run", "sample_workflow").stdout


def test_images_stay_where_they_are(sample_workflow: Platform, keys: list[str]) -> None:
    """A repository keeps its key: another one would be another repository, without images."""
    images = sample_workflow.aws("ecr").describe_images(repositoryName=f"{PREFIX}_agent")["imageDetails"]

    assert images
    assert sample_workflow.invoke("plan", check=False).returncode == 0


def test_repository_that_register_creates_has_the_key(sample_workflow: Platform, keys: list[str]) -> None:
    platform = sample_workflow
    folder = platform.folder / "encrypted"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    platform.invoke("register", "--workflow-path", str(folder))
    (made,) = platform.aws("ecr").describe_repositories(repositoryNames=["local_encrypted"])["repositories"]
    platform.invoke("unregister", "--name", "encrypted", "--yes")

    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": keys[0]}


def test_second_deploy_with_the_key_changes_nothing(sample_workflow: Platform, keys: list[str]) -> None:
    before = agents(sample_workflow)
    second = json.loads(sample_workflow.invoke("deploy", "--json", stderr=False).stdout)
    notes = {step["name"]: step["note"] for step in second["steps"]}

    assert notes["AWS infrastructure"] == "no changes"
    assert notes["Prefect key"] == "unchanged"
    assert agents(sample_workflow) == before


def test_deploy_refuses_what_it_could_not_encrypt_again_and_changes_nothing(
    sample_workflow: Platform, keys: list[str]
) -> None:
    platform, (key, other, _) = sample_workflow, keys
    kms: Any = platform.aws("kms")
    before = agents(platform)
    choose(platform, other)

    kms.disable_key(KeyId=other)
    disabled = platform.invoke("deploy", check=False)
    kms.enable_key(KeyId=other)
    kms.disable_key(KeyId=key)
    unreadable = platform.invoke("deploy", check=False)
    kms.enable_key(KeyId=key)

    assert (disabled.returncode, unreadable.returncode) == (1, 1)
    assert "its state is Disabled" in disabled.stdout
    assert f"the secret {SECRETS[0]} can't be decrypted" in unreadable.stdout
    assert encrypting(platform) == {secret: [key] for secret in SECRETS}
    assert agents(platform) == before


def test_deploy_that_fails_half_way_leaves_everything_at_work(sample_workflow: Platform, keys: list[str]) -> None:
    platform, (key, _, without_logs) = sample_workflow, keys
    choose(platform, without_logs)
    refused = platform.invoke("deploy", check=False)

    assert refused.returncode == 1
    assert "is not allowed to be used with Arn of log group" in refused.stdout
    assert encrypting(platform) == {secret: [key, without_logs] for secret in SECRETS}
    assert "Completed" in platform.invoke("run", "sample_workflow").stdout


def test_environments_own_key_comes_back(sample_workflow: Platform, keys: list[str]) -> None:
    platform = sample_workflow
    choose(platform, None)
    platform.invoke("deploy")

    assert encrypting(platform) == {secret: [own_key(platform)] for secret in SECRETS}
    assert platform.status()["ok"] is True
