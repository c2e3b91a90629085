"""IAM of the emulated AWS: every request needs the permissions that it needs on AWS (emulated_permissions.py).

The emulator evaluates policies (identity, boundary, session, trust), but asks for one permission a request, on a
resource that it guesses. `enforce_as_aws_does` puts ours in place; it also wants a login for the image registry,
refuses what is not signed, by root users too, and holds the execution role of a task to its policy. The functions
replaced are private ones of a pinned version: the functional tests run through each of them.
"""

import base64
import contextvars
import json
import logging
import secrets
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from environments.emulated_permissions import Permission, Request, needed, tag_keys
from environments.emulated_record import Recorder

LOG = logging.getLogger("iam")

_asked: contextvars.ContextVar[Request | None] = contextvars.ContextVar("asked", default=None)
_refused: contextvars.ContextVar[Permission | None] = contextvars.ContextVar("refused", default=None)


def enforce_as_aws_does(ecr: Any, ecs: Any, recorder: Recorder | None = None) -> None:
    """Replace the emulator's own guesses; its functions are private ones of a pinned version.

    Args:
        ecr: the emulator's ECR module.
        ecs: its ECS module.
        recorder: records every decision about a role.
    """
    recorder = recorder or Recorder()
    from ministack import app
    from ministack.core import iam_actions, iam_evaluator
    from ministack.core.router import extract_access_key_id
    from ministack.services import sts

    extract, enforce, answer = (
        iam_actions.extract_resource_arn,
        iam_evaluator.enforce,
        iam_actions.access_denied_response,
    )

    def remember(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str
    ) -> str:
        guessed: str = extract(service, method, path, headers, body, query, region, account)
        action = iam_actions.extract_iam_action(service, method, path, headers, body, query) or ""
        parameters = {**query, **_body(headers, body)}
        namespace, _, operation = action.partition(":")
        _asked.set(
            Request(namespace, operation, parameters, f"{region}:{account}", extract_access_key_id(headers, query))
        )
        return guessed

    def enforce_each(
        key: str, action: str, service: str, region: str, resource_arn: str = "*", service_context: Any = None
    ) -> Any:
        if not key and action != "sts:AssumeRoleWithWebIdentity":  # whoever has a token of GitHub's has no key yet
            return iam_evaluator.AuthError("MissingAuthenticationToken", "Request is missing Authentication Token")
        asked = _asked.get()
        known = asked is not None and action == f"{asked.service}:{asked.operation}"
        permissions = needed(asked, resource_arn) if asked and known else [Permission(action, resource_arn)]
        for permission in permissions:
            # What the emulator read from the request is no context of another service's action, such as iam:PassRole.
            own = service_context or {} if permission.action.partition(":")[0] == action.partition(":")[0] else {}
            for resource in (permission.resource, *permission.alternatives):
                context = {**own, **_tags_of(resource), **permission.context}
                denied = enforce(key, permission.action, service, region, resource, context)
                if not denied:
                    break
            if not isinstance(denied, iam_evaluator.AuthError):
                recorder.record(_session(key), permission.action, resource, context, denied is None)
            if denied:
                _refused.set(permission)
                LOG.warning("%s denied: %s on %s", getattr(denied, "principal_arn", key), action, permission)
                return denied
        return None

    def answer_with_what_was_refused(service: str, action: str, principal: str, request_id: str, **more: Any) -> Any:
        if refused := _refused.get():
            action, more["resource_arn"] = refused.action, refused.resource
        return answer(service, action, principal, request_id, **more)

    def from_this_machine(address: str, _: bool) -> None:
        # There is no TLS on the way, and nobody on it: for aws:SecureTransport it is as good.
        iam_evaluator.pin_request_origin(address, True)

    iam_actions.extract_resource_arn = remember
    iam_evaluator.enforce = enforce_each
    iam_actions.access_denied_response = answer_with_what_was_refused
    app.pin_request_origin = from_this_machine
    app.pin_signed_request = check_everybodys_signature(app.pin_signed_request)
    pass_on_claims(sts)
    guard_registry(ecr, recorder)
    hold_execution_roles(ecs, recorder)


