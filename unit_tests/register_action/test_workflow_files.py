import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from register_action.workflow_files import workflow_files


def _paths(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in workflow_files(folder)]


def _refused(folder: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        workflow_files(folder)
    assert caught.value.todo
    return caught.value


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_folder_that_is_not_there_names_the_option(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "flow.py"
    if kind == "file":
        folder.touch()
    with pytest.raises(PlatformError, match="no folder") as caught:
        workflow_files(folder)

    assert str(folder) in caught.value.what
    assert "--workflow-path" in caught.value.todo


@pytest.mark.parametrize("folder", ["tests", ".venv", "venv", "__pycache__", "sub/node_modules", ".git", ".hidden"])
def test_folders_that_are_not_the_workflows_are_passed_over(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "flow.py").touch()
    (tmp_path / "flow.py").touch()

    assert _paths(tmp_path) == ["flow.py"]


def test_folder_above_with_such_a_name_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "tests"
    folder.mkdir(parents=True)
    (folder / "flow.py").touch()

    assert _paths(folder) == ["flow.py"]


def test_secrets_in_hidden_files_stay_out_of_the_image(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PASSWORD=x")
    (tmp_path / "data.csv").write_text("a,b")

    assert _paths(tmp_path) == ["data.csv"]


FILES = ["a.py", "data/x.csv", "tests/t.py", "tests/__pycache__/t.pyc", "sub/tests/more/t.py", ".env", "sub/.env.prod"]


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        ("", ["a.py", "data/x.csv"]),
        ("# comment\n\n!\n/\ndata\n", ["a.py"]),
        ("/data/\n", ["a.py"]),
        ("**/*.csv", ["a.py"]),
        ("*.csv", ["a.py", "data/x.csv"]),
        ("dat[a-c]/?.csv", ["a.py"]),
        ("dat[!a]", ["a.py", "data/x.csv"]),
        ("!tests", ["a.py", "data/x.csv", "tests/t.py"]),
        ("!**/tests", ["a.py", "data/x.csv", "sub/tests/more/t.py", "tests/t.py"]),
        ("!sub/tests/more/t.py", ["a.py", "data/x.csv", "sub/tests/more/t.py"]),
        ("*\n!data", ["data/x.csv"]),
        ("data\n!data/x.csv", ["a.py", "data/x.csv"]),
        ("!data/x.csv\ndata", ["a.py"]),
        ("!.env\n!**/.env*\n!**/.*", [".dockerignore", "a.py", "data/x.csv"]),
        ("\ufeffdata\r\n", ["a.py"]),
        ("(a+)+$\n\\*\n[", ["a.py", "data/x.csv"]),
    ],
)
def test_dockerignore_has_the_last_word_except_on_secrets(tmp_path: Path, ignore: str, kept: list[str]) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text(ignore)

    assert _paths(tmp_path) == kept


def test_authors_dockerfile_is_seen_whatever_dockerignore_says(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").touch()
    (tmp_path / ".dockerignore").write_text("*\nDockerfile")

    assert _paths(tmp_path) == ["Dockerfile"]


def test_pattern_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("data\n[z-a]")
    error = _refused(tmp_path)

    assert (error.file, error.line) == (".dockerignore", 2)


def test_links_within_the_folder_are_copies(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "flow.py").touch()
    (tmp_path / "again").symlink_to("lib")
    (tmp_path / "one.py").symlink_to(tmp_path / "lib" / "flow.py")
    folder = tmp_path.with_name("link_to_folder")
    folder.symlink_to(tmp_path)

    assert _paths(folder) == ["again/flow.py", "lib/flow.py", "one.py"]


@pytest.mark.parametrize(
    ("link", "target", "why"),
    [
        ("data.csv", "../outside.csv", "out of the folder"),
        ("data", "..", "out of the folder"),
        ("data.csv", "nowhere", "leads nowhere"),
        ("data.csv", "data.csv", "leads nowhere"),
        ("lib/loop", "../lib", "in a circle"),
        ("lib/loop", "..", "in a circle"),
        ("settings.txt", ".env", "never goes into an image"),
    ],
)
def test_link_that_is_no_copy_is_named(tmp_path: Path, link: str, target: str, why: str) -> None:
    (tmp_path / "outside.csv").touch()
    folder = tmp_path / "workflow"
    (folder / "lib").mkdir(parents=True)
    (folder / ".env").touch()
    (folder / link).symlink_to(target)
    with pytest.raises(PlatformError, match="link that can't be in an image") as caught:
        workflow_files(folder)

    assert why in caught.value.why
    assert caught.value.file.startswith(link)
    (folder / ".dockerignore").write_text(link)
    assert workflow_files(folder) == []


def test_links_to_each_other_do_not_multiply(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"f{number}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"f{number}" / name).symlink_to(f"../f{number + 1}")
    (tmp_path / "f30").mkdir()
    started = time.monotonic()
    with pytest.raises(PlatformError, match="link"):
        workflow_files(tmp_path)

    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("files", "megabytes"), [(5, 500), (100, 0.00001)])
def test_folder_that_is_too_large_tells_where_most_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, megabytes: float
) -> None:
    monkeypatch.setattr("register_action.workflow_files.MAXIMUM_FILES", files)
    monkeypatch.setattr("register_action.workflow_files.MAXIMUM_MEGABYTES", megabytes)
    (tmp_path / "big" / "sub").mkdir(parents=True)
    for number in range(8):
        (tmp_path / "big" / "sub" / f"{number}").write_text("0123456789")
    (tmp_path / "flow.py").write_text("x")
    with pytest.raises(PlatformError, match="too large") as caught:
        workflow_files(tmp_path)

    assert "most are in big:" in caught.value.why


def test_file_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flow.py").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert "flow.py" in _refused(tmp_path).what


def test_name_that_is_not_utf_8_and_special_files_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "flow.py").touch()
    os.mkfifo(tmp_path / "pipe")
    assert _paths(tmp_path) == ["flow.py"]

    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).touch()
    assert str(_refused(tmp_path)).encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=20), st.text(alphabet="*?[]!^-\\/.a\n").map(str.encode)))
