import dataclasses
import re
from pathlib import Path
from typing import Any

import botocore.loaders
import hcl2
import pytest

from environments import rules, settings
from environments.errors import PlatformError
from environments.settings import Environment, load
from unit_tests.conftest import PREFECT_CLOUD

COMMITTED = settings.known()
VARIABLES_TF = Path(settings.__file__).parent.parent / "infra" / "variables.tf"
ONLY_FOR_TERRAFORM = {"environment", "agent_image_tag"}

GOOD = {
    "aws_account_id": '"123456789012"',
    "aws_region": '"eu-west-1"',
    "prefect_api_url": f'"{PREFECT_CLOUD}"',
}


def _write(root: Path, name: str = "dev", **changes: str | None) -> Path:
    """Write a settings file; None leaves a setting out."""
    file = root / "environments" / f"{name}.tfvars"
    lines = [f"{key} = {value}" for key, value in {**GOOD, **changes}.items() if value is not None]
    file.write_text("\n".join(lines) + "\n")
    return file


def _error(name: str = "dev") -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        load(name)
    return caught.value


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_settings_load(name: str) -> None:
    environment = load(name)

    assert environment.name == name
    assert environment.is_local == (name == "local")


def test_the_four_environments_are_there() -> None:
    assert set(COMMITTED) >= {"local", "dev", "test", "prod"}


def test_a_new_file_is_a_new_environment(root: Path) -> None:
    _write(root, "staging", agent_count="3")

    assert load("staging").agent_count == 3
    assert load("staging").prefix == "staging_dataflow_automation"


@pytest.mark.parametrize("unknown", ["nowhere", "", "../dev", "DEV"])
def test_unknown_environment_lists_the_known_ones(root: Path, unknown: str) -> None:
    error = _error(unknown)

    assert repr(unknown) in error.what
    assert all(name in error.why for name in COMMITTED)


def test_misspelt_environment_gets_a_suggestion(root: Path) -> None:
    assert "did you mean local?" in _error("locl").why


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_missing_setting_is_named_with_what_is_allowed(root: Path, missing: str) -> None:
    _write(root, **{missing: None})

    assert f"dev.tfvars: {missing}: missing; allowed: " in _error().why


def test_misspelt_setting_gets_a_suggestion(root: Path) -> None:
    _write(root, agent_memroy="512")

    assert "agent_memroy: unknown setting; did you mean agent_memory?" in _error().why


