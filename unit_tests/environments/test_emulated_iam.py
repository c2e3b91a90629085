"""IAM of the emulated AWS: the emulator's own evaluator and stores, with our functions in place; nothing is served."""

import asyncio
import base64
import contextvars
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import ecr, iam, secretsmanager, sts

from environments.emulated_ecs import role_credentials
from environments.emulated_iam import REGISTRY_ACTIONS, allowed, caller_may, enforce_as_aws_does
from environments.emulated_permissions import Permission
from environments.emulated_record import Decision, Recorder, read

ACCOUNT, REGION = "000000000000", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
REPOSITORIES = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/"
SECRETS = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
CLUSTERS = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/"

FORM, JSON = "application/x-www-form-urlencoded; charset=utf-8", "application/x-amz-json-1.1"

Role = Callable[..., str]


class SecretError(Exception):
    """What the emulator raises for a secret that a task can't have."""


@pytest.fixture
def ecs() -> Any:
    """The emulator's ECS, as far as we replace it."""
    return types.SimpleNamespace(
        get_region=lambda: REGION,
        get_account_id=lambda: ACCOUNT,
        _SecretResolutionError=SecretError,
        _resolve_container_secrets=lambda container: {"resolved": container["image"]},
        _resolve_repository_credentials=lambda container: None,
    )


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The file that decisions are appended to."""
    return tmp_path / "record.jsonl"


@pytest.fixture(autouse=True)
def _enforced(ecs: Any, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our functions are in place of the emulator's, and go with the test."""

    async def handled(method: str, path: str, *_: Any) -> Any:
        return 200, {}, f"{method} {path}".encode()

    monkeypatch.setattr(ecr, "handle_registry_request", handled)
    for module, names in {
        iam_actions: ("extract_resource_arn", "access_denied_response"),
        iam_evaluator: ("enforce",),
        app: ("pin_request_origin", "pin_signed_request"),
        ecr: ("_get_authorization_token",),
        sts: ("_web_identity_principal",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(sts, "_sessions", {})
    enforce_as_aws_does(ecr, ecs, Recorder(record))


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Role:
    """Makes a role with a policy of (action, resource) pairs, and a session of it; gives the session's key."""

    def make(name: str, *grants: tuple[str, str], **conditions: Any) -> str:
        statements = [{"Effect": "Allow", "Action": action, "Resource": arn, **conditions} for action, arn in grants]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        monkeypatch.setitem(iam._roles, name, {"RoleName": name, "InlinePolicies": {"own": document}})
        return role_credentials(f"{ROLE}{name}", "test")["AWS_ACCESS_KEY_ID"]

    return make


def _ask(key: str, service: str, operation: str, body: dict[str, Any] | str, **parts: Any) -> Any:
    """A request as the emulator's front door treats it; gives its refusal and what it would answer."""
    text = body if isinstance(body, str) else json.dumps(body)
    # The front door gives a form's fields as if they were in the address.
    form = parse_qs(text, keep_blank_values=True) if text.startswith("Action=") else {}
    headers = {"content-type": FORM} if form else {"content-type": JSON, "x-amz-target": f"X.{operation}"}
    if key:
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/{service}/aws4_request, x"

    def request() -> Any:
        arn = iam_actions.extract_resource_arn(service, "POST", "/", headers, text.encode(), form, REGION, ACCOUNT)
        action = parts.get("action", f"{service}:{operation}")
        refused = iam_evaluator.enforce(key, action, service, REGION, resource_arn=arn)
        if not isinstance(refused, iam_evaluator.EvalResult):
            return refused, ""
        answer = iam_actions.access_denied_response(service, action, refused.principal_arn, "id", headers=headers)
        return refused, answer[2].decode()

    return contextvars.copy_context().run(request)


@pytest.mark.parametrize(
    ("service", "operation"),
    [("s3", "GetObject"), ("ecs", "RunTask"), ("sts", "AssumeRole"), ("sts", "GetCallerIdentity")],
)
def test_what_is_not_signed_is_refused(service: str, operation: str) -> None:
    refused, _ = _ask("", service, operation, {})

    assert isinstance(refused, iam_evaluator.AuthError)
    assert refused.code == "MissingAuthenticationToken"


def test_token_of_github_needs_no_key() -> None:
    refused, _ = _ask("", "sts", "AssumeRoleWithWebIdentity", "Action=AssumeRoleWithWebIdentity&Version=2011-06-15")

    assert refused is None


def _token(**claims: str) -> str:
    parts = ({"alg": "RS256"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "signature"])


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"ref": "refs/heads/other"}, False),
        ({"job_workflow_ref": "acme/platform/.github/workflows/other.yaml@refs/heads/main"}, False),
        ({"repository_id": "8"}, False),
        ({"iss": "https://gitlab.com"}, False),
    ],
)
def test_trust_policy_tests_the_claims_of_githubs_token(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], taken: bool
) -> None:
    claims = {
        "iss": "https://token.actions.githubusercontent.com",
        "aud": "sts.amazonaws.com",
        "sub": "repo:acme/platform:environment:dev",
        "ref": "refs/heads/main",
        "job_workflow_ref": "acme/platform/.github/workflows/platform.yaml@refs/heads/main",
        "repository_id": "7",
    }
    keys = {f"token.actions.githubusercontent.com:{name}": value for name, value in claims.items() if name != "iss"}
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringLike": keys},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    monkeypatch.setattr(iam, "_roles", type(iam._roles)())
    iam._roles.set_scoped(ACCOUNT, None, "job", {"RoleName": "job", "AssumeRolePolicyDocument": document})
    asked = {"WebIdentityToken": [_token(**{**claims, **changes})], "ProviderId": [""]}

    assert (sts._web_identity_trust_denied(f"{ROLE}job", asked, False) is None) is taken


