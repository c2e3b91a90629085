"""The Prefect key in Secrets Manager: Terraform makes the secret, this puts the value in."""

from environments import console
from environments.secrets import prefect_key
from environments.settings import Environment
from infra.aws import client
from infra.terraform import Outputs


def store(environment: Environment, outputs: Outputs) -> bool:
    """Put the key into the environment's secret unless it is there already; tells whether it was changed."""
    secrets_manager, key = client(environment, "secretsmanager"), prefect_key(environment)
    try:
        stored = secrets_manager.get_secret_value(SecretId=outputs.prefect_key_secret_arn).get("SecretString")
    except secrets_manager.exceptions.ResourceNotFoundException:
        stored = None
    if stored == key:
        console.note("unchanged")
        return False
    secrets_manager.put_secret_value(SecretId=outputs.prefect_key_secret_arn, SecretString=key)
    console.note("stored in Secrets Manager")
    return True