def test_unknown_setting_lists_the_known_ones(root: Path) -> None:
    _write(root, qqq="1")

    problem = _error().why
    assert "qqq: unknown setting" in problem
    assert all(name in problem for name in settings.fields())


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("agent_count", '"2"', 'was "2", must be a whole number'),
        ("agent_count", "true", "was true, must be a whole number"),
        ("agent_count", "1.5", "was 1.5, must be a whole number"),
        ("agent_count", "null", "was null, must be a whole number"),
        ("agent_count", "[1]", "was [1], must be a whole number"),
        ("agent_count", "1 + 1", "must be a whole number"),
        ("aws_region", "1", "was 1, must be text in double quotes"),
        ("aws_region", "true", "was true, must be text in double quotes"),
        ("aws_region", "null", "was null, must be text in double quotes"),
        ("aws_region", '["eu-west-1"]', "must be text in double quotes"),
        ("aws_region", '{ name = "eu-west-1" }', "must be text in double quotes"),
        ("prefect_api_url", "null", "must be text in double quotes"),
        ("flow_logs", '"true"', 'was "true", must be true or false'),
        ("flow_logs", "1", "was 1, must be true or false"),
        ("flow_logs", "null", "was null, must be true or false"),
        ("subnet_ids", '"subnet-01234567"', "must be texts in double quotes in square brackets"),
        ("subnet_ids", "[1]", "was [1], must be texts in double quotes in square brackets"),
        ("subnet_ids", "[null]", "must be texts in double quotes in square brackets"),
        ("subnet_ids", "null", "must be texts in double quotes in square brackets"),
        ("extra_tags", '["a"]', "must be texts by name"),
        ("extra_tags", "{ a = 1 }", "must be texts by name"),
        ("extra_tags", "{ a = null }", "must be texts by name"),
        ("extra_tags", "null", "must be texts by name"),
    ],
)
def test_wrong_type_says_which_type_is_wanted(root: Path, setting: str, value: str, expected: str) -> None:
    _write(root, **{setting: value})

    problem = _error().why
    assert problem.startswith(f"environments/dev.tfvars: {setting}: was ")
    assert expected in problem


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("aws_account_id", '"12345678901"'),
        ("aws_account_id", '"1234567890123"'),
        ("aws_account_id", '"12345678901x"'),
        ("aws_region", '"europe"'),
        ("aws_region", '"EU-WEST-1"'),
        ("aws_region", '"${var.region}"'),
        ("prefect_api_url", '"ftp://example.com/api"'),
        ("prefect_api_url", '"https://example.com"'),
        ("prefect_api_url", '"https:///api"'),
        ("prefect_api_url", '"http://example.com:99999/api"'),
        ("prefect_api_url", '""'),
        ("prefect_api_url", '"https://example.com/api/"'),
        ("prefect_api_url", '"https://user:word@example.com/api"'),
        ("prefect_api_url", '"https://api.prefect.cloud/api/accounts/1/workspaces/2"'),
        ("prefect_api_url", f'"{PREFECT_CLOUD}/"'),
        ("prefect_api_url", f'"{PREFECT_CLOUD.partition("/workspaces")[0]}"'),
        ("vpc_cidr", '"10.20.0.0/15"'),
        ("vpc_cidr", '"10.20.0.0/25"'),
        ("vpc_cidr", '"10.20.0.1/16"'),
        ("vpc_cidr", '"8.8.0.0/16"'),
        ("vpc_cidr", '"172.15.0.0/16"'),
        ("vpc_cidr", '"172.32.0.0/16"'),
        ("vpc_cidr", '"192.169.0.0/24"'),
        ("vpc_cidr", '"100.64.0.0/16"'),
        ("vpc_cidr", '"127.0.0.0/16"'),
        ("vpc_cidr", '"10.20.0.0"'),
        ("vpc_cidr", '"fd00::/16"'),
        ("agent_count", "-1"),
        ("agent_count", "11"),
        ("agent_cpu", "0"),
        ("workflow_memory", "-512"),
        ("execution_environment", '"ecs_ec2"'),
        ("network", '"private"'),
        ("nat_gateway_count", "0"),
        ("nat_gateway_count", "4"),
        ("cpu_architecture", '"arm64"'),
        ("concurrency_limit", "0"),
        ("concurrency_limit", "10001"),
        ("image_retention_count", "9"),
        ("image_retention_count", "1001"),
        ("vpc_id", '"vpc-1234567"'),
        ("vpc_id", '"subnet-12345678"'),
        ("subnet_ids", '["subnet-12345678", "vpc-12345678"]'),
        ("subnet_ids", '["subnet-12345678", "subnet-12345678"]'),
        ("subnet_ids", "[" + ", ".join(f'"subnet-{number:08}"' for number in range(17)) + "]"),
        ("workflow_policy_arns", '["AmazonS3ReadOnlyAccess"]'),
        ("workflow_policy_arns", '["arn:aws:iam::123456789012:role/other"]'),
        ("workflow_policy_arns", '["${var.arn}"]'),
        ("workflow_policy_arns", "[" + ", ".join(f'"arn:aws:iam::aws:policy/{n}"' for n in range(11)) + "]"),
        ("kms_key_arn", '"alias/mine"'),
        ("kms_key_arn", '"arn:aws:kms:eu-west-1:123456789012:alias/mine"'),
        ("alarm_topic_arn", '"alarms"'),
        ("alarm_topic_arn", '"arn:aws:sns:eu-west-1:123456789012:alarms.fifo"'),
        ("extra_tags", '{ Environment = "other" }'),
        ("extra_tags", '{ Name = "x" }'),
        ("extra_tags", '{ team = "a", Team = "b" }'),
        ("extra_tags", '{ "aws:team" = "a" }'),
        ("extra_tags", '{ "AWS:team" = "a" }'),
        ("extra_tags", '{ team = "a b" }'),
        ("extra_tags", '{ team = "" }'),
        ("extra_tags", "{ " + ", ".join(f'k{number} = "v"' for number in range(31)) + " }"),
        ("log_retention_days", "0"),
        ("log_retention_days", "8"),
    ],
)
def test_value_out_of_range_is_shown_with_what_is_allowed(root: Path, setting: str, value: str) -> None:
    _write(root, **{setting: value})

    assert re.search(rf"dev\.tfvars: {setting}: was .*; allowed: .+", _error().why)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("agent_count", "0"),
        ("agent_count", "10"),
        ("aws_region", '"ap-southeast-7"'),
        ("prefect_api_url", '"http://prefect.internal:4200/api"'),
        ("prefect_api_url", '"https://example.com/team/prefect/api"'),
        ("prefect_api_url", f'"{PREFECT_CLOUD}"'),
        ("vpc_cidr", '"192.168.7.0/24"'),
        ("vpc_cidr", '"172.16.0.0/16"'),
        ("vpc_cidr", '"172.31.255.0/24"'),
        ("vpc_cidr", '"10.255.0.0/16"'),
        ("execution_environment", '"ecs_fargate_spot"'),
        ("alarm_topic_arn", '"arn:aws:sns:eu-west-1:999999999999:A-b_1"'),
        ("log_retention_days", "3653"),
    ],
)
def test_values_at_the_edge_are_taken(root: Path, setting: str, value: str) -> None:
    _write(root, **{setting: value})

    assert getattr(load("dev"), setting) == (int(value) if value.isdigit() else value.strip('"'))


