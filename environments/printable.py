r"""Text of others made fit to be shown: nothing in it is obeyed by a terminal, or by a GitHub Actions runner.

Names of branches and flows, log lines, answers of servers: whatever we print passes through here. What would be obeyed
is shown as its escape (`\x1b`, `\x3a:error::`); colours are left out.

Sources: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html (terminals),
https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs (runners)
"""

import re
import unicodedata

COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
COMMANDS = re.compile(r"^(\s*):(?=:)|#(?=#\[)", re.MULTILINE)
"""A runner obeys `::command::` where a line begins, and `##[command]` anywhere."""
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, formats that turn the direction of text, halves of pairs, line ends."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Text with the characters escaped that would be obeyed, but for those to keep."""
    text = COLOURS.sub("", text).replace("\r\n", "\n")
    if not text.isprintable():
        text = "".join(letter if letter in keep else _escaped(letter) for letter in text)
    return COMMANDS.sub(lambda found: (found[1] or "") + _hexadecimal(found[0][-1]), text)


def one_line(text: str) -> str:
    """As `printable`, for a place where nothing may begin another line."""
    return printable(text, keep="")


def hanging(text: str, width: int) -> str:
    """As `printable`, with all lines but the first moved in, so that none passes for a line of ours."""
    return printable(text).replace("\n", "\n" + " " * width)


def _escaped(letter: str) -> str:
    if letter in "\n\r\t":
        return repr(letter)[1:-1]
    return _hexadecimal(letter) if unicodedata.category(letter) in OBEYED else letter


def _hexadecimal(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"
