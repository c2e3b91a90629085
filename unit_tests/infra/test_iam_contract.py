"""The check of policies and of recorded calls: a good record passes, and each kind of finding is found."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.emulated_record import Decision, Recorder
from environments.settings import Environment
from infra import iam_contract, iam_exceptions, iam_reference
from infra.iam_contract import of_documents, of_record
from infra.iam_exceptions import Finding
from infra.policy_documents import ATTACHED, Attached
from unit_tests.infra.references import REFERENCE, SERVICES

AT = "eu-west-1:123456789012"
DEFINITIONS = f"arn:aws:ecs:{AT}:task-definition/dev_*"
ROLES = "arn:aws:iam::123456789012:role/dev_*"
VPC, SUBNET = f"arn:aws:ec2:{AT}:vpc/*", f"arn:aws:ec2:{AT}:subnet/*"
CLUSTER = {"ArnEquals": {"ecs:cluster": f"arn:aws:ecs:{AT}:cluster/dev_workflows"}}


def _statement(action: str | list[str], resource: str | list[str], condition: Any = None, **more: Any) -> Any:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return {**statement, "Condition": condition} if condition else statement


def _inline(*statements: Any, role: str = "agent_task", kind: str = "inline") -> Attached:
    name = f"dev_dataflow_automation_{role}"
    return Attached("policy", "as_it_is", kind, name, (role,), {"Statement": [*statements]})


GOOD = (
    _statement("ecs:RunTask", DEFINITIONS, CLUSTER),
    _statement(["iam:PassRole"], [ROLES], {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}),
    _statement("ecs:ListClusters", "*"),
)


@pytest.fixture
def findings(environment: Environment) -> Any:
    """Gives the findings about documents."""
    return lambda *attached, **dependents: sorted({*of_documents(REFERENCE, [*attached], environment, dependents)})


def test_good_policies_have_no_findings(findings: Any) -> None:
    network = _inline(
        _statement("ec2:CreateSubnet", SUBNET, {"StringEquals": {"aws:RequestTag/environment": "dev"}}),
        _statement("ec2:CreateSubnet", VPC, {"StringEquals": {"aws:ResourceTag/environment": "dev"}}),
        role="deploy",
        kind="managed",
    )
    trust = _inline({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}, kind="trust")
    boundary = Attached(
        "boundary",
        "as_it_is",
        "boundary",
        "dev_dataflow_automation_boundary",
        (),
        {
            "Statement": [
                {"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"},
                {
                    "Effect": "Deny",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"Null": {"aws:ResourceTag/x": "true"}},
                },
                {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::*-state-*"},
            ]
        },
    )

    assert findings(_inline(*GOOD), network, trust, boundary) == []


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([_statement("ecs:RunTusk", DEFINITIONS)], {("unknown action", "ecs:RunTusk", "")}),
        ([_statement("ecs:Nothing*", "*")], {("unknown action", "ecs:Nothing*", "")}),
        (
            [_statement("s3:GetObject", "arn:aws:s3:::bucket")],
            {
                ("resource", "s3:GetObject", "arn:aws:s3:::bucket"),
                ("unused resource", "s3:GetObject", "arn:aws:s3:::bucket"),
                ("required resource type", "s3:GetObject", "object"),
            },
        ),
        (
            [_statement("ecs:ListClusters", f"arn:aws:ecs:{AT}:cluster/x")],
            {
                ("resource", "ecs:ListClusters", f"arn:aws:ecs:{AT}:cluster/x"),
                ("unused resource", "ecs:ListClusters", f"arn:aws:ecs:{AT}:cluster/x"),
            },
        ),
        (
            [_statement(["s3:GetObject", "s3:ListBucket"], ["arn:aws:s3:::b", "arn:aws:s3:::b/*", ROLES])],
            {("unused resource", "s3:GetObject s3:ListBucket", ROLES)},
        ),
        ([_statement("ecs:ListTasks", "*", CLUSTER)], {("any resource", "ecs:ListTasks", "")}),
        (
            [_statement("iam:PassRole", ROLES, {"StringEqualsIfExists": {"iam:PassedToServices": "x"}})],
            {("condition key", "iam:PassRole", "iam:PassedToServices")},
        ),
        (
            [_statement("ecs:ListClusters", "*", {"StringNotEquals": {"aws:ResourceTag/environment": "dev"}})],
            {("condition key", "ecs:ListClusters", "aws:ResourceTag/environment")},
        ),
        (
            [_statement("ec2:CreateSubnet", SUBNET)],
            {("required resource type", "ec2:CreateSubnet", "vpc")},
        ),
        (
            [_statement("ec2:CreateSubnet", [SUBNET, VPC], {"StringEquals": {"aws:RequestTag/environment": "dev"}})],
            {("required resource type", "ec2:CreateSubnet", "vpc")},
        ),
        ([GOOD[0]], {("dependent action", "ecs:RunTask", "iam:PassRole")}),
    ],
)
def test_each_kind_of_finding_about_a_statement_is_found(
    findings: Any, statements: list[Any], expected: set[tuple[str, str, str]]
) -> None:
    found = findings(_inline(*statements))

    assert {(one.kind, one.action, one.detail) for one in found} == expected
    assert {one.role for one in found} == {"agent_task"}


def test_what_an_action_needs_beyond_the_reference_is_granted_too(findings: Any) -> None:
    beyond = {"ecs:ListClusters": frozenset({"ecs:ListTasks"})}
    [found] = findings(_inline(*GOOD), **beyond)

    assert (found.kind, found.action, found.detail) == ("dependent action", "ecs:ListClusters", "ecs:ListTasks")
    instances = _statement("ecs:ListTasks", f"arn:aws:ecs:{AT}:container-instance/dev_*")
    assert findings(_inline(*GOOD, instances), **beyond) == []


def test_needs_of_an_action_that_no_role_is_granted_are_needless(findings: Any) -> None:
    [found] = findings(_inline(*GOOD), **{"ecs:ListTasks": frozenset({"ecs:ListClusters"})})

    assert (found.kind, found.action) == ("needless exception", "ecs:ListTasks")


@pytest.mark.parametrize("operator", ["StringEqualsIfExists", "ForAllValues:StringEquals", "Null"])
def test_key_that_may_be_missing_does_not_limit_the_types_of_a_statement(findings: Any, operator: str) -> None:
    condition = {operator: {"aws:RequestTag/environment": "true"}}

    assert findings(_inline(_statement("ec2:CreateSubnet", [SUBNET, VPC], condition))) == []


def test_what_other_settings_grant_does_not_count(findings: Any) -> None:
    """With each choice of settings the policies must be right by themselves."""
    with_own = dataclasses.replace(_inline(GOOD[1]), choice="with_own")

    assert [one.detail for one in findings(_inline(GOOD[0]), with_own)] == ["iam:PassRole"]
    assert findings(_inline(GOOD[0]), dataclasses.replace(with_own, choice="as_it_is")) == []


def test_denials_and_policies_of_resources_grant_a_role_nothing(findings: Any) -> None:
    denied = {**GOOD[1], "Effect": "Deny"}
    queue = Attached("queue", "as_it_is", "resource", "queue", (), {"Statement": [GOOD[1]]})

    assert [one.detail for one in findings(_inline(GOOD[0], denied), queue)] == ["iam:PassRole"]


@pytest.mark.parametrize(
    ("kind", "characters", "allowed"),
    [("managed", 6144, True), ("managed", 6145, False), ("boundary", 6145, False), ("trust", 2049, False)],
)
def test_size_of_a_document_is_within_the_quota_with_the_longest_name(
    findings: Any, kind: str, characters: int, allowed: bool
) -> None:
    def document(sid: str) -> dict[str, Any]:
        return {"Statement": [{**GOOD[2], "Sid": sid}]}

    padding = characters - len(json.dumps(document("abcdefghijklmnop"), separators=(",", ":")))
    attached = dataclasses.replace(_inline(kind=kind), document=document("dev" + "x" * padding))
    found = [one for one in findings(attached) if one.kind == "quota"]

    assert [one.detail for one in found] == ([] if allowed else [f"{characters} of {characters - 1} characters"])


def test_inline_policies_of_a_role_count_together(findings: Any) -> None:
    long = [dataclasses.replace(_inline({**GOOD[2], "Sid": "x" * 5000}), name=str(number)) for number in range(3)]

    assert findings(*long[:2]) == []
    [found] = findings(*long)
    assert (found.kind, found.role, found.action) == ("quota", "agent_task", "inline")
    assert findings(*long[:2], dataclasses.replace(long[2], attached_to="dev_dataflow_automation_other")) == []


@pytest.mark.parametrize(("length", "found"), [(64 - 13, 0), (64 - 12, 1)])
def test_name_of_a_role_is_within_the_quota_with_the_longest_name(findings: Any, length: int, found: int) -> None:
    """The environment's name is 13 characters longer than `dev`."""
    name = "dev_dataflow_automation_".ljust(length, "x")
    attached = dataclasses.replace(_inline(GOOD[2]), attached_to=name)

    assert len([one for one in findings(attached) if "a name of" in one.detail]) == found


