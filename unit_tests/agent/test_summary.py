import pytest

from agent import image, summary
from environments.console import Step
from environments.secrets import prefect_key
from environments.settings import Environment


def test_summary_says_what_comes_next(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        Step(name, seconds=seconds) for name, seconds in (("Checks", 0.04), ("State bucket", 1.2), ("Agent", 31.0))
    ]
    summary.show(environment, image.name(environment), steps)
    printed = capsys.readouterr().out

    assert "environment dev is up" in printed
    assert environment.prefix in printed
    assert image.name(environment).uri in printed
    assert "took   Agent 31.0 s, State bucket 1.2 s" in printed.splitlines()
    assert "--env dev" in printed.splitlines()[-1]
    assert "register" in printed.splitlines()[-1]


def test_local_summary_shows_where_the_key_is_and_not_the_key(
    local: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from environments import settings

    monkeypatch.setattr(summary, "ROOT", settings.ROOT)
    key = prefect_key(local)
    summary.show(local, image.name(local), [])
    printed = capsys.readouterr().out

    assert ".local/local/prefect_key" in printed
    assert key not in printed
