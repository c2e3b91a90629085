"""Container images: what they are called, and that each is built and pushed only once.

An image's tag is a hash of everything that goes into it. The same content therefore has the same name everywhere,
and an image whose tag is in ECR already needs neither a build nor a push.
"""

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from environments import console, github_actions, outages, progress
from environments.errors import PlatformError
from environments.local_stack import docker_client, docker_errors
from environments.settings import Environment
from infra.aws import client

TAG_LENGTH = 16
SBOM = ".sbom"
"""How the tag of an image's SBOM ends."""
FOREIGN = re.compile("exec format error|no matching manifest|does not match the specified platform", re.IGNORECASE)
"""What engines say that lack the emulation of another processor, or an image for it."""
REFUSED = re.compile("denied|unauthorized|no basic auth|does not exist", re.IGNORECASE)
"""What registries say to those who may not, or want what is not there: asking again does not help."""
TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
ENGINE_TALK = (" ---> ", "Removing intermediate container ")


class BuildError(PlatformError):
    """A step of a build failed: the step, what it printed, and the engine's reason."""

    def __init__(self, name: str, step: str, lines: list[str], reason: str) -> None:
        super().__init__(f"building {name} failed", "\n".join([step, *lines[-15:], reason]))
        self.step, self.lines, self.reason = step, lines, reason


@dataclasses.dataclass(frozen=True)
class Image:
    """An image in ECR: its repository's name, its tag, and its digest once it is there."""

    repository: str
    tag: str
    uri: str
    digest: str = ""

    @property
    def pinned(self) -> str:
        """The image by digest: what runs is exactly what was pushed."""
        return f"{self.uri.rsplit(':', 1)[0]}@{self.digest}"


def content(folder: Path, files: Iterable[Path]) -> dict[str, bytes]:
    """Read a build context: contents by path relative to `folder`.

    Raises:
        PlatformError: a file can't be read.
    """
    try:
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    except OSError as error:
        raise PlatformError("a file of the image can't be read", str(error)) from error


def tag_of(files: Mapping[str, bytes], *ingredients: str) -> str:
    """The tag of an image: a hash over its files and over whatever else it is made from."""
    digest = hashlib.sha256()
    for part in [
        *(value.encode() for value in ingredients),
        *(piece for name in sorted(files) for piece in (name.encode(), files[name])),
    ]:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:TAG_LENGTH]


def image_name(environment: Environment, repository: str, tag: str) -> Image:
    """The image as task definitions name it.

    Args:
        environment: whose image; the same content for another processor is another image.
        repository: its name in ECR.
        tag: of the content.
    """
    if environment.image_platform not in (None, "linux/amd64"):
        tag = tag_of({}, tag, str(environment.image_platform))
    registry = f"{environment.aws_account_id}.dkr.ecr.{environment.aws_region}.amazonaws.com"
    return Image(repository=repository, tag=tag, uri=f"{registry}/{repository}:{tag}")


def find(environment: Environment, image: Image) -> Image | None:
    """The image with its digest when ECR has its tag, else None."""
    ecr = client(environment, "ecr")
    try:
        details = ecr.describe_images(repositoryName=image.repository, imageIds=[{"imageTag": image.tag}])[
            "imageDetails"
        ]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        return None
    return dataclasses.replace(image, digest=details[0]["imageDigest"]) if details else None


def is_built(environment: Environment, image: Image) -> bool:
    """Whether the Docker engine has an image."""
    try:
        docker_client().images.get(engine_name(environment, image.uri))
    except docker_errors().ImageNotFound:
        return False
    return True


def build(
    environment: Environment,
    image: Image,
    files: Mapping[str, bytes],
    dockerfile: str,
    arguments: Mapping[str, str] | None = None,
) -> None:
    """Build an image with the Docker engine.

    Args:
        environment: whose image.
        image: its name; the tag is a hash of the content.
        files: the build context.
        dockerfile: path of the Dockerfile in it.
        arguments: build arguments; never secrets, they stay in the image's history.

    Raises:
        PlatformError: a step failed; the reason holds the step and its last lines.
        PlatformError: the image is for another processor, and this engine can't build for that.
    """
    engine, name = docker_client(), engine_name(environment, image.uri)
    try:
        _follow_build(
            name,
            engine.api.build(
                fileobj=_tar(files),
                custom_context=True,
                dockerfile=dockerfile,
                tag=name,
                rm=True,
                forcerm=True,
                decode=True,
                buildargs=dict(arguments or {}),
                platform=environment.image_platform,
            ),
        )
    except BuildError as error:
        if environment.image_platform and FOREIGN.search("\n".join([*error.lines, error.reason])):
            raise _other_processor(environment, error.reason) from error
        raise
    made = engine.images.get(name).attrs
    wanted = (environment.image_platform or "").rpartition("/")[2]
    if wanted and made.get("Architecture", wanted) != wanted:
        # Some engines build on whatever base image they have.
        engine.images.remove(name, force=True)
        raise _other_processor(environment, f"the image became one for {made['Architecture']}")
    progress.note(f"built, {made['Size'] / 1e6:.0f} MB with its base")