GITHUB_CLAIMS = (
    *("actor", "actor_id", "enterprise_id", "environment", "job_workflow_ref", "ref", "repository", "repository_id"),
    "workflow",
)
"""Claims of GitHub's tokens that a trust policy can test on AWS, beside aud and sub.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
"""
GITHUB_ISSUER = "token.actions.githubusercontent.com"


def pass_on_claims(sts: Any) -> None:
    """Let trust policies test the claims of GitHub's tokens; the emulator passes on those that every provider has."""
    from ministack.services.cognito import _decode_id_token_unverified

    principal_of = sts._web_identity_principal

    def with_claims(token: str, provider_id: str, role_arn: str) -> tuple[str, dict[str, Any]]:
        principal, keys = principal_of(token, provider_id, role_arn)
        if f"{GITHUB_ISSUER}:sub" in keys:
            claims = _decode_id_token_unverified(token)
            keys |= {f"{GITHUB_ISSUER}:{claim}": claims[claim] for claim in GITHUB_CLAIMS if claim in claims}
        return principal, keys

    sts._web_identity_principal = with_claims


def check_everybodys_signature(pin: Any) -> Any:
    """The emulator's function that has a request's signature checked, for root users too.

    It takes any request for theirs that names one of their keys, of which some are the same everywhere: `test`, or the
    account's number. So it gets to see nobody as a root user; their secret is known where signatures are checked.
    """
    seen = {**pin.__globals__, "_is_root_key": lambda _: False}
    return types.FunctionType(pin.__code__, seen, pin.__name__, pin.__defaults__)


