import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.errors import PlatformError
from infra import base_image
from register_action.requirement import PYTHON, Place, check_line, logical_lines

PLACE = Place("requirements.txt", 4)


def _refused(line: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check_line(PLACE, line)
    assert caught.value.todo
    return caught.value


def test_python_is_that_of_the_image() -> None:
    assert base_image.pinned().name.startswith(f"python:{PYTHON}-")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("requests\r\n\nidna  # why\n", [(1, "requests"), (3, "idna")]),
        ("requests \\\n  >=2\n\nidna", [(1, "requests   >=2"), (4, "idna")]),
        ("requ\\\nests\n", [(1, "requests")]),
        ("# a comment that ends in a backslash \\\nrequests\n", [(2, "requests")]),
        ("lib @ https://example.com/lib.zip#egg=lib", [(1, "lib @ https://example.com/lib.zip#egg=lib")]),
        ("requests \\", [(1, "requests")]),
        ("\n# nothing\n", []),
    ],
)
def test_lines_are_those_that_pip_sees(text: str, lines: list[tuple[int, str]]) -> None:
    assert list(logical_lines(text)) == lines


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("pandas[excel]>=2,<3 ; python_version >= '3.9'", []),
        ("-r base.txt", ["base.txt"]),
        ("--constraint=limits.txt", ["limits.txt"]),
        ("-c 'my limits.txt'", ["my limits.txt"]),
    ],
)
def test_line_tells_the_files_it_refers_to(line: str, files: list[str]) -> None:
    assert check_line(PLACE, line) == files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pandas=2.2", "is not a requirement"),
        ("pandas 2.2", "is not a requirement"),
        ("café", "is not a requirement"),
        ("pandas==2 --no-such-option", "is not understood"),
        ("--hash", "is not understood"),
        ("pandas --hash=md5:12", "is not understood"),
        ("--find-links 'x", "is not understood"),
        ("-e .", "on your machine"),
        ("--editable=./lib", "on your machine"),
        (".", "on your machine"),
        ("./lib", "on your machine"),
        ("../lib[x]", "on your machine"),
        ("libs/lib", "on your machine"),
        ("/opt/lib", "on your machine"),
        ("lib-1.0-py3-none-any.whl", "on your machine"),
        ("lib @ file:///opt/lib", "on your machine"),
        ("file:///opt/lib", "on your machine"),
        ("-f ./wheels", "on your machine"),
        ("git+https://example.com/a.git", "version control"),
        ("git+ssh://git@example.com/a.git", "version control"),
        ("lib @ git+https://example.com/a.git@v1", "version control"),
        ("-e git+https://example.com/a.git#egg=a", "version control"),
        ("git@example.com:a/b.git", "version control"),
        ("prefect==2.*", "excludes Prefect 3"),
        ("prefect<3", "excludes Prefect 3"),
        ("prefect==1.4.1 ; python_version >= '3.9'", "excludes Prefect 3"),
        ("Prefect[aws]>=2.14,<3.0", "excludes Prefect 3"),
        ("prefect===2.20.1", "excludes Prefect 3"),
    ],
)
def test_line_that_can_not_be_had_is_refused_with_its_place(line: str, message: str) -> None:
    error = _refused(line)

    assert message in error.what
    assert error.what.startswith("requirements.txt:4 ")
    assert (error.file, error.line) == ("requirements.txt", 4)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://user:hunter2@example.com/simple",
        "-i https://hunter2@example.com/simple",
        "lib @ https://user:hunter2@example.com/lib.zip",
        "https://user:hunter2@example.com/lib.zip",
        "git+https://hunter2@example.com/a.git",
        "lib @ ssh://user:hunter2@example.com/a",
        "--index-url https://user:${hunter2}@example.com/simple",
    ],
)
def test_credentials_are_refused_and_never_shown(line: str) -> None:
    error = _refused(line)

    assert "credentials" in error.what
    assert error.line == 4
    assert "hunter2" not in str(error)


@given(st.text() | st.text(alphabet="-rce=. #@:/ab'\"[]{}<>;,~!*$1", max_size=40))
def test_whatever_a_line_says_is_no_traceback(line: str) -> None:
    place: tuple[str, int] | None = None
    files: object = ()
    try:
        files = check_line(PLACE, line)
    except PlatformError as error:
        place = error.file, error.line

    assert place == ("requirements.txt", 4) or all(isinstance(file, str) for file in files)
