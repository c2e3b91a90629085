import json
from pathlib import Path

import pytest

from agent import image, summary
from environments.progress import Step
from environments.secrets import prefect_key
from environments.settings import Environment, fields


def test_summary_says_what_comes_next(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step(name, seconds=seconds) for name, seconds in (("Checks", 0.04), ("Agent image", 1.2), ("Agent", 31.0))]
    summary.show(environment, image.name(environment), steps)
    printed = capsys.readouterr().out

    assert "environment dev is up" in printed
    assert environment.prefix in printed
    assert image.name(environment).uri in printed
    assert "took   Agent 31.0 s, Agent image 1.2 s" in printed.splitlines()
    assert "--env dev" in printed.splitlines()[-1]
    assert "register" in printed.splitlines()[-1]


def test_summary_for_scripts_has_each_step(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    checks = Step("Checks", begin=100.0)
    built = Step("Agent image", (checks,), begin=100.5, seconds=1.23456, note="already in ECR")
    for step in (checks, built):
        step.done.set()

    summary.show(environment, image.name(environment), [checks, built], as_json=True)
    told = json.loads(capsys.readouterr().out)

    assert told["agent_image"] == image.name(environment).uri
    assert (told["environment"], told["project"]) == ("dev", environment.prefix)
    assert [step["begin"] for step in told["steps"]] == [0.0, 0.5]
    assert told["steps"][1] == {
        "name": "Agent image",
        "state": "done",
        "needs": ["Checks"],
        "begin": 0.5,
        "seconds": 1.235,
        "note": "already in ECR",
    }


def test_local_summary_shows_where_the_key_is_and_not_the_key(
    local: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = prefect_key(local)
    summary.show(local, image.name(local), [])
    printed = capsys.readouterr().out

    assert ".local/local/prefect_key" in printed
    assert key not in printed


ROLES = {
    f"{role}_role": f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}"
    for role in ("deploy", "register", "plan")
}


def test_settings_for_scripts_are_all_there_with_defaults_and_roles(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.show_settings(environment, True)
    shown = json.loads(capsys.readouterr().out)

    assert shown.keys() == {"environment", *fields(), *ROLES}
    assert (shown["environment"], shown["agent_count"], shown["aws_endpoint_url"]) == ("dev", 1, None)
    assert shown["prefect_api_url"] == environment.prefect_api_url
    assert {name: shown[name] for name in ROLES} == ROLES


def test_settings_are_one_line_each(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_settings(environment, False)
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 1 + len(fields()) + len(ROLES)
    assert ["agent_memory", "512"] in [line.split() for line in lines]
    assert ["plan_role", ROLES["plan_role"]] in [line.split() for line in lines]


def test_steps_of_a_pipeline_get_region_and_roles(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    summary.show_settings(environment, True)
    given = (tmp_path / "output").read_text().splitlines()

    names = [line.partition("<<")[0] for line in given[::3]]
    assert dict(zip(names, given[1::3], strict=True)) == {
        "aws_region": "eu-west-1",
        "own_account": "true",
        "runner": "ubuntu-24.04",
        **ROLES,
    }
