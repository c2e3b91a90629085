"""Looks at several things side by side; each is well, or wrong with why, and what to do about it.

A check is a title and a function that tells in a few words what it found, or raises. `invoke status` (how is the
environment?) and `invoke doctor` (can this machine work on it?) are tables of checks.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from environments import console
from environments.errors import PlatformError
from environments.settings import Environment

Check = tuple[str, Callable[[Environment], str]]


class Hint(PlatformError):
    """What a check raises for something to do that keeps nothing from working: it is shown, and all is still well."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found: whether that is well, its state in a few words, and if it is not well why and what to do.

    A hint is well and says why and what to do, too.
    """

    name: str
    ok: bool
    state: str
    why: str = ""
    todo: str = ""

    @property
    def problem(self) -> PlatformError:
        """What is wrong, as an error."""
        return PlatformError(self.state, self.why, self.todo)


def run(environment: Environment, checks: Sequence[Check]) -> list[Finding]:
    """Run all checks side by side; one that breaks is wrong, and none of them ends the others."""
    findings = [Future[Finding]() for _ in checks]
    for (name, look), finding in zip(checks, findings, strict=True):
        work = functools.partial(_run, environment, name, look, finding)
        # Daemon threads: after Ctrl-C the process must be able to end while one of them hangs on the network.
        threading.Thread(target=work, name=name, daemon=True).start()
    return [finding.result() for finding in findings]


def problems(findings: Sequence[Finding]) -> list[PlatformError]:
    """What is wrong; several checks can fail for one reason, such as no engine, which is told once."""
    wrong = [finding.problem for finding in findings if not finding.ok]
    return list({str(problem): problem for problem in wrong}.values())


def show(findings: Sequence[Finding]) -> int:
    """Print every finding and what to do about each that is wrong or a hint; gives 0 when all is well, else 1."""
    words = {finding: ("hint" if finding.todo else "ok") if finding.ok else "WRONG" for finding in findings}
    console.table([(words[finding], finding.name, finding.state) for finding in findings])
    for finding in findings:
        if words[finding] == "hint":
            console.say()
            console.say_hint(finding.problem)
    wrong = problems(findings)
    for problem in wrong:
        console.say()
        console.say_problem(problem)
    return 1 if wrong else 0


def _run(environment: Environment, name: str, look: Callable[[Environment], str], finding: Future[Finding]) -> None:
    try:
        finding.set_result(Finding(name, True, look(environment)))
    except Hint as hint:
        finding.set_result(Finding(name, True, hint.what, hint.why, hint.todo))
    except Exception as error:
        problem = console.explained(error)
        finding.set_result(Finding(name, False, problem.what, problem.why, problem.todo))
