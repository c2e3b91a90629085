"""The Prefect key in Secrets Manager: Terraform makes the secret, this puts the value in."""

from datetime import datetime

from environments import console
from environments.secrets import prefect_key
from environments.settings import Environment
from infra.aws import client
from infra.terraform import Outputs


def store(environment: Environment, outputs: Outputs) -> datetime:
    """Put the key into the environment's secret unless it is there already.

    Returns:
        Since when it has been there: a task that was created before may have started with another one.
    """
    secrets_manager, key = client(environment, "secretsmanager"), prefect_key(environment)
    secret = outputs.prefect_key_secret_arn
    try:
        stored = secrets_manager.get_secret_value(SecretId=secret)
    except secrets_manager.exceptions.ResourceNotFoundException:
        stored = {}
    if stored.get("SecretString") == key:
        console.note("unchanged")
    else:
        secrets_manager.put_secret_value(SecretId=secret, SecretString=key)
        stored = secrets_manager.get_secret_value(SecretId=secret)
        console.note("stored in Secrets Manager")
    since: datetime = stored["CreatedDate"]
    return since
