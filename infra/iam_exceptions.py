"""Findings of the IAM contract, and the file that lists those that are correct: iam_exceptions.toml."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from environments.errors import PlatformError

FILE = Path(__file__).with_suffix(".toml")
KINDS = {
    "unknown action": "the reference has no such action",
    "resource": "the action supports none of the statement's resources",
    "unused resource": "none of the statement's actions supports the resource",
    "any resource": 'the policy names "*", and the action supports resources',
    "condition key": "the action does not support the key, so the statement never holds, or always",
    "required resource type": "the policies name no resource of the type, or only under a key that it does not support",
    "dependent action": "the role may not call the action that this one depends on",
    "quota": "a document, a name or the number of policies exceeds what IAM allows",
    "unknown call": "the reference has no such action; environments/emulated_permissions.py asked for it",
    "type of call": "the action does not support the resource; environments/emulated_permissions.py asked for it",
    "key of call": "the action does not support the key; environments/emulated_permissions.py supplied it",
    "not granted": "the emulated AWS allowed the call, and no policy document of the role grants it",
    "not exercised": "the role may call the action, and no functional test does",
    "needless exception": "infra/iam_exceptions.toml lists it, and there is no such finding any more",
}
"""What each kind of finding means."""
RECORDED = {"unknown call", "type of call", "key of call", "not granted", "not exercised"}
"""The kinds of findings that take a record."""


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """What is wrong with one action of one role.

    Attributes:
        kind: one of `KINDS`.
        role: without the environment's name; for a document that no role has, what it is attached to.
        action: as the policy or the call names it; for a quota the kind of document.
        detail: which resource, condition key or dependent action.
    """

    kind: str
    role: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        """One line."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.role}: {self.action}{detail}: {self.kind}: {KINDS[self.kind]}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Findings that are correct, for one reason.

    Attributes:
        finding: their kind.
        actions: their actions.
        why: the reason.
        source: where the reason can be read: a URL, or a file of this repository.
        roles: their roles; every role without.
        details: their details; every detail without.
    """

    finding: str
    actions: tuple[str, ...]
    why: str
    source: str
    roles: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.finding not in KINDS or not (self.actions and self.why and self.source):
            raise PlatformError(
                f"an exception in {FILE.name} is incomplete: {self}",
                f"it needs actions, why, source, and as its finding one of: {', '.join(KINDS)}",
            )


def read_exceptions() -> list[Entry]:
    """Read the exceptions, `[[exception]]` in `FILE`.

    Raises:
        PlatformError: one has a key that is unknown, or lacks one.
    """
    made = []
    for entry in tomllib.loads(FILE.read_text(encoding="utf-8")).get("exception", []):
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        try:
            made.append(Entry(**values))
        except TypeError as error:
            raise PlatformError(f"an exception in {FILE.name} is not valid", f"{error}: {entry}") from error
    return made


def read_dependents() -> dict[str, frozenset[str]]:
    """Read which actions an action depends on beyond what the reference says, `[[dependent]]` in `FILE`.

    Raises:
        PlatformError: an entry is incomplete.
    """
    entries = tomllib.loads(FILE.read_text(encoding="utf-8")).get("dependent", [])
    for entry in entries:
        if entry.keys() != {"action", "needs", "why", "source"} or not all(entry.values()):
            raise PlatformError(f"a dependent in {FILE.name} needs action, needs, why and source", str(entry))
    return {entry["action"]: frozenset(entry["needs"]) for entry in entries}


def without_exceptions(findings: set[Finding], exceptions: list[Entry], kinds: set[str]) -> list[Finding]:
    """The findings that no exception covers, and the exceptions of some kinds that cover none, in order."""
    covered: set[Finding] = set()
    needless: set[Finding] = set()
    for entry in (entry for entry in exceptions if entry.finding in kinds):
        for action in entry.actions:
            for role in entry.roles or ("",):
                for detail in entry.details or ("",):
                    matching = {
                        finding
                        for finding in findings
                        if (finding.kind, finding.action) == (entry.finding, action)
                        and role in ("", finding.role)
                        and detail in ("", finding.detail)
                    }
                    covered |= matching
                    if not matching:
                        needless.add(Finding("needless exception", role or "every role", action, entry.finding))
    return sorted(findings - covered | needless)


def stanzas(findings: list[Finding]) -> str:
    """Exceptions for findings of one kind, as they stand in the file but for the reason."""
    lines = []
    for role in dict.fromkeys(finding.role for finding in findings):
        own = [finding for finding in findings if finding.role == role]
        lines += ["[[exception]]", f'finding = "{own[0].kind}"', f'roles = ["{role}"]', "actions = ["]
        lines += [f'    "{finding.action}",' for finding in own]
        lines += ["]", 'why = ""', 'source = ""', ""]
    return "\n".join(lines)