def _partitions() -> list[dict[str, Any]]:
    """The partitions that botocore knows, with their regions."""
    partitions: list[dict[str, Any]] = botocore.loaders.create_loader().load_data("endpoints")["partitions"]
    return partitions


@pytest.mark.parametrize("partition", _partitions(), ids=lambda partition: str(partition["partition"]))
def test_regions_of_partition_aws_are_taken_and_all_others_refused_with_the_reason(
    root: Path, partition: dict[str, Any]
) -> None:
    for region in partition["regions"]:
        _write(root, aws_region=f'"{region}"')
        load.cache_clear()
        if partition["partition"] == "aws":
            assert load("dev").aws_region == region
        else:
            problem = _error().why
            assert f'aws_region: was "{region}", which belongs to AWS partition {partition["partition"]};' in problem
            assert "only partition aws is supported, because the ARNs" in problem


def test_terraform_refuses_the_regions_of_the_same_partitions() -> None:
    [begin] = re.findall(r'can\(regex\("(\^\(cn.*-)", var\.aws_region\)\)', VARIABLES_TF.read_text())
    refused = {
        partition["partition"]: {re.match(begin, region) is not None for region in partition["regions"]}
        for partition in _partitions()
    }

    assert refused == {name: {name != "aws"} for name in refused}
    assert refused.keys() == {"aws", *rules.OTHER_PARTITIONS}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kms_key_arn", '"arn:aws-cn:kms:cn-north-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"'),
        ("alarm_topic_arn", '"arn:aws-cn:sns:cn-north-1:123456789012:alarms"'),
        ("workflow_policy_arns", '["arn:aws:iam::aws:policy/A", "arn:aws-cn:iam::aws:policy/B"]'),
    ],
)
def test_arn_of_another_partition_is_refused_with_the_reason(root: Path, setting: str, value: str) -> None:
    _write(root, **{setting: value})

    assert f"{setting}: was {value}, which belongs to AWS partition aws-cn; only partition aws" in _error().why


