"""Revisions of task definitions: one for each content, found again when there is one, deregistered when none needs it.

AWS gives a definition back with its own defaults filled in, and orders some lists as it likes. So definitions are
compared as AWS interprets them: what is empty, zero or false is the same as what is left out.
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
"""

import hashlib
import json
import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from agent.refusals import CONCURRENT

GIVEN_BY_AWS = (
    *("compatibilities", "taskDefinitionArn", "revision", "status", "requiresAttributes"),
    *("registeredAt", "registeredBy", "deregisteredAt", "deleteRequestedAt"),
)
"""Fields of an answer that no request has."""
UNORDERED = {
    "environment": "name",
    "secrets": "name",
    "environmentFiles": "value",
    "volumes": "name",
    "mountPoints": "containerPath",
    "portMappings": "containerPort",
    "systemControls": "namespace",
    "ulimits": "name",
}
"""Lists of which the order means nothing, and the field that tells their entries apart."""
KEPT_SECONDS = 3600.0
"""A revision that this agent has used so lately stays, for runs that differ from each other."""
REMEMBERED = 1000
"""When an agent knows more revisions, it forgets those that it has not used lately."""
ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.25
CHANCE = random.SystemRandom()

logger = logging.getLogger("prefect.agent.task_definitions")


def same(wanted: Mapping[str, Any], registered: Mapping[str, Any]) -> bool:
    """Whether a registered task definition is the one that is wanted, as AWS interprets both."""
    return bool(normalised(wanted) == normalised(registered))


def normalised(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task definition without what AWS adds, and with its unordered lists in one order."""
    own = {name: value for name, value in definition.items() if name not in GIVEN_BY_AWS}
    containers = [_with_defaults(container) for container in own.get("containerDefinitions") or []]
    found: dict[str, Any] = _without_defaults({**own, "containerDefinitions": containers})
    return found


def _with_defaults(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container definition with what AWS fills in that is not nothing."""
    ports = [
        {"protocol": "tcp", "hostPort": port.get("containerPort"), **port}
        for port in container.get("portMappings") or []
    ]
    check = container.get("healthCheck")
    health = {"interval": 30, "timeout": 5, "retries": 3, **check} if check else None
    return {"essential": True, **container, "portMappings": ports, "healthCheck": health}


def _without_defaults(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        inner = {key: _without_defaults(each, key) for key, each in value.items()}
        # Of a variable or a tag an empty value is a value.
        return {key: each for key, each in inner.items() if _means_something(each) or key == "value"}
    if isinstance(value, list | tuple):
        entries = [_without_defaults(each) for each in value]
        if name == "requiresCompatibilities":
            return sorted(entries)
        return sorted(entries, key=lambda each: str(each.get(UNORDERED[name]))) if name in UNORDERED else entries
    return value


def _means_something(value: Any) -> bool:
    return value not in (None, False, 0, "", [], {})


class Revisions:
    """The revisions that this agent has used, and how it gets at others.

    Requests for one family are made one after the other: AWS refuses two registrations at a time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._known: dict[str, tuple[str, float]] = {}

    def find_or_register(self, ecs: Any, definition: dict[str, Any]) -> str:
        """Return the ARN of the revision with this content; it is registered if there is none.

        Args:
            ecs: a boto3 client.
            definition: as RegisterTaskDefinition takes it.

        Raises:
            ClientError: AWS refuses it.
        """
        content = hashlib.sha256(json.dumps(normalised(definition), sort_keys=True).encode()).hexdigest()
        with self._locks[definition["family"]]:
            known = self._known.get(content)
            arn = known[0] if known else _newest(ecs, definition)
            if not arn:
                arn = _register(ecs, definition)
                self._deregister_others(ecs, definition["family"], arn)
            self._known[content] = arn, self._clock()
        if len(self._known) > REMEMBERED:
            lately = self._clock() - KEPT_SECONDS
            for old in [old for old, (_, used) in list(self._known.items()) if used < lately]:
                self._known.pop(old, None)
        return arn

    def forget(self, arn: str) -> None:
        """Forget a revision that AWS does not start any more."""
        for content in [content for content, each in list(self._known.items()) if each[0] == arn]:
            self._known.pop(content, None)

    def _deregister_others(self, ecs: Any, family: str, newest: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        lately = self._clock() - KEPT_SECONDS
        kept = {newest, *(arn for arn, used in list(self._known.values()) if used > lately)}
        try:
            for arn in active_revisions(ecs, family):
                if arn not in kept:
                    ecs.deregister_task_definition(taskDefinition=arn)
        except (BotoCoreError, ClientError) as error:
            # The run can start all the same; the next registration tries again.
            logger.warning("revisions of %s that nothing uses stay registered: %s", family, error)


def active_revisions(ecs: Any, family: str) -> list[str]:
    """Return the ARNs of a family's ACTIVE revisions."""
    pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=family, status="ACTIVE")
    return [arn for page in pages for arn in page["taskDefinitionArns"] if family_of(arn) == family]


def family_of(arn: str) -> str:
    """Return the family of a revision's ARN."""
    return arn.rpartition("/")[2].rpartition(":")[0]


def _newest(ecs: Any, definition: dict[str, Any]) -> str:
    """Return the ARN of the family's newest revision if it has this content, else nothing."""
    try:
        found = ecs.describe_task_definition(taskDefinition=definition["family"])["taskDefinition"]
    except ecs.exceptions.ClientException:  # the family has no revision yet
        return ""
    return str(found["taskDefinitionArn"]) if found["status"] == "ACTIVE" and same(definition, found) else ""


def _register(ecs: Any, definition: dict[str, Any]) -> str:
    """Register a revision; another agent that is registering the same one may be quicker, and then that is the one."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return _registered(ecs, definition)
        except ecs.exceptions.ClientException as error:
            if CONCURRENT not in str(error):
                raise
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt * CHANCE.uniform(0.5, 1.5))
        if arn := _newest(ecs, definition):
            return arn
    return _registered(ecs, definition)


def _registered(ecs: Any, definition: dict[str, Any]) -> str:
    return str(ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"])
