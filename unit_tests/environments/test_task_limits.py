import json
import re
import uuid
from datetime import UTC, datetime

import pytest
import regex
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import Flow, FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseJobConfiguration

from environments.task_limits import (
    MAXIMUM_ENV_BYTES,
    MAXIMUM_TAG_KEY,
    MAXIMUM_TAG_VALUE,
    MAXIMUM_TAGS,
    PLATFORM_TAGS,
    PREFECT_TAGS,
    RESERVED_TAGS,
    env_problems,
    label_problems,
)

NOW = datetime.now(UTC)
ECS = Loader().load_service_model("ecs", "service-2")["shapes"]


def problems(labels: dict[str, str]) -> list[str]:
    return list(label_problems(labels, ()))


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"team": "data"},
        {"team": ""},
        {"k" * MAXIMUM_TAG_KEY: "v" * MAXIMUM_TAG_VALUE},
        {"Kostenstelle": "Größe 4 m/s = 1+1"},
        {"cost_center:a/b=c+d-e@f.g h": "aws"},
        {"run": "{{ ctx.flow_run.name }} of {{ prefect.variables.team }}"},
    ],
)
def test_labels_that_aws_accepts_are_no_problem(labels: dict[str, str]) -> None:
    assert problems(labels) == []


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (("aws:team", "data"), "AWS reserves names that begin with aws:"),
        (("AwS:team", "data"), "AWS reserves names that begin with aws:"),
        (("team", "AWS:data"), "its value begins with aws:, which AWS reserves"),
        (("", "data"), "the name is empty"),
        (("k" * 129, "data"), "the name has 129 characters; AWS accepts 128"),
        (("team", "v" * 257), "its value has 257 characters; AWS accepts 256"),
        (("a,b", "data"), "the name contains ','"),
        (("team", "a*b"), "its value contains '*'"),
        (("team", "a\nb"), r"its value contains '\n'"),
        (("prefect.io/flow-run-id", "x"), "the platform sets this tag itself"),
        (("restarts", "3"), "the platform sets this tag itself"),
        (("日本", "x"), "the name has no ASCII letter or digit"),
    ],
)
def test_label_that_aws_or_the_platform_refuses_is_told(label: tuple[str, str], reason: str) -> None:
    [problem] = problems({"fine": "yes", **dict([label])})

    assert problem.startswith(f"label {label[0]!r}: {reason}")


@pytest.mark.parametrize("shape", ["TagKey", "TagValue"])
@given(text=st.text(st.characters(exclude_categories=("Cn", "Cs")), min_size=1, max_size=3))
def test_characters_are_those_of_the_pattern_in_the_ecs_api(shape: str, text: str) -> None:
    accepted = regex.fullmatch(ECS[shape]["pattern"], text) is not None
    [key, value] = (text, "x") if shape == "TagKey" else ("team", text)

    assert any("contains" in problem for problem in problems({key: value})) is not accepted


def test_limits_are_those_of_the_ecs_api() -> None:
    assert (ECS["TagKey"]["max"], ECS["TagValue"]["max"]) == (MAXIMUM_TAG_KEY, MAXIMUM_TAG_VALUE)
    assert re.search(r"Maximum number of tags per resource - (\d+)", json.dumps(ECS))[1] == str(MAXIMUM_TAGS)


def test_labels_count_together_with_the_tags_of_the_environment() -> None:
    most = {f"label{number}": "x" for number in range(MAXIMUM_TAGS - RESERVED_TAGS - 2)}
    tags = ("project", "environment")

    assert list(label_problems(most, tags)) == []
    assert list(label_problems({**most, "project": "other"}, tags)) == []
    [problem] = label_problems({**most, "one": "more"}, tags)
    assert problem.startswith("33 labels: ")
    assert problem.endswith("take 18; at most 32 labels remain")


def test_tags_of_prefect_and_the_agent_fit_into_those_reserved() -> None:
    """Counted in what Prefect's own worker would set for a run that has everything."""
    ids = {"id": uuid.uuid4()}
    flow_run = FlowRun(flow_id=uuid.uuid4(), name="run", **ids)
    deployment = DeploymentResponse.model_validate({**ids, "name": "dev", "flow_id": uuid.uuid4(), "updated": NOW})
    pool = WorkPool(name="pool", type="ecs", default_queue_id=uuid.uuid4(), **ids)
    configuration = BaseJobConfiguration()
    configuration.prepare_for_flow_run(
        flow_run, deployment, Flow(name="flow", labels={}, **ids), pool, "agent", ids["id"]
    )

    assert all(key.startswith(PREFECT_TAGS) for key in configuration.labels)
    assert len(configuration.labels) == 11
    assert len(configuration.labels) + len(PLATFORM_TAGS) <= RESERVED_TAGS


def test_env_that_fits_into_a_task_definition_is_no_problem() -> None:
    assert list(env_problems({"A": "", "PATH_TO.x": "a=b", "BIG": "x" * (MAXIMUM_ENV_BYTES - 200)})) == []


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"": "x"}, "env '': the name"),
        ({"A=B": "x"}, "env 'A=B': the name"),
        ({"BIG": "x" * MAXIMUM_ENV_BYTES, "B": "y"}, "env: its 2 variable(s) take 49,211 bytes; 49,152 fit"),
        ({"BIG": "日" * (MAXIMUM_ENV_BYTES // 6)}, "env: its 1 variable(s) take 49,182 bytes; 49,152 fit"),
        ({f"NAME_{number}": "" for number in range(2000)}, "env: its 2000 variable(s)"),
    ],
)
def test_env_that_cannot_be_passed_is_told_without_its_values(env: dict[str, str], reason: str) -> None:
    [problem] = env_problems(env)

    assert problem.startswith(reason)
    assert "xx" not in problem
