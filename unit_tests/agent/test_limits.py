import json
import string
from typing import Any

import pytest

from agent import limits
from agent.refusals import NeverStartsError

COMMAND = "prefect flow-run execute"
OF_THE_RUN = {"PREFECT__FLOW_RUN_ID": "11111111-1111-4111-8111-111111111111"}


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"containerOverrides": []},
        {"cpu": "256", "memory": "512"},
        {"cpu": 1024, "memory": 8192},
        {"cpu": "16384", "memory": "122880"},
        {"cpu": None, "memory": None},
    ],
)
def test_sizes_that_fargate_offers_are_good(overrides: dict[str, Any]) -> None:
    limits.check_size(overrides)


@pytest.mark.parametrize(
    ("cpu", "memory", "why"),
    [
        ("300", "512", "cpu 300 is not offered by Fargate; allowed: 256, 512, 1024, 2048, 4096, 8192, 16384"),
        ("256", "4096", "memory 4096 does not go with cpu 256; allowed: 512, 1024, 2048"),
        ("1024", "1024", "memory 1024 does not go with cpu 1024"),
        ("1024", "", "cpu '1024' and memory '' are not whole numbers"),
        ("", "512", "cpu '' and memory '512' are not whole numbers"),
        ("1 vCPU", "2048", "cpu '1 vCPU' and memory '2048' are not whole numbers"),
        ("-256", "512", "are not whole numbers"),
        ("256.0", "512", "are not whole numbers"),
    ],
)
def test_other_sizes_never_start(cpu: str, memory: str, why: str) -> None:
    with pytest.raises(NeverStartsError) as caught:
        limits.check_size({"cpu": cpu, "memory": memory})

    assert why in str(caught.value)
    assert "To do: " in str(caught.value)


def _tag(key: str, value: str = "value") -> dict[str, str]:
    return {"key": key, "value": value}


def test_tags_that_aws_takes_stay_as_they_are() -> None:
    tags = [_tag("team", "data"), _tag("a" * 128, "b" * 256), _tag("empty", "")]

    assert limits.fitting_tags(tags) == (tags, [])


@pytest.mark.parametrize("key", ["aws:cost", "AWS:cost", "aws:"])
def test_tag_whose_name_aws_reserves_is_left_out(key: str) -> None:
    fitting, [note] = limits.fitting_tags([_tag(key), _tag("awsome")])

    assert fitting == [_tag("awsome")]
    assert note == f"tag {key} is left out: AWS reserves names that begin with aws:"


@pytest.mark.parametrize(("key", "value"), [(129, 1), (1, 257), (1000, 1000)])
def test_long_tag_is_shortened(key: int, value: int) -> None:
    [tag], [note] = limits.fitting_tags([_tag("k" * key, "v" * value)])

    assert (len(tag["key"]), len(tag["value"])) == (min(key, 128), min(value, 256))
    assert note == f"tag {'k' * min(key, 128)} is shortened to 128 and 256 characters"


def test_of_two_tags_with_one_name_the_last_counts() -> None:
    assert limits.fitting_tags([_tag("team", "old"), _tag("team", "new")]) == ([_tag("team", "new")], [])
    shortened, _ = limits.fitting_tags([_tag("k" * 129, "old"), _tag("k" * 128, "new")])
    assert shortened == [_tag("k" * 128, "new")]


def test_fifty_tags_stay_and_those_of_the_agent_are_among_them() -> None:
    many = [_tag(f"label-{number}") for number in range(60)]
    own = [_tag("prefect.io/flow-run-id"), _tag("attempt"), _tag("restarts")]
    fitting, [note] = limits.fitting_tags([*many, *own])

    assert fitting == [*own, *many[:47]]
    assert note == f"AWS takes 50 tags; left out: {', '.join(f'label-{number}' for number in range(47, 60))}"


def test_exactly_fifty_tags_need_no_note() -> None:
    tags = [_tag(f"label-{number}") for number in range(50)]

    assert limits.fitting_tags(tags) == (tags, [])


