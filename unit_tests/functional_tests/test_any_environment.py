"""`--env` of the functional tests: what runs where, what is refused, and that nothing is skipped in silence."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from environments.settings import ROOT
from functional_tests import conftest, platform
from functional_tests.platform import Platform, RealPlatform, unmet_preconditions

TOKENS = ("PREFECT_AGENT_TOKEN", "PREFECT_WORKFLOW_REGISTER_TOKEN")


class Answer:
    """A task that has ended."""

    def __init__(self, code: int, words: str = "") -> None:
        self.returncode, self.words = code, words

    def communicate(self, timeout: float) -> tuple[str, None]:
        return self.words, None


class Config:
    """What pytest was called with."""

    def __init__(self, **options: Any) -> None:
        self.options = {"env": "local", "collectonly": False, "numprocesses": None, **options}
        self.deselected: list[Any] = []
        self.hook = self

    def getoption(self, name: str, default: Any = None) -> Any:
        return self.options.get(name, default)

    def pytest_deselected(self, items: list[Any]) -> None:
        self.deselected += items


class Item:
    """A test of a file, for any environment or not."""

    def __init__(self, file: str, *markers: str) -> None:
        self.path, self.markers = Path(file), markers

    def get_closest_marker(self, name: str) -> bool:
        return name in self.markers


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in TOKENS:
        monkeypatch.setenv(token, "made-up")


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Any:
    """A session that begins with the options of the test's parameter."""
    return type("Session", (), {"config": Config(**request.param)})()


def answering(monkeypatch: pytest.MonkeyPatch, **answers: Answer) -> list[tuple[str, ...]]:
    calls: list[tuple[str, ...]] = []

    def start(self: Platform, *arguments: str, **_: Any) -> Answer:
        calls.append(arguments)
        return answers[arguments[0]]

    monkeypatch.setattr(Platform, "start", start)
    return calls


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKENS[0], "made-up")
    monkeypatch.setenv(TOKENS[1], " ")

    assert TOKENS[1] in unmet_preconditions("test")
    assert TOKENS[0] not in unmet_preconditions("test")


def test_unknown_environment_is_explained() -> None:
    assert "did you mean test?" in unmet_preconditions("tset")


def test_prod_is_left_alone(tokens: None) -> None:
    assert "agent down" in unmet_preconditions("prod")


@pytest.mark.parametrize("failing", ["doctor", "outputs"])
def test_what_the_platforms_own_checks_find_is_told(
    monkeypatch: pytest.MonkeyPatch, tokens: None, failing: str
) -> None:
    fine = {"doctor": Answer(0), "outputs": Answer(0)}
    calls = answering(monkeypatch, **{**fine, failing: Answer(1, "no such account")})

    assert f"invoke {failing} --env test says:\nno such account" in unmet_preconditions("test")
    assert all("--env=test" in call for call in calls)


def test_environment_that_is_ready_is_tested(monkeypatch: pytest.MonkeyPatch, tokens: None) -> None:
    answering(monkeypatch, doctor=Answer(0), outputs=Answer(0))

    assert unmet_preconditions("test") == ""


@pytest.mark.parametrize("session", [{"env": "test"}], indirect=True)
def test_session_does_not_begin_before_the_environment_is_ready(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "unmet_preconditions", lambda name: "no keys")

    with pytest.raises(pytest.UsageError, match="environment test can't be tested:\nno keys"):
        conftest.pytest_sessionstart(session)


@pytest.mark.parametrize("session", [{}, {"env": "test", "collectonly": True}], indirect=True)
def test_local_and_lists_of_tests_need_no_preconditions(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(conftest, "unmet_preconditions", asked.append)
    conftest.pytest_sessionstart(session)

    assert asked == []


def test_only_what_holds_anywhere_runs_on_a_real_environment_and_the_rest_is_counted() -> None:
    anywhere, here = Item("test_any_environment.py", "any_environment"), Item("test_1_deploy.py")
    for env, kept, counted in (("test", [anywhere], [here]), ("local", [anywhere, here], [])):
        config, items = Config(env=env), [anywhere, here]
        conftest.pytest_collection_modifyitems(config, items)

        assert (items, config.deselected) == (kept, counted)


def test_the_platform_is_taken_away_last() -> None:
    names = ("test_1_deploy", "test_7_destroy", "test_8_x", "test_any_environment")
    items = [Item(f"{name}.py") for name in names]
    conftest.pytest_collection_modifyitems(Config(), items)

    assert [item.path.stem for item in items] == [names[0], *names[2:], names[1]]


def test_workers_are_for_local_only() -> None:
    with pytest.raises(pytest.UsageError, match="only one such environment"):
        conftest.pytest_configure(Config(env="test", numprocesses=2))


@pytest.mark.parametrize("task", ["deploy", "destroy", "bootstrap-account"])
def test_tests_never_make_or_take_away_a_real_environment(task: str) -> None:
    with pytest.raises(ValueError, match=task):
        RealPlatform("test").start(task)


def test_same_tests_are_collected_for_a_real_environment_as_for_local() -> None:
    listed = []
    for env in ("local", "test"):
        command = [*platform.INVOKE[:2], "pytest", "functional_tests", "--collect-only", "-q", f"--env={env}"]
        command += ["-m", "any_environment", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        listed.append([line for line in done.stdout.splitlines() if "::" in line])

    assert len(listed[0]) >= 4
    assert listed[0] == listed[1]