def _follow_build(name: str, events: Iterable[dict[str, Any]]) -> None:
    """Say at which step a build is, until it has ended."""
    recent: list[str] = []
    step = ""
    for event in events:
        if "error" in event:
            raise BuildError(name, step, recent, event["error"])
        for line in event.get("stream", "").splitlines():
            line = TERMINAL_CODES.sub("", line).rstrip()
            if line.startswith("Step "):
                step, recent = line, []
            elif line and not line.startswith(ENGINE_TALK):
                recent.append(line)
            progress.doing(step if len(step) < 100 else step[:97] + "...")


def push(environment: Environment, image: Image) -> Image:
    """Push an image that was built, unless ECR has its tag already; gives it with its digest.

    Under GitHub Actions also gives what was pushed to the steps that follow, as `image_name` and `image_digest`.

    Raises:
        PlatformError: the registry refused it, or broke off each time; what has arrived is not sent again.
    """
    if there := find(environment, image):
        progress.note("already in ECR")
        return there
    there = outages.repeated(lambda: _push_once(environment, image), lambda error: not REFUSED.search(str(error)))
    progress.note(f"pushed {image.tag}")
    github_actions.output("image_name", there.pinned.partition("@")[0])
    github_actions.output("image_digest", there.digest)
    return there


def _push_once(environment: Environment, image: Image) -> Image:
    name, problem = engine_name(environment, image.uri), "the push ended without an error"
    totals: dict[str, tuple[int, int]] = {}
    for event in docker_client().api.push(name, stream=True, decode=True, auth_config=login(environment)):
        problem = event.get("error", problem)
        detail = event.get("progressDetail") or {}
        if detail.get("total"):
            totals[event["id"]] = (detail["current"], detail["total"])
            done, all_of_it = (sum(column) / 1e6 for column in zip(*totals.values(), strict=True))
            progress.doing(f"{min(done, all_of_it):.0f} of {all_of_it:.0f} MB")  # the engine overshoots
    # The answer to a push may be lost, and its tag can't be pushed a second time: what counts is what is there.
    if there := find(environment, image):
        return there
    raise PlatformError(f"pushing {image.uri} failed", problem, "run the same command again; it goes on from here")


def fetch(environment: Environment, uri: str) -> str:
    """Make sure that the Docker engine has an image of ECR.

    Args:
        environment: whose ECR.
        uri: the image as task definitions name it, by tag or by digest.

    Returns:
        The name under which the engine knows it; a Dockerfile can build on that.
    """
    errors = docker_errors()
    engine, name = docker_client(), engine_name(environment, uri)

    def passing(error: Exception) -> bool:
        return isinstance(error, errors.APIError) and error.is_server_error() and not REFUSED.search(str(error))

    try:
        engine.images.get(name)
    except errors.ImageNotFound:
        outages.repeated(
            lambda: engine.images.pull(name, auth_config=login(environment), platform=environment.image_platform),
            passing,
        )
    return name


def engine_name(environment: Environment, uri: str) -> str:
    """Under which name the Docker engine knows an image of ECR: its URI, in local the emulated ECR's own address."""
    return f"{environment.emulated_registry}/{uri.partition('/')[2]}" if environment.is_local else uri


def _other_processor(environment: Environment, reason: str) -> PlatformError:
    platform = environment.image_platform or ""
    return PlatformError(
        f"this machine's Docker engine can't build for {platform}",
        f"cpu_architecture is {environment.cpu_architecture} in environments/{environment.name}.tfvars; {reason}",
        f"use a machine of that kind, or let this one emulate it: docker run --privileged --rm tonistiigi/binfmt "
        f"--install {platform.rpartition('/')[2]}",
    )


def login(environment: Environment) -> dict[str, Any]:
    """The login for ECR; in local the emulated one wants it, too."""
    answer = client(environment, "ecr").get_authorization_token()["authorizationData"][0]
    user, password = base64.b64decode(answer["authorizationToken"]).decode().split(":", 1)
    return {"username": user, "password": password}


def _tar(files: Mapping[str, bytes]) -> io.BytesIO:
    """A build context of which only contents and names count, so that the engine's cache holds on every machine."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o755 if files[name].startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    archive.seek(0)
    return archive


def repository_exists(environment: Environment, repository: str) -> bool:
    """Whether ECR has a repository of that name."""
    ecr = client(environment, "ecr")
    try:
        ecr.describe_repositories(repositoryNames=[repository])
    except ecr.exceptions.RepositoryNotFoundException:
        return False
    return True


def register_tags(environment: Environment) -> list[dict[str, str]]:
    """Tags of the repositories that register makes; by them destroy knows which are the environment's."""
    return [{"Key": key, "Value": value} for key, value in {**environment.tags, "managed_by": "register"}.items()]


