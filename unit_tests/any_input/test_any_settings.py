"""Whatever stands in a tfvars file: settings that are valid, or one error that says what is wrong with them."""

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from environments import rules, settings
from environments.fargate import ARCHITECTURES, MEMORY_FOR_CPU
from environments.settings import EXECUTION_ENVIRONMENTS, Environment, load
from unit_tests.any_input.cases import TEXT, harmless

ASCII = st.characters(codec="ascii")
SIZES = st.sampled_from([(cpu, memory) for cpu, memories in MEMORY_FOR_CPU.items() for memory in memories])


def _like(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True, alphabet=ASCII)


REQUIRED = {
    "aws_account_id": _like("[0-9]{12}"),
    "aws_region": st.just("eu-west-1"),
    "prefect_api_url": _like("https?://[a-z0-9-]{1,20}[.]example(:[1-9][0-9]{1,3})?(/[a-z0-9._~-]{1,9})?/api"),
}
OPTIONAL = {
    "cpu_architecture": st.sampled_from([*ARCHITECTURES]),
    "agent_count": st.integers(0, 10),
    "execution_environment": st.sampled_from([*EXECUTION_ENVIRONMENTS]),
    "workflow_policy_arns": st.lists(
        _like("arn:aws:iam::aws:policy/[A-Za-z0-9_+=,.@/-]{1,40}"), max_size=10, unique=True
    ),
    "extra_tags": st.dictionaries(
        _like("[a-z0-9_./=+:@-]{1,20}").filter(lambda key: key not in rules.OWN_TAGS and not key.startswith("aws:")),
        _like("[A-Za-z0-9_./=+:@-]{1,30}"),
        max_size=5,
    ),
    "kms_key_arn": _like("arn:aws:kms:eu-west-1:[0-9]{12}:key/[a-z0-9-]{36}"),
    "image_retention_count": st.integers(10, 1000),
    "log_retention_days": st.sampled_from(rules.LOG_RETENTION_DAYS),
}
NEW_NETWORK = {
    "network": st.sampled_from(rules.NETWORKS),
    "flow_logs": st.booleans(),
    "vpc_cidr": st.sampled_from(["10.0.0.0/16", "172.31.255.0/24", "192.168.128.0/17"]),
}
EXISTING_NETWORK = {
    "vpc_id": _like("vpc-[0-9a-f]{8,17}"),
    "subnet_ids": st.lists(_like("subnet-[0-9a-f]{8,17}"), min_size=1, max_size=16, unique=True),
}


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that the rules allow."""
    values: dict[str, Any] = draw(st.fixed_dictionaries(REQUIRED, optional=OPTIONAL))
    if draw(st.booleans()):
        values |= draw(st.fixed_dictionaries(EXISTING_NETWORK, optional={"assign_public_ip": st.booleans()}))
    else:
        values |= draw(st.fixed_dictionaries({}, optional=NEW_NETWORK))
    for part in ("agent", "workflow"):
        if size := draw(st.none() | SIZES):
            values |= {f"{part}_cpu": size[0], f"{part}_memory": size[1]}
    return values


def written(value: Any) -> str:
    """A value as a tfvars file has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def as_text(values: dict[str, Any]) -> str:
    """Settings as a tfvars file has them."""
    return "".join(f"{name} = {written(value)}\n" for name, value in values.items())


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(["network", "eu-west-1", "10.0.0.1/16"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
).map(written)
EXPRESSIONS = st.sampled_from(
    [
        *(
            '"${path.module}"',
            '"%{if true}a%{endif}"',
            '"$${a}"',
            "var.x",
            "1 + 1",
            "(1)",
            "1e3",
            "01",
            "-0",
            "0x1",
            "1.0",
        ),
        *("<<E\npublic\nE", "<<-E\n x\nE", "[for x in [1] : x]", "null", "{ a = 1 b = 2 }", "{ (a) = 1 }", '"a" "b"'),
        *(
            '"\\ud800"',
            '"\\u00"',
            '"\\x1b"',
            '"a\nb"',
            "[" * 500,
            "9" * 5000,
            "1e999",
            "",
            "{",
            "# x",
            "/*",
            "timestamp()",
        ),
    ]
)
VALUES = st.one_of(ANYTHING, EXPRESSIONS)
NAMES = st.one_of(st.sampled_from([*settings.fields(), "name", "role", "__is_block__", "a b", '"q"', "é"]), TEXT)
LINES = st.one_of(
    st.tuples(NAMES, st.sampled_from([" = ", "=", " : ", " ", " {\n"]), VALUES).map("".join),
    st.sampled_from(
        ["", "#", "# /*", "*/", "/* x", "// y", "x {\n}", 'network "a" {\n}', "\ufeff", "}", "\r", "a = 1 b = 2"]
    ),
    TEXT,
)


def read(root: Path, text: str) -> Environment | None:
    """Environment dev of a tfvars file; None when there was an error for the user."""
    (root / "environments" / "dev.tfvars").write_bytes(text.encode("utf-8", "surrogatepass"))
    load.cache_clear()
    with harmless():
        return load("dev")
    return None


@given(valid())
def test_valid_settings_are_read_as_they_are_written(root: Path, values: dict[str, Any]) -> None:
    environment = read(root, as_text(values))

    assert environment is not None
    assert {name: getattr(environment, name) for name in values} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


@given(valid(), st.lists(st.tuples(st.integers(0, 30), LINES), max_size=4), st.sampled_from(["\n", "\r\n", "\r", " "]))
@example({}, [], "\n")
@example({"network": "a"}, [(1, "network {\n}")], "\n")
@example({}, [(0, "agent_count = " + "[" * 3000)], "\n")
@example({}, [(0, "network = <<E" + "\n" * 60_000)], "\n")
def test_any_text_is_settings_or_an_error_that_changes_nothing(
    root: Path, values: dict[str, Any], added: list[tuple[int, str]], newline: str
) -> None:
    lines = as_text(values).splitlines()
    for position, line in added:
        lines.insert(position, line)
    environment = read(root, newline.join(lines))

    if environment:
        again = {name: value for name in settings.fields() if (value := getattr(environment, name)) is not None}
        made_from = {name for line in lines for name in [line.partition("=")[0].strip()]}
        assert (
            read(
                root,
                as_text(
                    {
                        name: list(value) if isinstance(value, tuple) else value
                        for name, value in again.items()
                        if name in made_from
                    }
                ),
            )
            == environment
        )


@given(st.one_of(TEXT, _like(rules.NAME), st.sampled_from(["local", "Local", "lo cal", "../dev", "dev/", "prod\n"])))
def test_any_name_is_that_of_an_environment_or_an_error(root: Path, name: str) -> None:
    with harmless():
        assert load(name).name == name in settings.known()