@pytest.mark.parametrize("count", [10, 11])
def test_role_has_no_more_policies_than_iam_attaches(findings: Any, count: int) -> None:
    one = _inline(GOOD[2], kind="managed")
    policies = [dataclasses.replace(one, name=f"{n}", attached_to=f"dev_dataflow_automation_{n}") for n in range(count)]

    assert [found.detail for found in findings(*policies)] == (["11 of 10 policies"] if count > 10 else [])


# The record

GRANTS = {"agent_task": {"ecs:RunTask", "ecs:ListClusters"}}
RUN = Decision("dev_dataflow_automation_agent_task", "ecs:RunTask", f"arn:aws:ecs:{AT}:task-definition/f:1", {}, True)
LIST = dataclasses.replace(RUN, action="ecs:ListClusters", resource="*")


def _of_record(*decisions: Decision) -> set[tuple[str, str, str]]:
    found = [*of_record(REFERENCE, GRANTS, [*decisions])]

    assert {one.role for one in found} <= {"agent_task"}
    return {(one.kind, one.action, one.detail) for one in found}


def test_good_record_has_no_findings() -> None:
    context = {"ecs:cluster": "c", "aws:ResourceTag/environment": "dev", "aws:SourceIp": "127.0.0.1"}

    assert _of_record(dataclasses.replace(RUN, context=context), LIST) == set()


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (dataclasses.replace(RUN, action="ecs:RunTusk"), ("unknown call", "ecs:RunTusk", "")),
        (
            dataclasses.replace(RUN, resource=f"arn:aws:ecs:{AT}:cluster/c"),
            ("type of call", "ecs:RunTask", "cluster/c"),
        ),
        (dataclasses.replace(RUN, resource="*"), ("type of call", "ecs:RunTask", "*")),
        (dataclasses.replace(RUN, resource=""), ("type of call", "ecs:RunTask", "")),
        (
            dataclasses.replace(LIST, resource=f"arn:aws:ecs:{AT}:cluster/c"),
            ("type of call", "ecs:ListClusters", "cluster/c"),
        ),
        (dataclasses.replace(LIST, context={"ecs:cluster": "c"}), ("key of call", "ecs:ListClusters", "ecs:cluster")),
        (
            dataclasses.replace(RUN, action="ecs:ListTasks", resource=f"arn:aws:ecs:{AT}:container-instance/c/1"),
            ("not granted", "ecs:ListTasks", ""),
        ),
    ],
)
def test_each_kind_of_finding_about_a_call_is_found(decision: Decision, expected: tuple[str, str, str]) -> None:
    assert _of_record(RUN, LIST, decision) == {expected}


