"""The base image of the agent and of all workflows: which one it is, and which one this machine can build on."""

import dataclasses
import re

from environments.errors import PlatformError
from environments.local_stack import docker_client, docker_errors
from environments.settings import ROOT

FILE = ROOT / "agent" / "base_image" / "Dockerfile"
"""The one place that names the base image; a bot updates the digest in it."""
PINNED = re.compile(r"^FROM ([^\s@]+)@(sha256:[0-9a-f]{64})$", re.MULTILINE)
BUILT_LOCALLY = "dataflow.bootstrap"
"""Label of a base image that bootstrap.sh has built from Debian packages."""


@dataclasses.dataclass(frozen=True)
class BaseImage:
    """A base image: its name with the tag, and its digest."""

    name: str
    digest: str

    @property
    def pinned(self) -> str:
        """The image by name and digest, as a Dockerfile names it."""
        return f"{self.name}@{self.digest}"


@dataclasses.dataclass(frozen=True)
class Local:
    """The base image that the Docker engine has: what a Dockerfile calls it, and in which way it is not the pinned one.

    `deviation` is empty for the pinned image.
    """

    reference: str
    deviation: str = ""


def pinned() -> BaseImage:
    """Read the base image that the project is built on.

    Raises:
        PlatformError: its file does not name exactly one image with a digest.
    """
    found = PINNED.findall(FILE.read_text(encoding="utf-8"))
    if len(found) != 1:
        raise PlatformError(
            f"{FILE.relative_to(ROOT)} names no base image",
            "it needs exactly one line `FROM NAME:TAG@sha256:DIGEST`",
            f"git checkout {FILE.relative_to(ROOT)}",
        )
    return BaseImage(*found[0])


def local() -> Local | None:
    """Look up what this machine would build on, without pulling anything; None when it has no base image.

    Only an image that was pulled has a digest. One that bootstrap.sh has built, and one that was pulled for an earlier
    digest, are known by the name alone.
    """
    base, images = pinned(), docker_client().images
    try:
        images.get(base.pinned)
        return Local(base.pinned)
    except docker_errors().ImageNotFound:
        pass
    try:
        image = images.get(base.name)
    except docker_errors().ImageNotFound:
        return None
    origin = "built locally from Debian packages" if BUILT_LOCALLY in image.labels else "an older one"
    return Local(base.name, f"{base.name} is {origin}, not {base.digest[:19]}")


def provide() -> Local:
    """Make sure that the engine has a base image; the pinned one, wherever a registry gives it.

    Raises:
        PlatformError: there is none, and no registry gives one.
    """
    base, there = pinned(), local()
    if there and not there.deviation:
        return there
    engine = docker_client()
    try:
        repository, _, tag = base.name.rpartition(":")
        engine.images.pull(base.pinned).tag(repository, tag)
        return Local(base.pinned)
    except docker_errors().APIError as error:
        if there:
            return dataclasses.replace(there, deviation=f"{there.deviation}: no registry gave that one")
        raise PlatformError(
            f"the base image {base.pinned} is missing", str(error), "./bootstrap.sh pulls it or builds one"
        ) from error
