import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import key
from agent.key import store
from environments import local_keys
from environments.errors import PlatformError
from environments.secrets import WORKFLOW_TOKEN, prefect_key
from environments.settings import Environment
from infra import encryption
from infra.terraform import Outputs

Aws = Callable[[str], Any]


@pytest.fixture
def secret(aws_mocked: Aws, outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Outputs]:
    """The agent's secret and the workflows', as Terraform leaves them: without a value."""
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "first-key")
    manager = aws_mocked("secretsmanager")
    arn, other = (
        manager.create_secret(Name=f"dev_dataflow_automation_{name}")["ARN"]
        for name in ("prefect_key", "prefect_key_workflow")
    )
    return manager, dataclasses.replace(outputs, prefect_key_secret_arn=arn, workflow_prefect_key_secret_arn=other)


def _value(secret: tuple[Any, Outputs]) -> str:
    return str(secret[0].get_secret_value(SecretId=secret[1].prefect_key_secret_arn)["SecretString"])


def _workflows_value(secret: tuple[Any, Outputs]) -> str:
    return str(secret[0].get_secret_value(SecretId=secret[1].workflow_prefect_key_secret_arn)["SecretString"])


def test_key_is_put_into_the_empty_secret(environment: Environment, secret: tuple[Any, Outputs]) -> None:
    since = store(environment, secret[1])

    assert datetime.now(UTC) - since < timedelta(minutes=1)
    assert _value(secret) == "first-key"


def test_same_key_is_not_written_again(environment: Environment, secret: tuple[Any, Outputs]) -> None:
    since = store(environment, secret[1])

    assert store(environment, secret[1]) == since
    versions = secret[0].list_secret_version_ids(SecretId=secret[1].prefect_key_secret_arn)["Versions"]
    assert len(versions) == 1


def test_other_key_takes_the_place_of_the_first(
    environment: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(environment, secret[1])
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "second-key")
    second = store(environment, secret[1])

    assert second >= first
    assert _value(secret) == "second-key"


def test_without_a_key_the_secret_keeps_its_value(
    environment: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(environment, secret[1])
    monkeypatch.delenv("PREFECT_AGENT_TOKEN")
    with pytest.raises(PlatformError, match="no Prefect key"):
        store(environment, secret[1])

    assert _value(secret) == "first-key"


def test_workflows_have_the_agents_key_until_they_get_one_of_their_own(
    environment: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(environment, secret[1])
    assert _workflows_value(secret) == "first-key"
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "second-key")
    store(environment, secret[1])
    assert _workflows_value(secret) == "second-key"
    monkeypatch.setenv("PREFECT_WORKFLOW_TOKEN", "own-key")
    store(environment, secret[1])

    assert (_workflows_value(secret), _value(secret)) == ("own-key", "second-key")


def test_own_key_of_workflows_stays_when_nobody_names_one(
    environment: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_WORKFLOW_TOKEN", "own-key")
    store(environment, secret[1])
    monkeypatch.delenv("PREFECT_WORKFLOW_TOKEN")
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "second-key")
    store(environment, secret[1])

    assert (_workflows_value(secret), _value(secret)) == ("own-key", "second-key")


def test_keys_that_local_makes_anew_reach_both_secrets(
    local: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_AGENT_TOKEN")
    monkeypatch.setattr(key, "client", lambda *_: secret[0])
    for _ in range(2):
        local_keys.renew(local)
        store(local, secret[1])

        assert _value(secret) == prefect_key(local)
        assert _workflows_value(secret) == prefect_key(local, WORKFLOW_TOKEN) != prefect_key(local)


def test_what_another_kms_key_encrypts_is_written_again_and_said(
    environment: Environment,
    secret: tuple[Any, Outputs],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from environments.progress import steps

    monkeypatch.setenv("PREFECT_WORKFLOW_TOKEN", "own-key")
    first = store(environment, secret[1])
    monkeypatch.delenv("PREFECT_WORKFLOW_TOKEN")
    before = {secret[1].workflow_prefect_key_secret_arn: ["arn:aws:kms:eu-west-1:123456789012:key/before"]}
    monkeypatch.setattr(encryption, "other_keys", lambda _manager, name: before.get(name, []))
    with steps() as run:
        again = run("Prefect key", store, environment, secret[1])

    versions = {
        name: len(secret[0].list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"])
        for name in (secret[1].prefect_key_secret_arn, secret[1].workflow_prefect_key_secret_arn)
    }
    assert versions == {secret[1].prefect_key_secret_arn: 1, secret[1].workflow_prefect_key_secret_arn: 2}
    assert (_workflows_value(secret), _value(secret)) == ("own-key", "first-key")
    assert again.result >= first
    assert "still need arn:aws:kms:eu-west-1:123456789012:key/before" in "".join(capsys.readouterr())


def test_a_cut_off_change_is_finished_by_the_next(
    environment: Environment, secret: tuple[Any, Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(environment, secret[1])
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "second-key")
    secret[0].put_secret_value(SecretId=secret[1].workflow_prefect_key_secret_arn, SecretString="second-key")
    store(environment, secret[1])

    assert (_workflows_value(secret), _value(secret)) == ("second-key", "second-key")


def test_key_is_never_printed(
    environment: Environment, secret: tuple[Any, Outputs], capsys: pytest.CaptureFixture[str]
) -> None:
    from environments.progress import steps

    with steps() as run:
        run("Prefect key", store, environment, secret[1])

    assert "first-key" not in "".join(capsys.readouterr())
