"""Lists what is installed in an image: Python's distributions and Debian's packages, as JSON on one line.

`infra.sbom` runs this file in a container of the image, so it imports only what Python brings.
"""

import importlib.metadata
import json
import pathlib
import platform

DPKG = pathlib.Path("/var/lib/dpkg")


def debian() -> list[list[str]]:
    """Name, version and architecture of each package that dpkg has installed; images without dpkg have none."""
    packages = []
    for file in [DPKG / "status", *sorted((DPKG / "status.d").glob("*"))]:
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        for paragraph in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if line[:1].strip() and ": " in line)
            installed = fields.get("Status", "install ok installed").endswith(" installed")
            if installed and "Package" in fields and "Version" in fields:
                packages.append([fields["Package"], fields["Version"], fields.get("Architecture", "all")])
    return packages


def release() -> dict[str, str]:
    """ID and version of the distribution, such as `debian` and `12`; empty where the image does not say so."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def python() -> list[tuple[str, str]]:
    """Name and version of each distribution that this Python can import."""
    found = ((each.metadata["Name"], each.version) for each in importlib.metadata.distributions())
    return sorted({(name, version) for name, version in found if name and version})


if __name__ == "__main__":
    said = {"python": platform.python_version(), "distributions": python(), "packages": debian(), "os": release()}
    print(json.dumps(said))
