import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hcl2
import psutil
import pytest

from environments import leftovers, outages
from environments.errors import PlatformError
from environments.settings import ROOT, Environment
from infra import terraform, terraform_errors, terraform_process
from infra.images import ensure_repository
from infra.state import bucket_name
from infra.terraform import Outputs
from unit_tests.conftest import FakeTerraform

TAG = "0123456789abcdef"
LOCK_ID = "cd4b95cf-a86e-f45e-1682-0f90f3608d71"
# The words of Terraform 1.11.4, from a run beside another one.
LOCK_DETAIL = f"""Error message: operation error S3: PutObject, https response error StatusCode: 412, \
api error PreconditionFailed: At least one of the pre-conditions you specified did not hold
Lock Info:
  ID:        {LOCK_ID}
  Path:      dev-dataflow-automation-state-123456789012/terraform.tfstate
  Operation: OperationTypeApply
  Who:       root@vm
  Version:   1.11.4
  Created:   2026-11-23 06:12:43.639849834 +0000 UTC
  Info:      {""}


Terraform acquires a state lock to protect the state from being written
by multiple users at the same time. Please resolve the issue above and try
again. For most commands, you can disable locking with the "-lock=false"
flag, but this is not recommended."""
LOCK_ERROR = "Error acquiring the state lock"
FRAMED = "\n".join(["╷", f"│ Error: {LOCK_ERROR}", "│ ", *(f"│ {line}" for line in LOCK_DETAIL.splitlines()), "╵", ""])


def _event(kind: str, **content: Any) -> dict[str, Any]:
    return {"@level": "info", "@message": kind, "@module": "terraform.ui", "type": kind, **content}


def _hook(kind: str, address: str, action: str = "create") -> dict[str, Any]:
    resource = {"addr": address, "module": "", "resource": address, "implied_provider": "aws"}
    return _event(kind, hook={"resource": resource, "action": action})


def _summary(add: int = 0, operation: str = "plan") -> dict[str, Any]:
    changes = {"add": add, "change": 0, "import": 0, "remove": 0, "operation": operation}
    return _event("change_summary", changes=changes)


def _error(summary: str, detail: str = "", **more: Any) -> dict[str, Any]:
    event = _event("diagnostic", diagnostic={"severity": "error", "summary": summary, "detail": detail, **more})
    return {**event, "@level": "error", "@message": f"Error: {summary}"}


def _lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in (_event("version", terraform="1.11.4", ui="1.2"), *events))


def _output_json(outputs: Outputs) -> str:
    return json.dumps({name: {"sensitive": False, "value": value} for name, value in vars(outputs).items()})


@pytest.fixture
def deployed(fake_terraform: FakeTerraform, outputs: Outputs) -> FakeTerraform:
    fake_terraform.answers("output", _output_json(outputs))
    fake_terraform.answers("apply", _lines(_summary()))
    fake_terraform.ends_with("apply", json.dumps(_event("outputs", outputs=json.loads(_output_json(outputs)))) + "\n")
    return fake_terraform


@pytest.mark.parametrize("words", [f"Error: {LOCK_ERROR}\n\n{LOCK_DETAIL}", f"{LOCK_ERROR}\n{LOCK_DETAIL}"])
def test_held_lock_says_who_since_when_and_how_to_release_it(environment: Environment, words: str) -> None:
    error = terraform_errors.failure(environment, "apply", words)

    assert "lock" in error.what
    assert "root@vm" in error.why
    assert "2026-11-23 06:12:43" in error.why
    assert error.todo.endswith(f"invoke unlock {LOCK_ID} --env dev")


def test_other_failures_are_told_in_the_words_of_terraform(environment: Environment) -> None:
    error = terraform_errors.failure(environment, "apply", "Error: no such region")

    assert (error.what, error.why) == ("terraform apply failed", "Error: no such region")


def test_missing_bucket_of_another_command_is_no_missing_deployment(environment: Environment) -> None:
    error = terraform_errors.failure(environment, "apply", 'Error: S3 bucket "logs" does not exist')

    assert error.what == "terraform apply failed"


def test_frame_around_a_message_is_taken_away() -> None:
    framed = "╷\n│ Error: bad value\n│ \n│   on main.tf line 3:\n│    3:   x = │ y\n╵\n"

    assert terraform_errors.readable(framed) == "Error: bad value\n  on main.tf line 3:\n   3:   x = │ y"


