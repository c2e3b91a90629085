"""Every IAM policy document of the platform, made without AWS, for the checks that `nox -s lint` runs over them.

    python -m infra.policy_documents FOLDER    writes each as FOLDER/<name>.json, and all to FOLDER/attached.jsonl

Terraform itself renders those of the module. attached.jsonl says what each is attached to (`Attached`), and also has
those of trust and those that other settings bring, which the linter does not read.
"""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment, load
from infra import encryption, offline, permissions, state
from infra.permissions import OF_ROLES, Document
from infra.roles import ROLES, role_name
from infra.trust import Trust, trust_policy

ENVIRONMENT = "prod"
ATTACHED = "attached.jsonl"
AS_IT_IS = "as_it_is"
CHOICES: dict[str, dict[str, Any]] = {
    AS_IT_IS: {},
    "with_endpoints": {"network": "private_endpoints", "prefect_api_url": "http://prefect.internal:4200/api"},
    "with_own": {
        "vpc_id": offline.VPC,
        "subnet_ids": ["subnet-0123456789abcdef0"],
        "kms_key_arn": "arn:aws:kms:{at}:" + offline.KEY,
        "workflow_policy_arns": ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"],
    },
}
"""Settings that bring other policies with them than the environment's own do."""


TRUST = Trust("acme/platform", ("acme/etl",), account=True)


@dataclasses.dataclass(frozen=True)
class Attached:
    """A policy document and what it is attached to.

    Attributes:
        name: of the document; unique within a choice.
        choice: the settings, by their name in `CHOICES`.
        kind: `managed`, `inline`, `trust`, `boundary`, or `resource` for the policy of a queue, bucket or key.
        attached_to: the role's or managed policy's name at IAM; for a resource's policy its address.
        roles: roles that have the document, by their names without the environment's.
        document: the policy itself.
    """

    name: str
    choice: str
    kind: str
    attached_to: str
    roles: tuple[str, ...]
    document: Document


def main() -> None:
    """Write the documents into the folder named on the command line, and nothing else."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = load(ENVIRONMENT)
    module = of_terraform(environment, folder.with_name(f"{folder.name}_module"))
    linted = {one.name: one for one in of_python(environment) if one.kind != "trust"}  # the linter knows no GitHub
    linted |= {one.name: one for one in module}
    for name, one in linted.items():
        (folder / f"{name}.json").write_text(json.dumps(_with_resource(one), indent=2), encoding="utf-8")
    others = [one for choice in CHOICES for one in of_python(chosen(environment, choice), choice)]
    lines = [json.dumps(dataclasses.asdict(one)) for one in (*module, *others)]
    (folder / ATTACHED).write_text("\n".join(lines), encoding="utf-8")


def chosen(environment: Environment, choice: str) -> Environment:
    """The environment with the settings of a choice."""
    at = f"{environment.aws_region}:{environment.aws_account_id}"
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value.replace("{at}", at)
        for name, value in CHOICES[choice].items()
    }
    return dataclasses.replace(environment, **settings)


def of_python(environment: Environment, choice: str = AS_IT_IS) -> list[Attached]:
    """Those that `invoke bootstrap-account` attaches."""
    attached = []
    for name, document in permissions.documents(environment).items():
        roles = tuple(role for role, policies in OF_ROLES.items() if name in policies)
        kind = "managed" if roles else "boundary"
        attached.append(Attached(name, choice, kind, f"{environment.prefix}_{name}", roles, document))
    for role in ROLES:
        document = trust_policy(environment, role, TRUST)
        attached.append(Attached(f"trust_{role}", choice, "trust", role_name(environment, role), (role,), document))
    bucket = state.bucket_name(environment)
    attached.append(Attached("state_bucket", choice, "resource", bucket, (), state.tls_only(bucket)))
    attached.append(Attached("key", choice, "resource", "key", (), encryption.policy(environment)))
    return attached


def of_terraform(environment: Environment, folder: Path) -> list[Attached]:
    """Those in the Terraform module, named after resource and attribute.

    Args:
        environment: whose settings.
        folder: for a copy of the module, which stays.

    Raises:
        PlatformError: Terraform failed; its own words are the reason.
    """
    return [
        _attached(environment, choice, resource, attribute)
        for choice, resource in offline.resources(environment, CHOICES, folder)
        for attribute, value in resource["values"].items()
        if resource["mode"] == "managed" and isinstance(value, str) and '"Statement"' in value
    ]


def _attached(environment: Environment, choice: str, resource: dict[str, Any], attribute: str) -> Attached:
    values, address = resource["values"], str(resource["address"])
    kind = {"aws_iam_role": "trust", "aws_iam_role_policy": "inline"}.get(resource["type"], "resource")
    name = {"trust": values.get("name"), "inline": values.get("role")}.get(kind) or address
    roles = () if kind == "resource" else (name.removeprefix(f"{environment.prefix}_"),)
    title = re.sub(r"\W+", "_", f"{choice} {address} {attribute}")
    return Attached(title, choice, kind, name, roles, json.loads(values[attribute]))


def _with_resource(attached: Attached) -> Document:
    """The document for the linter, which wants a resource; a document of trust names none, as it is the role itself."""
    if attached.kind != "trust":
        return attached.document
    role = f"arn:aws:iam::123456789012:role/{attached.attached_to}"
    statements = [{**statement, "Resource": role} for statement in attached.document["Statement"]]
    return {**attached.document, "Statement": statements}


if __name__ == "__main__":
    try:
        main()
    except PlatformError as error:
        sys.exit(str(error))
