"""Task definitions as they were registered, and as AWS gives them back, are the same to the agent."""

import copy
from typing import Any

import pytest

from agent.task_definitions import same
from unit_tests.aws_responses import samples

DEFINITIONS = samples("ecs_describe_task_definition")


def _pair(case: str) -> tuple[dict[str, Any], dict[str, Any]]:
    sample = copy.deepcopy(DEFINITIONS[case])
    return sample["request"], sample["response"]["taskDefinition"]


def _defaults() -> list[tuple[str, str, str]]:
    """Each field that AWS added to a sample: the sample, where it is, and its name."""
    fields = []
    for case in DEFINITIONS:
        request, described = _pair(case)
        fields += [(case, "", name) for name in described if name not in request]
        (one,), (other,) = request["containerDefinitions"], described["containerDefinitions"]
        fields += [(case, "container", name) for name in other if other[name] != one.get(name)]
        fields += [(case, "volume", name) for name in described["volumes"][0] if name not in request["volumes"][0]]
    return fields


@pytest.mark.parametrize("case", DEFINITIONS)
def test_definition_that_aws_gives_back_is_the_registered_one(case: str) -> None:
    request, described = _pair(case)
    assert same(request, described)


@pytest.mark.parametrize(("case", "place", "name"), _defaults())
def test_each_default_of_aws_alone_makes_no_difference(case: str, place: str, name: str) -> None:
    request, described = _pair(case)
    parts = {
        "": lambda one: one,
        "container": lambda one: one["containerDefinitions"][0],
        "volume": lambda one: one["volumes"][0],
    }
    changed = copy.deepcopy(request)
    parts[place](changed)[name] = parts[place](described)[name]

    assert changed != request
    assert same(request, changed)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("", {"cpu": "512"}),
        ("", {"memory": "1024"}),
        ("", {"taskRoleArn": "arn:aws:iam::111122223333:role/other"}),
        ("", {"enableFaultInjection": True}),
        ("", {"volumes": []}),
        ("", {"runtimePlatform": {"cpuArchitecture": "ARM64"}}),
        ("container", {"image": "other"}),
        ("container", {"cpu": 128}),
        ("container", {"essential": False}),
        ("container", {"environment": [{"name": "A", "value": ""}]}),
        ("container", {"readonlyRootFilesystem": False}),
        ("container", {"portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]}),
        ("container", {"healthCheck": {"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3}}),
    ],
)
def test_definition_with_another_content_is_another_one(place: str, change: dict[str, Any]) -> None:
    request, described = _pair("minimal")
    (described["containerDefinitions"][0] if place else described).update(change)
    assert not same(request, described)