@pytest.mark.parametrize(("part", "cpu"), [("agent", 256), ("workflow", 1024)])
def test_memory_that_does_not_go_with_cpu_lists_the_ones_that_do(root: Path, part: str, cpu: int) -> None:
    _write(root, **{f"{part}_cpu": str(cpu), f"{part}_memory": "4097"})

    problem = _error().why
    assert f"{part}_cpu, {part}_memory: memory 4097 does not go with cpu {cpu}; allowed: " in problem


def test_cpu_that_does_not_go_with_the_default_memory_is_refused(root: Path) -> None:
    _write(root, workflow_cpu="4096")

    assert "memory 1024 does not go with cpu 4096" in _error().why


def test_all_wrong_values_are_in_one_error(root: Path) -> None:
    _write(root, aws_account_id=None, aws_region="7", agent_count="99", execution_environment='"ecs"', colour='"red"')

    error = _error()
    assert error.what == "5 wrong setting(s) in environment dev"
    names = ("aws_account_id", "aws_region", "agent_count", "execution_environment", "colour")
    assert [name for name in names if f"environments/dev.tfvars: {name}: " in error.why] == list(names)


@pytest.mark.parametrize(
    ("name", "endpoint"), [("dev", '"http://127.0.0.1:4566"'), ("local", None)], ids=["dev-with", "local-without"]
)
def test_emulated_aws_is_for_local_and_only_for_local(root: Path, name: str, endpoint: str | None) -> None:
    _write(root, name, aws_endpoint_url=endpoint)

    assert "aws_endpoint_url: only local has one" in _error(name).why


def test_local_never_loses_its_emulated_aws(root: Path) -> None:
    """With null local would talk to the real AWS."""
    _write(root, "local", aws_endpoint_url="null")

    assert "aws_endpoint_url" in _error("local").why


def test_emulated_aws_may_be_at_any_loopback_address(root: Path) -> None:
    _write(root, "local", aws_endpoint_url='"http://127.0.0.2:4566"')

    assert load("local").emulated_registry == "127.0.0.2:4566"


@pytest.mark.parametrize(
    "endpoint", ["http://10.0.0.1:4566", "https://example.com:4566", "http://127.0.0.1", "4566", "http://localhost.x:1"]
)
def test_emulated_aws_must_be_on_this_machine(root: Path, endpoint: str) -> None:
    _write(root, "local", aws_endpoint_url=f'"{endpoint}"')

    assert "aws_endpoint_url: was " in _error("local").why


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('aws_region = "eu-west-1"\naws_account_id = = 1\n', 2, 18),
        ('aws_region = "eu-west-1"\n\n{}\n', 3, 1),
        ('aws_region = "eu-west-1', 1, 15),
    ],
)
def test_file_that_does_not_parse_names_line_and_column(root: Path, text: str, line: int, column: int) -> None:
    (root / "environments" / "dev.tfvars").write_text(text)

    assert _error().what == f"environments/dev.tfvars line {line}, column {column} does not parse"


def test_file_that_is_not_text_is_an_error_of_the_user(root: Path) -> None:
    (root / "environments" / "dev.tfvars").write_bytes(b'aws_region = "\xff\xfe"\n')

    assert _error().what == "environments/dev.tfvars does not parse"


def test_file_without_a_last_newline_is_fine(root: Path) -> None:
    file = _write(root)
    file.write_text(file.read_text().rstrip())

    assert load("dev").aws_region == "eu-west-1"