def _length(environment: dict[str, str]) -> int:
    """Length of what is sent to RunTask as `overrides`, for the largest size and a long container name."""
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    container = {"name": "w" * 30, "command": COMMAND.split(), "environment": variables}
    return len(json.dumps({"cpu": "16384", "memory": "122880", "containerOverrides": [container]}))


def _with_length(length: int) -> dict[str, str]:
    """Variables that take so much of the overrides by the agent's own count."""
    environment = {**OF_THE_RUN, "LARGE": ""}
    rest = length - limits._overrides_length(environment, COMMAND)
    return {**environment, "LARGE": "x" * rest}


def test_variables_that_fit_exactly_stay_in_the_overrides() -> None:
    environment = _with_length(8192)

    assert limits._overrides_length(environment, COMMAND) == 8192
    assert limits.move_to_definition(environment, COMMAND) == []
    assert 8000 < _length(environment) <= 8192


def test_one_character_more_moves_the_largest() -> None:
    assert limits.move_to_definition(_with_length(8193), COMMAND) == ["LARGE"]


def test_largest_variables_move_first_and_no_more_than_needed() -> None:
    environment = {**OF_THE_RUN, "A": "x" * 3000, "B": "x" * 4000, "C": "x" * 5000, "D": "x"}
    moving = limits.move_to_definition(environment, COMMAND)

    assert moving == ["C"]
    assert _length({name: value for name, value in environment.items() if name not in moving}) <= 8192

    environment["E"] = "x" * 4500
    assert limits.move_to_definition(environment, COMMAND) == ["C", "E"]


@pytest.mark.parametrize("value", ["x" * 9000, "日" * 1500, '"' * 4500], ids=["ascii", "other-letters", "escaped"])
def test_variable_counts_as_it_is_written_in_json(value: str) -> None:
    assert limits.move_to_definition({"SMALL": "x", "VALUE": value}, COMMAND) == ["VALUE"]


def test_long_command_takes_room_from_the_variables() -> None:
    environment = {"LARGE": "x" * 4000}

    assert limits.move_to_definition(environment, COMMAND) == []
    assert limits.move_to_definition(environment, " ".join(["word"] * 600)) == ["LARGE"]


def test_variables_of_one_run_alone_never_move_so_that_runs_share_a_revision() -> None:
    environment = {"PREFECT__FLOW_RUN_ID": "x" * 5000, "PREFECT_API_URL": "x" * 3000, "OTHER": "x" * 100}

    assert limits.move_to_definition(environment, COMMAND) == ["PREFECT_API_URL"]


@pytest.mark.parametrize(
    "environment",
    [
        {"LARGE": "x" * 60_000},
        {name * 9: name * 3000 for name in string.ascii_uppercase},
    ],
    ids=["one", "many"],
)
def test_variables_that_fit_nowhere_never_start(environment: dict[str, str]) -> None:
    with pytest.raises(
        NeverStartsError, match=r"its environment variables are too large for AWS: .* of at most 48"
    ) as caught:
        limits.move_to_definition(environment, COMMAND)

    assert "To do: keep large values in a file" in str(caught.value)


def test_what_the_definition_takes_is_counted_to_the_byte() -> None:
    room = limits.MAXIMUM_ENV_BYTES
    rest = room - limits._size("LARGE", {"LARGE": ""})

    assert room == 49_152
    assert limits.move_to_definition({"LARGE": "x" * rest}, COMMAND) == ["LARGE"]
    with pytest.raises(NeverStartsError):
        limits.move_to_definition({"LARGE": "x" * (rest + 1)}, COMMAND)


@pytest.mark.parametrize(("environment", "command"), [({"PREFECT__LARGE": "x" * 8200}, COMMAND), ({}, "x " * 4100)])
def test_what_the_overrides_must_hold_is_named_when_it_is_too_long(environment: dict[str, str], command: str) -> None:
    with pytest.raises(NeverStartsError, match=r"its command and the variables PREFECT__\* are too long for AWS"):
        limits.move_to_definition(environment, command)
