import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from environments.settings import Environment
from infra import state
from infra.state import bucket_name, ensure_bucket, remove_bucket
from unit_tests.conftest import PREFECT_CLOUD

Aws = Callable[[str], Any]


def _let_moto_write(s3: Any, bucket: str) -> None:
    """Moto takes the policy's denial without its condition, and would refuse us."""
    s3.delete_bucket_policy(Bucket=bucket)


def test_name_is_valid_for_s3_and_the_accounts_own(environment: Environment) -> None:
    assert bucket_name(environment) == "dev-dataflow-automation-state-123456789012"


def test_bucket_is_made_in_the_region_with_all_its_protection(environment: Environment, aws_mocked: Aws) -> None:
    made, bucket, s3 = ensure_bucket(environment), bucket_name(environment), aws_mocked("s3")

    assert made is True
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == environment.aws_region
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    [statement] = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert set(statement["Resource"]) == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


def test_bucket_is_made_in_the_region_that_takes_no_location(aws_mocked: Aws) -> None:
    environment = Environment(
        name="us",
        aws_account_id="123456789012",
        aws_region="us-east-1",
        prefect_api_url=PREFECT_CLOUD,
    )

    assert ensure_bucket(environment) is True
    assert aws_mocked("s3").head_bucket(Bucket=bucket_name(environment))


def test_second_call_changes_nothing(environment: Environment, aws_mocked: Aws) -> None:
    bucket, s3 = bucket_name(environment), aws_mocked("s3")
    ensure_bucket(environment)
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    _let_moto_write(s3, bucket)
    s3.put_object(Bucket=bucket, Key="terraform.tfstate", Body=b"state")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)

    assert ensure_bucket(environment) is False
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(policy)
    _let_moto_write(s3, bucket)
    assert s3.get_object(Bucket=bucket, Key="terraform.tfstate")["Body"].read() == b"state"


def test_bucket_left_half_made_gets_its_protection_with_the_next_run(environment: Environment, aws_mocked: Aws) -> None:
    s3, bucket = aws_mocked("s3"), bucket_name(environment)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": environment.aws_region})

    assert ensure_bucket(environment) is True
    assert s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}


def test_versioning_is_switched_on_last_as_the_sign_of_a_finished_bucket(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = mock.MagicMock()
    s3.get_bucket_versioning.return_value = {}
    s3.get_bucket_lifecycle_configuration.return_value = {"Rules": []}
    monkeypatch.setattr(state, "client", lambda *_: s3)
    ensure_bucket(environment)
    puts = [call[0] for call in s3.mock_calls if call[0].startswith("put_")]

    assert puts[-1] == "put_bucket_versioning"
    assert set(puts[:-1]) == {
        *("put_public_access_block", "put_bucket_encryption", "put_bucket_policy"),
        "put_bucket_lifecycle_configuration",
    }


def test_bucket_of_an_earlier_release_only_learns_to_let_plans_expire(
    environment: Environment, aws_mocked: Aws
) -> None:
    s3, bucket = aws_mocked("s3"), bucket_name(environment)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": environment.aws_region})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    own = {"ID": "own", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 1}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [own]})

    assert ensure_bucket(environment) is True
    assert ensure_bucket(environment) is False
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule["ID"] for rule in rules] == ["own", "plans"]
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)


def test_removing_takes_all_versions_with_it(environment: Environment, aws_mocked: Aws) -> None:
    bucket, s3 = bucket_name(environment), aws_mocked("s3")
    ensure_bucket(environment)
    _let_moto_write(s3, bucket)
    for version in range(3):
        s3.put_object(Bucket=bucket, Key="terraform.tfstate", Body=str(version).encode())
    s3.delete_object(Bucket=bucket, Key="terraform.tfstate")
    remove_bucket(environment)

    assert s3.list_buckets()["Buckets"] == []


def test_removing_a_bucket_that_is_gone_is_fine(environment: Environment, aws_mocked: Aws) -> None:
    remove_bucket(environment)

    assert aws_mocked("s3").list_buckets()["Buckets"] == []
