"""Whatever stands in a tfvars file: settings that are valid, or one error that says what is wrong with them."""

from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from environments import rules, settings
from environments.settings import Environment, load
from unit_tests.any_input.cases import TEXT, harmless
from unit_tests.any_input.valid_settings import as_text, like, valid, written

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(["network", "eu-west-1", "10.0.0.1/16"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
).map(written)
EXPRESSIONS = st.sampled_from(
    [
        '"${path.module}"',
        '"$${a}"',
        "var.x",
        "(1)",
        "1e3",
        "01",
        "-0",
        "0x1",
        "1.0",
        '"%{if true}a%{endif}"',
        "1 + 1",
        *("<<E\npublic\nE", "<<-E\n x\nE", "[for x in [1] : x]", "null", "{ a = 1 b = 2 }", "{ (a) = 1 }", '"a" "b"'),
        "1e999",
        "{",
        "/*",
        "timestamp()",
        '"\\ud800"',
        '"\\u00"',
        '"\\x1b"',
        '"a\nb"',
        "[" * 500,
        "9" * 5000,
        "",
        "# x",
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


@given(st.one_of(TEXT, like(rules.NAME), st.sampled_from(["local", "Local", "lo cal", "../dev", "dev/", "prod\n"])))
def test_any_name_is_that_of_an_environment_or_an_error(root: Path, name: str) -> None:
    with harmless():
        assert load(name).name == name in settings.known()
