import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from register_action import packages

DIGEST = "sha256:" + "0a" * 32
OTHER_DIGEST = "sha256:" + "ff" * 32
ARCHIVE = "sales @ https://example.com/sales/archive/1.zip"


def _folder(tmp_path: Path, **files: str | bytes) -> Path:
    """A folder with files; `__` in a name stands for a dot, `_in_` for a slash."""
    for key, content in files.items():
        file = tmp_path / key.replace("__", ".").replace("_in_", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path


def _lock(default: Any, **meta: Any) -> str:
    return json.dumps({"_meta": meta, "default": default, "develop": {"pytest": {"version": "==8.0"}}}, indent=4)


def _refused(folder: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        packages.read(folder)
    assert caught.value.todo
    return caught.value


def test_folder_without_any_of_the_files_asks_for_nothing(tmp_path: Path) -> None:
    assert packages.read(_folder(tmp_path, flow__py="")) == packages.Packages()


@pytest.mark.parametrize(
    "text",
    [
        "pandas==2.2.0\n",
        "pandas[excel]>=2,<3 ; python_version >= '3.9'  # why\r\nrequests\r\n",
        f"pandas==2.2.0 \\\n    --hash={DIGEST} \\\n    --hash={OTHER_DIGEST}\n    # via -r requirements.in\n",
        f"{ARCHIVE}\nhttps://example.com/more-1.0.tar.gz\n",
        "--index-url https://packages.example.com/simple\n--extra-index-url=https://example.com\n-f https://x.org\nidna",
        "--require-hashes\n--pre\n--only-binary :all:\n--trusted-host example.com\nidna",
        "prefect>=3\nprefect-aws\nPREFECT[aws]~=3.1\nprefect==3.8.8\n",
        "prefect<3 ; python_version < '3.9'\n",
        "# a comment that ends in a backslash \\\nrequests\n",
        "requ\\\nests\n",
        "\ufeffrequests\n",
    ],
)
def test_requirements_that_pip_understands_are_taken_as_they_are(tmp_path: Path, text: str) -> None:
    found = packages.read(_folder(tmp_path, requirements__txt=text))

    assert found.file == "requirements.txt"
    assert found.requirements == text.removeprefix("\ufeff").encode()
    assert (found.notes, found.extra) == ((), {})


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing yet\n"])
def test_requirements_with_comments_only_make_no_layer(tmp_path: Path, text: str) -> None:
    assert packages.read(_folder(tmp_path, requirements__txt=text)).requirements == b""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "on your machine"),
        ("-r missing.txt", "refers to 'missing.txt'"),
        ("-c/etc/passwd", "refers to '/etc/passwd'"),
        ("--requirement ../outside.txt", "refers to"),
        ("-r https://example.com/r.txt", "refers to"),
        ("-r 'a\0b'", "refers to"),
        ("# --index-url https://user:hunter2@example.com/simple", "credentials"),
    ],
)
def test_line_that_can_not_be_had_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "outside.txt").touch()
    error = _refused(_folder(tmp_path / "workflow", requirements__txt=f"requests \\\n  >=2\n\n{line}\nidna\n"))

    assert message in error.what
    assert error.what.startswith("requirements.txt:4 ")
    assert (error.file, error.line) == ("requirements.txt", 4)
    assert "hunter2" not in str(error)


def test_credentials_split_over_two_lines_are_found_too(tmp_path: Path) -> None:
    error = _refused(_folder(tmp_path, requirements__txt="--index-url https://user:hunt\\\ner2@example.com/simple\n"))

    assert "credentials" in error.what
    assert "er2" not in str(error)


@pytest.mark.parametrize("data", [b"requests\n\xff", "requests".encode("utf-16")])
def test_file_that_is_not_utf_8_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "is not UTF-8" in _refused(_folder(tmp_path, requirements__txt=data)).what


def test_files_referred_to_come_along_and_are_checked(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        requirements__txt="-r requirements/base.txt\n--constraint=limits.txt\nidna\n",
        requirements_in_base__txt="-r ../more.txt\n-c ../limits.txt\npandas\n",
        more__txt="-r requirements.txt\nrequests\n",
        limits__txt="pandas<3\n",
    )

    assert packages.read(folder).extra == {
        "requirements/base.txt": b"-r ../more.txt\n-c ../limits.txt\npandas\n",
        "more.txt": b"-r requirements.txt\nrequests\n",
        "limits.txt": b"pandas<3\n",
    }
    (folder / "more.txt").write_text("idna\n-e .\n")
    error = _refused(folder)
    assert (error.file, error.line) == ("more.txt", 2)


