import dataclasses
from pathlib import Path
from typing import Any

import pytest

from agent import project
from environments.settings import Environment
from infra.images import Image
from infra.terraform import Outputs
from register_action import prefect_schema
from register_action.schedules import Schedule
from unit_tests.register_action.prefect_files import declared_by, problems_of, yaml_of


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"name": None}, "deployments[0] has no name"),
        ({"name": 5}, "name is 5, should be text"),
        ({"name": "a/b"}, "name is 'a/b', should be without / % & < and >"),
        ({"entrypoint": ""}, "deployments[0] has no entrypoint"),
        ({"entrypoint": "flow.py"}, "entrypoint is 'flow.py', should be <file>.py:<function>"),
        ({"entrypoint": "package.module:f"}, "entrypoint is 'package.module:f', should be <file>.py:<function>"),
        ({"entrypoint": "flow.py:not a name"}, "entrypoint is 'flow.py:not a name', should be <file>.py:<function>"),
        ({"entrypoint": "../a.py:f"}, "entrypoint is '../a.py:f', should be in a file of the workflow's folder"),
        ({"entrypoint": "/a.py:f"}, "entrypoint is '/a.py:f', should be in a file of the workflow's folder"),
        ({"parameter": {}}, "parameter is no key of Prefect's; did you mean parameters?"),
        ({"builds": []}, "builds is no key of Prefect's; did you mean build?"),
        ({"parameters": [1]}, "parameters is [1], should be a mapping"),
        ({"tags": "a"}, "tags is 'a', should be a list"),
        ({"tags": ["a", 1]}, "tags[1] is 1, should be text"),
        ({"description": ["a"]}, "description is ['a'], should be text"),
        ({"paused": "maybe"}, "paused is 'maybe', should be true or false"),
        ({"concurrency_limit": -1}, "concurrency_limit is -1, should be greater than or equal to 1"),
        ({"concurrency_limit": 0}, "concurrency_limit is 0, should be greater than or equal to 1"),
        ({"concurrency_limit": True}, "concurrency_limit is True, should be a number"),
        (
            {"work_pool": {"job_variables": {"restarts": 11}}},
            "work_pool.job_variables.restarts is 11, should be less than or equal to 10",
        ),
        ({"concurrency_limit": "many"}, "concurrency_limit is 'many', should be a whole number"),
        ({"concurrency_limit": {"limits": 1}}, "concurrency_limit.limits is no key of Prefect's; did you mean limit?"),
        (
            {"concurrency_limit": {"limit": 1, "collision_strategy": "WAIT"}},
            "concurrency_limit.collision_strategy is 'WAIT', should be 'ENQUEUE' or 'CANCEL_NEW'",
        ),
        (
            {"concurrency_limit": {"grace_period_seconds": 5}},
            "concurrency_limit.grace_period_seconds is 5, should be greater than or equal to 60",
        ),
        ({"work_pool": "mine"}, "work_pool is 'mine', should be a mapping"),
        ({"work_pool": {"nam": "x"}}, "work_pool.nam is no key of Prefect's; did you mean name?"),
        (
            {"work_pool": {"work_queue_name": "a/b"}},
            "work_pool.work_queue_name is 'a/b', should be without / % & < and >",
        ),
        ({"work_pool": {"work_queue_name": 1}}, "work_pool.work_queue_name is 1, should be text"),
        ({"work_pool": {"job_variables": [1]}}, "work_pool.job_variables is [1], should be a mapping"),
        ({"work_pool": {"job_variables": {"cpu": "big"}}}, "work_pool.job_variables.cpu is 'big', should be a whole"),
        (
            {"work_pool": {"job_variables": {"capacity_provider": "SPOT"}}},
            "work_pool.job_variables.capacity_provider is 'SPOT', should be one of FARGATE, FARGATE_SPOT",
        ),
        (
            {"work_pool": {"job_variables": {"user": "root"}}},
            "work_pool.job_variables.user is 'root', should be the id",
        ),
        ({"work_pool": {"job_variables": {"user": "0:0"}}}, "work_pool.job_variables.user is '0:0', should be the id"),
        ({"work_pool": {"job_variables": {"memory": 0.5}}}, "work_pool.job_variables.memory is 0.5, should be a whole"),
        ({"work_pool": {"job_variables": {"env": {"A": 1}}}}, "work_pool.job_variables.env.A is 1, should be text"),
        ({"schedules": {"cron": "* * * * *"}}, "schedules is {'cron': '* * * * *'}, should be a list"),
        ({"schedule": "@daily"}, "schedule is '@daily', should be a mapping"),
        (
            {"schedule": {"interval": 1}, "schedules": [{"interval": 2}]},
            "deployments[0] should have schedule or schedules, has both",
        ),
        ({"description": "{{ $NOPE }}"}, "description names {{ $NOPE }}, an environment variable that is not set"),
        ({"name": "{{ build.tag }}"}, "name can't have {{ build.tag }}; register fills in {{ $NAME }}"),
    ],
)
def test_wrong_value_of_an_entry_is_a_problem(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    [told] = problems_of(tmp_path, yaml_of(**entry))

    assert told.partition(": ")[2].startswith(problem)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("./flow.py:f", "flow.py:f"),
        ("etl/../flow.py:f", "flow.py:f"),
        ("etl\\sub\\flow.py:f", "etl/sub/flow.py:f"),
        ("flow.py:Shop.sales", "flow.py:Shop.sales"),
    ],
)
def test_entrypoint_becomes_the_one_that_discovery_has(tmp_path: Path, written: str, read: str) -> None:
    assert declared_by(tmp_path, entrypoint=written).entrypoint == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (3, (3, None, None)),
        ("3", (3, None, None)),
        ({}, (None, None, None)),
        ({"limit": 3}, (3, None, None)),
        ({"limit": 3, "collision_strategy": "ENQUEUE"}, (3, "ENQUEUE", None)),
        ({"limit": 3, "grace_period_seconds": 600}, (3, "ENQUEUE", 600)),
    ],
)
def test_concurrency_limit_is_a_number_or_a_mapping(tmp_path: Path, written: Any, read: tuple[Any, ...]) -> None:
    declared = declared_by(tmp_path, concurrency_limit=written)

    assert (declared.concurrency_limit, declared.collision_strategy, declared.grace_period_seconds) == read


def test_keys_are_those_of_prefect() -> None:
    from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, RawScheduleConfig, WorkPoolConfig

    def names(schema: Any, *parts: str) -> set[str]:
        own = {key.rpartition(".")[2] for key in prefect_schema.OTHERWISE if key.rpartition(".")[0] in parts}
        return own | {field.name for field in dataclasses.fields(schema)}

    assert names(prefect_schema.Entry, "") - {"path"} == set(DeploymentConfig.model_fields)
    assert names(Schedule) == set(RawScheduleConfig.model_fields)
    assert names(prefect_schema._Limits) == set(ConcurrencyLimitSpec.model_fields)
    assert names(prefect_schema._WorkPool, "work_pool") == set(WorkPoolConfig.model_fields)


def test_job_variables_are_those_of_the_project(environment: Environment, outputs: Outputs) -> None:
    image = Image("repository", "tag", "registry/repository", digest="sha256:0")
    template = project.base_job_template(environment, outputs, image)["variables"]["properties"]
    owned = {key.rpartition(".")[2] for key in prefect_schema.OTHERWISE if key.startswith("work_pool.job_variables.")}

    assert set(prefect_schema.JOB_VARIABLES) | owned == set(template)