def test_denied_calls_exercise_nothing_and_are_checked_too() -> None:
    denied = dataclasses.replace(RUN, allowed=False, context={"ecs:clusters": "c"})

    assert _of_record(denied, LIST) == {
        ("not exercised", "ecs:RunTask", ""),
        ("key of call", "ecs:RunTask", "ecs:clusters"),
    }


def test_denied_call_of_what_no_role_is_granted_may_be_about_anything() -> None:
    """The resource and the keys are the emulator's guesses then."""
    guessed = dataclasses.replace(RUN, action="s3:GetObject", resource="*", context={"s3:nothing": "x"})

    assert _of_record(RUN, LIST, dataclasses.replace(guessed, allowed=False)) == set()
    assert {kind for kind, *_ in _of_record(RUN, LIST, guessed)} == {"type of call", "key of call", "not granted"}


def test_denied_call_needs_no_grant() -> None:
    denied = dataclasses.replace(RUN, action="iam:PassRole", resource=ROLES, allowed=False)

    assert _of_record(RUN, LIST, denied) == set()


def test_one_role_does_not_exercise_what_another_is_granted() -> None:
    other = dataclasses.replace(RUN, role="dev_dataflow_automation_deploy")
    found = {*of_record(REFERENCE, GRANTS, [other, LIST])}

    assert found == {
        Finding("not granted", "deploy", "ecs:RunTask"),
        Finding("not exercised", "agent_task", "ecs:RunTask"),
    }


