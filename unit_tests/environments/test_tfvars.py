from pathlib import Path

import pytest

from environments import tfvars
from environments.errors import PlatformError


def _problems(folder: Path, text: str) -> list[str]:
    file = folder / "dev.tfvars"
    file.write_bytes(text.encode())
    return tfvars.read(file, "dev.tfvars")[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1 b = 2", "b: must begin a new line"),
        ("a = 1 /* \n */ b = 2", "b: must begin a new line"),
        ("# /*\na = 1\n# */\na = 2", "a: given twice"),
        ("m = { a = 1 b = 2 }", "b: a comma must stand before it"),
        ('m = { a = 1, "a" = 2 }', "a: given twice"),
    ],
)
def test_what_terraform_refuses_is_told(tmp_path: Path, text: str, problem: str) -> None:
    assert _problems(tmp_path, text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "a = 1\r\nb = 2\r\n",
        "\ufeffa = 1",
        "a = 1 # x\nb = 2 // y\n/* z */ c = 3",
        "a = 1\nm = {\n  a = 1\n  b = 2, c : 3\n}",
    ],
)
def test_what_terraform_takes_is_no_problem(tmp_path: Path, text: str) -> None:
    assert _problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = 1\rb = 2", "line 1 holds a carriage return"),
        ("a = 1\na {\n}", "already defined"),
        ("a = <<E" + "\n" * tfvars.MAXIMUM_BYTES, "larger than 20 KiB"),
        ("a = " + "[" * 3000, "recursion|token"),
    ],
)
def test_what_does_not_parse_is_an_error_of_the_user(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(PlatformError, match=why) as caught:
        _problems(tmp_path, text)

    assert caught.value.what.startswith("dev.tfvars")
    assert caught.value.what.endswith("does not parse")
    assert caught.value.why
