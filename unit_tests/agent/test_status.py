import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from agent import status, summary
from environments.checking import Check, Finding
from environments.errors import PlatformError
from environments.prefect_rest import NotThereError
from environments.settings import Environment

CURRENT = "agent@new"


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Environment], str]], None]:
    """Put one check, called `part`, in place of the real ones; the agent's image is `agent@new`."""
    monkeypatch.setattr(status.checks, "account", lambda _: None)
    monkeypatch.setattr(status.aws_health, "missing_images", lambda _, images: [i for i in images if "gone" in i])
    monkeypatch.setattr(status.aws_health, "critical_findings", lambda _, images: {i: 2 for i in images if "bad" in i})
    monkeypatch.setattr(status.project, "image_in_use", lambda _, patient: pytest.fail("waits") if patient else CURRENT)

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


def _workflows(**images: str) -> Callable[[Environment], tuple[status.Entries, status.Entries]]:
    """Reads the registered workflows, by name with their images, and no runs."""
    return lambda _: ([_workflow(f"{name}/dev", image) for name, image in images.items()], [])


def _workflow(name: str, image: str = "etl@there", base: str | None = CURRENT, workflow: str = "etl") -> dict[str, Any]:
    return {"name": name, "image": image, "base_image": base, "workflow": workflow}


def _parts(environment: Environment) -> list[Finding]:
    return status.look(environment, _workflows()).parts


@pytest.mark.parametrize(
    "error",
    [*map(_aws_error, sorted(status.GONE)), NotThereError("404")],
    ids=lambda error: error.response["Error"]["Code"] if isinstance(error, ClientError) else "Prefect",
)
def test_part_that_is_missing_is_not_deployed(
    environment: Environment, have: Callable[..., None], error: Exception
) -> None:
    have(_raising(error))
    part = _parts(environment)[0]

    assert (part.name, part.ok, part.state) == ("part", False, "not deployed")
    assert "invoke deploy --env dev" in part.todo


def test_refusal_of_aws_is_not_taken_for_a_missing_part(environment: Environment, have: Callable[..., None]) -> None:
    have(_raising(_aws_error("AccessDeniedException")))
    part = _parts(environment)[0]

    assert not part.ok
    assert part.state != "not deployed"
    assert "AccessDeniedException" in part.why


def test_what_a_check_says_is_told_in_full(environment: Environment, have: Callable[..., None]) -> None:
    have(_raising(PlatformError("Prefect is out of reach", "no route", "wait")))

    assert _parts(environment)[0] == Finding("part", False, "Prefect is out of reach", "no route", "wait")


def test_workflows_whose_image_is_gone_are_named(environment: Environment, have: Callable[..., None]) -> None:
    have(lambda _: "fine")
    all_there, some_gone = _workflows(etl="etl@there"), _workflows(sales="etl@gone", stock="etl@gone", etl="etl@there")
    [_, fine, *_], [_, wrong, *_] = (status.look(environment, read).parts for read in (all_there, some_gone))

    assert (fine.name, fine.ok, fine.state) == ("workflow images", True, "1 in ECR")
    assert wrong.state == "1 not in ECR"
    assert "sales/dev, stock/dev" in wrong.why
    assert "etl/dev" not in wrong.why
    assert "invoke register" in wrong.todo


def test_workflows_on_an_earlier_image_of_the_agent_are_named_and_all_is_still_well(
    environment: Environment, have: Callable[..., None]
) -> None:
    have(lambda _: "fine")
    workflows = [
        _workflow("sales/dev"),
        _workflow("tax/dev", base="agent@old"),
        _workflow("stock/dev", base=None),
        _workflow("own-dockerfile/dev", base=""),
        _workflow("made-by-hand/dev", base=None, workflow=""),
    ]
    hint = status.look(environment, lambda _: (workflows, [])).parts[-2]
    fine = status.look(environment, lambda _: ([workflows[0], *workflows[3:]], [])).parts[-2]

    assert (hint.name, hint.ok, hint.state) == ("base images", True, "2 of 3 built on another image than the agent's")
    assert hint.why.endswith(": tax/dev, stock/dev")
    assert "invoke register" in hint.todo
    assert fine == Finding("base images", True, "1 built on the agent's")