def test_whatever_dockerignore_says_is_no_traceback(tmp_path: Path, ignore: bytes) -> None:
    (tmp_path / "flow.py").touch()
    (tmp_path / ".dockerignore").write_bytes(ignore)
    named, shown = ".dockerignore", ""
    try:
        assert set(_paths(tmp_path)) <= {"flow.py", ".dockerignore"}
    except PlatformError as error:
        named, shown = error.file, str(error)

    assert named == ".dockerignore"
    assert shown.encode().decode() == shown


@pytest.mark.parametrize("pattern", ["**" * 20 + "x", "*o*" * 20 + "x", "**o*" * 9 + "x"])
@pytest.mark.timeout(20)
def test_dockerignore_with_many_wildcards_takes_no_time(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "flow.py").touch()
    (tmp_path / ("o" * 100)).touch()
    (tmp_path / ".dockerignore").write_text(pattern)

    assert set(_paths(tmp_path)) == {"flow.py", "o" * 100}


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("**/*a**/b", "c/aaab/b", True),
        ("**?**/a", "ba/c/a", True),
        ("*[^a]*b", "x/yb", True),
        ("*a*b", "aa/b", False),
        ("**/a/**/b", "a/c/a/d/b", True),
    ],
)
def test_wildcards_of_dockerignore_match_in_every_way_they_can(
    tmp_path: Path, pattern: str, path: str, ignored: bool
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    (tmp_path / ".dockerignore").write_text(pattern)

    assert (path not in _paths(tmp_path)) is ignored


@pytest.mark.parametrize("name", ["flow\n.py", "\x1b[31m.py", "\x9b.py"])
def test_name_with_control_characters_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(PlatformError, match="control characters"):
        _paths(tmp_path)
