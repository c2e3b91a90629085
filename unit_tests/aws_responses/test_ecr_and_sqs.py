"""What our code makes of ECR's answers."""

import pytest

from environments.settings import Environment
from infra import health, images
from infra.images import Image
from unit_tests import aws_responses
from unit_tests.aws_responses import body, samples

DIGEST = body("ecr", "described")["imageDetails"][0]["imageDigest"]
IMAGE = Image("dev_etl", "a26b7d65556834a5", "111122223333.dkr.ecr.us-west-2.amazonaws.com/dev_etl:a26b7d65556834a5")


def _answered(monkeypatch: pytest.MonkeyPatch, *cases: str) -> None:
    ecr = aws_responses.client("ecr", *(samples("ecr")[case] for case in cases))
    for module in (images, health):
        monkeypatch.setattr(module, "client", lambda *_: ecr)


def test_image_that_ecr_has_is_found_with_its_digest(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    _answered(monkeypatch, "described")
    image = images.find(environment, IMAGE)

    assert image is not None
    assert image.pinned == f"111122223333.dkr.ecr.us-west-2.amazonaws.com/dev_etl@{DIGEST}"


@pytest.mark.parametrize("case", ["unknown_image", "unknown_repository", "described_nothing"])
def test_image_that_ecr_does_not_have_is_not_found(
    case: str, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, case)
    assert images.find(environment, IMAGE) is None


@pytest.mark.parametrize(("case", "exists"), [("repository", True), ("no_repository", False)])
def test_repository_exists(case: str, exists: bool, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    _answered(monkeypatch, case)
    assert images.repository_exists(environment, "dev_etl") is exists


def test_login_is_taken_from_the_token(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    _answered(monkeypatch, "login")
    assert images.login(environment) == {"username": "AWS", "password": "secret"}


def test_each_digest_that_was_deleted_is_told_once(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECR answers once for each tag, and names those that it did not have."""
    _answered(monkeypatch, "deleted")
    assert images.delete(environment, "dev_etl", [DIGEST, "sha256:0"]) == [DIGEST]


def test_repository_that_is_there_without_a_lifecycle_policy_stays_as_it_is(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, "repository", "no_lifecycle")
    asked: list[str] = []
    images.client(environment, "ecr").meta.events.register(
        "before-call.ecr", lambda model, **_: asked.append(model.name)
    )
    images.ensure_repository(environment, "dev_etl")

    assert asked == ["DescribeRepositories", "GetLifecyclePolicy"]


def test_images_that_a_definition_names_are_missed_only_when_ecr_has_neither_tag_nor_digest(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, "described_with_untagged")
    registry = f"{environment.aws_account_id}.dkr.ecr.{environment.aws_region}.amazonaws.com"
    untagged = body("ecr", "described_with_untagged")["imageDetails"][1]["imageDigest"]
    versions = [":a26b7d65556834a5", f"@{DIGEST}", f"@{untagged}", ":gone"]
    missing = health.missing_images(environment, [f"{registry}/dev_etl{version}" for version in versions])

    assert missing == [f"{registry}/dev_etl:gone"]


def test_all_images_of_a_repository_that_is_gone_are_missed(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, "unknown_repository")
    uri = f"{environment.aws_account_id}.dkr.ecr.{environment.aws_region}.amazonaws.com/dev_etl:1"
    assert health.missing_images(environment, [uri]) == [uri]


def test_number_of_waiting_events_is_read_from_the_queue(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = aws_responses.client("sqs", samples("sqs")["queue"], samples("sqs")["attributes"])
    monkeypatch.setattr(health, "client", lambda *_: sqs)
    assert health.task_events(environment) == "3 waiting"
