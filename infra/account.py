"""What an AWS account must have before an environment can be deployed to it: `invoke bootstrap-account`, once.

The state bucket, GitHub as an identity provider, the roles of `infra.roles`, and the boundary of the roles that
Terraform makes. It takes an administrator's credentials; everything after it runs as one of the roles. In local it is
part of every deploy, and done by the root user of the emulated account.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from environments import progress
from environments.errors import PlatformError
from environments.settings import Environment
from infra import encryption, state
from infra.aws import as_root, client, forget_sessions
from infra.permissions import OF_ROLES, Document, documents, policy_arn
from infra.roles import ROLES, role_name
from infra.trust import (
    AUDIENCE,
    DEFAULT_BRANCH,
    GITHUB,
    Trust,
    default_branch,
    provider_arn,
    repositories,
    trust_policy,
    without_ids,
)


def bootstrap(environment: Environment, trust: Trust | None = None) -> dict[str, str]:
    """Make what the environment needs in its account, or put it right; a second run changes nothing.

    Args:
        environment: whose account.
        trust: who may take the roles on; without, those that may now stay.

    Returns:
        What was done (`made`, `corrected` or `unchanged`), by name.

    Raises:
        PlatformError: the credentials are not an administrator's, the KMS key of the settings can't be used, or a
            trust policy would be too long; then nothing has changed.
    """
    if environment.is_local:
        forget_sessions()  # the servers may have been started anew since
    if trust:
        _check_size(environment, trust)
    with _explained(environment):
        done = {state.bucket_name(environment): "made" if state.ensure_bucket(as_root(environment)) else "unchanged"}
        key = encryption.ensure_key(as_root(environment))
        done[environment.kms_key_arn or encryption.alias(environment)] = "made" if key else "unchanged"
        encryption.check(as_root(environment))  # before a policy changes
        done[GITHUB] = _ensure_provider(environment)
        for name, document in documents(environment).items():
            arn = policy_arn(environment, name)
            done[arn.rpartition(":")[2]] = _ensure_policy(environment, arn, document)
        for role in ROLES:
            done[f"role/{role_name(environment, role)}"] = _ensure_role(environment, role, trust)
        _ensure_ecs_role(environment)
    changed = [name for name, what in done.items() if what != "unchanged"]
    progress.note(f"{len(changed)} of {len(done)} made or corrected" if changed else "unchanged")
    return done


def trusted(environment: Environment) -> Trust:
    """Who may take on the environment's roles now."""
    platform = repositories(_trust_of(environment, "deploy") or {"Statement": []})
    registering = _trust_of(environment, "register") or {"Statement": []}
    account = bool(platform) and any(statement.get("Sid") == "Account" for statement in registering["Statement"])
    workflows = tuple(name for name in repositories(registering) if name not in platform)
    branch = default_branch(environment, _trust_of(environment, "plan") or {"Statement": []})
    return Trust(next(iter(platform), ""), workflows, account and not environment.is_local, branch or DEFAULT_BRANCH)


def choose(
    environment: Environment,
    repository: str,
    workflows: list[str],
    users: str = "",
    origin: str = "",
    branch: str = "",
    origin_branch: str = "",
) -> Trust:
    """Whom the roles will trust: who is named, or else who is trusted now, or else this checkout's repository.

    Args:
        environment: whose roles.
        repository: the platform's repository as owner/name, if named.
        workflows: the repositories that register workflows, if named.
        users: `yes` or `no`: whether users of the AWS account may assume the roles; as now if empty.
        origin: where this checkout comes from, such as github.com/acme/platform.
        branch: the default branch of the platform's repository, if named.
        origin_branch: that of the repository where this checkout comes from, if known.

    Raises:
        PlatformError: nothing says which repository it is, a name is none, or a trust policy would be too long.
    """
    if users not in ("", "yes", "no"):
        raise PlatformError(f"--trust-users is yes or no, not {users!r}")
    with _explained(environment):
        now = trusted(environment)
    host, _, path = origin.partition("/")
    platform = repository or now.platform or (path if host == "github.com" else "")
    if not platform and not environment.is_local:
        raise PlatformError(
            "which repository on GitHub is this platform's?",
            f"the remote origin of this checkout is {origin or 'not set'}",
            f"invoke bootstrap-account --env {environment.name} --repository OWNER/NAME",
        )
    others = tuple(name for name in dict.fromkeys(workflows or now.workflows) if name != platform)
    is_origin = without_ids(platform).lower() == path.lower()
    named = branch or (origin_branch if is_origin else "") or now.default_branch
    trust = Trust(platform, others, users == "yes" if users else now.account, named)
    _check_size(environment, trust)
    return trust


def _check_size(environment: Environment, trust: Trust) -> None:
    """Refuse a trust policy that is longer than IAM allows in this account.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    """
    with _explained(environment):
        quota = client(as_root(environment), "iam").get_account_summary()["SummaryMap"]["AssumeRolePolicySizeQuota"]
    for role in ROLES:
        size = len(json.dumps(trust_policy(environment, role, trust), separators=(",", ":")))
        if size > quota:
            raise PlatformError(
                f"role {role} cannot trust {len(trust.workflows) + 1} repositories",
                f"its trust policy would have {size} characters; IAM allows {quota} in this account",
                "trust all repositories of an owner with --workflow-repository 'OWNER/*'; or name repositories by "
                "their ids, as in --workflow-repository 123456789 (gh api repos/OWNER/NAME --jq .id); or request a "
                "higher quota `Role trust policy length` in Service Quotas",
            )


