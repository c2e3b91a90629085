"""What `invoke bootstrap-account` makes, puts right and removes; moto plays the account."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError

from environments.errors import PlatformError
from environments.settings import Environment
from infra import account, aws, encryption, state
from infra.account import bootstrap, choose, remove, trusted
from infra.permissions import OF_ROLES, documents, policy_arn
from infra.roles import ROLES
from infra.trust import GITHUB, Trust, trust_policy

Aws = Callable[[str], Any]
ACME = Trust("acme/platform", ("acme/etl", "acme/reports"))
PROVIDER = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
DEPLOY, PLAN = "dev_dataflow_automation_deploy", "dev_dataflow_automation_plan"
NOTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]})


@pytest.fixture
def iam(aws_mocked: Aws) -> Any:
    return aws_mocked("iam")


@pytest.fixture
def made(environment: Environment, iam: Any) -> dict[str, str]:
    return bootstrap(environment, ACME)


@pytest.fixture
def writable(made: dict[str, str], environment: Environment, aws_mocked: Aws) -> None:
    """Moto takes the bucket policy's denial without its condition, and would refuse us."""
    aws_mocked("s3").delete_bucket_policy(Bucket=state.bucket_name(environment))


def _attached(iam: Any, role: str) -> set[str]:
    return {policy["PolicyArn"] for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]}


def _roles(iam: Any) -> list[str]:
    """All roles but that of ECS, which is the account's."""
    return [role["RoleName"] for role in iam.list_roles()["Roles"] if role["Path"] == "/"]


def _trust(iam: Any, role: str) -> Any:
    return iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]


def _changed(done: dict[str, str]) -> dict[str, str]:
    return {name: what for name, what in done.items() if what != "unchanged"}


def test_all_parts_are_made_and_named(
    environment: Environment, made: dict[str, str], iam: Any, aws_mocked: Aws
) -> None:
    bucket = state.bucket_name(environment)

    assert set(made.values()) == {"made"}
    assert {name.rpartition("_")[2] for name in made if name.startswith("policy/")} == set(documents(environment))
    assert {name.rpartition("_")[2] for name in made if name.startswith("role/")} == set(ROLES)
    assert {bucket, encryption.alias(environment), "token.actions.githubusercontent.com"} < made.keys()
    assert [found["Name"] for found in aws_mocked("s3").list_buckets()["Buckets"]] == [bucket]
    provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=PROVIDER)
    assert provider["ClientIDList"] == ["sts.amazonaws.com"]
    [of_ecs] = iam.list_roles(PathPrefix="/aws-service-role/")["Roles"]
    assert of_ecs["Path"] == "/aws-service-role/ecs.amazonaws.com/"


@pytest.mark.parametrize("role", ROLES)
def test_roles_have_their_policies_and_trust_the_named_repositories(
    environment: Environment, made: dict[str, str], iam: Any, role: str
) -> None:
    name = f"dev_dataflow_automation_{role}"

    assert _attached(iam, name) == {policy_arn(environment, policy) for policy in OF_ROLES[role]}
    assert _trust(iam, name) == trust_policy(environment, role, ACME)
    assert {"Key": "environment", "Value": "dev"} in iam.get_role(RoleName=name)["Role"]["Tags"]


def test_policies_say_what_the_documents_say(environment: Environment, made: dict[str, str], iam: Any) -> None:
    for name, document in documents(environment).items():
        arn = policy_arn(environment, name)
        [version] = iam.list_policy_versions(PolicyArn=arn)["Versions"]
        found = iam.get_policy_version(PolicyArn=arn, VersionId=version["VersionId"])["PolicyVersion"]["Document"]

        assert found == document


@pytest.mark.parametrize("trust", [ACME, None], ids=["named", "not-named"])
def test_second_run_changes_nothing(
    environment: Environment, made: dict[str, str], iam: Any, trust: Trust | None
) -> None:
    before = iam.get_account_authorization_details()
    done = bootstrap(environment, trust)
    after = iam.get_account_authorization_details()

    assert done == dict.fromkeys(made, "unchanged")
    for kind in ("RoleDetailList", "Policies"):
        assert json.dumps(after[kind], default=str, sort_keys=True) == json.dumps(
            before[kind], default=str, sort_keys=True
        )


