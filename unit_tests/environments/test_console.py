import contextlib
import inspect
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from environments import console, progress
from environments.console import command, confirm, report, say, table
from environments.errors import PlatformError
from environments.progress import steps
from unit_tests.conftest import failing


def test_error_prints_what_why_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(PlatformError("it broke", "line one\nline two", "invoke repair"))
    printed = capsys.readouterr()

    assert code == 1
    assert printed.out == ""
    assert printed.err.splitlines() == ["✗ it broke", "  line one", "  line two", "  → invoke repair"]


def test_brackets_of_a_message_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    report(PlatformError("[bold]x[/nope]", "a[0] :smile:"))
    say("[red]y[/]")
    printed = capsys.readouterr()

    assert "[bold]x[/nope]" in printed.err
    assert "a[0] :smile:" in printed.err
    assert printed.out == "[red]y[/]\n"


def test_long_lines_are_not_wrapped_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    arn = "arn:aws:ecs:eu-west-1:123456789012:" + "x" * 300
    table([("arn", arn), ("a longer name", "b")])
    say(arn)

    assert capsys.readouterr().out.count(arn) == 2


def test_table_aligns_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table([("a", "1"), ("long name", "2")], ("name", "value"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    assert [line.split() for line in lines] == [["name", "value"], ["a", "1"], ["long", "name", "2"]]
    assert len({line.index(word) for line, word in zip(lines, ("value", "1", "2"), strict=True)}) == 1


def test_unexpected_error_goes_whole_to_a_log_that_the_message_names(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise KeyError("nothing")
    except KeyError as error:
        code = report(error)
    printed = capsys.readouterr().err

    assert code == 1
    assert "KeyError" in printed
    assert "Traceback" not in printed
    assert ".local/logs/error.log" in printed
    log = (root / ".local" / "logs" / "error.log").read_text()
    assert "Traceback" in log
    assert "KeyError: 'nothing'" in log


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://ecs.example"),
        ReadTimeoutError(endpoint_url="https://ecs.example"),
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "DescribeServices"),
        ClientError(
            {
                "Error": {"Code": "InternalFailure", "Message": "oh"},
                "ResponseMetadata": {"MaxAttemptsReached": True, "RetryAttempts": 7},
            },
            "DescribeServices",
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_aws_that_is_away_or_overloaded_is_no_matter_of_credentials(
    error: Exception, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = report(error), capsys.readouterr().err

    assert code == 1
    assert "AWS does not answer as it should" in printed
    assert "run the same command again in a while" in printed


def test_errors_of_aws_and_of_the_engine_are_no_bugs_of_ours(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from botocore.exceptions import NoCredentialsError
    from docker.errors import DockerException

    codes = report(NoCredentialsError()), report(DockerException("engine is away"))
    printed = capsys.readouterr().err

    assert codes == (1, 1)
    assert "Unable to locate credentials" in printed
    assert "engine is away" in printed
    assert "invoke doctor" in printed
    assert not (root / ".local").exists()


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == 130
    assert "Ctrl-C" in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (2, 2), ("text", 0), ([], 0)])
def test_whole_number_that_a_command_returns_is_its_exit_code(returned: object, code: int) -> None:
    run = command(lambda: returned)
    if code:
        with pytest.raises(SystemExit) as caught:
            run()
        assert caught.value.code == code
    else:
        assert run() is None


@pytest.mark.parametrize(
    ("error", "code"), [(PlatformError("no"), 1), (ZeroDivisionError(), 1), (KeyboardInterrupt(), 130)]
)
def test_command_that_fails_exits_with_the_code_of_its_error(root: Path, error: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        command(failing(error))()

    assert caught.value.code == code


def test_command_keeps_name_and_arguments_for_invoke() -> None:
    def deploy(context: object, env: str = "local") -> str:
        """Bring it up."""
        return env

    wrapped = command(deploy)

    assert (wrapped.__name__, wrapped.__doc__) == ("deploy", "Bring it up.")
    assert inspect.unwrap(wrapped) is deploy


def test_no_terminal_codes_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    say("x", "bold red")
    table([("a", "b")], ("c", "d"))
    report(PlatformError("no", "why", "todo"))
    with steps() as run:
        run("step", lambda: progress.note("done"))
    printed = capsys.readouterr()

    assert "\x1b" not in printed.out + printed.err


class Terminal:
    """Stands for standard input."""

    def __init__(self, answer: str, tty: bool = True) -> None:
        self.answer, self.tty, self.asked = answer, tty, False

    def isatty(self) -> bool:
        return self.tty

    def readline(self) -> str:
        self.asked = True
        return self.answer


def test_confirmed_on_the_command_line_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("no\n")
    monkeypatch.setattr(sys, "stdin", terminal)
    confirm("All goes.", True)

    assert not terminal.asked


@pytest.mark.parametrize("answer", ["yes\n", " YES \n"])
def test_yes_confirms(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    terminal = Terminal(answer)
    monkeypatch.setattr(sys, "stdin", terminal)
    confirm("All goes.", False)

    assert terminal.asked


@pytest.mark.parametrize("answer", ["y\n", "no\n", "\n", "yes please\n"])
def test_any_other_answer_stops(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(PlatformError, match="nothing was changed"):
        confirm("All goes.", False)


def test_end_of_input_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when Ctrl-D is pressed."""
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    with pytest.raises(PlatformError, match="nothing was changed"):
        confirm("All goes.")


@pytest.mark.parametrize(("answer", "goes"), [("prod", True), ("yes", False)])
def test_question_may_want_another_answer(monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    with contextlib.nullcontext() if goes else pytest.raises(PlatformError, match="nothing was changed"):
        confirm("All goes.", wanted="prod")


def test_where_nobody_can_be_asked_the_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n", tty=False))
    with pytest.raises(PlatformError) as caught:
        confirm("All goes.", False)

    assert "--yes" in caught.value.todo


def test_error_tells_all_its_parts_where_no_console_is() -> None:
    assert str(PlatformError("what", " why\n", "todo")) == "what\nwhy\ntodo"
    assert str(PlatformError("what", todo="todo")) == "what\ntodo"
    assert (PlatformError("what").file, PlatformError("what").line) == ("", 0)


@pytest.mark.parametrize("steering", ["\x1b]0;title", "\x9b2J", "\u202e", "\0", "\x08", "\ud800"])
def test_what_would_steer_a_terminal_is_spelled_out(steering: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"a{steering}")
    console.table([(steering, "b")])
    console.report(PlatformError(f"what{steering}", f"why{steering}", f"todo{steering}"))
    said = "".join(capsys.readouterr())

    assert steering[0] not in said
    assert said.count(ascii(steering[0])[1:-1]) == 5


def test_other_languages_and_signs_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("größe \u00a0 日本 \N{PILE OF POO} [bold]")

    assert capsys.readouterr().out == "größe \u00a0 日本 \N{PILE OF POO} [bold]\n"
