"""Deregisters the task definitions of workflows that were taken back.

The agent registers a revision when it starts a run; whoever removes a deployment can not deregister it, because that
takes a permission on all task definitions of the account.
"""

import itertools
import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import filters as f
from prefect.utilities.templating import find_placeholders

from agent.task_definitions import family_of

PAGE = 200

logger = logging.getLogger("prefect.agent.unused_definitions")


async def deregister(client: PrefectClient, ecs: Any, project: str, template: Mapping[str, Any]) -> None:
    """Deregister the revisions of families that belong to no deployment.

    Args:
        client: of Prefect.
        ecs: a client of `agent.aws`.
        project: name of the work pool.
        template: its base job template, which names the families.
    """
    pattern = template["job_configuration"]["task_definition"]["family"]
    (placeholder,) = find_placeholders(pattern)
    prefix = pattern.removesuffix(placeholder.full_match)
    families = await _active_families(ecs, prefix)
    if not families:
        return
    plain = template["variables"]["properties"][placeholder.name].get("default")
    wanted = {f"{prefix}{name}" for name in {plain, *await _names_in_use(client, project, placeholder.name)}}
    for family in families - wanted:
        pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=family, status="ACTIVE")
        async for page in pages:
            for arn in page["taskDefinitionArns"]:
                if family_of(arn) == family:
                    await ecs.deregister_task_definition(taskDefinition=arn)
                    logger.info("%s is deregistered: no deployment needs it", arn)


async def _active_families(ecs: Any, prefix: str) -> set[str]:
    pages = ecs.get_paginator("list_task_definition_families").paginate(familyPrefix=prefix, status="ACTIVE")
    return {family async for page in pages for family in page["families"] if family.startswith(prefix)}


async def _names_in_use(client: PrefectClient, project: str, variable: str) -> set[str]:
    """Return what the deployments of a work pool say for a job variable."""
    found: set[str] = set()
    for offset in itertools.count(0, PAGE):
        page = await client.read_deployments(
            work_pool_filter=f.WorkPoolFilter(name=f.WorkPoolFilterName(any_=[project])), limit=PAGE, offset=offset
        )
        found |= {str(name) for each in page if (name := (each.job_variables or {}).get(variable))}
        if len(page) < PAGE:
            break
    return found