def test_claims_that_aws_does_not_test_are_not_passed_on() -> None:
    issuer = "token.actions.githubusercontent.com"
    token = _token(iss=f"https://{issuer}", sub="x", workflow_ref="x", run_id="1", environment="dev")
    elsewhere = _token(iss="https://gitlab.com", sub="x", environment="dev")

    _, keys = sts._web_identity_principal(token, "", f"{ROLE}job")
    _, others = sts._web_identity_principal(elsewhere, "", f"{ROLE}job")
    assert keys == {f"{issuer}:sub": "x", f"{issuer}:environment": "dev"}
    assert others == {"gitlab.com:sub": "x"}


def test_key_that_nobody_was_given_is_refused() -> None:
    refused, _ = _ask("ASIAGUESSED", "ecs", "ListTasks", {})

    assert isinstance(refused, iam_evaluator.AuthError)


def test_root_user_may_everything() -> None:
    assert _ask(ACCOUNT, "ecs", "DeleteCluster", {"cluster": "x"}) == (None, "")


def test_role_may_what_its_policy_says_and_nothing_else(role: Role) -> None:
    key = role("lister", ("ecs:DescribeClusters", f"{CLUSTERS}mine"))

    assert _ask(key, "ecs", "DescribeClusters", {"clusters": ["mine"]})[0] is None
    assert _ask(key, "ecs", "DescribeClusters", {"clusters": ["other"]})[0].decision == "ImplicitDeny"
    assert _ask(key, "ecs", "DeleteCluster", {"cluster": "mine"})[0].decision == "ImplicitDeny"


def test_every_resource_of_a_request_must_be_allowed(role: Role) -> None:
    """The emulator alone would look at the first."""
    key = role("lister", ("ecs:DescribeClusters", f"{CLUSTERS}mine"))

    assert _ask(key, "ecs", "DescribeClusters", {"clusters": ["mine", "other"]})[0].decision == "ImplicitDeny"


def test_refusal_names_the_permission_that_was_refused(role: Role) -> None:
    definition = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/f:*"
    key = role("starter", ("ecs:RegisterTaskDefinition", definition), ("iam:PassRole", f"{ROLE}task"))
    own, other = ({"family": "f", "taskRoleArn": f"{ROLE}{name}"} for name in ("task", "deploy"))
    refused, answer = _ask(key, "ecs", "RegisterTaskDefinition", other)

    assert _ask(key, "ecs", "RegisterTaskDefinition", own)[0] is None
    assert refused.decision == "ImplicitDeny"
    assert "not authorized to perform: iam:PassRole" in answer
    assert "assumed-role/starter/test" in answer