def test_reference_does_not_leave_the_folder_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("idna")
    folder = _folder(tmp_path / "workflow", requirements__txt="-r link.txt\n")
    (folder / "link.txt").symlink_to(tmp_path / "secret")

    assert "not in the workflow's folder" in _refused(folder).why


@pytest.mark.parametrize(
    ("files", "used", "notes"),
    [
        (["requirements.txt", "Pipfile.lock", "uv.lock"], "requirements.txt", ["Pipfile.lock", "uv.lock"]),
        (["requirements.txt", "pyproject.toml"], "requirements.txt", ["pyproject.toml"]),
        (["Pipfile.lock", "Pipfile", "pyproject.toml"], "Pipfile.lock", ["pyproject.toml"]),
        (["pyproject.toml", "poetry.lock"], "pyproject.toml", ["poetry.lock"]),
        (["Pipfile", "environment.yml"], "", ["Pipfile", "environment.yml"]),
        (["requirements.txt", "Pipfile"], "requirements.txt", ["Pipfile"]),
    ],
)
def test_files_that_are_not_used_are_told(tmp_path: Path, files: list[str], used: str, notes: list[str]) -> None:
    contents = {
        "Pipfile.lock": _lock({"idna": {"version": "==3.10"}}),
        "pyproject.toml": '[project]\ndependencies = ["idna"]\n',
    }
    for file in files:
        (tmp_path / file).write_text(contents.get(file, "idna"))
    found = packages.read(tmp_path)

    assert found.file == used
    assert sorted(note.split()[0] for note in found.notes) == sorted(notes)
    assert all(f"{used} is" in note for note in found.notes)


def test_settings_of_tools_beside_requirements_need_no_note(tmp_path: Path) -> None:
    folder = _folder(tmp_path, requirements__txt="idna", pyproject__toml="[tool.ruff]\nline-length = 120\n")

    assert packages.read(folder).notes == ()


@pytest.mark.parametrize("name", sorted(packages.OTHER_FILES))
def test_lock_that_is_not_read_tells_the_command_that_makes_one_that_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (note,) = packages.read(tmp_path).notes

    assert note == f"{name} is not used; to use it: {packages.OTHER_FILES[name]}"


def test_pipfile_lock_gives_exact_versions_with_all_hashes(tmp_path: Path) -> None:
    default = {
        "requests": {"version": "==2.32.0", "hashes": [OTHER_DIGEST, DIGEST], "extras": ["socks"]},
        "idna": {"version": "==3.10", "markers": "python_version >= '3.6'", "index": "main"},
        "sales": {"file": "https://example.com/sales.zip"},
    }
    lock = _lock(default, sources=[{"name": "main", "url": "https://example.com"}], requires={"python_version": "3.11"})
    found = packages.read(_folder(tmp_path, Pipfile__lock=lock))

    assert found.requirements.decode() == (
        'idna==3.10; python_version >= "3.6"\n'
        f"requests[socks]==2.32.0 \\\n    --hash={DIGEST} \\\n    --hash={OTHER_DIGEST}\n"
        "sales @ https://example.com/sales.zip\n"
    )
    assert (found.file, found.notes) == ("Pipfile.lock", ())
    again = _folder(tmp_path / "again", requirements__txt=found.requirements)
    assert packages.read(again).requirements == found.requirements


def test_pipfile_lock_tells_what_of_it_is_not_used(tmp_path: Path) -> None:
    sources = [
        {"name": "main", "url": "https://example.com"},
        {"name": "own", "url": "https://user:hunter2@example.com"},
    ]
    default = {"idna": {"version": "==3.10", "index": "own"}}
    notes = packages.read(
        _folder(tmp_path, Pipfile__lock=_lock(default, sources=sources, requires={"python_version": "3.9"}))
    ).notes

    credentials, index, python = notes
    assert "credentials" in credentials
    assert "idna" in index
    assert "'3.9'" in python
    assert "hunter2" not in "".join(notes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"git": "https://example.com/a.git", "ref": "1"}, "version control"),
        ({"path": "./lib", "editable": True}, "on your machine"),
        ({"file": "file:///lib.zip"}, "on your machine"),
        ({"file": "https://user:hunter2@example.com/lib.zip"}, "credentials"),
        ({"version": "==1.0\n-e ."}, "not a requirement"),
        ({"version": "==1.0", "hashes": ["sha256:0 --pre"]}, "hash that is none"),
    ],
)
def test_pipfile_lock_entry_that_can_not_be_had_is_refused(tmp_path: Path, entry: Any, message: str) -> None:
    error = _refused(_folder(tmp_path, Pipfile__lock=_lock({"lib": entry})))

    assert message in error.what
    assert (error.file, error.line) == ("Pipfile.lock", 4)
    assert "hunter2" not in str(error)


