import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from environments.settings import Environment
from register_action import registered
from register_action.changes import project_of
from register_action.registered import Registered, of_environment, read, read_project
from register_action.workflow import Choice, Workflow
from unit_tests.register_action.conftest import (
    BASE_IMAGE,
    ORIGIN,
    POOL,
    FakePrefect,
    HandOver,
    Register,
    actions,
    http_error,
)

PREVIEW = Choice(preview=True)
ENTRY = "deployments: [{name: x, entrypoint: 'flow.py:sales'}]"


@pytest.fixture
def client(environment: Environment, prefect: FakePrefect) -> Iterator[Any]:
    with prefect_client(environment, REGISTER_TOKEN) as made:
        yield made


def _names(found: Any) -> list[str]:
    return [each.name for each in found]


def _refused(environment: Environment, handed_over: Workflow | None = None) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        project_of(environment, handed_over) if handed_over else read_project(environment, "etl", ["sales"])
    assert caught.value.why
    return caught.value


def test_deployments_of_other_projects_are_not_seen(environment: Environment, prefect: FakePrefect) -> None:
    prefect.add("stock/dev")
    prefect.add("sales/dev")
    prefect.add("sales/prod", work_pool_name="prod_dataflow_automation")
    prefect.add("sales/own", work_pool_name=None)

    assert _names(of_environment(environment)) == ["sales/dev", "stock/dev"]
    assert prefect.writes == []


def test_all_tags_must_be_there_and_one_of_the_flows(
    environment: Environment, prefect: FakePrefect, client: Any
) -> None:
    prefect.add("sales/dev", tags=["dev", "etl", "more"])
    prefect.add("stock/dev", tags=["etl"])
    prefect.add("tax/dev", tags=["dev"])

    assert _names(read(client, environment, tags=["dev", "etl"])) == ["sales/dev"]
    assert _names(read(client, environment, flows=["tax", "stock"])) == ["stock/dev", "tax/dev"]
    assert _names(read(client, environment, flows=[])) == []


