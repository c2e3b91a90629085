from collections.abc import Callable

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import checks


def _wrong(what: str) -> Callable[[Environment], str]:
    def look(_: Environment) -> str:
        raise PlatformError(f"{what} is wrong", f"why {what}\nsecond line", f"repair {what}")

    return look


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[checks.Check]], None]:
    """Put other checks in place of the real ones."""
    return lambda made: monkeypatch.setattr(checks, "checks", lambda _: made)


def test_all_problems_are_told_at_once(environment: Environment, have: Callable[[list[checks.Check]], None]) -> None:
    have([("one", _wrong("one")), ("fine", lambda _: "fine"), ("two", _wrong("two"))])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert caught.value.what.startswith("2 things are in the way")
    for name in ("one", "two"):
        assert f"{name} is wrong: why {name}; second line" in caught.value.why
        assert f"→ repair {name}" in caught.value.why
    assert "fine" not in caught.value.why


def test_single_problem_is_told_as_it_is(environment: Environment, have: Callable[[list[checks.Check]], None]) -> None:
    have([("one", _wrong("one")), ("fine", lambda _: "fine")])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert (caught.value.what, caught.value.todo) == ("one is wrong", "repair one")


def test_when_all_is_well_nothing_is_raised(environment: Environment, have: Callable[..., None]) -> None:
    have([("one", lambda _: "1")])
    checks.require(environment)

    assert checks.results(environment) == [("one", "1", None)]


def test_one_cause_of_several_problems_is_told_once(environment: Environment, have: Callable[..., None]) -> None:
    have([("one", _wrong("engine")), ("two", _wrong("engine"))])
    with pytest.raises(PlatformError) as caught:
        checks.require(environment)

    assert caught.value.what == "engine is wrong"


def test_account_and_prefect_are_looked_at_on_aws_and_ports_in_local(
    environment: Environment, local: Environment
) -> None:
    on_aws, on_this_machine = ({title for title, _ in checks.checks(which)} for which in (environment, local))

    assert on_aws - on_this_machine == {"AWS account", "Prefect API"}
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
