"""Every IAM policy document of the platform, made without AWS, for the linter that `nox -s lint` runs over them.

    python -m infra.policy_documents FOLDER    writes each as FOLDER/<name>.json

Terraform itself renders those of the module.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment, load
from infra import encryption, offline, permissions, state

ENVIRONMENT = "prod"
CHOICES: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "with_endpoints": {"network": "private_endpoints", "prefect_api_url": "http://prefect.internal:4200/api"},
    "with_own": {
        "vpc_id": offline.VPC,
        "subnet_ids": ["subnet-0123456789abcdef0"],
        "kms_key_arn": "arn:aws:kms:{at}:" + offline.KEY,
    },
}
"""Settings that bring other policies with them than the environment's own do."""


def main() -> None:
    """Write the documents into the folder named on the command line, and nothing else."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = load(ENVIRONMENT)
    module = folder.with_name(f"{folder.name}_module")
    for name, document in (of_python(environment) | of_terraform(environment, module)).items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def of_python(environment: Environment) -> dict[str, Any]:
    """Those that `invoke bootstrap-account` attaches, by name; not those of trust: the linter knows no GitHub."""
    bucket = state.tls_only(state.bucket_name(environment))
    return {**permissions.documents(environment), "state_bucket": bucket, "key": encryption.policy(environment)}


def of_terraform(environment: Environment, folder: Path) -> dict[str, Any]:
    """Those in the Terraform module, by resource and attribute.

    Args:
        environment: whose settings.
        folder: for a copy of the module, which stays.

    Raises:
        PlatformError: Terraform failed; its own words are the reason.
    """
    return {
        re.sub(r"\W+", "_", f"{choice} {resource['address']} {attribute}"): _attached(resource, attribute)
        for choice, resource in offline.resources(environment, CHOICES, folder)
        for attribute, value in resource["values"].items()
        if resource["mode"] == "managed" and isinstance(value, str) and '"Statement"' in value
    }


def _attached(resource: dict[str, Any], attribute: str) -> Any:
    """A document; one of trust says nothing of the role it is attached to, and the linter wants its ARN."""
    document = json.loads(resource["values"][attribute])
    if attribute == "assume_role_policy":
        for statement in document["Statement"]:
            statement["Resource"] = resource["values"]["arn"]
    return document


if __name__ == "__main__":
    try:
        main()
    except PlatformError as error:
        sys.exit(str(error))