def test_pipfile_lock_that_does_not_parse_is_told_with_line_and_column(tmp_path: Path) -> None:
    error = _refused(_folder(tmp_path, Pipfile__lock='{\n  "default": x}'))

    assert error.what == "Pipfile.lock:2 is not valid JSON, column 14"
    assert (error.file, error.line) == ("Pipfile.lock", 2)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"default": []}',
        '{"default": {"a": 1}}',
        '{"default": {"a": {"version": 1}}}',
        '{"default": {"a": {"version": "==1", "hashes": [1]}}}',
        '{"default": {}, "_meta": {"sources": [1]}}',
        "[" * 10**5,
    ],
)
def test_pipfile_lock_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not as pipenv writes it" in _refused(_folder(tmp_path, Pipfile__lock=text)).what


def test_halves_of_characters_in_pipfile_lock_do_no_harm(tmp_path: Path) -> None:
    error = _refused(_folder(tmp_path, Pipfile__lock='{"default": {"\\ud800": {"version": "==1"}}}'))

    assert "is not a requirement" in str(error).encode().decode()


def test_pyproject_gives_its_dependencies(tmp_path: Path) -> None:
    text = f'[project]\nrequires-python = ">=3.9,<4"\ndependencies = [\n  "pandas>=2",\n  "{ARCHIVE}",\n]\n'
    found = packages.read(_folder(tmp_path, pyproject__toml=text))

    assert (found.file, found.requirements) == ("pyproject.toml", f"pandas>=2\n{ARCHIVE}\n".encode())


@pytest.mark.parametrize(
    "text", ["", "[tool.ruff]\nline-length = 120\n", '[tool.poetry]\n[tool.poetry.dependencies]\npython = "^3.11"\n']
)
def test_pyproject_without_a_project_asks_for_nothing(tmp_path: Path, text: str) -> None:
    assert packages.read(_folder(tmp_path, pyproject__toml=text)) == packages.Packages()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[project]\ndependencies = ["a"\n', 2, "is not valid TOML"),
        ("[project]\nx = = 1\n", 2, "is not valid TOML"),
        ("x = " + "[" * 10**4, 1, "is not valid TOML"),
        ('[project]\ndynamic = ["version", "dependencies"]\n', 2, "does not list its packages"),
        ('[tool.poetry.dependencies]\npandas = "^2"\n', 1, "does not list its packages"),
        ('[project]\nname = "x"\nrequires-python = ">=3.12"\n', 3, "requires Python >=3.12"),
        ('[project]\nrequires-python = "newest"\n', 2, "requires Python newest"),
        ('[project]\ndependencies = [\n  "idna",\n  "prefect<3",\n]\n', 4, "excludes Prefect 3"),
        ('[project]\ndependencies = ["-e ."]\n', 2, "is not a requirement"),
        ('[project]\ndependencies = ["lib @ git+https://example.com/a.git"]\n', 2, "version control"),
        ('[project]\ndependencies = ["lib @ file:///lib"]\n', 2, "on your machine"),
        ('[project]\ndependencies = ["lib"]\n[tool.uv.sources]\nLib = { path = "lib" }\n', 2, "asks for lib"),
        ('[[tool.uv.index]]\nurl = "https://user:hunter2@example.com"\n', 2, "credentials"),
        ('[project]\ndependencies = "idna"\n', 1, "none of a project"),
        ("[project]\ndependencies = [1]\n", 1, "none of a project"),
        ("project = 1\n", 0, "none of a project"),
    ],
)
def test_pyproject_that_pip_could_not_use_is_refused(tmp_path: Path, text: str, line: int, message: str) -> None:
    error = _refused(_folder(tmp_path, pyproject__toml=text))

    assert message in error.what
    assert (error.file, error.line) == ("pyproject.toml", line)
    assert "hunter2" not in str(error)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["version", "hashes", "idna", "markers"]), inner),
)
ANYTHING = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    st.text(alphabet="-rce=. \\\n#@:/ab'\"[]{}<>;,~!*$1", max_size=40).map(str.encode),
    VALUES.map(lambda value: json.dumps({"default": value, "_meta": value}).encode()),
)


@pytest.mark.parametrize("name", ["requirements.txt", "Pipfile.lock", "pyproject.toml"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=ANYTHING)
def test_whatever_a_file_holds_is_no_traceback(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    named, shown = {name, ""}, ""
    try:
        named = {packages.read(tmp_path).file}
    except PlatformError as error:
        named, shown = {error.file}, str(error)

    assert named <= {name, ""}
    assert shown.encode().decode() == shown