def test_refusal_of_logs_names_the_resource_too(role: Role) -> None:
    _, answer = _ask(role("nobody"), "logs", "PutRetentionPolicy", {"logGroupName": "g", "retentionInDays": 7})

    assert f"{LOGS}g" in answer


def test_condition_on_the_cluster_holds(role: Role) -> None:
    """The emulator alone does not know the key, and would refuse everything."""
    definition = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/f:*"
    key = role("agent", ("ecs:RunTask", definition), Condition={"ArnEquals": {"ecs:cluster": f"{CLUSTERS}work"}})

    assert _ask(key, "ecs", "RunTask", {"cluster": "work", "taskDefinition": "f"})[0] is None
    assert _ask(key, "ecs", "RunTask", {"cluster": "other", "taskDefinition": "f"})[0].decision == "ImplicitDeny"


def test_boundary_in_a_form_is_read(role: Role) -> None:
    key = role(
        "deploy",
        ("iam:CreateRole", f"{ROLE}task"),
        Condition={"ArnEquals": {"iam:PermissionsBoundary": "arn:aws:iam::000000000000:policy/boundary"}},
    )
    form = "Action=CreateRole&Version=2010-05-08&RoleName=task&AssumeRolePolicyDocument={}"

    bounded = f"{form}&PermissionsBoundary=arn:aws:iam::000000000000:policy/boundary"
    assert _ask(key, "iam", "CreateRole", bounded)[0] is None
    assert _ask(key, "iam", "CreateRole", form)[0].decision == "ImplicitDeny"


@pytest.mark.parametrize("body", ["{not json", "[1]", '{"clusters": 7}'])
def test_body_that_is_no_request_is_no_way_around(role: Role, body: str) -> None:
    refused, _ = _ask(role("nobody"), "ecs", "DescribeClusters", body)

    assert refused.decision == "ImplicitDeny"


def test_check_that_is_not_the_requests_own_stays_as_the_emulator_asks_it(role: Role) -> None:
    """Such as reading the source of a copy in S3."""
    key = role("copier", ("s3:GetObject", "arn:aws:s3:::source/x"))
    told = contextvars.copy_context().run(
        iam_evaluator.enforce, key, "s3:GetObject", "s3", REGION, resource_arn="arn:aws:s3:::source/x"
    )

    assert told is None
    assert _ask(key, "s3", "PutObject", {}, action="s3:PutObject")[0].decision == "ImplicitDeny"


@pytest.mark.parametrize("told", [True, False])
def test_request_from_this_machine_counts_as_one_over_tls(told: bool) -> None:
    def pinned() -> Any:
        app.pin_request_origin("127.0.0.1", told)
        return iam_evaluator.EvalContext("", "", "", "", "*", "")

    context = contextvars.copy_context().run(pinned)

    assert context.secure_transport is True
    assert context.source_ip == "127.0.0.1"


# The image registry


def _login(key: str) -> str:
    """The login that GetAuthorizationToken gives to whoever asks with a key."""

    def give() -> Any:
        headers = {"x-amz-target": "X.GetAuthorizationToken", "content-type": "application/x-amz-json-1.1"}
        if key:
            headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/ecr/aws4_request, x"
        iam_actions.extract_resource_arn("ecr", "POST", "/", headers, b"{}", {}, REGION, ACCOUNT)
        return ecr._get_authorization_token({})

    answer = json.loads(contextvars.copy_context().run(give)[2])
    token: str = answer["authorizationData"][0]["authorizationToken"]
    return token


def _push(login: str, method: str = "POST", path: str = "/v2/mine/blobs/uploads/", scheme: str = "Basic") -> Any:
    headers = {"Authorization": f"{scheme} {login}"} if login else {}
    return asyncio.run(ecr.handle_registry_request(method, path, headers, b"", {}))


@pytest.mark.parametrize(
    "login",
    ["", "not base64!", base64.b64encode(b"AWS:guessed").decode(), base64.b64encode(b"AWS:").decode(), "gIA="],
    ids=["none", "no-base64", "guessed", "empty", "no-utf-8"],
)
@pytest.mark.parametrize("path", ["/v2/", "/v2/mine/blobs/uploads/", "/v2/_catalog", "/v2/strange"])
def test_registry_asks_for_a_login(login: str, path: str) -> None:
    status, headers, body = _push(login, "GET", path)

    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic ")
    assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"