def test_terraform_of_the_bootstrap_goes_before_the_one_on_path(
    fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTerraform(tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", f"{tmp_path / 'elsewhere'}:/usr/bin:/bin")
    own = terraform_process.program()
    shutil.rmtree(fake_terraform.folder)

    assert own == str(fake_terraform.program)
    assert terraform_process.program() == str(tmp_path / "elsewhere" / "terraform")


def test_missing_terraform_says_how_to_get_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="Terraform is missing") as caught:
        terraform_process.program()

    assert "bootstrap.sh" in caught.value.todo


@pytest.mark.parametrize("version", ["1.9.8", "0.15.0"])
def test_terraform_that_is_too_old_is_named_with_its_version(fake_terraform: FakeTerraform, version: str) -> None:
    fake_terraform.answers("version", json.dumps({"terraform_version": version}))
    with pytest.raises(PlatformError, match="too old") as caught:
        terraform_process.program()

    assert str(fake_terraform.program) in caught.value.why
    assert version.rpartition(".")[0] in caught.value.why
    assert "1.10" in caught.value.todo


@pytest.mark.parametrize("version", ["1.10.0", "1.11.4", "2.0.0"])
def test_terraform_that_is_new_enough_is_taken(fake_terraform: FakeTerraform, version: str) -> None:
    fake_terraform.answers("version", json.dumps({"terraform_version": version}))

    assert terraform_process.program() == str(fake_terraform.program)


def test_program_that_is_no_terraform_is_refused(fake_terraform: FakeTerraform) -> None:
    fake_terraform.answers("version", "hello")
    with pytest.raises(PlatformError, match="Terraform"):
        terraform_process.program()


def test_minimum_is_the_one_of_the_module() -> None:
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    [block] = hcl2.loads((ROOT / "infra" / "versions.tf").read_text(), serialization_options=options)["terraform"]

    assert block["required_version"] == ">= " + ".".join(map(str, (*terraform_process.MINIMUM_VERSION, 0)))


@pytest.mark.parametrize(("own", "given"), [(None, "400"), ("50", "50")])
def test_terraform_collects_garbage_less_often_unless_the_user_says_how_often(
    environment: Environment,
    deployed: FakeTerraform,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    given: str,
) -> None:
    monkeypatch.delenv("GOGC", raising=False)
    if own:
        monkeypatch.setenv("GOGC", own)
    terraform.outputs(environment)

    assert f"GOGC={given}\n" in deployed.environment("output")


def test_init_names_the_state_bucket_of_the_environment(environment: Environment, deployed: FakeTerraform) -> None:
    terraform.outputs(environment)
    arguments = deployed.arguments("init")

    assert {f"-backend-config=bucket={bucket_name(environment)}", "-backend-config=region=eu-west-1"} <= set(arguments)
    assert "-reconfigure" in arguments  # the module's folder is shared by all environments
    assert "-input=false" in arguments
    assert not any("path_style" in argument for argument in arguments)


def test_apply_hands_over_settings_and_image_and_asks_nothing(
    environment: Environment, deployed: FakeTerraform
) -> None:
    terraform.apply(environment, TAG)
    arguments = deployed.arguments("apply")

    assert {
        "-json",
        "-auto-approve=true",
        "-input=false",
        f"-var-file={environment.tfvars}",
        "-var=environment=dev",
        f"-var=agent_image_tag={TAG}",
    } == set(arguments) - {"apply"}


def test_each_environment_has_a_data_folder_of_its_own(environment: Environment, deployed: FakeTerraform) -> None:
    terraform.apply(environment, TAG)
    terraform.outputs(environment)

    for command in ("init", "apply", "output"):
        assert f"TF_DATA_DIR={environment.folder}/terraform" in deployed.environment(command)


def test_terraform_never_sees_a_prefect_key(
    environment: Environment, deployed: FakeTerraform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "key-one")
    monkeypatch.setenv("PREFECT_WORKFLOW_REGISTER_TOKEN", "key-two")
    deployed.answers("plan")
    terraform.apply(environment, TAG)
    terraform.outputs(environment)
    terraform.destroy(environment, TAG)
    terraform.unlock(environment, LOCK_ID)

    commands = set(deployed.calls())
    assert commands == {"init", "apply", "output", "destroy", "force-unlock"}
    for command in commands:
        seen = deployed.environment(command) + "".join(deployed.arguments(command))
        assert "key-one" not in seen
        assert "key-two" not in seen


def test_local_sends_terraform_to_the_emulator(
    local: Environment, fake_terraform: FakeTerraform, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SESSION_TOKEN": "b", "AWS_ENDPOINT_URL": local.aws_endpoint_url}
    monkeypatch.setattr(terraform_process, "aws_variables", lambda _: given)
    fake_terraform.answers("output", _output_json(outputs))
    terraform.outputs(local)
    variables = fake_terraform.environment("init").splitlines()

    assert f"AWS_ENDPOINT_URL={local.aws_endpoint_url}" in variables
    assert not any(line.endswith("=real") for line in variables)
    assert "-backend-config=use_path_style=true" in fake_terraform.arguments("init")


def test_unlock_names_the_lock_last_and_is_not_asked_back(
    environment: Environment, fake_terraform: FakeTerraform
) -> None:
    terraform.unlock(environment, LOCK_ID)
    arguments = fake_terraform.arguments("force-unlock")

    assert arguments[-1] == LOCK_ID
    assert "-force" in arguments


@pytest.mark.parametrize(
    ("first", "after_the_dead_one_ended", "found"),
    [
        (None, None, ""),
        ({"ID": LOCK_ID, "Who": "root@another-machine"}, None, ""),
        ({}, None, ""),
        ({"ID": LOCK_ID, "Who": f"me@{os.uname().nodename}"}, None, ""),
        ({"ID": LOCK_ID, "Who": f"me@{os.uname().nodename}"}, {"ID": LOCK_ID}, LOCK_ID),
    ],
)
def test_own_lock_is_that_of_a_killed_command_of_this_machine_after_its_terraform_has_ended(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, first: Any, after_the_dead_one_ended: Any, found: str
) -> None:
    held, waited = [first, after_the_dead_one_ended], list[bool]()
    monkeypatch.setattr(terraform, "lock", lambda _: held[len(waited)])
    monkeypatch.setattr(leftovers, "clear", lambda: waited.append(True))
    monkeypatch.setattr(psutil, "process_iter", lambda _: [SimpleNamespace(info={"name": "python"})])

    assert terraform.own_lock(environment) == found
    assert bool(waited) == str((first or {}).get("Who", "")).endswith(f"@{os.uname().nodename}")


def test_lock_of_a_terraform_that_may_be_alive_is_not_released(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"ID": LOCK_ID, "Who": f"me@{os.uname().nodename}"}
    monkeypatch.setattr(terraform, "lock", lambda _: held)
    monkeypatch.setattr(leftovers, "clear", lambda: None)
    monkeypatch.setattr(psutil, "process_iter", lambda _: [SimpleNamespace(info={"name": "terraform"})])
    with pytest.raises(PlatformError, match="a Terraform is at work") as caught:
        terraform.own_lock(environment)

    assert LOCK_ID in caught.value.why


def test_unlock_of_a_lock_that_is_not_held_is_told(environment: Environment, fake_terraform: FakeTerraform) -> None:
    fake_terraform.answers("force-unlock", stderr="╷\n│ Failed to unlock state: no lock\n╵\n", code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.unlock(environment, LOCK_ID)

    assert caught.value.why == "Failed to unlock state: no lock"


def test_outputs_are_read_as_they_are(environment: Environment, deployed: FakeTerraform, outputs: Outputs) -> None:
    assert terraform.outputs(environment) == outputs
    assert deployed.calls() == ["init", "output"]


@pytest.mark.parametrize("state", ["{}", json.dumps({"aws_region": {"value": "eu-west-1"}})])
def test_missing_outputs_mean_not_deployed(environment: Environment, fake_terraform: FakeTerraform, state: str) -> None:
    fake_terraform.answers("output", state)
    with pytest.raises(PlatformError) as caught:
        terraform.outputs(environment)

    assert caught.value.what == "environment dev is not deployed"
    assert caught.value.todo == "invoke deploy --env dev"


def test_state_bucket_that_is_missing_means_not_deployed(
    environment: Environment, fake_terraform: FakeTerraform
) -> None:
    """What `invoke outputs` meets before the first deploy; words of Terraform 1.11.4."""
    words = f"""
Error: Failed to get existing workspaces: S3 bucket "{bucket_name(environment)}" does not exist.

The referenced S3 bucket must have been previously created. If the S3 bucket
was created within the last minute, please wait for a minute or two and try
again.

Error: operation error S3: ListObjectsV2, https response error StatusCode: 404, RequestID: , HostID: , NoSuchBucket:


"""
    fake_terraform.answers("init", stderr=words, code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.outputs(environment)

    assert caught.value.what == "environment dev is not deployed"
    assert caught.value.todo.startswith("invoke bootstrap-account --env dev")


@pytest.fixture
def ready(environment: Environment, deployed: FakeTerraform) -> Path:
    """The provider of an environment for which Terraform was made ready."""
    folder = terraform_process.data_folder(environment) / "providers/registry/hashicorp/aws/6.0.0/linux_amd64"
    folder.mkdir(parents=True)
    (folder / "terraform-provider-aws_v6.0.0").touch()
    terraform.outputs(environment)
    return folder


def test_terraform_is_made_ready_once(environment: Environment, deployed: FakeTerraform, ready: Path) -> None:
    terraform.outputs(environment)

    assert deployed.calls() == ["init", "output", "output"]


def test_terraform_is_asked_for_its_version_before_it_is_made_ready_and_never_again(
    environment: Environment, deployed: FakeTerraform, ready: Path
) -> None:
    deployed.answers("version", '{"terraform_version": "1.9.0"}')
    terraform_process._version_of.cache_clear()
    terraform.outputs(environment)  # the program is the same, so nobody asks

    _replace_program(deployed, ready)
    with pytest.raises(PlatformError, match="too old"):
        terraform.outputs(environment)
    assert deployed.calls() == ["init", "output", "output"]


def _lose_provider(_: FakeTerraform, provider: Path) -> None:
    shutil.rmtree(provider)


def _change_lock(_: FakeTerraform, provider: Path) -> None:
    file = terraform_process.MODULE / ".terraform.lock.hcl"
    file.write_text(file.read_text() + "# another provider")


def _replace_program(fake: FakeTerraform, provider: Path) -> None:
    os.utime(fake.program, (0, 0))


@pytest.mark.parametrize("change", [_lose_provider, _change_lock, _replace_program])
def test_terraform_is_made_ready_again_when_what_it_needs_has_changed(
    environment: Environment,
    deployed: FakeTerraform,
    ready: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[FakeTerraform, Path], None],
) -> None:
    module = shutil.copytree(terraform_process.MODULE, tmp_path / "module")
    for user in (terraform, terraform_process):
        monkeypatch.setattr(user, "MODULE", module)
    change(deployed, ready)
    terraform.outputs(environment)

    assert deployed.calls().count("init") == 2


def test_terraform_is_made_ready_again_for_another_state(
    environment: Environment, deployed: FakeTerraform, ready: Path
) -> None:
    terraform.outputs(dataclasses.replace(environment, aws_account_id="210987654321"))

    assert deployed.calls().count("init") == 2


def test_lock_that_another_command_meets_is_explained_too(
    environment: Environment, fake_terraform: FakeTerraform
) -> None:
    fake_terraform.answers("init", stderr=FRAMED, code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.outputs(environment)

    assert f"invoke unlock {LOCK_ID}" in caught.value.todo


def test_apply_tells_when_the_repository_was_made(
    environment: Environment, deployed: FakeTerraform, outputs: Outputs
) -> None:
    """ECR need not be asked: it would fail here."""
    called: list[bool] = []
    made = _hook("apply_complete", terraform.AGENT_REPOSITORY_ADDRESS)
    deployed.answers("apply", _lines(_summary(1), _hook("apply_complete", "aws_vpc.this"), made))

    assert terraform.apply(environment, TAG, lambda: called.append(True)) == outputs
    assert called == [True]


@pytest.mark.parametrize("there", [True, False], ids=["there", "deleted-by-hand"])
def test_repository_of_the_state_counts_only_when_ecr_has_it(
    environment: Environment, deployed: FakeTerraform, aws_mocked: Callable[[str], Any], there: bool
) -> None:
    called: list[bool] = []
    if there:
        ensure_repository(environment, environment.agent_name)
    deployed.answers("apply", _lines(_hook("refresh_complete", terraform.AGENT_REPOSITORY_ADDRESS), _summary()))
    terraform.apply(environment, TAG, lambda: called.append(True))

    assert called == [True] * there


def test_repository_that_was_gone_is_told_once_it_is_made_anew(
    environment: Environment, deployed: FakeTerraform, aws_mocked: Callable[[str], Any]
) -> None:
    called: list[bool] = []
    events = [_hook(kind, terraform.AGENT_REPOSITORY_ADDRESS) for kind in ("refresh_complete", "apply_complete")]
    deployed.answers("apply", _lines(events[0], _summary(1), events[1]))
    terraform.apply(environment, TAG, lambda: called.append(True))

    assert called == [True]


def test_apply_does_not_tell_so_before(environment: Environment, deployed: FakeTerraform) -> None:
    called: list[bool] = []
    begun = [_hook(kind, terraform.AGENT_REPOSITORY_ADDRESS) for kind in ("apply_start", "apply_progress")]
    deployed.answers("apply", _lines(_summary(2), *begun, _hook("apply_complete", "aws_ecs_cluster.agent")))
    terraform.apply(environment, TAG, lambda: called.append(True))

    assert called == []


@pytest.mark.parametrize(("added", "expected"), [(0, "no changes"), (3, "3 resources changed")])
def test_apply_says_how_much_it_changed(
    environment: Environment,
    deployed: FakeTerraform,
    capsys: pytest.CaptureFixture[str],
    added: int,
    expected: str,
) -> None:
    deployed.answers("apply", _lines(_summary(added), _summary(added, "apply")))
    with terraform.progress.steps() as run:
        run("AWS", terraform.apply, environment, TAG)

    assert expected in capsys.readouterr().out


def test_errors_of_apply_become_the_message_with_their_place(environment: Environment, deployed: FakeTerraform) -> None:
    place = {"filename": "network.tf", "start": {"line": 6, "column": 30}, "end": {"line": 6, "column": 31}}
    errors = [
        _error("no such zone", "AZ eu-west-1z", address="aws_subnet.public[0]", range=place),
        _error("quota", "too many VPCs", address="aws_vpc.this"),
        _error("only words"),
    ]
    warning = {**_error("old syntax"), "@level": "warn"}
    deployed.answers("apply", _lines(_summary(2), warning, *errors), code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.apply(environment, TAG)

    assert caught.value.what == "terraform apply failed"
    assert caught.value.why.splitlines() == [
        *("no such zone", "network.tf:6", "AZ eu-west-1z"),
        *("quota", "aws_vpc.this", "too many VPCs"),
        "only words",
    ]


def test_lock_that_apply_meets_is_explained(environment: Environment, deployed: FakeTerraform) -> None:
    deployed.answers("apply", _lines(_error(LOCK_ERROR, LOCK_DETAIL)), code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.apply(environment, TAG)

    assert "root@vm" in caught.value.why
    assert f"invoke unlock {LOCK_ID}" in caught.value.todo


def test_message_about_a_lock_can_be_typed_as_it_stands(environment: Environment, deployed: FakeTerraform) -> None:
    deployed.answers("apply", _lines(_error(LOCK_ERROR, LOCK_DETAIL)), code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.apply(environment, TAG)

    assert caught.value.todo.endswith(f"invoke unlock {LOCK_ID} --env dev")


def test_apply_that_dies_without_a_word_names_its_log(
    environment: Environment, deployed: FakeTerraform, root: Path
) -> None:
    deployed.answers("apply", "panic: runtime error\n", code=2)
    with pytest.raises(PlatformError) as caught:
        terraform.apply(environment, TAG)

    log = root / caught.value.why.removeprefix("see ")
    assert log.read_text() == "panic: runtime error\n"


def test_words_between_the_events_do_no_harm(environment: Environment, deployed: FakeTerraform) -> None:
    """Such as a warning about the command line's configuration, which is no JSON."""
    deployed.answers("apply", "There are some problems with the CLI configuration:\n│ Warning\n\n" + _lines(_summary()))

    assert terraform.apply(environment, TAG).aws_region == "eu-west-1"


@pytest.mark.parametrize("code", [0, 2])
def test_plan_gives_the_code_that_tells_whether_something_would_change(
    environment: Environment, fake_terraform: FakeTerraform, code: int
) -> None:
    fake_terraform.answers("plan", stderr="a warning of the program itself", code=code)

    assert terraform.plan(environment, TAG) == code
    assert "-detailed-exitcode" in fake_terraform.arguments("plan")


def test_plan_asks_nobody_and_locks_nothing(environment: Environment, fake_terraform: FakeTerraform) -> None:
    """AWS would be asked for in vain here, and there is no key of Prefect."""
    terraform.plan(environment, TAG)
    arguments = fake_terraform.arguments("plan")

    assert {"-lock=false", "-input=false", "-no-color", f"-var=agent_image_tag={TAG}"} <= set(arguments)
    assert not any(argument.startswith("-out") for argument in arguments)
    assert fake_terraform.calls() == ["init", "plan"]


def test_drift_names_what_would_change_and_prints_and_locks_nothing(
    environment: Environment, fake_terraform: FakeTerraform, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = [("update", "aws_sqs_queue.task_events"), ("create", 'aws_iam_role.this["agent_task"]')]
    planned = [
        {"type": "planned_change", "change": {"action": what, "resource": {"addr": which}}} for what, which in changes
    ]
    reads = {**planned[0], "change": {"action": "read", "resource": {"addr": "data.aws_iam_policy_document.x"}}}
    fake_terraform.answers("plan", _lines(reads, *planned, _summary(2)))

    assert terraform.drift(environment, TAG) == [f"{what} {which}" for what, which in changes]
    assert {"-lock=false", "-input=false", f"-var=agent_image_tag={TAG}"} <= set(fake_terraform.arguments("plan"))
    assert capfd.readouterr().out == ""
    fake_terraform.answers("plan", _lines(_summary(0)))
    assert terraform.drift(environment, TAG) == []


def test_plan_is_saved_where_it_is_wanted(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    terraform.plan(environment, TAG, tmp_path / "plan")

    assert f"-out={tmp_path / 'plan'}" in fake_terraform.arguments("plan")


def test_plan_that_fails_is_told_in_the_words_of_terraform(
    environment: Environment, fake_terraform: FakeTerraform
) -> None:
    fake_terraform.answers("plan", stderr="╷\n│ Error: no such region\n╵\n", code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.plan(environment, TAG)

    assert (caught.value.what, caught.value.why) == ("terraform plan failed", "Error: no such region")


def test_saved_plan_is_applied_as_it_is(environment: Environment, deployed: FakeTerraform, outputs: Outputs) -> None:
    """Settings beside a plan would be refused by Terraform."""
    assert terraform.apply(environment, TAG, saved=Path("/saved/plan")) == outputs
    assert deployed.arguments("apply")[-1] == "/saved/plan"
    assert set(deployed.arguments("apply")) == {"apply", "-json", "-input=false", "/saved/plan"}


def test_stale_plan_is_refused_with_what_to_do(environment: Environment, deployed: FakeTerraform) -> None:
    detail = "The given plan file can no longer be applied because the state was changed by another operation."
    deployed.answers("apply", _lines(_error("Saved plan is stale", detail)), code=1)
    with pytest.raises(PlatformError, match="the plan is stale; nothing was changed") as caught:
        terraform.apply(environment, TAG, saved=Path("/saved/plan"))

    assert "invoke plan --env dev --out" in caught.value.todo


def test_destroy_asks_nothing_and_passes_the_same_settings(
    environment: Environment, fake_terraform: FakeTerraform
) -> None:
    fake_terraform.answers("destroy", _lines(_hook("apply_start", "aws_vpc.this", "delete")))
    terraform.destroy(environment, TAG)
    arguments = fake_terraform.arguments("destroy")

    assert "-auto-approve=true" in arguments
    assert f"-var-file={environment.tfvars}" in arguments


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("disassociating EC2 EIP (eipassoc-0123456789abcdef0): UnauthorizedOperation", outages.ATTEMPTS),
        ("deleting EC2 EIP (eipalloc-0123456789abcdef0): InvalidNetworkInterfaceID.NotFound", outages.ATTEMPTS),
        ("deleting EC2 Subnet (subnet-0123456789abcdef0): UnauthorizedOperation", 1),
    ],
)
def test_destroy_is_repeated_for_the_address_of_a_nat_gateway_that_has_just_gone(
    environment: Environment,
    fake_terraform: FakeTerraform,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    runs: int,
) -> None:
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0)
    fake_terraform.answers("destroy", _lines(_error(words)), code=1)
    with pytest.raises(PlatformError, match="terraform destroy failed"):
        terraform.destroy(environment, TAG)

    assert fake_terraform.calls().count("destroy") == runs


def test_outputs_are_those_of_the_module() -> None:
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    blocks = hcl2.loads((ROOT / "infra" / "outputs.tf").read_text(), serialization_options=options)["output"]
    declared = {name.strip('"') for block in blocks for name in block}

    assert {field.name for field in dataclasses.fields(Outputs)} <= declared


def test_lock_file_has_the_provider_of_the_module() -> None:
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    [block] = hcl2.loads((ROOT / "infra" / "versions.tf").read_text(), serialization_options=options)["terraform"]
    wanted = next(part["aws"] for part in block["required_providers"])
    locked = hcl2.loads((ROOT / "infra" / ".terraform.lock.hcl").read_text(), serialization_options=options)
    [(name, provider)] = [
        (name.strip('"'), body) for entry in locked["provider"] for name, body in entry.items() if "__" not in name
    ]

    assert name == f"registry.terraform.io/{wanted['source']}"
    assert provider["version"] == provider["constraints"] == wanted["version"]
    assert any(value.startswith("zh:") for value in provider["hashes"])


@pytest.fixture
def unsaved(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: FakeTerraform) -> Path:
    """Where an apply has left a state that S3 did not take, and failed; the next one will not fail."""
    (tmp_path / "errored.tfstate").write_text("what was made")
    monkeypatch.setattr(terraform, "stream", functools.partial(terraform.stream, module=tmp_path))
    deployed.answers("apply", _lines(_error("Failed to persist state to backend")), code=1)
    with pytest.raises(PlatformError, match="Failed to persist"):
        terraform.apply(environment, TAG)
    deployed.answers("apply", _lines(_summary(0)))
    return environment.folder / "errored.tfstate"


def test_state_that_s3_did_not_take_is_kept_by_the_environment(unsaved: Path, tmp_path: Path) -> None:
    assert unsaved.read_text() == "what was made"
    assert not (tmp_path / "errored.tfstate").exists()


def test_next_apply_saves_it_before_anything_else(
    environment: Environment, unsaved: Path, deployed: FakeTerraform
) -> None:
    terraform.apply(environment, TAG)

    assert deployed.calls()[-3:] == ["init", "state", "apply"]
    assert deployed.arguments("state") == ["state", "push", "-no-color", str(unsaved)]
    assert not unsaved.exists()


def test_state_that_can_not_be_saved_stays_and_nothing_is_changed(
    environment: Environment, unsaved: Path, deployed: FakeTerraform
) -> None:
    deployed.answers("state", stderr="Error: cannot import state with serial 4 over newer state with serial 5", code=1)
    with pytest.raises(PlatformError) as caught:
        terraform.apply(environment, TAG)

    assert "newer state" in caught.value.why
    assert ".local/dev/errored.tfstate" in caught.value.todo
    assert unsaved.exists()
    assert deployed.calls()[-1] == "state"


def test_init_that_meets_a_broken_answer_of_aws_is_tried_again(
    environment: Environment, deployed: FakeTerraform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0.0)
    deployed.answers("init", stderr="Error: retrieving caller identity from STS: unexpected EOF", code=1)
    with pytest.raises(PlatformError, match="terraform init failed"):
        terraform.apply(environment, TAG)

    assert deployed.calls() == ["init"] * outages.ATTEMPTS


def test_init_that_fails_for_good_is_told_at_once(environment: Environment, deployed: FakeTerraform) -> None:
    deployed.answers("init", stderr="Error: no provider", code=1)
    with pytest.raises(PlatformError, match="terraform init failed"):
        terraform.apply(environment, TAG)

    assert deployed.calls() == ["init"]