def test_critical_findings_of_the_scan_are_named_with_who_runs_the_image_and_all_is_still_well(
    environment: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    have(lambda _: "fine")
    read = _workflows(sales="registry/etl@bad", stock="registry/etl@bad", tax="registry/tax@there")
    hint = status.look(environment, read).parts[-1]
    fine = status.look(environment, _workflows(tax="registry/tax@there")).parts[-1]
    monkeypatch.setattr(status.project, "image_in_use", lambda *_, **__: "registry/agent@bad")
    of_agent = status.look(environment, _workflows()).parts[-1]

    assert (hint.name, hint.ok, hint.state) == ("image scan", True, "2 critical findings in 1 of 3 images")
    assert hint.why == "2 in etl@bad, of sales/dev, stock/dev"
    assert fine == Finding("image scan", True, "no critical findings in 2 images")
    assert of_agent.why == "2 in agent@bad, of the agent"


@pytest.mark.parametrize(("code", "ok"), [("AccessDeniedException", True), ("ThrottlingException", False)])
def test_role_from_before_the_scan_was_read_gets_a_hint(
    environment: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch, code: str, ok: bool
) -> None:
    have(lambda _: "fine")
    monkeypatch.setattr(status.aws_health, "critical_findings", lambda *_: _raising(_aws_error(code))(environment))
    part = status.look(environment, _workflows()).parts[-1]

    assert (part.name, part.ok) == ("image scan", ok)
    assert ("bootstrap-account" in part.todo) is ok


def test_emulated_ecr_is_not_asked_for_findings(
    local: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    have(lambda _: "fine")
    monkeypatch.setattr(status.local_stack, "state", lambda _: {})
    monkeypatch.setattr(status.aws_health, "critical_findings", lambda *_: pytest.fail("was asked"))

    assert [part.name for part in status.look(local, _workflows()).parts] == ["part", "workflow images", "base images"]


def test_when_the_servers_of_local_are_down_nobody_is_asked(
    local: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.local_stack, "state", lambda _: {"emulated AWS": "stopped", "Prefect server": "running"})
    have(lambda _: pytest.fail("was asked"))

    assert status.look(local, lambda _: pytest.fail("was asked")) == status.Seen(
        [
            Finding("emulated AWS", False, "stopped", todo="invoke deploy starts it"),
            Finding("Prefect server", True, "running"),
        ]
    )


def test_workflows_and_runs_are_seen_with_the_parts(environment: Environment, have: Callable[..., None]) -> None:
    have(lambda _: "fine")
    workflows, runs = [_workflow("etl/dev", "etl@gone")], [{"name": "brave-fox"}]
    seen = status.look(environment, lambda _: (workflows, runs))

    assert [part.name for part in seen.parts] == ["part", "workflow images", "base images", "image scan"]
    assert (seen.workflows, seen.runs) == (workflows, runs)


def test_prefect_that_is_away_is_told_and_the_other_parts_are_seen(
    environment: Environment, have: Callable[..., None]
) -> None:
    have(lambda _: "fine")
    seen = status.look(environment, _raising(PlatformError("Prefect is out of reach")))

    assert [(part.ok, part.state) for part in seen.parts] == [
        (True, "fine"),
        *[(False, "Prefect is out of reach")] * 3,
    ]
    assert (seen.workflows, seen.runs) == ([], [])


def test_session_that_is_over_is_not_used_for_the_next_look(
    environment: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[bool] = []
    monkeypatch.setattr(status.aws, "forget_sessions", lambda: forgotten.append(True))
    have(_raising(_aws_error("AccessDeniedException")))
    _parts(environment)
    assert forgotten == []
    have(_raising(_aws_error("ExpiredToken")))

    assert not _parts(environment)[0].ok
    assert forgotten == [True]


def test_account_is_checked_before_anything_is_looked_at(
    environment: Environment, have: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.checks, "account", _raising(PlatformError("another account")))
    have(lambda _: pytest.fail("was asked"))

    with pytest.raises(PlatformError, match="another account"):
        status.look(environment, lambda _: pytest.fail("was asked"))


PARTS = [Finding("agent", True, "1 of 1 running"), Finding("Prefect project", True, "x")]
WORKFLOW = {"name": "sales", "version": "abc", "last_run": "COMPLETED"}


def _began(**ago: float) -> dict[str, Any]:
    return {"name": "brave-fox", "deployment": "sales/dev", "state": "Running", "since": _ago(**ago)}


def _ago(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat().replace("+00:00", "Z")


RUN = _began(minutes=3)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_exit_code_is_0_when_all_are_well(
    environment: Environment, capsys: pytest.CaptureFixture[str], as_json: bool, ok: bool, code: int
) -> None:
    parts = [*PARTS, Finding("agent at Prefect", ok, "state", "why", "" if ok else "do this")]

    assert summary.show_status(environment, status.Seen(parts, [WORKFLOW], [RUN]), as_json) == code
    printed = capsys.readouterr().out
    assert all(part.name in printed for part in parts)
    assert "sales" in printed
    assert ("do this" in printed) is not ok


def test_json_is_json_and_nothing_else(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_status(environment, status.Seen(PARTS, [WORKFLOW], [RUN]), True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert told["environment"] == "dev"
    assert told["ok"] is True
    assert told["workflows"] == [WORKFLOW]
    assert told["runs"] == [RUN]
    assert told["components"][0] == {"name": "agent", "ok": True, "state": "1 of 1 running", "why": "", "todo": ""}


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        ({"seconds": -9}, "0 s ago"),
        ({"seconds": 59}, "59 s ago"),
        ({"minutes": 61}, "1 h ago"),
        ({"hours": 23}, "23 h ago"),
        ({"days": 40}, "40 d ago"),
    ],
)
def test_newest_runs_are_shown_with_state_and_age(
    environment: Environment, capsys: pytest.CaptureFixture[str], ago: dict[str, float], words: str
) -> None:
    runs = [_began(**ago), *[_began(days=50)] * summary.RUNS_SHOWN]
    summary.show_status(environment, status.Seen(PARTS, runs=runs), False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("brave-fox")]

    assert re.split(" {2,}", lines[0]) == ["brave-fox", "sales/dev", "Running", words]
    assert len(lines) == summary.RUNS_SHOWN
