import dataclasses
import threading
from typing import Any

import httpx
import jsonschema
import pytest

from environments.errors import PlatformError
from environments.names import task_family
from environments.progress import steps
from environments.settings import Environment
from register_action import changes
from register_action.changes import Change
from register_action.deployments import AT_ONCE, carry_out
from register_action.workflow import Choice, choose
from unit_tests.register_action.conftest import (
    BASE_IMAGE,
    COMMIT,
    IMAGE,
    ORIGIN,
    OTHER_IMAGE,
    PARAMETERS,
    POOL,
    TAG,
    FakePrefect,
    HandOver,
    Register,
    actions,
    described,
    http_error,
)

EVERYTHING = """deployments:
  - name: daily
    entrypoint: flow.py:sales
    description: Sales of the day
    tags: [shop, dev]
    parameters: {limit: 3}
    paused: true
    concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}
    schedules: [{cron: "0 6 * * *", timezone: Europe/Berlin, slug: morning}]
    work_pool: {job_variables: {cpu: 1024, memory: 4096, env: {MODE: fast}}}
"""
LABELS = {
    **{"workflow": "etl", "origin": ORIGIN, "preview": "", "declared_in": "", "described_in": ""},
    "base_image": BASE_IMAGE.pinned,
}
PLAIN = {
    "name": "dev",
    "version": COMMIT,
    "description": "About sales",
    "tags": ["dev", "etl"],
    "labels": LABELS,
    "entrypoint": "flow.py:sales",
    "work_pool_name": POOL,
    "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/opt/workflow"}}],
    "parameter_openapi_schema": PARAMETERS,
    "enforce_parameter_schema": True,
    "job_variables": {"image": IMAGE.pinned, "family": task_family("dev", "sales", "dev")},
    "schedules": [],
}
SCHEDULE = {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "day_or": True}


def _told(prefect: FakePrefect) -> dict[str, Any]:
    """The one body that Prefect was told, without the flow's id, which Prefect made."""
    [body] = prefect.bodies
    assert prefect.flows[prefect.deployments[prefect.writes[0][1]].flow_id]
    return {name: value for name, value in body.items() if name != "flow_id"}


