"""Deployments at Prefect: `<flow>/<env>` for each flow of a workflow."""

import dataclasses

from environments import console
from environments.prefect_api import prefect_client
from environments.secrets import REGISTER_TOKEN
from environments.settings import Environment
from infra.images import Image
from register_action.workflow_image import WORKFLOW_FOLDER, DescribedFlow, slug


@dataclasses.dataclass(frozen=True)
class Registered:
    """A deployment that was created or brought up to date."""

    name: str
    identifier: str
    image: str
    version: str


def register(environment: Environment, image: Image, flows: list[DescribedFlow]) -> list[Registered]:
    """Create or update one deployment per flow.

    Args:
        environment: whose project.
        image: the workflow's image in ECR; deployments name it by digest.
        flows: what the image holds.
    """
    with prefect_client(environment, REGISTER_TOKEN) as client:
        registered = []
        for flow in flows:
            flow_id = client.create_flow_from_name(flow.name)
            identifier = client.create_deployment(
                flow_id=flow_id,
                name=environment.name,
                version=image.tag,
                description=flow.description,
                work_pool_name=environment.prefix,
                entrypoint=flow.entrypoint,
                tags=[environment.name, image.repository],
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": WORKFLOW_FOLDER}}],
                parameter_openapi_schema=flow.parameters,
                job_variables={"image": image.pinned, "family": slug(flow.name)},
            )
            registered.append(Registered(f"{flow.name}/{environment.name}", str(identifier), image.pinned, image.tag))
            console.progress(f"{len(registered)} of {len(flows)}")
    console.note(", ".join(deployment.name for deployment in registered))
    return registered
