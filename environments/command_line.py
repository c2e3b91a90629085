"""Slips of the pen behind `invoke`: who mistypes a task or an option reads which one was probably meant.

Invoke tells only what it does not know, and has no place to say more. It reads its own options, loads tasks.py, and
reads the rest then; so tasks.py has `check` look at the rest as its last act.
"""

import ast
import copy
import difflib
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from environments import console
from environments.errors import PlatformError

if TYPE_CHECKING:
    from invoke.parser.context import ParserContext

UNKNOWN = re.compile("No idea what (.+) is!")
"""What invoke says of a word that is neither a task nor an option nor a value."""


def check(tasks: Mapping[str, Any]) -> None:
    """End with an explanation when invoke was started with words that it will not know; else do nothing.

    Args:
        tasks: what tasks.py defines, by name.

    Raises:
        SystemExit: there is such a word, and it was told.
    """
    program: Any = getattr(sys.modules.get("invoke.main"), "program", None)
    if not hasattr(program, "core"):
        return  # tasks.py is imported by something else
    asked_about = program.args.help.value
    words = [asked_about] if isinstance(asked_about, str) else program.core.unparsed
    if words and (slip := _slip(tasks, program.initial_context, words)):
        raise SystemExit(console.report(slip))


def _slip(tasks: Mapping[str, Any], options: "ParserContext", words: list[str]) -> PlatformError | None:
    from invoke.collection import Collection
    from invoke.exceptions import ParseError
    from invoke.parser.parser import Parser
    from invoke.tasks import Task

    known = Collection()
    for task in tasks.values():
        if isinstance(task, Task):
            known.add_task(copied := copy.copy(task))
            copied.help = dict(task.help)  # reading a task's options uses the texts up
    try:
        Parser(known.to_contexts(), options).parse_argv(words)
    except ParseError as error:
        if found := UNKNOWN.fullmatch(str(error)):
            return _explained(ast.literal_eval(found[1]), list(known.task_names), error.context)
    return None


def _explained(word: str, tasks: list[str], context: "ParserContext | None") -> PlatformError:
    """What to say of a word that nobody knows, by where it stands."""
    from environments import settings

    if context is None or not context.name:
        return PlatformError(f"there is no task {word!r}", _near(word, tasks), "invoke --list shows the tasks")
    todo = f"invoke --help {context.name} shows its options"
    if word.startswith("-"):
        return PlatformError(f"{context.name} has no option {word!r}", _near(word, list(context.flag_names())), todo)
    hint = f"did you mean --env {word}?" if word in settings.known() else _near(word, tasks)
    return PlatformError(f"{context.name} can't take {word!r}", hint, todo)


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else ""