def remove(environment: Environment) -> None:
    """Remove what `bootstrap` made; for after `invoke destroy`.

    GitHub stays an identity provider of the account while any other role trusts it, another environment's or not.

    Raises:
        PlatformError: the environment is still deployed, or the credentials are not an administrator's.
    """
    with _explained(environment):
        if _is_deployed(environment):
            raise PlatformError(
                f"environment {environment.name} is still deployed",
                "without its roles and its state nobody could take it down",
                f"invoke destroy --env {environment.name}",
            )
        iam = client(as_root(environment), "iam")
        for role in ROLES:
            if _trust_of(environment, role) is not None:
                _remove_role(iam, role_name(environment, role))
        for arn in (policy_arn(environment, name) for name in documents(environment)):
            if _versions(environment, arn):
                _delete_old_versions(environment, arn)
                iam.delete_policy(PolicyArn=arn)
        roles = [role for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]]
        trusts = [json.dumps(role["AssumeRolePolicyDocument"]) for role in roles]
        if not any(provider_arn(environment) in trust for trust in trusts) and _provider(environment):
            iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider_arn(environment))
        encryption.remove_key(as_root(environment))
        state.remove_bucket(as_root(environment))


def _provider(environment: Environment) -> dict[str, Any] | None:
    iam = client(as_root(environment), "iam")
    try:
        found: dict[str, Any] = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=provider_arn(environment))
    except iam.exceptions.NoSuchEntityException:
        return None
    return found


def _ensure_provider(environment: Environment) -> str:
    iam, found = client(as_root(environment), "iam"), _provider(environment)
    if found is None:
        iam.create_open_id_connect_provider(Url=f"https://{GITHUB}", ClientIDList=[AUDIENCE])
        return "made"
    if AUDIENCE not in found["ClientIDList"]:
        arn = provider_arn(environment)
        iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=AUDIENCE)
        return "corrected"
    return "unchanged"


def _versions(environment: Environment, arn: str) -> list[dict[str, Any]]:
    """The versions of a managed policy; none when the policy is missing."""
    iam = client(as_root(environment), "iam")
    try:
        versions: list[dict[str, Any]] = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    except iam.exceptions.NoSuchEntityException:
        return []
    return versions


def _delete_old_versions(environment: Environment, arn: str) -> None:
    """IAM keeps five versions of a policy; only the one that counts is of use."""
    for version in _versions(environment, arn):
        if not version["IsDefaultVersion"]:
            client(as_root(environment), "iam").delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])


def _ensure_policy(environment: Environment, arn: str, document: Document) -> str:
    iam, text = client(as_root(environment), "iam"), json.dumps(document, separators=(",", ":"))
    current = [version["VersionId"] for version in _versions(environment, arn) if version["IsDefaultVersion"]]
    if not current:
        iam.create_policy(PolicyName=arn.rpartition("/")[2], PolicyDocument=text, Tags=_tags(environment))
        return "made"
    if iam.get_policy_version(PolicyArn=arn, VersionId=current[0])["PolicyVersion"]["Document"] == document:
        return "unchanged"
    _delete_old_versions(environment, arn)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=text, SetAsDefault=True)
    return "corrected"


def _trust_of(environment: Environment, role: str) -> Document | None:
    """The trust policy of a role; None when the role is missing."""
    iam = client(as_root(environment), "iam")
    try:
        found: Document = iam.get_role(RoleName=role_name(environment, role))["Role"]["AssumeRolePolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return None
    return found


def _ensure_role(environment: Environment, role: str, trust: Trust | None) -> str:
    iam, name, trusts = client(as_root(environment), "iam"), role_name(environment, role), _trust_of(environment, role)
    wanted = trust_policy(environment, role, trust or Trust("")) if trust or trusts is None else trusts
    document, changed = json.dumps(wanted, separators=(",", ":")), False
    if trusts is None:
        description = f"Environment {environment.name}: {ROLES[role]}"
        iam.create_role(
            RoleName=name, Description=description, AssumeRolePolicyDocument=document, Tags=_tags(environment)
        )
    elif trusts != wanted:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        changed = True
    arns = {policy_arn(environment, policy) for policy in OF_ROLES[role]}
    attached = {policy["PolicyArn"] for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]}
    for arn in sorted(arns - attached):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    for arn in sorted(attached - arns):
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    for policy in inline:
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    return "made" if trusts is None else "corrected" if changed or inline or arns != attached else "unchanged"


def _remove_role(iam: Any, name: str) -> None:
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    iam.delete_role(RoleName=name)


def _ensure_ecs_role(environment: Environment) -> None:
    """The role by which ECS itself works in the account; the first cluster would make it, which deploy may not.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using-service-linked-roles.html
    """
    iam = client(as_root(environment), "iam")
    # It is there: IAM calls that an invalid input, the emulator by the general name.
    with contextlib.suppress(iam.exceptions.InvalidInputException, iam.exceptions.EntityAlreadyExistsException):
        iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")


def _tags(environment: Environment) -> list[dict[str, str]]:
    tags = {**environment.tags, "managed_by": "bootstrap-account"}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _is_deployed(environment: Environment) -> bool:
    clusters = [f"{environment.prefix}_agent", f"{environment.prefix}_workflows"]
    found = client(as_root(environment), "ecs").describe_clusters(clusters=clusters)["clusters"]
    return any(cluster["status"] == "ACTIVE" for cluster in found)


@contextlib.contextmanager
def _explained(environment: Environment) -> Iterator[None]:
    """Turns a refusal by AWS into an error that says whose credentials are wanted."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if "AccessDenied" not in error.response["Error"]["Code"]:
            raise
        raise PlatformError(
            f"these credentials may not set up account {environment.aws_account_id}",
            error.response["Error"]["Message"],
            "use an administrator's credentials for this one command",
        ) from error
