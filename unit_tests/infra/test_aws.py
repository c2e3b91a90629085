import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import botocore.session
import pytest
from botocore.exceptions import ClientError

from environments.errors import PlatformError
from environments.secrets import local_root_keys
from environments.settings import Environment
from infra import aws
from infra.aws import as_root, aws_variables, check_account, client
from unit_tests.conftest import Server

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


def test_on_aws_the_own_chain_of_credentials_is_left_alone(environment: Environment) -> None:
    assert aws_variables(environment) == {}
    assert as_root(environment) is environment


@pytest.mark.parametrize("role", ["deploy", "register"])
def test_local_acts_in_the_role_of_the_command(local: Environment, role: str) -> None:
    variables = aws_variables(dataclasses.replace(local, role=role))

    assert variables["AWS_ACCESS_KEY_ID"] == f"ASIA:local_dataflow_automation_{role}"
    assert variables["AWS_SESSION_TOKEN"]
    assert variables["AWS_ENDPOINT_URL"] == local.aws_endpoint_url
    assert variables["AWS_REGION"] == local.aws_region


def test_roles_are_taken_on_by_the_root_user_who_has_keys_and_no_session(local: Environment) -> None:
    variables = aws_variables(as_root(local))

    assert variables.items() >= local_root_keys(local).items()
    assert variables["AWS_ENDPOINT_URL"] == local.aws_endpoint_url
    assert variables["AWS_SESSION_TOKEN"] == ""


def test_each_role_has_clients_of_its_own(local: Environment) -> None:
    register = dataclasses.replace(local, role="register")
    keys = [client(who, "ecr")._request_signer._credentials.access_key for who in (local, register, as_root(local))]

    assert keys == ["ASIA:local_dataflow_automation_deploy", "ASIA:local_dataflow_automation_register", "local"]


def test_role_that_is_missing_means_that_local_is_not_deployed(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ClientError({"Error": {"Code": "NoSuchEntity", "Message": "no role deploy"}}, "AssumeRole")
    sts = mock.Mock(**{"assume_role.side_effect": refused})
    monkeypatch.setattr(aws, "client", lambda *_: sts)
    with pytest.raises(PlatformError) as caught:
        aws_variables(local)

    assert caught.value.what == "environment local is not deployed"
    assert "no role deploy" in caught.value.why
    assert caught.value.todo == "invoke deploy --env local"


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_request_that_aws_did_not_answer_well_is_repeated(
    local: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    http_server.answer(*[code] * (aws.ATTEMPTS - 1), 200, body=b'{"services": []}')
    away = dataclasses.replace(local, role="root", aws_endpoint_url=http_server.url)

    assert client(away, "ecs").describe_services(services=["x"])["services"] == []
    assert len(http_server.requests) == aws.ATTEMPTS


def test_clients_that_are_made_side_by_side_share_one_session(local: Environment) -> None:
    """A session each would read the descriptions of AWS again and again; a role would be taken on for each."""
    services = ["ecs", "ecr", "sqs", "s3"] * 2
    with (
        mock.patch("botocore.session.Session", side_effect=botocore.session.Session) as made,
        ThreadPoolExecutor(8) as pool,
    ):
        clients = list(pool.map(lambda service: client(local, service), services))

    assert made.call_count == 2, "one of root, which takes the role on, and one of the role"
    assert [each.meta.service_model.service_name for each in clients] == services