def test_prefect_is_told_all_of_a_deployment(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    register(hand_over("sales"))

    assert _told(prefect) == PLAIN


def test_prefect_is_told_what_prefect_yaml_says(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    register(hand_over("sales", prefect_yaml=EVERYTHING, choice=choose([], "ecs_fargate_spot", "512", "1024")))

    assert _told(prefect) == {
        **PLAIN,
        "name": "dev-daily",
        "description": "Sales of the day",
        "tags": ["dev", "etl", "shop"],
        "labels": {**LABELS, "declared_in": "prefect.yaml", "described_in": "prefect.yaml"},
        "job_variables": {
            "cpu": 1024,
            "memory": 4096,
            "capacity_provider": "FARGATE_SPOT",
            "compatibility": "FARGATE",
            "env": {"MODE": "fast"},
            "image": IMAGE.pinned,
            "family": task_family("dev", "sales", "dev-daily"),
        },
        "schedules": [{"schedule": SCHEDULE, "active": True, "parameters": {}, "slug": "morning"}],
        "parameters": {"limit": 3},
        "concurrency_limit": 2,
        "concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60},
        "paused": True,
    }
    schema = {**prefect.pools[POOL]["variables"], "additionalProperties": False}
    jsonschema.validate(_told(prefect)["job_variables"], schema)


def test_preview_is_labelled_with_its_branch_and_has_no_schedule(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", prefect_yaml=EVERYTHING, choice=Choice(preview=True), branch="feature/x"))
    told = _told(prefect)

    assert told["name"] == "dev-feature-x-daily"
    assert told["tags"] == ["dev", "etl", "preview", "shop"]
    assert told["labels"]["preview"] == "feature/x"
    assert told["schedules"] == []
    assert told["job_variables"]["family"].startswith("sales_feature_x_daily_")


def test_folder_outside_git_has_the_images_tag_as_version(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", commit="", origin=""))

    assert _told(prefect)["version"] == TAG


def test_description_is_the_flows_own_unless_prefect_yaml_has_one(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    text = "deployments: [{name: daily, entrypoint: 'flow.py:sales', enforce_parameter_schema: false}]"
    register(hand_over("sales", prefect_yaml=text))
    told = _told(prefect)

    assert told["description"] == "About sales"
    assert told["labels"]["described_in"] == ""
    assert told["enforce_parameter_schema"] is False


def test_deployments_have_task_definitions_of_their_own(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    text = EVERYTHING + "  - {name: dev, entrypoint: 'flow.py:sales'}\n"
    register(hand_over("sales", "stock_count", prefect_yaml=text))
    register(hand_over("sales", choice=Choice(preview=True), branch="x"))
    families = {name: each.job_variables["family"] for name, each in prefect.deployments.items()}

    assert {name: family.rpartition("_")[0] for name, family in families.items()} == {
        "sales/dev-daily": "sales_daily",
        "sales/dev": "sales",
        "stock-count/dev": "stock_count",
        "sales/dev-x": "sales_x",
    }
    assert len(set(families.values())) == 4


def test_second_time_nothing_is_told(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    handed_over = hand_over("sales", "stock", prefect_yaml=EVERYTHING)
    first = register(handed_over)
    second = register(hand_over("sales", "stock", prefect_yaml=EVERYTHING))

    assert actions(first) == {"sales/dev-daily": "create", "stock/dev": "create"}
    assert actions(second) == {"sales/dev-daily": "keep", "stock/dev": "keep"}
    assert len(prefect.writes) == 2
    assert [change.identifier for change in second] == [change.identifier for change in first]
    assert {change.identifier for change in first} == {str(each.id) for each in prefect.deployments.values()}


def test_without_changes_prefect_is_not_even_connected_to(environment: Environment, prefect: FakePrefect) -> None:
    kept = [Change("keep", "sales", "dev", identifier="1")]
    assert carry_out(environment, kept) == kept
    assert carry_out(environment, []) == []
    assert prefect.keys == []


def test_update_keeps_the_deployment_and_its_flow(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    [created] = register(hand_over("sales"))
    flows = dict(prefect.flows)
    [updated] = register(hand_over("sales"), image=OTHER_IMAGE)

    assert (updated.action, updated.identifier) == ("update", created.identifier)
    assert prefect.flows == flows
    assert prefect.deployments["sales/dev"].job_variables["image"] == OTHER_IMAGE.pinned


@pytest.fixture
def mixed(
    environment: Environment, hand_over: HandOver, register: Register, prefect: FakePrefect
) -> tuple[list[Change], list[str]]:
    """A plan with one of each kind, and its names."""
    register(hand_over("a", "b", "c"))
    prefect.edit("b/dev", description="changed")
    prefect.add("c/dev-old", tags=["dev", "etl"], labels=LABELS)
    handed_over = hand_over("d", "b", "a")
    project = changes.project_of(environment, handed_over)
    planned = changes.plan(environment, handed_over, project, IMAGE, described(handed_over), prune=False)
    pruned = [dataclasses.replace(each, action="delete") if each.name == "dev-old" else each for each in planned]
    prefect.writes.clear()
    return pruned, ["d/dev", "b/dev", "a/dev", "c/dev", "c/dev-old"]


def test_changes_are_carried_out_and_come_back_in_their_order(
    environment: Environment, prefect: FakePrefect, mixed: tuple[list[Change], list[str]]
) -> None:
    planned, names = mixed
    before = prefect.deployments["c/dev"]
    done = carry_out(environment, planned)

    assert list(actions(done).items()) == list(zip(names, ("create", "update", "keep", "pause", "delete"), strict=True))
    assert sorted(prefect.writes) == [("DELETE", "c/dev-old"), ("PATCH", "c/dev"), ("POST", "b/dev"), ("POST", "d/dev")]
    assert done[0].identifier == str(prefect.deployments["d/dev"].id)
    assert prefect.deployments["c/dev"] == before.model_copy(update={"paused": True, "tags": ["dev", "etl", "removed"]})
    assert "c/dev-old" not in prefect.deployments
    assert set(prefect.keys) == {"key-to-register"}


def test_what_happened_is_counted(environment: Environment, mixed: tuple[list[Change], list[str]]) -> None:
    with steps() as run:
        step = run("Deployments", carry_out, environment, mixed[0])
        nothing = run("Deployments", carry_out, environment, [])

    assert step.note == "1 created, 1 updated, 1 unchanged, 1 paused, 1 deleted"
    assert nothing.note == "none"


def test_deployments_that_are_refused_are_listed_and_the_others_are_done(
    environment: Environment, prefect: FakePrefect, mixed: tuple[list[Change], list[str]]
) -> None:
    prefect.refused = {"d/dev": 422, "c/dev": httpx.ReadTimeout("slow")}
    with pytest.raises(PlatformError) as caught:
        carry_out(environment, mixed[0])

    assert caught.value.what == "2 of 4 deployments could not be brought up to date"
    assert [line.partition(":")[0] for line in caught.value.why.splitlines()] == ["d/dev", "c/dev"]
    assert "d/dev is refused" in caught.value.why
    assert "slow" in caught.value.why
    assert "register again" in caught.value.todo
    assert sorted(prefect.writes) == [("DELETE", "c/dev-old"), ("POST", "b/dev")]


def test_register_again_does_only_what_was_refused(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    prefect.refused = {"stock/dev": 500}
    with pytest.raises(PlatformError, match="1 of 2"):
        register(hand_over("sales", "stock"))
    prefect.refused = {}

    assert actions(register(hand_over("sales", "stock"))) == {"sales/dev": "keep", "stock/dev": "create"}


@pytest.mark.parametrize(
    ("refusal", "what", "why"),
    [
        (http_error(422, "no such pool"), "refused a request", "no such pool"),
        (403, "does not accept the key", "403"),
        (httpx.ConnectError("no route"), "is out of reach", "no route"),
        (PlatformError("as it is", "why"), "as it is", "why"),
    ],
)
def test_when_all_are_refused_the_first_refusal_is_the_error(
    hand_over: HandOver, register: Register, prefect: FakePrefect, refusal: Any, what: str, why: str
) -> None:
    prefect.refused = {"sales/dev": refusal, "stock/dev": 500}
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales", "stock"))

    assert what in caught.value.what
    assert why in caught.value.why


def test_unchanged_ones_do_not_make_a_failure_a_partial_one(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales"))
    prefect.refused = {"stock/dev": 409}
    with pytest.raises(PlatformError, match="refused a request"):
        register(hand_over("sales", "stock"))


def test_deployment_that_went_meanwhile_counts_as_deleted(
    environment: Environment, prefect: FakePrefect, mixed: tuple[list[Change], list[str]]
) -> None:
    prefect.delete_deployment(prefect.deployments["c/dev-old"].id)

    assert carry_out(environment, mixed[0])[-1].action == "delete"


def test_requests_go_out_side_by_side(
    environment: Environment, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, real = threading.Barrier(AT_ONCE, timeout=5), prefect.request

    def request(method: str, path: str, json: dict[str, Any]) -> httpx.Response:
        together.wait()
        return real(method, path, json=json)

    monkeypatch.setattr(prefect, "request", request)
    planned = [Change("create", f"flow-{number}", "dev", {**PLAIN}) for number in range(2 * AT_ONCE)]

    assert [each.identifier for each in carry_out(environment, planned)] == [
        str(prefect.deployments[change.full_name].id) for change in planned
    ]