def test_comments_are_no_settings(root: Path) -> None:
    file = _write(root)
    file.write_text("# agent_count = 99\n// x\n/* y\n z */\n" + file.read_text() + "agent_count = 2 # two\n")

    assert load("dev").agent_count == 2


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("dev", "aws_account_id", '"\u0661\u0662\u0663456789012"'),
        ("dev", "aws_region", '"eu-west-\u0661"'),
        ("dev", "vpc_cidr", '"10.20.0.0/255.255.0.0"'),
        ("dev", "prefect_api_url", '"https://${var.host}/api"'),
        ("local", "aws_endpoint_url", '"http://127.0.0.1:4566/path"'),
        ("local", "aws_endpoint_url", '"https://127.0.0.1:4566"'),
    ],
)
def test_value_that_terraform_refuses_is_refused_before_it_starts(
    root: Path, name: str, setting: str, value: str
) -> None:
    endpoint = '"http://127.0.0.1:4566"' if name == "local" else None
    _write(root, name, **{"aws_endpoint_url": endpoint, setting: value})

    assert f"{name}.tfvars: {setting}: was " in _error(name).why


def test_setting_given_twice_is_refused_as_terraform_does(root: Path) -> None:
    file = _write(root)
    file.write_text(file.read_text() + "agent_count = 1\nagent_count = 2\n")

    assert "agent_count: given twice" in _error().why


@pytest.mark.parametrize("name", ["my-env", "my_env", "Dev2", "2dev", "x", "a" * 17])
def test_name_that_terraform_refuses_is_refused_before_it_starts(root: Path, name: str) -> None:
    _write(root, name)

    assert f"{name!r} can't be the name of an environment" in _error(name).what


def _variables() -> dict[str, dict[str, object]]:
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    parsed = hcl2.loads(VARIABLES_TF.read_text(), serialization_options=options)["variable"]
    return {name.strip('"'): body for block in parsed for name, body in block.items() if name != "__is_block__"}


def test_settings_are_the_variables_of_terraform() -> None:
    assert set(settings.fields()) == set(_variables()) - ONLY_FOR_TERRAFORM


@pytest.mark.parametrize("name", sorted(settings.fields()))
def test_setting_has_the_default_and_type_of_its_terraform_variable(name: str) -> None:
    variable, field = _variables()[name], settings.fields()[name]

    [kind] = [kind for kind in rules.KINDS if field.type in (kind.type, kind.type | None)]
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

    assert str(variable["type"]).strip("${}") == kind.terraform
    assert ("default" in variable) == (not settings.is_required(field))
    if "default" in variable:
        assert variable["default"] == (list(default) if isinstance(default, tuple) else default)


def _existing(**changes: str | None) -> dict[str, str | None]:
    return {"vpc_id": '"vpc-12345678"', "subnet_ids": '["subnet-12345678"]', **changes}


KEY = "arn:aws:kms:eu-west-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (_existing(subnet_ids=None), "vpc_id, subnet_ids: an existing VPC and its subnets go together"),
        (_existing(vpc_id=None), "vpc_id, subnet_ids: an existing VPC and its subnets go together"),
        (_existing(subnet_ids="[]"), "vpc_id, subnet_ids: an existing VPC and its subnets go together"),
        (_existing(network='"public"'), "network: is for a network that is made"),
        (_existing(nat_gateway_count="2"), "nat_gateway_count: is for a network that is made"),
        (_existing(vpc_cidr='"10.1.0.0/16"'), "vpc_cidr: is for a network that is made"),
        (_existing(flow_logs="true"), "flow_logs: is for a network that is made"),
        ({"assign_public_ip": "true"}, "assign_public_ip: is for an existing VPC"),
        ({"network": '"public"', "nat_gateway_count": "1"}, "nat_gateway_count: network public has none"),
        ({"network": '"private_endpoints"'}, "network: Prefect Cloud can't be reached from private_endpoints"),
        ({"kms_key_arn": f'"{KEY}"', "aws_region": '"eu-west-2"'}, "kms_key_arn: a key of eu-west-2 is needed"),
        ({"alarm_topic_arn": f'"{TOPIC}"', "aws_region": '"eu-west-2"'}, "alarm_topic_arn: a topic of eu-west-2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    root: Path, changes: dict[str, str | None], expected: str
) -> None:
    _write(root, **changes)

    assert f"environments/dev.tfvars: {expected}" in _error().why