@pytest.mark.parametrize("number", [0, 1, 3, 6, 7])
def test_projects_of_any_size_are_read_page_by_page(
    environment: Environment, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(registered, "PAGE", 3)
    for position in range(number):
        prefect.add(f"flow-{position}/dev")

    assert _names(of_environment(environment)) == [f"flow-{position}/dev" for position in range(number)]
    assert set(prefect.pages) == {3}


def test_page_is_no_larger_than_prefect_allows(environment: Environment, prefect: FakePrefect) -> None:
    names = sorted(f"flow/{position:03}" for position in range(201))
    for name in names:
        prefect.add(name)

    assert _names(of_environment(environment)) == names
    assert len(prefect.pages) == 2


def test_deployment_whose_flow_went_meanwhile_is_left_out(environment: Environment, prefect: FakePrefect) -> None:
    prefect.add("sales/dev")
    prefect.add("stock/dev")
    gone = prefect.deployments["stock/dev"].flow_id
    del prefect.flows[gone]

    assert _names(of_environment(environment)) == ["sales/dev"]


def test_labels_and_image_of_a_deployment_are_read(environment: Environment, prefect: FakePrefect) -> None:
    labels = {"workflow": "etl", "preview": "feature/x", "level": 3}
    prefect.add("sales/dev", labels=labels, job_variables={"image": "registry/etl@sha256:1"})
    [found] = of_environment(environment)

    assert (found.name, found.flow) == ("sales/dev", "sales")
    assert (found.image, found.preview) == ("registry/etl@sha256:1", "feature/x")
    assert [found.label(name) for name in ("workflow", "level", "origin")] == ["etl", "3", ""]
    bare = Registered("sales", found.deployment.model_copy(update={"labels": None, "job_variables": None}))
    assert (bare.image, bare.preview, bare.label("workflow")) == ("", "", "")


def test_project_is_read_with_the_base_image_and_all_that_may_clash(
    environment: Environment, prefect: FakePrefect
) -> None:
    prefect.add("sales/dev", tags=["dev", "etl"])
    prefect.add("sales/dev-own", tags=["dev", "other"])
    prefect.add("gone/dev", tags=["dev", "etl"])
    prefect.add("tax/dev", tags=["dev", "other"])
    project = read_project(environment, "etl", ["sales"])

    assert project.base_image == BASE_IMAGE.pinned
    assert sorted(_names(project.existing)) == ["gone/dev", "sales/dev", "sales/dev-own"]
    assert prefect.writes == []
    assert set(prefect.keys) == {"key-to-register"}


def test_environment_that_is_not_deployed_is_told(environment: Environment, prefect: FakePrefect) -> None:
    prefect.pools.clear()
    error = _refused(environment)

    assert error.what == "environment dev is not deployed yet"
    assert POOL in error.why
    assert error.todo == "invoke deploy --env dev"


@pytest.mark.parametrize("template", [{}, {"variables": {"properties": {"image": {}}}}, {"variables": None}])
def test_project_that_somebody_made_by_hand_is_told(
    environment: Environment, prefect: FakePrefect, template: dict[str, Any]
) -> None:
    prefect.pools[POOL] = {"job_configuration": {}, "variables": {"properties": {}}, **template}

    assert "invoke deploy --env dev" in _refused(environment).todo


@pytest.mark.parametrize("code", [401, 403])
def test_key_without_the_right_to_register_is_told_before_anything_is_built(
    environment: Environment, prefect: FakePrefect, code: int
) -> None:
    prefect.right = code
    error = _refused(environment)

    assert error.what == "the token may not register workflows in environment dev"
    assert str(code) in error.why
    assert REGISTER_TOKEN in error.todo
    assert prefect.stored == {}


def test_prefect_in_trouble_is_not_taken_for_a_missing_right(environment: Environment, prefect: FakePrefect) -> None:
    prefect.right = 500
    error = _refused(environment)

    assert "refused a request" in error.what
    assert "Field required" in error.why


def test_key_that_is_not_accepted_at_all_is_named(
    environment: Environment, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise http_error(401)

    monkeypatch.setattr(prefect, "read_work_pool", refuse)
    error = _refused(environment)

    assert "does not accept the key" in error.what
    assert REGISTER_TOKEN in error.todo
    assert "key-to-register" not in str(error)


@pytest.mark.usefixtures("prefect")
def test_register_wants_its_own_key_and_lists_take_the_agents(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REGISTER_TOKEN)

    assert REGISTER_TOKEN in _refused(environment).todo
    assert of_environment(environment) == []

    monkeypatch.delenv(AGENT_TOKEN)
    with pytest.raises(PlatformError, match=AGENT_TOKEN):
        of_environment(environment)


def test_deleting_what_is_gone_is_fine(prefect: FakePrefect, client: Any) -> None:
    identifier = prefect.add("sales/dev")
    registered.delete(client, identifier)
    registered.delete(client, identifier)

    assert prefect.stored == {}
    assert prefect.writes == [("DELETE", "sales/dev")]


# Whose is what.


def test_deployments_of_other_workflows_are_left_alone(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    prefect.add("stock/dev", tags=["dev", "other", "etl"], labels={"workflow": "other"})
    prefect.add("sales/by-hand", tags=["dev", "etl"])

    assert actions(register(hand_over("sales"), prune=True)) == {"sales/dev": "create"}


@pytest.mark.parametrize("labels", [{"workflow": "other"}, {}])
def test_flow_of_another_workflow_is_not_overwritten(
    environment: Environment, hand_over: HandOver, prefect: FakePrefect, labels: dict[str, str]
) -> None:
    prefect.add("sales/dev", labels=labels)
    error = _refused(environment, hand_over("stock", "sales"))

    assert error.what == "sales/dev belongs to another workflow"
    assert (labels.get("workflow") or "somebody") in error.why
    assert "@flow(name=" in error.todo
    assert project_of(environment, hand_over("sales", choice=PREVIEW))  # its own name is free


def test_workflow_of_the_same_name_from_elsewhere_is_not_overwritten(
    environment: Environment, hand_over: HandOver, register: Register
) -> None:
    register(hand_over("sales", origin="github.com/other/etl//workflow"))
    error = _refused(environment, hand_over("stock"))

    assert error.what == "environment dev has another workflow etl"
    assert "github.com/other/etl//workflow" in error.why
    assert ORIGIN in error.why
    assert "--name" in error.todo
    assert project_of(environment, hand_over("stock", name="etl2"))
    assert project_of(environment, hand_over("stock", origin=""))  # a folder outside git can't tell


def test_workflow_first_registered_outside_git_may_come_from_a_repository(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", origin="", commit=""))

    assert actions(register(hand_over("sales"))) == {"sales/dev": "update"}
    assert prefect.deployments["sales/dev"].labels["origin"] == ORIGIN


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"branch": "feature/x"}, {"branch": "feature-x"}, "preview of branch feature/x"),
        ({"branch": "x"}, {"choice": Choice(), "prefect_yaml": ENTRY}, "preview of branch x"),
        ({"choice": Choice(), "prefect_yaml": ENTRY}, {"branch": "x"}, "it is no preview"),
    ],
)
def test_preview_and_another_of_the_same_name_do_not_overwrite_each_other(
    environment: Environment, hand_over: HandOver, register: Register, first: Any, second: Any, why: str
) -> None:
    register(hand_over("sales", **{"choice": PREVIEW, **first}))
    error = _refused(environment, hand_over("sales", **{"choice": PREVIEW, **second}))

    assert error.what.endswith("-x is taken")
    assert why in error.why


def _unnamed(handed_over: Workflow) -> Workflow:
    """The same with a flow whose name only running the code tells."""
    entries = [
        dataclasses.replace(each, flow=dataclasses.replace(each.flow, name=None)) for each in handed_over.entries
    ]
    return dataclasses.replace(handed_over, entries=tuple(entries))


def test_name_that_only_the_import_tells_is_found_again(hand_over: HandOver, register: Register) -> None:
    first = register(_unnamed(hand_over("sales")), name="Sales 2026")
    second = register(_unnamed(hand_over("sales")), name="Sales 2026")

    assert actions(first) == {"Sales 2026/dev": "create"}
    assert actions(second) == {"Sales 2026/dev": "keep"}
    assert first[0].payload["job_variables"]["family"].startswith("sales_2026_")


def test_name_that_only_the_import_tells_may_be_another_workflows(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    prefect.add("Sales 2026/dev", labels={"workflow": "other"})
    with pytest.raises(PlatformError, match="Sales 2026/dev belongs to another workflow"):
        register(_unnamed(hand_over("sales")), name="Sales 2026")

    assert prefect.writes == []