def test_policy_that_somebody_changed_is_put_right(environment: Environment, made: dict[str, str], iam: Any) -> None:
    arn = policy_arn(environment, "boundary")
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=NOTHING, SetAsDefault=True)
    done = bootstrap(environment, ACME)
    default = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]

    assert _changed(done) == {"policy/dev_dataflow_automation_boundary": "corrected"}
    document = iam.get_policy_version(PolicyArn=arn, VersionId=default)["PolicyVersion"]["Document"]
    assert document == documents(environment)["boundary"]


def test_policy_that_already_has_five_versions_is_put_right(
    environment: Environment, made: dict[str, str], iam: Any
) -> None:
    arn = policy_arn(environment, "register")
    for _ in range(4):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=NOTHING, SetAsDefault=True)
    with pytest.raises(iam.exceptions.LimitExceededException):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=NOTHING)
    done = bootstrap(environment, ACME)

    assert _changed(done) == {"policy/dev_dataflow_automation_register": "corrected"}
    assert not _changed(bootstrap(environment, ACME))


def test_trust_that_somebody_changed_is_put_right(environment: Environment, made: dict[str, str], iam: Any) -> None:
    everybody = trust_policy(environment, "deploy", Trust("mallory/fork"))
    iam.update_assume_role_policy(RoleName=DEPLOY, PolicyDocument=json.dumps(everybody))
    done = bootstrap(environment, ACME)

    assert _changed(done) == {f"role/{DEPLOY}": "corrected"}
    assert _trust(iam, DEPLOY) == trust_policy(environment, "deploy", ACME)


def test_who_is_trusted_stays_when_nobody_is_named(environment: Environment, made: dict[str, str], iam: Any) -> None:
    """`invoke deploy` in local does this each time."""
    bootstrap(environment)

    assert trusted(environment) == ACME


def test_another_repository_takes_the_place_of_the_one_before(
    environment: Environment, made: dict[str, str], iam: Any
) -> None:
    other = Trust("acme/fork", ("acme/etl",))
    done = bootstrap(environment, other)

    assert _changed(done) == {f"role/dev_dataflow_automation_{role}": "corrected" for role in ROLES}
    assert trusted(environment) == other


def test_policy_that_was_detached_is_attached_again(environment: Environment, made: dict[str, str], iam: Any) -> None:
    iam.detach_role_policy(RoleName=PLAN, PolicyArn=policy_arn(environment, "plan"))

    assert _changed(bootstrap(environment, ACME)) == {f"role/{PLAN}": "corrected"}
    assert _attached(iam, PLAN) == {policy_arn(environment, "plan")}


def test_policy_that_is_not_the_roles_is_detached(environment: Environment, made: dict[str, str], iam: Any) -> None:
    administrator = iam.create_policy(PolicyName="administrator", PolicyDocument=NOTHING)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=PLAN, PolicyArn=administrator)

    assert _changed(bootstrap(environment, ACME)) == {f"role/{PLAN}": "corrected"}
    assert _attached(iam, PLAN) == {policy_arn(environment, "plan")}


def test_policy_within_a_role_is_removed(environment: Environment, made: dict[str, str], iam: Any) -> None:
    iam.put_role_policy(RoleName=PLAN, PolicyName="extra", PolicyDocument=NOTHING)

    assert _changed(bootstrap(environment, ACME)) == {f"role/{PLAN}": "corrected"}
    assert iam.list_role_policies(RoleName=PLAN)["PolicyNames"] == []