def test_lists_and_maps_are_taken_as_they_are_written(root: Path) -> None:
    arn = "arn:aws:iam::123456789012:policy/team/read_data"
    tags = '{\n  cost_center = "a/b-1" # comment\n  "team:owner" = "x@example.com"\n}'
    changes = {"workflow_policy_arns": f'["{arn}", "{arn}2"]', "extra_tags": tags, "kms_key_arn": f'"{KEY}"'}
    _write(root, **changes)
    environment = load("dev")

    assert environment.workflow_policy_arns == (arn, f"{arn}2")
    assert environment.extra_tags == {"cost_center": "a/b-1", "team:owner": "x@example.com"}
    assert environment.kms_key_arn == KEY
    assert {environment: "usable as a key"}[environment]


def test_tags_of_the_platform_can_not_be_overwritten(environment: Environment) -> None:
    changed = dataclasses.replace(environment, extra_tags={"team": "data", "environment": "prod"})

    assert changed.tags == {"team": "data", "environment": "dev", "project": "dataflow-automation-infra"}


@pytest.mark.parametrize(
    ("changes", "public"),
    [
        ({}, False),
        ({"network": '"public"'}, True),
        ({"network": '"private_nat"', "nat_gateway_count": "3"}, False),
        ({"network": '"private_endpoints"', "prefect_api_url": '"http://prefect.internal/api"'}, False),
        (_existing(), False),
        (_existing(assign_public_ip="true"), True),
        (_existing(assign_public_ip="false"), False),
    ],
)
def test_tasks_have_public_addresses_only_where_they_need_them(
    root: Path, changes: dict[str, str | None], public: bool
) -> None:
    _write(root, **changes)

    assert load("dev").tasks_have_public_ip is public


@pytest.mark.parametrize(("architecture", "platform"), [("X86_64", "linux/amd64"), ("ARM64", "linux/arm64")])
def test_images_are_built_for_the_processor_that_runs_them(
    environment: Environment, local: Environment, architecture: str, platform: str
) -> None:
    assert dataclasses.replace(environment, cpu_architecture=architecture).image_platform == platform
    assert dataclasses.replace(local, cpu_architecture=architecture).image_platform is None


def test_local_prefect_is_reached_by_loopback_from_this_machine(local: Environment) -> None:
    assert local.operator_prefect_api_url == f"http://127.0.0.1:{local.prefect_port}/api"
    assert "127.0.0.1" not in local.prefect_api_url  # in a container that would be the container


@pytest.mark.parametrize(
    ("url", "cloud", "port"),
    [
        (PREFECT_CLOUD, True, 443),
        ("http://api.prefect.cloud.example.com:4200/api", False, 4200),
        ("http://prefect.internal/api", False, 80),
    ],
)
def test_only_prefect_cloud_itself_counts_as_cloud(environment: Environment, url: str, cloud: bool, port: int) -> None:
    changed = dataclasses.replace(environment, prefect_api_url=url)

    assert changed.uses_prefect_cloud is cloud
    assert changed.prefect_port == port
    assert changed.operator_prefect_api_url == url


@pytest.mark.parametrize(
    ("url", "page"),
    [
        (
            "https://api.prefect.cloud/api/accounts/1-2/workspaces/3-4",
            "https://app.prefect.cloud/account/1-2/workspace/3-4",
        ),
        ("https://prefect.internal/api", "https://prefect.internal"),
    ],
)
def test_page_of_prefect_is_one_that_a_browser_finds(environment: Environment, url: str, page: str) -> None:
    assert dataclasses.replace(environment, prefect_api_url=url).prefect_page_url == page


def test_local_page_is_on_this_machine(local: Environment) -> None:
    assert local.prefect_page_url == f"http://127.0.0.1:{local.prefect_port}"