def delete(environment: Environment, repository: str, digests: list[str]) -> list[str]:
    """Delete images of a repository by digest, each with its SBOM; gives the digests that were there."""
    ecr = client(environment, "ecr")
    identifiers = [
        *({"imageDigest": digest} for digest in digests),
        *({"imageTag": sbom_tag(digest)} for digest in digests),
    ]
    gone: set[str] = set()
    try:
        for start in range(0, len(identifiers), 100):  # as many as ECR takes at once
            answer = ecr.batch_delete_image(repositoryName=repository, imageIds=identifiers[start : start + 100])
            gone |= {image["imageDigest"] for image in answer["imageIds"]}
    except ecr.exceptions.RepositoryNotFoundException:
        pass
    return [digest for digest in dict.fromkeys(digests) if digest in gone]


def sbom_tag(digest: str) -> str:
    """The tag under which the SBOM of an image lies in the image's repository, by the image's digest."""
    return digest.replace(":", "-") + SBOM


def details(environment: Environment, repository: str) -> list[dict[str, Any]]:
    """What ECR tells of the images of a repository; nothing when it is gone."""
    ecr = client(environment, "ecr")
    try:
        pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository)
        return [image for page in pages for image in page["imageDetails"]]
    except ecr.exceptions.RepositoryNotFoundException:
        return []


def retire(environment: Environment, repository: str, used: Callable[[], set[str]]) -> list[str]:
    """Delete the images that nothing uses and that are not among the newest `image_retention_count`.

    Args:
        environment: whose images.
        repository: its name in ECR.
        used: gives digests and tags in use, however old they are; it is not called while there are few images.

    Returns:
        The digests that were deleted; none when that failed: what has succeeded before does not fail by it.
    """
    try:
        return _retire(environment, repository, used)
    except Exception as error:
        text = f"old images of {repository} stay: {error}"
        github_actions.warn(text)
        console.say(text, "yellow", stderr=True)
        return []


def _retire(environment: Environment, repository: str, used: Callable[[], set[str]]) -> list[str]:
    there = [
        image
        for image in details(environment, repository)
        if not any(tag.endswith(SBOM) for tag in image.get("imageTags", []))
    ]
    if len(there) <= environment.image_retention_count:
        return []
    return delete(environment, repository, outdated(there, used(), environment.image_retention_count))


def outdated(there: list[dict[str, Any]], used: set[str], count: int) -> list[str]:
    """Digests of the images that are neither in use nor among the newest, the oldest first.

    Args:
        there: all images of a repository, as ECR describes them.
        used: digests and tags in use.
        count: how many of the newest images are kept.
    """
    newest_first = sorted(there, key=lambda image: image["imagePushedAt"], reverse=True)
    old = {image["imageDigest"]: image.get("imageTags", []) for image in newest_first[count:]}
    return [digest for digest, tags in reversed(old.items()) if not used & {digest, *tags}]


def version(uri: str) -> str:
    """The digest or the tag of an image that is named by its URI."""
    return uri.rpartition("@" if "@" in uri else ":")[2]


def delete_repository(environment: Environment, repository: str) -> bool:
    """Delete a repository with all its images; False when there was none."""
    ecr = client(environment, "ecr")
    try:
        ecr.delete_repository(repositoryName=repository, force=True)
    except ecr.exceptions.RepositoryNotFoundException:
        return False
    return True


def ensure_repository(environment: Environment, repository: str) -> None:
    """Make an ECR repository if it is missing: immutable tags, encrypted, scanned on push.

    It has no lifecycle policy, because that selects images by tag and age and can't tell which of them are in use:
    `retire` does. One that an earlier release of this platform has set is removed, any other is somebody's choice and
    stays. https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html
    """
    if not repository_exists(environment, repository) and _create_repository(environment, repository):
        return
    ecr = client(environment, "ecr")
    with contextlib.suppress(ecr.exceptions.LifecyclePolicyNotFoundException):
        if _is_by_count(json.loads(ecr.get_lifecycle_policy(repositoryName=repository)["lifecyclePolicyText"])):
            ecr.delete_lifecycle_policy(repositoryName=repository)


def _create_repository(environment: Environment, repository: str) -> bool:
    """Create an ECR repository; False when another command has created it meanwhile.

    Call this only for a repository that was found missing. For an existing one AWS also evaluates the tags that it has,
    so the answer is AccessDenied instead of RepositoryAlreadyExists for a role that may tag new repositories only.
    """
    from botocore.exceptions import ClientError

    key = {"kmsKey": environment.kms_key_arn} if environment.kms_key_arn else {}
    try:
        client(environment, "ecr").create_repository(
            repositoryName=repository,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration={"encryptionType": "KMS", **key},
            tags=register_tags(environment),
        )
    except ClientError:
        if repository_exists(environment, repository):
            return False
        raise
    return True


def _is_by_count(lifecycle: dict[str, Any]) -> bool:
    """Whether a lifecycle policy is that of earlier releases, which expired the oldest images, used or not."""
    rules = [(rule.get("description"), rule["selection"]) for rule in lifecycle["rules"]]
    count = rules[0][1].get("countNumber") if rules else None
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": count}
    return rules == [(f"Keep the last {count} images", selection)]