def test_provider_that_does_not_take_our_tokens_is_put_right(
    environment: Environment, iam: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam.create_open_id_connect_provider(
        Url="https://token.actions.githubusercontent.com", ClientIDList=["https://github.com/acme"]
    )
    add = mock.Mock()  # moto has no such operation
    monkeypatch.setattr(aws.client(environment, "iam"), "add_client_id_to_open_id_connect_provider", add)

    assert bootstrap(environment, ACME)["token.actions.githubusercontent.com"] == "corrected"
    add.assert_called_once_with(OpenIDConnectProviderArn=PROVIDER, ClientID="sts.amazonaws.com")


def test_provider_that_is_there_already_is_taken_as_it_is(environment: Environment, iam: Any) -> None:
    """Another environment in the account, or another team's pipelines, made it."""
    iam.create_open_id_connect_provider(
        Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
    )

    assert bootstrap(environment, ACME)["token.actions.githubusercontent.com"] == "unchanged"


def test_bucket_that_is_half_made_is_finished(environment: Environment, aws_mocked: Aws) -> None:
    s3, bucket = aws_mocked("s3"), state.bucket_name(environment)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": environment.aws_region})
    done = bootstrap(environment, ACME)

    assert done[bucket] == "made"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"


@pytest.mark.parametrize("code", ["EntityAlreadyExists", "InvalidInput"])
def test_role_of_ecs_that_is_there_already_is_fine(
    environment: Environment, aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    iam = aws.client(environment, "iam")
    there = iam.exceptions.from_code(code)({"Error": {"Code": code}}, "CreateServiceLinkedRole")
    monkeypatch.setattr(iam, "create_service_linked_role", mock.Mock(side_effect=there))

    assert bootstrap(environment, ACME)[f"role/{DEPLOY}"] == "made"


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException"])
@pytest.mark.parametrize("command", [bootstrap, remove, lambda environment: choose(environment, "", [])])
def test_credentials_that_may_not_do_this_are_one_clear_error(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, command: Callable[[Environment], Any], code: str
) -> None:
    refused = ClientError({"Error": {"Code": code, "Message": "User: ann is not authorized"}}, "X")

    class Refusing:
        exceptions = mock.Mock(NoSuchEntityException=KeyError)

        def __getattr__(self, name: str) -> Any:
            return mock.Mock(side_effect=refused)

    for module in (account, encryption, state):
        monkeypatch.setattr(module, "client", lambda *_: Refusing())
    with pytest.raises(PlatformError) as caught:
        command(environment)

    assert environment.aws_account_id in caught.value.what
    assert caught.value.why == "User: ann is not authorized"
    assert "administrator" in caught.value.todo


def test_another_error_of_aws_is_not_called_a_matter_of_credentials(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = ClientError({"Error": {"Code": "ServiceUnavailable", "Message": "later"}}, "X")
    monkeypatch.setattr(state, "client", lambda *_: mock.Mock(**{"get_bucket_versioning.side_effect": failed}))
    with pytest.raises(ClientError, match="later"):
        bootstrap(environment)


def test_removing_takes_everything(
    environment: Environment, writable: None, iam: Any, aws_mocked: Aws, made: dict[str, str]
) -> None:
    iam.put_role_policy(RoleName=DEPLOY, PolicyName="extra", PolicyDocument=NOTHING)
    iam.create_policy_version(PolicyArn=policy_arn(environment, "deploy"), PolicyDocument=NOTHING, SetAsDefault=True)
    remove(environment)

    assert _roles(iam) == []
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert iam.list_open_id_connect_providers()["OpenIDConnectProviderList"] == []
    assert aws_mocked("s3").list_buckets()["Buckets"] == []
    assert not [found for found in aws_mocked("kms").list_aliases()["Aliases"] if "dataflow" in found["AliasName"]]


def test_removing_twice_is_fine(environment: Environment, writable: None, iam: Any) -> None:
    remove(environment)
    remove(environment)

    assert iam.list_policies(Scope="Local")["Policies"] == []


def test_environment_that_is_deployed_keeps_everything(
    environment: Environment, made: dict[str, str], iam: Any, aws_mocked: Aws
) -> None:
    aws_mocked("ecs").create_cluster(clusterName="dev_dataflow_automation_workflows")
    with pytest.raises(PlatformError) as caught:
        remove(environment)

    assert caught.value.what == "environment dev is still deployed"
    assert caught.value.todo == "invoke destroy --env dev"
    assert not _changed(bootstrap(environment, ACME))


def test_cluster_of_another_environment_does_not_keep_this_one(
    environment: Environment, writable: None, iam: Any, aws_mocked: Aws
) -> None:
    aws_mocked("ecs").create_cluster(clusterName="test_dataflow_automation_agent")
    remove(environment)

    assert iam.list_policies(Scope="Local")["Policies"] == []


def test_github_stays_a_provider_while_another_environment_trusts_it(
    environment: Environment, writable: None, iam: Any
) -> None:
    other = dataclasses.replace(environment, name="test")
    bootstrap(other, ACME)
    remove(environment)

    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=PROVIDER)
    assert set(bootstrap(other, ACME).values()) == {"unchanged"}


def test_github_stays_a_provider_while_another_teams_role_trusts_it(
    environment: Environment, writable: None, iam: Any
) -> None:
    iam.create_role(
        RoleName="website", AssumeRolePolicyDocument=json.dumps(trust_policy(environment, "deploy", Trust("acme/web")))
    )
    remove(environment)

    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=PROVIDER)
    assert _roles(iam) == ["website"]


def test_key_of_the_settings_is_not_removed_with_the_environment(
    environment: Environment, iam: Any, aws_mocked: Aws
) -> None:
    kms = aws_mocked("kms")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    own = dataclasses.replace(environment, kms_key_arn=arn)

    assert bootstrap(own, ACME)[arn] == "unchanged"
    aws_mocked("s3").delete_bucket_policy(Bucket=state.bucket_name(own))
    remove(own)
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Enabled"


def test_key_that_cannot_be_used_is_refused_before_a_policy_changes(
    environment: Environment, iam: Any, aws_mocked: Aws
) -> None:
    kms = aws_mocked("kms")
    key = kms.create_key()["KeyMetadata"]
    kms.disable_key(KeyId=key["KeyId"])
    with pytest.raises(PlatformError, match="can't be used"):
        bootstrap(dataclasses.replace(environment, kms_key_arn=key["Arn"]), ACME)

    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert iam.list_roles()["Roles"] == []


def test_nobody_is_trusted_before_the_first_run(environment: Environment, iam: Any) -> None:
    assert trusted(environment) == Trust("")


def test_who_is_named_goes_before_who_is_trusted_and_that_before_the_origin(environment: Environment, iam: Any) -> None:
    origin = "github.com/acme/checkout"
    first = choose(environment, "", [], origin=origin)
    bootstrap(environment, ACME)

    assert first == Trust("acme/checkout")
    assert choose(environment, "", [], origin=origin) == ACME
    assert choose(environment, "acme/named", [], origin=origin) == Trust("acme/named", ACME.workflows)
    assert choose(environment, "", ["acme/new"], origin=origin) == Trust("acme/platform", ("acme/new",))


def test_repository_is_trusted_once_even_when_named_twice(environment: Environment, iam: Any) -> None:
    chosen = choose(environment, "acme/platform", ["acme/etl", "acme/platform", "acme/etl"])

    assert chosen == Trust("acme/platform", ("acme/etl",))


@pytest.mark.parametrize(
    ("before", "users", "after"),
    [(False, "", False), (True, "", True), (False, "yes", True), (True, "no", False)],
    ids=["stay-out", "stay-in", "let-in", "put-out"],
)
def test_users_of_the_account_are_trusted_only_when_that_is_said(
    environment: Environment, iam: Any, before: bool, users: str, after: bool
) -> None:
    bootstrap(environment, dataclasses.replace(ACME, account=before))
    chosen = choose(environment, "", [], users)
    bootstrap(environment, chosen)
    actions = [statement["Action"] for statement in _trust(iam, DEPLOY)["Statement"]]

    assert chosen == trusted(environment) == dataclasses.replace(ACME, account=after)
    assert ("sts:AssumeRole" in actions) is after


def test_wrong_answer_about_users_is_refused(environment: Environment, iam: Any) -> None:
    with pytest.raises(PlatformError, match="--trust-users is yes or no, not 'maybe'"):
        choose(environment, "", [], "maybe")


@pytest.mark.parametrize("origin", ["", "gitlab.com/acme/platform", "/srv/platform.git"])
def test_checkout_that_is_not_of_github_must_be_told_which_repository_it_is(
    environment: Environment, iam: Any, origin: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        choose(environment, "", [], origin=origin)

    assert (origin or "not set") in caught.value.why
    assert caught.value.todo == "invoke bootstrap-account --env dev --repository OWNER/NAME"


@pytest.mark.parametrize(
    ("option", "checkout", "before", "chosen"),
    [
        ("", "", "", "main"),
        ("", "", "old", "old"),
        ("", "trunk", "old", "trunk"),
        ("named", "trunk", "old", "named"),
    ],
    ids=["nothing-known", "as-now", "the-checkouts", "named"],
)
def test_default_branch_is_the_named_one_or_the_checkouts_or_as_now(
    environment: Environment, iam: Any, option: str, checkout: str, before: str, chosen: str
) -> None:
    if before:
        bootstrap(environment, dataclasses.replace(ACME, default_branch=before))
    trust = choose(environment, "acme/platform", [], "", "github.com/Acme/platform", option, checkout)
    bootstrap(environment, trust)

    assert trust.default_branch == chosen
    assert trusted(environment).default_branch == chosen


def test_default_branch_of_another_repositorys_checkout_counts_for_nothing(environment: Environment, iam: Any) -> None:
    chosen = choose(environment, "acme/platform", [], "", "github.com/me/fork", "", "trunk")
    with_ids = choose(environment, "acme@1/platform@2", [], "", "github.com/acme/platform", "", "trunk")

    assert (chosen.default_branch, with_ids.default_branch) == ("main", "trunk")


def test_trust_of_an_earlier_version_is_read_and_narrowed(
    environment: Environment, made: dict[str, str], iam: Any
) -> None:
    """It named each repository in both forms of the subject, and tested no branch and no workflow."""
    for role, names in (("deploy", ("acme/platform",)), ("register", (ACME.platform, *ACME.workflows))):
        name = f"dev_dataflow_automation_{role}"
        forms = [form for each in names for form in (each, each.replace("/", "@*/") + "@*")]
        [statement] = _trust(iam, name)["Statement"]
        subjects = {f"{GITHUB}:sub": [f"repo:{form}:environment:dev" for form in forms]}
        statement["Condition"] = {"StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com"}, "StringLike": subjects}
        old = {"Version": "2012-10-17", "Statement": [statement]}
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(old))
    done = bootstrap(environment, choose(environment, "", []))

    assert _changed(done) == {f"role/dev_dataflow_automation_{role}": "corrected" for role in ("deploy", "register")}
    assert trusted(environment) == ACME
    assert _trust(iam, DEPLOY) == trust_policy(environment, "deploy", ACME)


