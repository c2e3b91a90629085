import pytest

from environments import console
from environments.errors import PlatformError
from environments.printable import hanging, one_line, printable

OBEYED = {
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x1b[2J\x1b[1;1H": "\\x1b[2J\\x1b[1;1H",
    "\x9b2J": "\\x9b2J",
    "over\rwritten": "over\\rwritten",
    "admin\u202egpj.exe": "admin\\u202egpj.exe",
    "zero\u200bwidth": "zero\\u200bwidth",
    "line\u2028end": "line\\u2028end",
    "half\ud800": "half\\ud800",
    "\0\x08\x7f": "\\x00\\x08\\x7f",
    "::error title=x::y": "\\x3a:error title=x::y",
    "  \u00a0::add-mask::x": "  \u00a0\\x3a:add-mask::x",
    "first\n\t::stop-commands::x": "first\n\t\\x3a:stop-commands::x",
    "said ##[error]x": "said \\x23#[error]x",
    "###[group]x": "#\\x23#[group]x",
    "\x1b[31m::error::x\x1b[0m": "\\x3a:error::x",
}
HARMLESS = ["", "plain", "Grüße, 世界 🎉", "a\tb\nc", "std::vector, a :: b", "## [1] ##", "no\u00a0break", "\\x1b"]


@pytest.mark.parametrize("text", OBEYED)
def test_what_would_be_obeyed_is_shown(text: str) -> None:
    assert printable(text) == OBEYED[text]
    assert printable(printable(text)) == OBEYED[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_stays(text: str) -> None:
    assert printable(text) == text


def test_colours_are_left_out() -> None:
    assert printable("\x1b[1;38:5:9mred\x1b[0m, \x1b[mplain") == "red, plain"


def test_nothing_begins_another_line() -> None:
    assert one_line("a\nb\r\nc\td") == "a\\nb\\nc\\td"
    assert hanging("12:00  said\n12:01  COMPLETED\r\n::error::", 7) == (
        "12:00  said\n       12:01  COMPLETED\n       \\x3a:error::"
    )


@pytest.mark.parametrize("text", OBEYED)
def test_whatever_is_printed_is_printable(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.say(text)
    console.table([(text, "::end")], ("\x1b[2J", "b"))
    console.report(PlatformError(text, text, text))

    printed = "".join(capsys.readouterr())
    assert not [letter for letter in printed if not letter.isprintable() and letter not in "\n\t\u00a0"]
    assert not [line for line in printed.splitlines() if line.lstrip().startswith("::") or "##[" in line]


def test_a_cell_or_a_headline_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.table([("x\nok  agent  online", "b")])
    console.report(PlatformError("no branch x\n✓ done", todo="x\n✓ done"))

    printed = "".join(capsys.readouterr())
    assert [line for line in printed.splitlines() if line.startswith(("ok", "✓"))] == []
