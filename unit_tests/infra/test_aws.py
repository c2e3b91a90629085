import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra.aws import check_account, client

Aws = Callable[[str], Any]


def test_credentials_of_the_right_account_are_taken(environment: Environment, aws_mocked: Aws) -> None:
    check_account(environment)


def test_credentials_of_another_account_are_refused_with_both_named(environment: Environment, aws_mocked: Aws) -> None:
    other = dataclasses.replace(environment, aws_account_id="999999999999")
    with pytest.raises(PlatformError) as caught:
        check_account(other)

    assert "123456789012" in caught.value.what
    assert "999999999999" in caught.value.why
    assert "dev.tfvars" in caught.value.todo


def test_missing_credentials_say_how_to_get_some(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    with pytest.raises(PlatformError) as caught:
        check_account(environment)

    assert caught.value.what == "no access to AWS for environment dev"
    assert "credentials" in caught.value.why
    assert "AWS_PROFILE" in caught.value.todo


def test_local_talks_to_the_emulator_only(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    for service in ("s3", "ecs", "sts"):
        made = client(local, service)

        assert made.meta.endpoint_url == local.aws_endpoint_url
        credentials = made._request_signer._credentials
        assert "real" not in (credentials.access_key, credentials.secret_key, credentials.token)


def test_clients_work_in_the_region_of_the_settings(environment: Environment, aws_mocked: Aws) -> None:
    elsewhere = dataclasses.replace(environment, aws_region="eu-central-1")

    assert client(environment, "ecs").meta.region_name == "eu-west-1"
    assert client(elsewhere, "ecs").meta.region_name == "eu-central-1"