@pytest.mark.parametrize(
    ("repository", "workflows"),
    [("acme", []), ("acme/*", []), ("42", []), ("acme/platform", ["etl:main"]), ("acme/platform", ["*/*"])],
)
def test_name_that_is_no_repository_is_refused_before_anything_is_made(
    environment: Environment, iam: Any, repository: str, workflows: list[str]
) -> None:
    with pytest.raises(PlatformError, match="not a repository of GitHub"):
        choose(environment, repository, workflows)

    assert iam.list_roles()["Roles"] == []


@pytest.mark.parametrize(("count", "quota", "fits"), [(60, 2048, True), (90, 2048, False), (90, 8192, True)])
def test_more_repositories_than_a_trust_policy_has_room_for_are_refused_before_anything_is_made(
    environment: Environment,
    iam: Any,
    aws_mocked: Aws,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    quota: int,
    fits: bool,
) -> None:
    names = [f"acme/workflow-{number:0>3}" for number in range(count)]
    iam.get_account_summary = lambda: {"SummaryMap": {"AssumeRolePolicySizeQuota": quota}}
    monkeypatch.setattr(account, "client", lambda *_: iam)
    if fits:
        assert choose(environment, "acme/platform", names).workflows == tuple(names)
        return
    with pytest.raises(PlatformError) as caught:
        choose(environment, "acme/platform", names)

    assert caught.value.what == f"role register cannot trust {count + 1} repositories"
    assert f"IAM allows {quota}" in caught.value.why
    assert all(form in caught.value.todo for form in ("'OWNER/*'", "by their ids", "Service Quotas"))
    with pytest.raises(PlatformError, match="cannot trust"):
        bootstrap(environment, Trust("acme/platform", tuple(names)))
    assert iam.list_roles()["Roles"] == iam.list_policies(Scope="Local")["Policies"] == []
    assert aws_mocked("s3").list_buckets()["Buckets"] == []


def test_repositories_named_with_their_ids_stay_so(environment: Environment, iam: Any) -> None:
    ids = Trust("acme@1/platform@2", ("acme@1/etl@3",))
    bootstrap(environment, ids)

    assert trusted(environment) == choose(environment, "", []) == ids


def test_owners_and_ids_stay_when_nobody_is_named(environment: Environment, iam: Any) -> None:
    several = Trust("acme/platform", ("acme/*", "beta@7/*", "42"))
    bootstrap(environment, several)

    assert trusted(environment) == choose(environment, "", []) == several
    assert set(bootstrap(environment, choose(environment, "", [])).values()) == {"unchanged"}


def test_trust_that_somebody_widened_by_hand_does_not_keep_it_from_being_put_right(
    environment: Environment, made: dict[str, str], iam: Any
) -> None:
    wide = json.dumps(_trust(iam, DEPLOY)).replace("repo:acme/platform:environment:dev", "repo:acme/*")
    iam.update_assume_role_policy(RoleName=DEPLOY, PolicyDocument=wide)
    bootstrap(environment, choose(environment, "acme/platform", []))

    assert _trust(iam, DEPLOY) == trust_policy(environment, "deploy", ACME)