def _body(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The parameters in the body of a request, JSON or form."""
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        data = json.loads(body) if body[:1] == b"{" else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _tags_of(arn: str) -> dict[str, Any]:
    """The tags of a resource as condition keys; the emulator looks at them for some services only."""
    from ministack.services import ecs
    from ministack.services.tagging import resource_tags

    told = {tag["key"]: tag["value"] for tag in ecs._tags.get(arn) or []} if ":ecs:" in arn else resource_tags(arn)
    return tag_keys("Resource", [{"Key": key, "Value": value} for key, value in (told or {}).items()])


def _session(key: str) -> str:
    """The ARN of the role session that an access key belongs to; empty for other keys."""
    from ministack.services import sts

    return str((sts._sessions.get(key) or {}).get("Arn", ""))


def allowed(principal: Any, permission: Permission, recorder: Recorder) -> bool:
    """Whether the policies of a principal (the emulator's `PrincipalInfo`) allow something; records the decision."""
    from ministack.core.iam_evaluator import EvalContext, evaluate

    if principal.policies is None:
        return True
    for resource in (permission.resource, *permission.alternatives):
        keys = {**_tags_of(resource), **permission.context}
        context = EvalContext(
            principal_arn=principal.arn,
            principal_type=principal.type,
            principal_account=principal.account,
            action=permission.action,
            resource_arn=resource,
            region="",
            service_context={key.lower(): value for key, value in keys.items()},
            principal_keys=principal.keys,
        )
        may: bool = evaluate(context, principal.policies, *principal.limits).decision == "Allow"
        if may:
            break
    recorder.record(principal.arn, permission.action, resource, keys, may)
    return may


def caller_may(permission: Permission, recorder: Recorder) -> bool:
    """Whether whoever made the request that is being answered may do something; records the decision."""
    from ministack.core.iam_evaluator import resolve_principal
    from ministack.core.responses import get_account_id

    principal = resolve_principal(((asked := _asked.get()) and asked.access_key) or "?", get_account_id())
    return hasattr(principal, "policies") and allowed(principal, permission, recorder)


def first_refused(role_arn: str, permissions: Iterable[Permission], recorder: Recorder) -> Permission | None:
    """Return the first of some permissions that the policies of a role do not allow; the decisions are recorded."""
    principal = _role(role_arn)
    return next((permission for permission in permissions if not allowed(principal, permission, recorder)), None)


def service_may_assume(role_arn: str, service: str, source_arn: str) -> bool:
    """Whether the trust policy of a role lets a service of AWS assume it on behalf of a resource."""
    from ministack.services import iam

    role = iam._roles.get(role_arn.rpartition("/")[2]) or {}
    context = {"aws:SourceAccount": source_arn.split(":")[4], "aws:SourceArn": source_arn}
    return service_may(role.get("AssumeRolePolicyDocument"), service, Permission("sts:AssumeRole", role_arn, context))


def service_may(document: Any, service: str, permission: Permission) -> bool:
    """Whether a policy of the resource itself (a role's trust, a KMS key's policy) lets a service of AWS do something.

    Args:
        document: the policy, as data or as JSON; a trust policy names no resource, and is about its role.
        service: the service's name as a principal.
        permission: what the service does.
    """
    from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy

    policy = json.loads(document) if isinstance(document, str) else document or {}
    statements = [{"Resource": "*", **statement} for statement in policy.get("Statement", [])]
    context = EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account="",
        action=permission.action,
        resource_arn=permission.resource,
        region="",
        service_context={key.lower(): value for key, value in permission.context.items()},
    )
    decision: str = evaluate_resource_policy({"Statement": statements}, context, service=service).decision
    return decision == "Allow"


REGISTRY_ACTIONS = {
    ("blob", "HEAD"): "BatchCheckLayerAvailability",
    ("blob", "GET"): "GetDownloadUrlForLayer",
    ("blob_uploads", "POST"): "InitiateLayerUpload",
    ("blob_upload_session", "PATCH"): "UploadLayerPart",
    ("blob_upload_session", "PUT"): "CompleteLayerUpload",
    ("manifest", "GET"): "BatchGetImage",
    ("manifest", "HEAD"): "BatchGetImage",
    ("manifest", "PUT"): "PutImage",
    ("tags_list", "GET"): "ListImages",
}
"""Which permission each request of the Docker registry protocol needs; what is not here, ECR does not offer.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
"""
_logins: dict[str, Callable[[], Any]] = {}


def login_for(principal: Callable[[], Any]) -> dict[str, str]:
    """A login for the registry, as GetAuthorizationToken gives one; what it may do is its principal's to say."""
    token = secrets.token_urlsafe(24)
    _logins[token] = principal
    return {"username": "AWS", "password": token}


def guard_registry(ecr: Any, recorder: Recorder) -> None:
    """Let the image registry ask for a login, and allow what the principal behind it may do."""
    handle, give_token = ecr.handle_registry_request, ecr._get_authorization_token

    def give_login(data: dict[str, Any]) -> Any:
        from ministack.core.iam_evaluator import resolve_principal
        from ministack.core.responses import get_account_id

        asked, account = _asked.get(), get_account_id()
        # Without a key the emulator would take whoever asks for its root user.
        key = (asked and asked.access_key) or "?"
        login = login_for(lambda: resolve_principal(key, account))
        status, headers, body = give_token(data)
        answer = json.loads(body)
        token = base64.b64encode(f"AWS:{login['password']}".encode()).decode()
        answer["authorizationData"][0]["authorizationToken"] = token
        return status, headers, json.dumps(answer).encode()

    async def handle_for_principal(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        scheme, _, encoded = {key.lower(): value for key, value in headers.items()}.get("authorization", "").partition(
            " "
        )
        try:
            token = base64.b64decode(encoded).decode().partition(":")[2] if scheme.lower() == "basic" else ""
        except ValueError:
            token = ""
        principal = _logins[token]() if token in _logins else None
        if principal is None or not hasattr(principal, "policies"):
            refusal = ecr._registry_error(401, "UNAUTHORIZED", "authentication required", {})
            refusal[1]["WWW-Authenticate"] = 'Basic realm="emulated ECR",service="ecr.amazonaws.com"'
            return refusal
        verb, name, _ = ecr._parse_v2_path(path) or ("", "", "")
        if verb == "ping":
            return await handle(method, path, headers, body, query)
        ecr._select_registry_request_scope(name, headers, query)
        place = f"{ecr.get_region()}:{ecr.get_account_id()}"
        operation = REGISTRY_ACTIONS.get((verb, method.upper()))
        if operation is None:
            return ecr._registry_error(405, "UNSUPPORTED", f"{method} of {verb}", {})
        (permission,) = needed(Request("ecr", operation, {"repositoryName": name}, place), "")
        if not allowed(principal, permission, recorder):
            LOG.warning("%s denied: %s", principal.arn, permission)
            words = f"User: {principal.arn} is not authorized to perform: {permission.action} on {permission.resource}"
            return ecr._registry_error(403, "DENIED", words, {})
        return await handle(method, path, headers, body, query)

    ecr.handle_registry_request, ecr._get_authorization_token = handle_for_principal, give_login


def hold_execution_roles(ecs: Any, recorder: Recorder) -> None:
    """Let a task start only when its execution role may pull the image, read the secrets and write the logs.

    Whoever starts the task notes the role in each container definition, as `executionRole`.
    """
    resolve_secrets = ecs._resolve_container_secrets

    def pull_login(container: dict[str, Any]) -> dict[str, str] | None:
        role = container.get("executionRole")
        return login_for(lambda: _role(role)) if role else None

    def secrets_of_role(container: dict[str, Any]) -> Any:
        principal = _role(container.get("executionRole", ""))
        for permission in _start_permissions(container, ecs):
            if not allowed(principal, permission, recorder):
                LOG.warning("%s denied: %s", principal.arn, permission)
                words = (
                    f"ResourceInitializationError: {principal.arn} is not authorized to perform: {permission.action}"
                )
                raise ecs._SecretResolutionError(f"{words} on resource: {permission.resource}")
        return resolve_secrets(container)

    ecs._resolve_repository_credentials, ecs._resolve_container_secrets = pull_login, secrets_of_role


PULL_OPERATIONS = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html"""


def _start_permissions(container: dict[str, Any], ecs: Any) -> Iterator[Permission]:
    place = f"{ecs.get_region()}:{ecs.get_account_id()}"
    registry, _, name = container["image"].partition("/")
    if ".dkr.ecr." in registry or "127.0.0.1" in registry:
        # Also when the Docker engine has the image: on AWS every task pulls it.
        pulled = {"repositoryName": name.partition("@")[0].partition(":")[0]}
        for operation in ("GetAuthorizationToken", *PULL_OPERATIONS):
            yield from needed(Request("ecr", operation, pulled, place), "")
    for secret in container.get("secrets", []):
        arn = ":".join(secret["valueFrom"].split(":")[:7])
        yield from needed(Request("secretsmanager", "GetSecretValue", {"SecretId": arn}, place), arn)
    options = (container.get("logConfiguration") or {}).get("options") or {}
    if group := options.get("awslogs-group"):
        stream = f"arn:aws:logs:{place}:log-group:{group}:log-stream:{options.get('awslogs-stream-prefix', '')}/x"
        yield from (Permission(f"logs:{operation}", stream) for operation in ("CreateLogStream", "PutLogEvents"))


def _role(arn: str) -> Any:
    """A role as the emulator's `PrincipalInfo`; one that does not exist may do nothing."""
    from ministack.core.iam_evaluator import PrincipalInfo, _gather_role_policies, _permissions_boundary
    from ministack.services import iam

    account, name = ([*arn.split(":"), *[""] * 5])[4], arn.rpartition("/")[2]
    policies, limits = _gather_role_policies(name, account), _permissions_boundary(iam._roles, name, account)
    return PrincipalInfo(arn=arn, type="AssumedRole", account=account, policies=policies, limits=limits)
