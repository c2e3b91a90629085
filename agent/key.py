"""The Prefect keys in Secrets Manager: Terraform makes the secrets, this puts the values in."""

from datetime import datetime

from environments import progress
from environments.secrets import WORKFLOW_TOKEN, is_set, prefect_key
from environments.settings import Environment
from infra import encryption
from infra.aws import client
from infra.terraform import Outputs


def store(environment: Environment, outputs: Outputs) -> datetime:
    """Put the keys of agent and workflows into the environment's secrets unless they are there already.

    A key of their own that workflows have stays when nobody names one: whoever deploys need not know it. What another
    KMS key than the secret's encrypts is written again.

    Returns:
        Since when both have been there: a task that was created before may have started with another one.
    """
    secrets_manager = client(environment, "secretsmanager")
    of_agent, of_workflows = outputs.prefect_key_secret_arn, outputs.workflow_prefect_key_secret_arn
    stored = {
        secret: encryption.read_secret(environment, secrets_manager, secret) for secret in (of_agent, of_workflows)
    }
    earlier = {secret: str(value.get("SecretString", "")) for secret, value in stored.items()}
    # In this order: after an interruption the next deploy still sees whether the workflows' key is their own.
    keys = {of_workflows: prefect_key(environment, WORKFLOW_TOKEN), of_agent: prefect_key(environment)}
    named = environment.is_local or is_set(WORKFLOW_TOKEN)
    if not named and earlier[of_workflows] not in ("", earlier[of_agent]):
        keys[of_workflows] = earlier[of_workflows]
    other_keys = {secret: encryption.other_keys(secrets_manager, secret) for secret in keys}
    changed = [secret for secret, key in keys.items() if earlier[secret] != key or other_keys[secret]]
    for secret in changed:
        secrets_manager.put_secret_value(SecretId=secret, SecretString=keys[secret])
        stored[secret] = encryption.read_secret(environment, secrets_manager, secret)
    if before := dict.fromkeys(key for of_secret in other_keys.values() for key in of_secret):
        progress.note(f"encrypted with another KMS key; logs and images from before still need {', '.join(before)}")
    else:
        progress.note("stored in Secrets Manager" if changed else "unchanged")
    since: datetime = max(value["CreatedDate"] for value in stored.values())
    return since
