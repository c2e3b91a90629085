import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import kept_plans, state

Aws = Callable[[str], Any]
CONTENT = b"a saved plan"


@pytest.fixture
def kept(environment: Environment, aws_mocked: Aws, tmp_path: Path) -> str:
    """The name of a plan in the state bucket."""
    state.ensure_bucket(environment)
    aws_mocked("s3").delete_bucket_policy(Bucket=state.bucket_name(environment))  # moto reads no condition of it
    file = tmp_path / "saved"
    file.write_bytes(CONTENT)
    return kept_plans.keep(environment, file)


def test_plan_is_fetched_as_it_was_kept(environment: Environment, kept: str, tmp_path: Path) -> None:
    assert kept_plans.fetch(environment, kept, tmp_path).read_bytes() == CONTENT
    assert kept.endswith(f"@sha256:{hashlib.sha256(CONTENT).hexdigest()}")


def test_plan_lies_where_plans_expire(environment: Environment, kept: str, aws_mocked: Aws) -> None:
    (rule,) = aws_mocked("s3").get_bucket_lifecycle_configuration(Bucket=state.bucket_name(environment))["Rules"]

    assert rule["Status"] == "Enabled"
    assert kept.startswith(rule["Filter"]["Prefix"])
    assert rule["Expiration"]["Days"] == state.PLAN_DAYS
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 1


def test_each_plan_has_a_name_of_its_own(environment: Environment, kept: str, tmp_path: Path) -> None:
    assert kept_plans.keep(environment, tmp_path / "saved") != kept


def test_plan_that_somebody_has_exchanged_is_refused(
    environment: Environment, kept: str, aws_mocked: Aws, tmp_path: Path
) -> None:
    key = kept.partition("@")[0]
    aws_mocked("s3").put_object(Bucket=state.bucket_name(environment), Key=key, Body=b"another plan")
    with pytest.raises(PlatformError, match="has been changed since it was kept"):
        kept_plans.fetch(environment, kept, tmp_path)

    assert not (tmp_path / "kept.tfplan").exists()


def test_plan_that_is_gone_says_that_plans_expire(
    environment: Environment, kept: str, aws_mocked: Aws, tmp_path: Path
) -> None:
    aws_mocked("s3").delete_object(Bucket=state.bucket_name(environment), Key=kept.partition("@")[0])
    with pytest.raises(PlatformError, match="has no plan") as caught:
        kept_plans.fetch(environment, kept, tmp_path)

    assert "30 days" in caught.value.why


@pytest.mark.parametrize(
    "text", ["plan.tfplan", "plans/x", f"plans/{'0' * 32}", f"state@sha256:{'0' * 64}", f"plans/../x@sha256:{'0' * 64}"]
)
def test_files_and_other_objects_are_no_names(environment: Environment, tmp_path: Path, text: str) -> None:
    assert not kept_plans.is_name(text)
    with pytest.raises(PlatformError, match="does not name a plan"):
        kept_plans.fetch(environment, text, tmp_path)


def test_name_of_a_kept_plan_is_one(kept: str) -> None:
    assert kept_plans.is_name(kept)
