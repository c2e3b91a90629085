"""Names on AWS that are derived from names at Prefect, which may hold any character and be of any length."""

import hashlib
import re

MAXIMUM_LABEL = 80
"""Characters of a task family that are meant for readers. AWS allows 255 for the whole family, prefix included.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html
"""
DIGEST_LENGTH = 10


def slug(name: str) -> str:
    """Turn a name into one that ECR, ECS and log streams accept; different names can have the same slug."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100] or "workflow"


def task_family(environment: str, flow: str, deployment: str) -> str:
    """Return a deployment's own task definition family, behind the prefix that all workflows share.

    It is also the prefix of the deployment's log streams. The digest of the full name keeps deployments apart whose
    names have the same slug.

    Args:
        environment: name of the environment, which the readable part leaves out.
        flow: name of the flow.
        deployment: name of the deployment, without the flow.
    """
    label = slug(f"{flow}{deployment.removeprefix(environment)}")[:MAXIMUM_LABEL].rstrip("_")
    # A name that Prefect would refuse, with half of a surrogate pair, still needs no traceback here.
    full_name = f"{flow}/{deployment}".encode(errors="surrogatepass")
    return f"{label}_{hashlib.sha256(full_name).hexdigest()[:DIGEST_LENGTH]}"
