import dataclasses
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from environments.checking import Check, Finding
from environments.errors import PlatformError
from environments.settings import Environment
from infra import checks, encryption, state
from unit_tests.conftest import ACCOUNT


def _wrong(what: str) -> Callable[[Environment], str]:
    def look(_: Environment) -> str:
        raise PlatformError(f"{what} is wrong", f"why {what}\nsecond line", f"repair {what}")

    return look


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Check]], None]:
    """Put other checks in place of the real ones; the account is the right one."""
    monkeypatch.setattr(checks.aws, "check_account", lambda _: None)
    return lambda made: monkeypatch.setattr(checks, "checks", lambda _: made)


def test_wrong_account_is_told_alone_and_first(
    environment: Environment, aws_mocked: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Environment] = []
    monkeypatch.setattr(checks, "results", looked.append)
    other = dataclasses.replace(environment, aws_account_id="999999999999")
    with pytest.raises(PlatformError) as caught:
        checks.require(other)

    assert ACCOUNT in caught.value.what
    assert "999999999999" in caught.value.why
    assert looked == []


def test_all_problems_are_told_at_once(environment: Environment, have: Callable[[list[Check]], None]) -> None:
    have([("one", _wrong("one")), ("fine", lambda _: "fine"), ("two", _wrong("two"))])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert caught.value.what.startswith("2 things are in the way")
    for name in ("one", "two"):
        assert f"{name} is wrong: why {name}; second line" in caught.value.why
        assert f"→ repair {name}" in caught.value.why
    assert "fine" not in caught.value.why


def test_single_problem_is_told_as_it_is(environment: Environment, have: Callable[[list[Check]], None]) -> None:
    have([("one", _wrong("one")), ("fine", lambda _: "fine")])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert (caught.value.what, caught.value.todo) == ("one is wrong", "repair one")


def test_when_all_is_well_nothing_is_raised(environment: Environment, have: Callable[..., None]) -> None:
    have([("one", lambda _: "1")])
    checks.require(environment)

    assert checks.results(environment) == [Finding("one", True, "1")]


def test_one_cause_of_several_problems_is_told_once(environment: Environment, have: Callable[..., None]) -> None:
    have([("one", _wrong("engine")), ("two", _wrong("engine"))])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert caught.value.what == "engine is wrong"


def test_task_for_aws_wants_the_right_account(environment: Environment, aws_mocked: Callable[[str], object]) -> None:
    other = dataclasses.replace(environment, aws_account_id="999999999999")

    assert checks.ready(environment) is environment
    with pytest.raises(PlatformError, match=f"are for account {ACCOUNT}"):
        checks.ready(other)


def test_task_for_local_wants_its_servers_and_asks_no_account(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.aws, "check_account", lambda _: pytest.fail("costs time for nothing"))
    monkeypatch.setattr(checks.local_stack, "state", lambda _: {"emulated AWS": "running"})

    assert checks.ready(local) is local
    monkeypatch.setattr(checks.local_stack, "state", lambda _: {"emulated AWS": "stopped"})
    with pytest.raises(PlatformError, match="is not running"):
        checks.ready(local)


def test_account_and_prefect_are_looked_at_on_aws_and_ports_in_local(
    environment: Environment, local: Environment
) -> None:
    on_aws, on_this_machine = ({title for title, _ in checks.checks(which)} for which in (environment, local))

    assert on_aws - on_this_machine == {"AWS account", "Account's set-up", "Prefect API"}
    assert on_this_machine - on_aws == {"Ports"}


def test_taken_ports_are_told_together(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [PlatformError(f"port {port} is taken", f"nginx {port}", "stop it") for port in (1, 2)]
    monkeypatch.setattr(checks.local_stack, "check_ports", lambda _: problems)
    look = dict(checks.checks(local))["Ports"]
    with pytest.raises(PlatformError) as caught:
        look(local)

    assert "port 1 is taken" in caught.value.what
    assert "port 2 is taken" in caught.value.what
    assert caught.value.why == "nginx 1\nnginx 2"


def test_account_that_is_not_set_up_says_who_does_that(
    environment: Environment, aws_mocked: Callable[[str], object]
) -> None:
    look = dict(checks.checks(environment))["Account's set-up"]
    with pytest.raises(PlatformError) as caught:
        look(environment)

    assert "is not set up for environment dev" in caught.value.what
    assert "invoke bootstrap-account --env dev" in caught.value.todo

    state.ensure_bucket(environment)
    with pytest.raises(PlatformError, match="there is no KMS key alias/dev_dataflow_automation"):
        look(environment)

    encryption.ensure_key(environment)
    assert look(environment) == f"{state.bucket_name(environment)} is there"


def test_bucket_that_may_not_be_looked_at_says_which_role_may(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Environment) -> bool:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetBucketVersioning")

    monkeypatch.setattr(checks.state, "has_bucket", refuse)
    with pytest.raises(PlatformError, match="can't be looked at") as caught:
        dict(checks.checks(environment))["Account's set-up"](environment)

    assert "dev_dataflow_automation_deploy" in caught.value.todo


def test_drift_is_looked_for_when_it_is_asked_for(
    environment: Environment,
    have: Callable[[list[Check]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    have([("one", lambda _: "1")])
    monkeypatch.setattr(checks.terraform, "drift", lambda *_: ["update aws_sqs_queue.task_events"])

    assert checks.show(environment) == 0
    assert checks.show(environment, "0123456789abcdef") == 1
    printed = capsys.readouterr().out
    assert "1 resources differ" in printed
    assert "update aws_sqs_queue.task_events" in printed
    assert "invoke plan --env dev" in printed
    monkeypatch.setattr(checks.terraform, "drift", lambda *_: [])
    assert checks.show(environment, "0123456789abcdef") == 0
