"""What is told to a GitHub Actions runner, read as a runner reads it."""

import os
import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from environments import github_actions
from environments.console import report
from environments.errors import PlatformError
from environments.printable import printable

TEXT = st.text(alphabet=string.ascii_letters + "%:,\r\n =<>é\0", max_size=30)
MANY = hypothesis_settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A step of a job; gives the folder of its files `output` and `summary`."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.delenv("WORKFLOW_PATH", raising=False)
    return tmp_path


def unescaped(text: str) -> str:
    return re.sub("%([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), text)


def annotation(printed: str) -> tuple[str, dict[str, str], str]:
    """Command, properties and message of the one line that was printed."""
    assert printed.count("\n") == 1
    assert "\r" not in printed
    match = re.fullmatch("::(?P<command>[a-z]+)(?: (?P<told>.*?))?::(?P<message>.*)\n", printed, re.DOTALL)
    assert match
    pairs = (pair.partition("=") for pair in (match["told"] or "").split(",") if pair)
    return match["command"], {name: unescaped(value) for name, _, value in pairs}, unescaped(match["message"])


def test_annotation_stands_at_file_and_line_in_the_repository(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKFLOW_PATH", "etl/workflow")
    github_actions.annotate(PlatformError("no flow", "why", "todo", file="sub/flow.py", line=12))

    assert capsys.readouterr().err == "::error title=no flow,file=etl/workflow/sub/flow.py,line=12::why%0Atodo\n"


@pytest.mark.parametrize(
    ("workflow_path", "file"),
    [(None, "flow.py"), ("", "flow.py"), (".", "flow.py"), ("./etl/", "etl/flow.py"), ("a, b", "a, b/flow.py")],
)
def test_path_of_the_workflow_leads_to_its_files(
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workflow_path: str | None,
    file: str,
) -> None:
    if workflow_path is not None:
        monkeypatch.setenv("WORKFLOW_PATH", workflow_path)
    github_actions.annotate(PlatformError("what", file="flow.py"))
    _, properties, _ = annotation(capsys.readouterr().err)

    assert properties == {"title": "what", "file": file, "line": "1"}


def test_error_without_a_place_stands_on_the_job_and_always_has_a_text(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKFLOW_PATH", "etl")
    github_actions.annotate(PlatformError("what"))

    assert capsys.readouterr().err == "::error title=what::what\n"


@MANY
@given(what=TEXT.filter(bool), why=TEXT, todo=TEXT, file=TEXT.filter(bool))
def test_no_text_of_an_error_can_be_taken_for_anything_else(
    job: Path, capsys: pytest.CaptureFixture[str], what: str, why: str, todo: str, file: str
) -> None:
    error = PlatformError(what, why, todo, file=file, line=3)
    github_actions.annotate(error)
    command, properties, message = annotation(capsys.readouterr().err)

    assert command == "error"
    assert properties == {"title": printable(what), "file": printable(Path(file).as_posix()), "line": "3"}
    assert message == printable("\n".join(filter(None, (error.why, error.todo))) or what)


def test_warning_is_one_line(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    github_actions.warn("100 %\n::set-env name=x::y")

    assert capsys.readouterr().err == "::warning::100 %25%0A\\x3a:set-env name=x::y\n"


def test_notice_has_a_title(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    github_actions.notice("text", "a, b: c")

    assert annotation(capsys.readouterr().err) == ("notice", {"title": "a, b: c"}, "text")


def test_commands_leave_standard_output_to_results(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A runner reads commands from standard error too; a script reads JSON from standard output."""
    github_actions.warn("text")
    github_actions.annotate(PlatformError("what"))

    assert capsys.readouterr().out == ""


def test_error_that_is_reported_is_annotated_once(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(PlatformError("it broke", "why", "todo", file="flow.py", line=2))
    lines = capsys.readouterr().err.splitlines()

    assert lines[:3] == ["✗ it broke", "  why", "  → todo"]
    assert lines[3:] == ["::error title=it broke,file=flow.py,line=2::why%0Atodo"]


def test_error_of_a_library_is_annotated_in_our_words(
    job: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(KeyError("x"))

    assert "::error title=this should not have happened::KeyError" in capsys.readouterr().err


def read_outputs(text: str) -> dict[str, str]:
    """The outputs of a step as a runner reads them."""
    lines, found = text.split("\n"), {}
    while lines != [""]:
        name, _, delimiter = lines.pop(0).partition("<<")
        end = lines.index(delimiter)
        found[name] = "\n".join(lines[:end])
        del lines[: end + 1]
    return found


@MANY
@given(values=st.lists(TEXT, max_size=3))
def test_outputs_arrive_as_they_are_however_many_lines_they_have(job: Path, values: list[str]) -> None:
    (job / "output").write_bytes(b"")
    for number, value in enumerate(values):
        github_actions.output(f"name{number}", value)

    expected = {f"name{number}": value for number, value in enumerate(values)}
    assert read_outputs((job / "output").read_bytes().decode()) == expected


def test_output_can_not_smuggle_in_another_one(job: Path) -> None:
    github_actions.output("one", "1")
    delimiter = (job / "output").read_text().splitlines()[-1]
    github_actions.output("two", f"2\n{delimiter}\nthree<<{delimiter}\n3\n{delimiter}")

    assert set(read_outputs((job / "output").read_text())) == {"one", "two"}


def test_summary_is_added_to_what_is_there(job: Path) -> None:
    github_actions.summary("# one\n\n")
    github_actions.summary("two é")

    assert (job / "summary").read_bytes().decode() == "# one\ntwo é\n"


TOLD: list[Callable[[], None]] = [
    lambda: github_actions.annotate(PlatformError("what", file="flow.py")),
    lambda: github_actions.warn("text"),
    lambda: github_actions.output("name", "value"),
    lambda: github_actions.summary("text"),
]


@pytest.mark.parametrize("active", [None, "", "false", "1"])
@pytest.mark.parametrize("tell", TOLD, ids=["annotate", "warn", "output", "summary"])
def test_nothing_is_told_outside_of_a_job(
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tell: Callable[[], None],
    active: str | None,
) -> None:
    if active is None:
        monkeypatch.delenv("GITHUB_ACTIONS")
    else:
        monkeypatch.setenv("GITHUB_ACTIONS", active)
    tell()
    printed = capsys.readouterr()

    assert printed.out + printed.err == ""
    assert list(job.glob("[os]*")) == []


@pytest.mark.parametrize("name", ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"])
def test_runner_without_such_a_file_is_told_nothing(job: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    github_actions.output("name", "value")
    github_actions.summary("text")

    assert len(list(job.glob("[os]*"))) == 1


@pytest.mark.parametrize(
    ("active", "folder", "found"),
    [("true", "/runner/repo", Path("/runner/repo")), ("true", "", None), ("", "/runner/repo", None)],
)
def test_workspace_is_that_of_the_job(
    monkeypatch: pytest.MonkeyPatch, active: str, folder: str, found: Path | None
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", active)
    monkeypatch.setenv("GITHUB_WORKSPACE", folder)

    assert github_actions.workspace() == found


def test_token_of_the_job_is_read_without_the_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert github_actions.git_token() == ""
    monkeypatch.setenv("GITHUB_TOKEN", " ghs_x\n")
    assert github_actions.git_token() == "ghs_x"


def test_what_a_process_starts_after_it_left_its_job_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_job = ("CI", "GITHUB_ACTIONS", "GITHUB_WORKSPACE", "RUNNER_TEMP", "ACTIONS_ID_TOKEN_REQUEST_URL")
    monkeypatch.setattr(os, "environ", {**dict.fromkeys(of_a_job, "true"), "PATH": "/bin", "AWS_REGION": "eu-west-1"})
    github_actions.leave_job()

    assert os.environ == {"PATH": "/bin", "AWS_REGION": "eu-west-1"}
    assert not github_actions.active()


@pytest.mark.parametrize(
    ("server", "api", "expected"),
    [
        (None, None, ("github.com", "https://api.github.com")),
        ("", "", ("github.com", "https://api.github.com")),
        ("https://GHE.example:8443", "https://ghe.example/api/v3/", ("ghe.example:8443", "https://ghe.example/api/v3")),
    ],
)
def test_job_says_which_github_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, server: str | None, api: str | None, expected: tuple[str, str]
) -> None:
    for name, value in (("GITHUB_SERVER_URL", server), ("GITHUB_API_URL", api)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)

    assert (github_actions.server_host(), github_actions.api_url()) == expected
