import asyncio

import pytest

from agent import unused_definitions
from unit_tests.agent.ecs_fake import FakeEcs
from unit_tests.agent.prefect_fake import TEMPLATE, FakePrefect

PROJECT = "dev_dataflow_automation"
PREFIX = f"{PROJECT}_workflow_"


def _arn(family: str, revision: int = 1) -> str:
    return f"arn:aws:ecs:eu-west-1:123456789012:task-definition/{family}:{revision}"


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


def _deregister(prefect: FakePrefect, ecs: FakeEcs) -> None:
    asyncio.run(unused_definitions.deregister(prefect, ecs, PROJECT, TEMPLATE))


def test_all_revisions_of_a_family_without_a_deployment_are_deregistered(prefect: FakePrefect, ecs: FakeEcs) -> None:
    prefect.deploy(family="sales")
    ecs.revisions = [
        *(_arn(f"{PREFIX}gone", revision) for revision in range(1, 6)),
        _arn(f"{PREFIX}sales", 3),
        _arn(f"{PREFIX}also-gone"),
    ]
    _deregister(prefect, ecs)

    assert ecs.revisions == [_arn(f"{PREFIX}sales", 3)]
    assert prefect.asked == [PROJECT]


def test_family_whose_name_begins_with_that_of_one_that_is_gone_stays(prefect: FakePrefect, ecs: FakeEcs) -> None:
    prefect.deploy(family="sales-daily")
    ecs.revisions = [_arn(f"{PREFIX}sales"), _arn(f"{PREFIX}sales-daily")]
    _deregister(prefect, ecs)

    assert ecs.revisions == [_arn(f"{PREFIX}sales-daily")]


def test_families_of_others_stay(prefect: FakePrefect, ecs: FakeEcs) -> None:
    others = [_arn("prod_dataflow_automation_workflow_sales"), _arn(f"{PROJECT}_agent"), _arn("sales")]
    ecs.revisions = [*others, _arn(f"{PREFIX}gone")]
    _deregister(prefect, ecs)

    assert ecs.revisions == others


def test_family_of_deployments_that_name_none_stays(prefect: FakePrefect, ecs: FakeEcs) -> None:
    prefect.deploy(cpu=1024)
    prefect.deployments[prefect.deploy()] = {"family": None}
    ecs.revisions = [_arn(f"{PREFIX}any"), _arn(f"{PREFIX}None"), _arn(f"{PREFIX}gone")]
    _deregister(prefect, ecs)

    assert ecs.revisions == [_arn(f"{PREFIX}any")]


def test_deployments_of_all_pages_count(prefect: FakePrefect, ecs: FakeEcs) -> None:
    for number in range(450):
        prefect.deploy(family=f"flow-{number}")
    wanted = [_arn(f"{PREFIX}flow-{number}") for number in (0, 199, 200, 399, 400, 449)]
    ecs.revisions = [*wanted, _arn(f"{PREFIX}flow-450")]
    _deregister(prefect, ecs)

    assert ecs.revisions == wanted


def test_prefect_is_not_asked_when_there_is_no_family(prefect: FakePrefect, ecs: FakeEcs) -> None:
    _deregister(prefect, ecs)

    assert prefect.asked == []
