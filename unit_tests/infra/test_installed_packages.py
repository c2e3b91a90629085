import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra import installed_packages

STATUS = """Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.2.13.dfsg-1
Description: compression library
 Version: in a description
 .

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: install ok installed
Version: 2024a
"""
DISTROLESS = "Package: libc6\nVersion: 2.36-9\nArchitecture: arm64\n"


@pytest.fixture
def dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installed_packages, "DPKG", tmp_path)
    return tmp_path


def test_packages_of_debian_are_those_that_dpkg_has_installed(dpkg: Path) -> None:
    (dpkg / "status").write_text(STATUS)

    assert installed_packages.debian() == [["zlib1g", "1:1.2.13.dfsg-1", "amd64"], ["tzdata", "2024a", "all"]]


def test_images_without_apt_have_a_file_for_each_package(dpkg: Path) -> None:
    (dpkg / "status.d").mkdir()
    (dpkg / "status.d" / "libc6").write_text(DISTROLESS)

    assert installed_packages.debian() == [["libc6", "2.36-9", "arm64"]]


def test_image_without_dpkg_has_no_packages_of_debian(dpkg: Path) -> None:
    assert installed_packages.debian() == []


def test_distributions_of_this_python_are_listed_once_with_their_versions() -> None:
    found = dict(installed_packages.python())

    assert len(found) == len(installed_packages.python()) > 100
    assert found["prefect"].startswith("3.")


def test_list_is_one_line_of_json_wherever_python_runs_it() -> None:
    script = Path(installed_packages.__file__).read_text()
    printed = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True, text=True).stdout
    told = json.loads(printed)

    assert printed.count("\n") == 1
    assert told.keys() == {"python", "distributions", "packages", "os"}
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "prefect" in dict(told["distributions"])