def test_login_of_another_kind_is_none(role: Role) -> None:
    assert _push(_login(role("pusher", ("ecr:*", "*"))), scheme="Bearer")[0] == 401


def test_login_is_good_for_what_its_role_may(role: Role) -> None:
    login = _login(role("pusher", ("ecr:InitiateLayerUpload", f"{REPOSITORIES}mine")))
    refused, _, body = _push(login, path="/v2/other/blobs/uploads/")

    assert _push(login, "GET", "/v2/")[0] == 200
    assert _push(login) == (200, {}, b"POST /v2/mine/blobs/uploads/")
    assert refused == 403
    assert f"ecr:InitiateLayerUpload on {REPOSITORIES}other" in json.loads(body)["errors"][0]["message"]
    assert _push(login, "PUT", "/v2/mine/manifests/1")[0] == 403


def test_two_logins_are_not_mixed_up(role: Role) -> None:
    mine, other = (
        _login(role(name, ("ecr:InitiateLayerUpload", f"{REPOSITORIES}{name}"))) for name in ("mine", "other")
    )

    assert (_push(mine)[0], _push(other)[0]) == (200, 403)


def test_repository_is_known_by_its_tags(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = {"StringEquals": {"aws:ResourceTag/managed_by": "register"}}
    login = _login(role("register", ("ecr:InitiateLayerUpload", "*"), Condition=tagged))
    before = _push(login)[0]
    tags = [{"Key": "managed_by", "Value": "register"}]
    monkeypatch.setitem(ecr._repositories, "mine", {"repositoryName": "mine", "tags": tags})

    assert (before, _push(login)[0]) == (403, 200)


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("HEAD", "/v2/mine/blobs/sha256:0", "BatchCheckLayerAvailability"),
        ("GET", "/v2/mine/blobs/sha256:0", "GetDownloadUrlForLayer"),
        ("POST", "/v2/mine/blobs/uploads/", "InitiateLayerUpload"),
        ("PATCH", "/v2/mine/blobs/uploads/1", "UploadLayerPart"),
        ("PUT", "/v2/mine/blobs/uploads/1", "CompleteLayerUpload"),
        ("GET", "/v2/mine/manifests/1", "BatchGetImage"),
        ("HEAD", "/v2/mine/manifests/1", "BatchGetImage"),
        ("PUT", "/v2/mine/manifests/1", "PutImage"),
        ("GET", "/v2/mine/tags/list", "ListImages"),
    ],
)
def test_each_request_of_docker_needs_the_permission_that_it_needs_at_ecr(
    role: Role, method: str, path: str, action: str
) -> None:
    others = [(f"ecr:{name}", "*") for name in REGISTRY_ACTIONS.values() if name != action]

    assert _push(_login(role("may", (f"ecr:{action}", f"{REPOSITORIES}mine"))), method, path)[0] == 200
    assert _push(_login(role("may_not", *others)), method, path)[0] == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v2/mine/manifests/1"),
        ("DELETE", "/v2/mine/blobs/sha256:0"),
        ("DELETE", "/v2/mine/blobs/uploads/1"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/x"),
    ],
)
@pytest.mark.parametrize("root_user", [True, False])
def test_what_is_not_in_the_table_is_not_offered(
    role: Role, record: Path, method: str, path: str, root_user: bool
) -> None:
    every = [(f"ecr:{name}", "*") for name in REGISTRY_ACTIONS.values()]
    key = ACCOUNT if root_user else role("pusher", *every)

    assert _push(_login(key), method, path)[0] == 405
    assert read(record) == []


def test_root_user_logs_in_and_may_everything() -> None:
    assert _push(_login(ACCOUNT), "PUT", "/v2/mine/manifests/1")[0] == 200


@pytest.mark.parametrize("key", ["", "ASIAGUESSED"])
def test_login_of_nobody_is_worth_nothing(key: str) -> None:
    assert _push(_login(key))[0] == 401