# The command


@pytest.fixture
def run(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the check over documents and, if there are any, decisions; gives its exit code and what it printed."""
    exceptions = tmp_path / "exceptions.toml"
    exceptions.write_text("")
    reference = tmp_path / iam_reference.FILE.replace("*", "3.11")
    reference.parent.mkdir(parents=True)
    reference.write_text(json.dumps(SERVICES))
    monkeypatch.setattr(iam_exceptions, "FILE", exceptions)
    record = tmp_path / "record.jsonl"

    def check(attached: list[Attached], *decisions: Decision, recorded: bool = True) -> tuple[int, str]:
        lines = [json.dumps(dataclasses.asdict(one)) for one in attached]
        (tmp_path / ATTACHED).write_text("\n".join(lines))
        for one in decisions:
            arn = f"arn:aws:iam::123456789012:role/{one.role}"
            Recorder(record).record(arn, one.action, one.resource, one.context, one.allowed)
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path), str(tmp_path), *([str(record)] if recorded else [])])
        return iam_contract.main(), capsys.readouterr().out

    return check


PASS = dataclasses.replace(RUN, action="iam:PassRole", resource=ROLES.replace("*", "x"))


def test_command_succeeds_when_everything_is_right_and_exercised(run: Any) -> None:
    code, printed = run([_inline(*GOOD)], RUN, LIST, PASS)

    assert (code, printed) == (0, "0 findings in 1 policy documents and 3 recorded decisions\n")


def test_command_fails_for_an_action_that_no_test_exercised_and_says_what_to_add(run: Any, tmp_path: Path) -> None:
    code, printed = run([_inline(*GOOD)], RUN, PASS)
    addition = printed.partition("[[exception]]")[1:]

    assert code == 1
    assert "agent_task: ecs:ListClusters: not exercised" in printed
    assert printed.endswith("1 findings in 1 policy documents and 2 recorded decisions\n")
    text = "".join(addition).rpartition("\n1 findings")[0].replace('""', '"x"')
    (tmp_path / "exceptions.toml").write_text(text)
    assert run([_inline(*GOOD)], RUN, PASS) == (0, "0 findings in 1 policy documents and 2 recorded decisions\n")
    code, printed = run([_inline(*GOOD)], LIST)
    assert code == 0
    assert "agent_task: ecs:ListClusters (not exercised): needless exception" in printed


def test_command_fails_for_any_other_needless_exception(run: Any, tmp_path: Path) -> None:
    (tmp_path / "exceptions.toml").write_text(
        '[[exception]]\nfinding = "not granted"\nactions = ["ecs:RunTask"]\nwhy = "x"\nsource = "x"\n'
    )

    code, printed = run([_inline(*GOOD)], RUN, LIST, PASS)

    assert code == 1
    assert "ecs:RunTask (not granted): needless exception" in printed


def test_command_fails_for_a_call_that_no_policy_grants(run: Any) -> None:
    call = dataclasses.replace(RUN, action="sts:GetCallerIdentity", resource="*")

    code, printed = run([_inline(*GOOD)], RUN, LIST, PASS, call)
    assert code == 1
    assert "sts:GetCallerIdentity" in printed


def test_command_fails_when_nothing_was_recorded(run: Any) -> None:
    empty = _inline({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}, kind="trust")

    code, printed = run([empty])

    assert code == 1
    assert "there are no decisions to check" in printed
    assert run([empty], recorded=False)[0] == 0


def test_command_fails_without_documents(run: Any) -> None:
    code, printed = run([], recorded=False)

    assert code == 1
    assert "there are no documents to check" in printed


def test_documents_alone_need_no_record(run: Any) -> None:
    code, printed = run([_inline(*GOOD)], recorded=False)

    assert (code, printed) == (0, "0 findings in 1 policy documents\n")
