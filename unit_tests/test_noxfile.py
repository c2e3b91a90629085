"""How `nox -s lint` runs its checkers; what each of them finds is shown by functional_tests/test_0_lint.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import noxfile

WANTED = {
    "mypy",
    "ruff",
    "terraform",
    "checkov",
    "zizmor",
    "actionlint",
    "schemas",
    "hadolint",
    "shellcheck",
    "policies",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one lock."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "checkers.txt").write_text("zizmor==1\n")
    monkeypatch.setattr(noxfile, "ROOT", tmp_path)
    monkeypatch.setattr(noxfile, "LINT", tmp_path / ".local" / "lint")
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of uv that were run; `uv venv` makes the folder."""
    called: list[str] = []

    def play(command: list[Any], **_: Any) -> None:
        called.append(command[3])
        if command[3] == "venv":
            Path(command[-1]).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(subprocess, "run", play)
    return called


def test_all_checkers_are_there_and_have_something_to_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(noxfile, "LINT", tmp_path)
    monkeypatch.setattr(noxfile, "environment", lambda _: tmp_path / "bin")
    monkeypatch.setattr(noxfile, "terraform", lambda *arguments: [["terraform", *arguments]])
    found = noxfile.checkers()
    words = {name: " ".join(word for command in commands for word in command) for name, commands in found.items()}

    assert found.keys() == WANTED
    for part in (".github/workflows/", "examples/sales_report/.github/workflows/", "register_action/action.yml"):
        assert part in words["zizmor"]
    for part in ("ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/feature.yml", "ISSUE_TEMPLATE/config.yml", "renovate.json"):
        assert part in words["schemas"]
    assert "--offline" in words["zizmor"]
    assert "bootstrap.sh .ci/run " in words["shellcheck"]
    assert words["hadolint"].endswith("agent/Dockerfile register_action/Dockerfile")


def test_scripts_of_the_action_are_checked_as_they_stand_there(tmp_path: Path) -> None:
    names = noxfile.scripts_of_actions(tmp_path)
    action = (noxfile.ROOT / "register_action" / "action.yml").read_text()
    scripts = [Path(name).read_text().splitlines() for name in names]

    assert len(scripts) == action.count("\n      run: |")
    assert {script[0] for script in scripts} == {"#!/usr/bin/env bash"}
    assert all(line.strip() in action for script in scripts for line in script[1:])


def test_a_pattern_that_matches_no_file_is_an_error(project: Path) -> None:
    (project / "Dockerfile").touch()

    assert noxfile.files("Docker*") == ["Dockerfile"]
    with pytest.raises(FileNotFoundError, match=r"\*\.sh"):
        noxfile.files("Docker*", "*.sh")


@pytest.mark.parametrize("code", [0, 3])
def test_checker_tells_in_one_line_how_it_went_and_all_it_said_when_it_failed(
    code: int, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [sys.executable, "-c", "print('nothing to say')"]
    second = [sys.executable, "-c", f"import sys; print('line 1: bad', file=sys.stderr); sys.exit({code})"]
    never = [sys.executable, "-c", "import pathlib; pathlib.Path('ran').touch()"]
    good = noxfile.passes("some", [first, second, never])
    line, *more = capsys.readouterr().out.splitlines()

    assert good is (code == 0)
    assert line.split()[:2] == ["failed" if code else "ok", "some"]
    assert more == (["line 1: bad"] if code else [])
    assert (project / "ran").exists() is good


def test_variables_of_the_users_own_terraform_do_not_get_to_the_checkers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CLI_ARGS", "-no-such-option")
    code = "import os, sys; sys.exit('TF_CLI_ARGS' in os.environ or 'TF_DATA_DIR' not in os.environ)"

    assert noxfile.passes("some", [[sys.executable, "-c", code]])


def test_environment_is_made_once_for_a_lock(project: Path, installed: list[str]) -> None:
    programs = noxfile.environment("checkers")
    again = noxfile.environment("checkers")
    once = list(installed)
    (project / "requirements" / "checkers.txt").write_text("zizmor==2\n")
    noxfile.environment("checkers")

    assert programs == again == project / ".local" / "lint" / "checkers" / "bin"
    assert once == ["venv", "pip"]
    assert installed == once * 2


def test_environment_that_was_not_finished_is_made_again(
    project: Path, installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            noxfile.environment("checkers")
    noxfile.environment("checkers")

    assert installed == ["venv", "pip"] * 2


class Refused(Exception):
    """What `session.error` raises here."""


class Session:
    """A session of nox that takes down what it is to run."""

    def __init__(self, *posargs: str) -> None:
        self.posargs = posargs
        self.runs: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.logged = ""

    def run(self, *command: str, **options: Any) -> None:
        self.runs.append((command, options))

    def error(self, text: str) -> None:
        raise Refused(text)

    def log(self, text: str) -> None:
        self.logged = text


@pytest.fixture
def contract(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Results that the check of the IAM contract still has to give."""
    results: list[bool] = []
    monkeypatch.setattr(noxfile, "IAM_RECORD", project / "record.jsonl")
    monkeypatch.setattr(noxfile, "run_unit_tests", lambda _: None)
    monkeypatch.setattr(noxfile, "passes_iam_contract", lambda: results.pop())
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return results


def test_functional_tests_record_anew_and_their_record_is_checked(project: Path, contract: list[bool]) -> None:
    (project / "record.jsonl").write_text("old")
    contract[:] = [True]
    session = Session()
    noxfile.test_functional(session)
    [(_, options)] = session.runs

    assert options["env"] == {"IAM_RECORD": str(project / "record.jsonl")}
    assert not (project / "record.jsonl").exists()
    assert contract == []


def test_gate_fails_with_findings_of_the_iam_contract(contract: list[bool]) -> None:
    contract[:] = [False]

    with pytest.raises(Refused, match="IAM contract"):
        noxfile.test_functional(Session())


@pytest.mark.parametrize(("posargs", "variable"), [(("-k", "name"), ""), ((), "-k name")])
def test_record_of_some_tests_is_not_checked(
    contract: list[bool], posargs: tuple[str, ...], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract[:] = [False]
    monkeypatch.setenv("PYTEST_ADDOPTS", variable)
    session = Session(*posargs)
    noxfile.test_functional(session)

    assert contract == [False]
    assert "not checked" in session.logged


def test_check_of_the_contract_reads_the_documents_that_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, list[list[str]]]] = []
    monkeypatch.setattr(noxfile, "environment", lambda name: Path("/lint") / name / "bin")
    monkeypatch.setattr(noxfile, "terraform", lambda *arguments: [["terraform", *arguments]])
    monkeypatch.setattr(noxfile, "passes", lambda name, commands, **_: ran.append((name, commands)) or True)

    assert noxfile.passes_iam_contract()
    [(_, [init]), (name, [documents, contract])] = ran
    assert (init[1], name) == ("init", "IAM contract")
    assert documents[-2:] == ["infra.policy_documents", str(noxfile.POLICIES)]
    assert contract[-4:] == ["infra.iam_contract", str(noxfile.POLICIES), "/lint/checkers", str(noxfile.IAM_RECORD)]
