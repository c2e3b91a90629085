import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from agent import status, summary
from environments.checking import Check, Finding
from environments.errors import PlatformError
from environments.settings import Environment


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Environment], str]], None]:
    """Put one check, called `part`, in place of the real ones."""
    monkeypatch.setattr(status.aws_health, "missing_images", lambda _, images: [i for i in images if "gone" in i])

    def put(check: Callable[[Environment], str]) -> None:
        checks: list[Check] = [("part", check)]
        monkeypatch.setattr(status, "CHECKS", checks)

    return put


def _raising(error: Exception) -> Callable[[Environment], str]:
    def check(_: Environment) -> str:
        raise error

    return check


def _aws_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeServices")


def _not_found() -> Exception:
    from prefect.exceptions import ObjectNotFound

    return ObjectNotFound(Exception("404"))


@pytest.mark.parametrize(
    "error",
    [*map(_aws_error, sorted(status.GONE)), _not_found()],
    ids=lambda error: error.response["Error"]["Code"] if isinstance(error, ClientError) else "Prefect",
)
def test_part_that_is_missing_is_not_deployed(
    environment: Environment, have: Callable[..., None], error: Exception
) -> None:
    have(_raising(error))
    part = status.look(environment, {})[0]

    assert (part.name, part.ok, part.state) == ("part", False, "not deployed")
    assert "invoke deploy --env dev" in part.todo


def test_refusal_of_aws_is_not_taken_for_a_missing_part(environment: Environment, have: Callable[..., None]) -> None:
    have(_raising(_aws_error("AccessDeniedException")))
    part = status.look(environment, {})[0]

    assert not part.ok
    assert part.state != "not deployed"
    assert "AccessDeniedException" in part.why


def test_what_a_check_says_is_told_in_full(environment: Environment, have: Callable[..., None]) -> None:
    have(_raising(PlatformError("Prefect is out of reach", "no route", "wait")))

    assert status.look(environment, {})[0] == Finding("part", False, "Prefect is out of reach", "no route", "wait")


def test_workflows_whose_image_is_gone_are_named(environment: Environment, have: Callable[..., None]) -> None:
    have(lambda _: "fine")
    images = {"sales/dev": "etl@gone", "stock/dev": "etl@gone", "etl/dev": "etl@there"}
    [_, fine], [_, wrong] = (status.look(environment, found) for found in ({"etl/dev": "etl@there"}, images))

    assert (fine.name, fine.ok, fine.state) == ("workflow images", True, "1 in ECR")
    assert wrong.state == "1 not in ECR"
    assert "sales/dev, stock/dev" in wrong.why
    assert "etl/dev" not in wrong.why
    assert "invoke register" in wrong.todo


def test_when_the_servers_of_local_are_down_nobody_is_asked(
    local: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.local_stack, "state", lambda _: {"emulated AWS": "stopped", "Prefect server": "running"})
    have(lambda _: pytest.fail("was asked"))

    assert status.look(local, {}) == [
        Finding("emulated AWS", False, "stopped", todo="invoke deploy starts it"),
        Finding("Prefect server", True, "running"),
    ]


PARTS = [Finding("agent", True, "1 of 1 running"), Finding("Prefect project", True, "x")]
WORKFLOW = {"name": "sales", "version": "abc", "last_run": "COMPLETED"}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_exit_code_is_0_when_all_are_well(
    environment: Environment, capsys: pytest.CaptureFixture[str], as_json: bool, ok: bool, code: int
) -> None:
    parts = [*PARTS, Finding("agent at Prefect", ok, "state", "why", "do this")]

    assert summary.show_status(environment, parts, [WORKFLOW], as_json) == code
    printed = capsys.readouterr().out
    assert all(part.name in printed for part in parts)
    assert "sales" in printed
    assert ("do this" in printed) is (as_json or not ok)


def test_json_is_json_and_nothing_else(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_status(environment, PARTS, [WORKFLOW], True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert told["environment"] == "dev"
    assert told["ok"] is True
    assert told["workflows"] == [WORKFLOW]
    assert told["components"][0] == {"name": "agent", "ok": True, "state": "1 of 1 running", "why": "", "todo": ""}