def test_login_of_a_role_that_is_gone_is_worth_nothing(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    login = _login(role("pusher", ("ecr:InitiateLayerUpload", "*")))
    monkeypatch.delitem(iam._roles, "pusher")

    assert _push(login)[0] == 403


def test_tags_of_a_request_are_no_context_of_another_services_action(role: Role, record: Path) -> None:
    key = role("deploy", ("ecs:RegisterTaskDefinition", "*"), ("iam:PassRole", "*"))
    body = {"family": "f", "taskRoleArn": f"{ROLE}task"}
    context = {"aws:RequestTag/environment": "dev"}

    def request() -> None:
        headers = {"content-type": JSON, "x-amz-target": "X.RegisterTaskDefinition"}
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/ecs/aws4_request, x"
        iam_actions.extract_resource_arn("ecs", "POST", "/", headers, json.dumps(body).encode(), {}, REGION, ACCOUNT)
        iam_evaluator.enforce(key, "ecs:RegisterTaskDefinition", "ecs", REGION, "*", context)

    contextvars.copy_context().run(request)

    assert [decision.context for decision in read(record)] == [
        context,
        {"iam:PassedToService": "ecs-tasks.amazonaws.com"},
    ]


# Execution roles


def _container(**more: Any) -> dict[str, Any]:
    return {"image": "python:3.11", "executionRole": f"{ROLE}start", **more}


PULL = (
    *("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken"),
    "ecr:GetDownloadUrlForLayer",
)
SECRET = {"secrets": [{"name": "KEY", "valueFrom": f"{SECRETS}key-a1b2c3:field::"}]}


@pytest.mark.parametrize(
    "image",
    [f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/mine:1", "127.0.0.1:4566/mine:1", "127.0.0.1:4566/mine@sha256:0"],
)
@pytest.mark.parametrize("missing", PULL)
def test_task_starts_when_its_execution_role_may_pull_its_image(ecs: Any, role: Role, image: str, missing: str) -> None:
    container = _container(image=image)
    grants = [(name, "*" if name.endswith("Token") else f"{REPOSITORIES}mine") for name in PULL]
    role("start", *grants)

    assert ecs._resolve_container_secrets(container) == {"resolved": image}
    role("start", *[grant for grant in grants if grant[0] != missing])
    with pytest.raises(SecretError, match=f"role/start is not authorized to perform: {missing}"):
        ecs._resolve_container_secrets(container)


def test_task_starts_when_its_execution_role_may_read_its_secrets(ecs: Any, role: Role) -> None:
    container = _container(**SECRET)
    role("start", ("secretsmanager:GetSecretValue", f"{SECRETS}key-a1b2c3"))

    assert ecs._resolve_container_secrets(container) == {"resolved": container["image"]}
    role("start", ("secretsmanager:GetSecretValue", f"{SECRETS}other"))
    with pytest.raises(SecretError, match="role/start is not authorized to perform: secretsmanager:GetSecretValue"):
        ecs._resolve_container_secrets(container)


@pytest.mark.parametrize(("secret_of", "starts"), [("key-a1b2c3", True), ("other", False)])
def test_task_starts_when_its_execution_role_may_use_the_key_of_its_secrets(
    ecs: Any, role: Role, secret_of: str, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    versions = {"1": {"Stages": ["AWSCURRENT"], "KmsKeyIds": [key]}}
    stored = {"ARN": f"{SECRETS}key-a1b2c3", "Name": "key", "KmsKeyId": key, "Versions": versions}
    monkeypatch.setattr(secretsmanager, "_resolve", lambda _: ("key", stored))
    context = {"StringEquals": {"kms:EncryptionContext:SecretARN": f"{SECRETS}{secret_of}"}}
    role("start", ("secretsmanager:GetSecretValue", "*"), ("kms:Decrypt", key))
    statements = json.loads(iam._roles["start"]["InlinePolicies"]["own"])
    statements["Statement"][1]["Condition"] = context
    monkeypatch.setitem(iam._roles["start"], "InlinePolicies", {"own": json.dumps(statements)})

    if starts:
        assert ecs._resolve_container_secrets(_container(**SECRET))
    else:
        with pytest.raises(SecretError, match="kms:Decrypt"):
            ecs._resolve_container_secrets(_container(**SECRET))


@pytest.mark.parametrize("missing", ["logs:CreateLogStream", "logs:PutLogEvents"])
def test_task_that_could_not_write_its_logs_does_not_start(ecs: Any, role: Role, missing: str) -> None:
    options = {"awslogs-group": "g", "awslogs-stream-prefix": "agent"}
    container = _container(logConfiguration={"logDriver": "awslogs", "options": options})
    grants = [(name, f"{LOGS}g:log-stream:*") for name in ("logs:CreateLogStream", "logs:PutLogEvents")]
    role("start", *grants)

    assert ecs._resolve_container_secrets(container)
    role("start", *[grant for grant in grants if grant[0] != missing])
    with pytest.raises(SecretError, match=missing):
        ecs._resolve_container_secrets(container)


KEYS = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret whose value two KMS keys encrypt, `old` and `new`; gives its ARN."""
    arn = f"{SECRETS}key-a1b2c3"
    version = {"SecretString": "x", "Stages": ["AWSCURRENT"], "KmsKeyIds": [f"{KEYS}old", f"{KEYS}new"]}
    secret = {"ARN": arn, "Name": "key", "KmsKeyId": f"{KEYS}new", "Versions": {"1": version}}
    monkeypatch.setattr(secretsmanager, "_secrets", {"key": secret})
    return arn


@pytest.mark.parametrize(("key", "starts"), [("old", True), ("new", True), ("*", True), ("other", False)])
def test_task_starts_when_its_execution_role_may_decrypt_the_secret_with_one_of_its_keys(
    ecs: Any, role: Role, encrypted: str, key: str, starts: bool
) -> None:
    container = _container(secrets=[{"name": "KEY", "valueFrom": encrypted}])
    role("start", ("secretsmanager:GetSecretValue", encrypted), ("kms:Decrypt", f"{KEYS}{key}"))

    if starts:
        assert ecs._resolve_container_secrets(container)
    else:
        with pytest.raises(SecretError, match=r"kms:Decrypt on resource: .*key/old"):
            ecs._resolve_container_secrets(container)


@pytest.mark.parametrize(("key", "read"), [("old", True), ("new", True), ("other", False)])
def test_value_is_read_by_who_may_use_one_of_its_keys(role: Role, encrypted: str, key: str, read: bool) -> None:
    reader = role("reader", ("secretsmanager:GetSecretValue", "*"), ("kms:Decrypt", f"{KEYS}{key}"))
    refused, words = _ask(reader, "secretsmanager", "GetSecretValue", {"SecretId": encrypted})

    assert (refused is None) is read
    assert ("kms:Decrypt" in words) is not read


def test_what_the_caller_may_is_known_while_the_request_is_answered(role: Role) -> None:
    key = role("deploy", ("kms:Encrypt", f"{KEYS}new"))

    def answered() -> list[bool]:
        _ask_in_place(key, "secretsmanager", "UpdateSecret")
        return [caller_may(Permission("kms:Encrypt", f"{KEYS}{name}"), Recorder()) for name in ("new", "old")]

    assert contextvars.copy_context().run(answered) == [True, False]
    assert not contextvars.copy_context().run(caller_may, Permission("kms:Encrypt", f"{KEYS}new"), Recorder())


def _ask_in_place(key: str, service: str, operation: str) -> None:
    """Let the request be the one that is being answered."""
    headers = {"content-type": JSON, "x-amz-target": f"X.{operation}"}
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/{service}/aws4_request, x"
    iam_actions.extract_resource_arn(service, "POST", "/", headers, b"{}", {}, REGION, ACCOUNT)


@pytest.mark.parametrize("arn", ["", f"{ROLE}missing"], ids=["none", "missing"])
def test_role_that_does_not_exist_may_nothing(ecs: Any, arn: str) -> None:
    needing = _container(executionRole=arn, secrets=[{"name": "KEY", "valueFrom": f"{SECRETS}key-a1b2c3"}])

    assert ecs._resolve_container_secrets(_container(executionRole=arn, logConfiguration=None))
    with pytest.raises(SecretError, match="GetSecretValue"):
        ecs._resolve_container_secrets(needing)


def test_images_are_pulled_in_the_execution_role(ecs: Any, role: Role) -> None:
    role("start", ("ecr:BatchGetImage", f"{REPOSITORIES}mine"))
    login = ecs._resolve_repository_credentials(_container())
    encoded = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()

    assert _push(encoded, "GET", "/v2/mine/manifests/1")[0] == 200
    assert _push(encoded, "PUT", "/v2/mine/manifests/1")[0] == 403
    assert ecs._resolve_repository_credentials({"image": "python:3.11"}) is None


def test_denial_and_boundary_count_for_execution_roles(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]}
    version = {"Document": json.dumps(document), "IsDefaultVersion": True}
    monkeypatch.setitem(iam._policies, boundary, {"DefaultVersionId": "v1", "Versions": {"v1": version}})
    key = role("start", ("*", "*"))
    monkeypatch.setitem(iam._roles["start"], "PermissionsBoundary", boundary)
    principal = iam_evaluator.resolve_principal(key, ACCOUNT)

    assert allowed(principal, Permission("logs:PutLogEvents", f"{LOGS}g"), Recorder())
    assert not allowed(principal, Permission("ecr:PutImage", f"{REPOSITORIES}mine"), Recorder())


@pytest.mark.parametrize("key", ["test", ACCOUNT, "AKIAIOSFODNN7EXAMPLE"])
@pytest.mark.parametrize("headed", [True, False])
def test_nobody_is_a_root_user_by_naming_its_key(key: str, headed: bool) -> None:
    scope = f"{key}/20260101/{REGION}/iam/aws4_request"
    header = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    query = {} if headed else {"X-Amz-Algorithm": ["AWS4-HMAC-SHA256"], "X-Amz-Credential": [scope]}
    headers = [(b"x-amz-date", b"20260101T000000Z"), (b"host", b"x")]

    def request() -> Any:
        app.pin_signed_request("GET", "/", query, [*headers, *([(b"authorization", header.encode())] * headed)])
        return iam_evaluator.enforce(key, "iam:ListRoles", "iam", REGION)

    refused = contextvars.copy_context().run(request)
    assert isinstance(refused, iam_evaluator.AuthError)


# The record


def test_every_decision_about_a_role_is_recorded_once(role: Role, record: Path) -> None:
    definition = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/f:*"
    key = role("starter", ("ecs:RegisterTaskDefinition", definition))
    for _ in range(2):
        _ask(key, "ecs", "RegisterTaskDefinition", {"family": "f", "taskRoleArn": f"{ROLE}task"})
    passed = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}

    assert read(record) == [
        Decision("starter", "ecs:RegisterTaskDefinition", definition, {}, True),
        Decision("starter", "iam:PassRole", f"{ROLE}task", passed, False),
    ]


def test_root_users_strangers_and_unsigned_requests_are_not_recorded(record: Path) -> None:
    for key in (ACCOUNT, "ASIAGUESSED", ""):
        _ask(key, "ecs", "DescribeClusters", {"clusters": ["mine"]})

    assert read(record) == []


def test_requests_to_the_registry_are_recorded(role: Role, record: Path) -> None:
    login = _login(role("pusher", ("ecr:InitiateLayerUpload", f"{REPOSITORIES}mine")))
    _push(login)
    _push(login, "PUT", "/v2/mine/manifests/1")

    assert read(record) == [
        Decision("pusher", "ecr:InitiateLayerUpload", f"{REPOSITORIES}mine", {}, True),
        Decision("pusher", "ecr:PutImage", f"{REPOSITORIES}mine", {}, False),
    ]


def test_decisions_about_execution_roles_are_recorded(ecs: Any, role: Role, record: Path) -> None:
    role("start", ("secretsmanager:GetSecretValue", f"{SECRETS}key-a1b2c3"))
    ecs._resolve_container_secrets(_container(secrets=[{"name": "KEY", "valueFrom": f"{SECRETS}key-a1b2c3"}]))

    assert read(record) == [
        Decision("start", "secretsmanager:GetSecretValue", f"{SECRETS}key-a1b2c3", {}, True),
    ]
