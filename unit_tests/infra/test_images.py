import dataclasses
import datetime
import hashlib
import json
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from environments import github_actions, outages
from environments.errors import PlatformError
from environments.settings import Environment
from infra import images
from infra.images import content, ensure_repository, find, image_name, tag_of
from unit_tests.conftest import pushed_one_by_one

Aws = Callable[[str], Any]
FILES = {"a.py": b"one", "b.py": b"two"}
TAG = tag_of(FILES)


def test_tag_is_the_same_on_every_machine() -> None:
    """A change of the recipe would rebuild every image; it must be meant."""
    recipe = b"".join(len(part).to_bytes(8, "big") + part for part in (b"base", b"a.py", b"one", b"b.py", b"two"))

    assert tag_of(FILES, "base") == hashlib.sha256(recipe).hexdigest()[:16]


def test_tag_does_not_depend_on_the_order_of_the_files() -> None:
    assert tag_of(dict(reversed(FILES.items()))) == TAG


def test_tag_fits_what_terraform_allows() -> None:
    assert len(TAG) == 16
    assert set(TAG) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("files", "ingredients"),
    [
        ({"a.py": b"one", "b.py": b"two!"}, ()),
        ({"a.py": b"one", "c.py": b"two"}, ()),
        ({"a.py": b"two", "b.py": b"one"}, ()),
        ({"a.py": b"one"}, ()),
        ({**FILES, "empty": b""}, ()),
        ({"a.p": b"yone", "b.py": b"two"}, ()),
        (FILES, ("python:3.12",)),
    ],
)
def test_tag_depends_on_contents_names_and_ingredients(files: dict[str, bytes], ingredients: tuple[str, ...]) -> None:
    assert tag_of(files, *ingredients) != TAG


CONTEXTS = st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=3)


@hypothesis_settings(max_examples=200, deadline=None, database=None)
@given(one=CONTEXTS, two=CONTEXTS, ingredient=st.text(max_size=3))
def test_different_content_has_different_tags(one: dict[str, bytes], two: dict[str, bytes], ingredient: str) -> None:
    assert (tag_of(one) == tag_of(two)) == (one == two)
    assert tag_of(one, ingredient) != tag_of(one)


def test_content_is_read_by_path_relative_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_bytes(b"x\r\n")

    assert content(tmp_path, [tmp_path / "sub" / "a.py"]) == {"sub/a.py": b"x\r\n"}


def test_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        content(tmp_path, [tmp_path / "missing.py"])

    assert "missing.py" in caught.value.why


def test_build_context_does_not_depend_on_when_and_where_it_is_made() -> None:
    archive = images._tar(FILES)
    with tarfile.open(fileobj=archive) as tar:
        members = tar.getmembers()
        assert [(member.name, member.mode, member.mtime, member.uid) for member in members] == [
            ("a.py", 0o644, 0, 0),
            ("b.py", 0o644, 0, 0),
        ]

    assert images._tar(dict(reversed(FILES.items()))).getvalue() == archive.getvalue()


def test_scripts_can_be_executed_in_the_image() -> None:
    """Modes of files are not part of what is read; git's own are lost on some machines."""
    files = {"run.sh": b"#!/bin/sh\n", "flow.py": b"x = '#!'\n", "empty": b"", "late": b" #!/bin/sh\n"}
    with tarfile.open(fileobj=images._tar(files)) as tar:
        modes = {member.name: member.mode for member in tar.getmembers()}

    assert modes == {"run.sh": 0o755, "flow.py": 0o644, "empty": 0o644, "late": 0o644}


def test_image_is_named_as_ecr_names_it(environment: Environment) -> None:
    image = image_name(environment, "dev_sales", TAG)

    assert image.uri == f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/dev_sales:{TAG}"


def test_same_content_for_another_processor_is_another_image(environment: Environment, local: Environment) -> None:
    arm = dataclasses.replace(environment, cpu_architecture="ARM64")

    assert image_name(environment, "dev_sales", TAG).tag == image_name(local, "dev_sales", TAG).tag == TAG
    assert len(image_name(arm, "dev_sales", TAG).tag) == len(TAG)
    assert image_name(arm, "dev_sales", TAG).tag != TAG


@pytest.mark.parametrize("repository", ["dev_sales", "group/dev_sales"])
def test_pinned_image_has_no_tag(environment: Environment, repository: str) -> None:
    image = dataclasses.replace(image_name(environment, repository, TAG), digest="sha256:0")

    assert image.pinned == f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/{repository}@sha256:0"


@pytest.fixture
def ecr(aws_mocked: Aws) -> Any:
    return aws_mocked("ecr")


def _push(ecr: Any, repository: str, tag: str, content: str = "") -> str:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": [{"digest": content or tag}]})
    answer = ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)
    return str(answer["image"]["imageId"]["imageDigest"])


def test_image_of_an_unknown_repository_is_not_found(environment: Environment, ecr: Any) -> None:
    assert find(environment, image_name(environment, "dev_sales", TAG)) is None


def test_unknown_tag_is_not_found(environment: Environment, ecr: Any) -> None:
    ensure_repository(environment, "dev_sales")
    _push(ecr, "dev_sales", "0" * 16)

    assert find(environment, image_name(environment, "dev_sales", TAG)) is None


def test_known_tag_is_found_with_its_digest(environment: Environment, ecr: Any) -> None:
    ensure_repository(environment, "dev_sales")
    digest = _push(ecr, "dev_sales", TAG)
    _push(ecr, "dev_sales", "0" * 16)
    found = find(environment, image_name(environment, "dev_sales", TAG))

    assert found
    assert found.digest == digest


def test_repository_is_immutable_and_scanned_and_expires_nothing(environment: Environment, ecr: Any) -> None:
    ensure_repository(environment, "dev_sales")
    [repository] = ecr.describe_repositories()["repositories"]
    tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]

    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"] is True
    assert repository["encryptionConfiguration"]["encryptionType"] == "KMS"
    assert _lifecycle(ecr) is None
    assert {"Key": "environment", "Value": "dev"} in tags


def test_repository_has_the_key_and_the_tags_of_the_settings(environment: Environment, ecr: Any) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/12345678-1234-1234-1234-123456789012"
    changed = dataclasses.replace(environment, kms_key_arn=key, extra_tags={"cost_center": "data"})
    ensure_repository(changed, "dev_sales")
    [repository] = ecr.describe_repositories()["repositories"]
    tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]

    assert repository["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}
    assert {"Key": "cost_center", "Value": "data"} in tags


def test_repository_that_is_there_stays_as_it_is(environment: Environment, ecr: Any) -> None:
    ensure_repository(environment, "dev_sales")
    digest = _push(ecr, "dev_sales", TAG)
    ensure_repository(environment, "dev_sales")

    assert [image["imageDigest"] for image in ecr.list_images(repositoryName="dev_sales")["imageIds"]] == [digest]


class _Ecr:
    """ECR as AWS answers a role that may tag new repositories only; other commands create what `later` names."""

    exceptions = types.SimpleNamespace(
        RepositoryNotFoundException=KeyError, LifecyclePolicyNotFoundException=FileNotFoundError
    )

    def __init__(self, existing: set[str], later: set[str]) -> None:
        self.existing, self.later, self.calls = existing, later, list[str]()

    def describe_repositories(self, repositoryNames: list[str]) -> None:
        self.calls.append("describe")
        if not {*repositoryNames} <= self.existing:
            raise KeyError(repositoryNames)

    def create_repository(self, repositoryName: str, **_: Any) -> None:
        self.calls.append("create")
        self.existing |= self.later
        if repositoryName in self.existing or not repositoryName.startswith("dev_"):
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "CreateRepository")
        self.existing.add(repositoryName)

    def get_lifecycle_policy(self, repositoryName: str) -> Any:
        assert repositoryName in self.existing
        self.calls.append("lifecycle")
        raise FileNotFoundError(repositoryName)


@pytest.mark.parametrize(
    ("existing", "later", "calls"),
    [
        ({"dev_sales"}, set(), ["describe", "lifecycle"]),
        (set(), set(), ["describe", "create"]),
        (set(), {"dev_sales"}, ["describe", "create", "describe", "lifecycle"]),
    ],
    ids=["existing", "missing", "created-meanwhile"],
)
def test_repository_is_created_only_where_it_was_found_missing(
    environment: Environment, existing: set[str], later: set[str], calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _Ecr(existing, later)
    monkeypatch.setattr(images, "client", lambda *_: fake)
    ensure_repository(environment, "dev_sales")

    assert fake.calls == calls


def test_repository_that_may_not_be_created_is_an_error(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "client", lambda *_: _Ecr(set(), set()))

    with pytest.raises(ClientError, match="AccessDenied"):
        ensure_repository(environment, "prod_sales")


@pytest.mark.parametrize("made", ["dev_sales", "dev_sales_report"])
def test_repository_exists_only_under_its_own_name(environment: Environment, ecr: Any, made: str) -> None:
    ecr.create_repository(repositoryName=made)

    assert images.repository_exists(environment, "dev_sales") is (made == "dev_sales")


def _rule(**changed: Any) -> dict[str, Any]:
    """The rule of the lifecycle policy that earlier releases set, with something else in its selection."""
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 25, **changed}
    description, action = "Keep the last 25 images", {"type": "expire"}
    return {"rulePriority": 1, "description": description, "selection": selection, "action": action}


def _lifecycle(ecr: Any) -> Any:
    try:
        return json.loads(ecr.get_lifecycle_policy(repositoryName="dev_sales")["lifecyclePolicyText"])
    except ecr.exceptions.LifecyclePolicyNotFoundException:
        return None


@pytest.mark.parametrize(
    ("rules", "stays"),
    [
        ([_rule()], False),
        ([_rule(tagStatus="untagged")], True),
        ([_rule(countNumber=3)], True),
        ([_rule(tagStatus="untagged"), {**_rule(), "rulePriority": 2}], True),
        ([{**_rule(), "description": "Mine"}], True),
    ],
    ids=["ours", "untagged", "count-of-somebody", "two-rules", "described-otherwise"],
)
def test_lifecycle_policy_of_earlier_releases_goes_and_that_of_somebody_stays(
    environment: Environment, ecr: Any, rules: list[dict[str, Any]], stays: bool
) -> None:
    ecr.create_repository(repositoryName="dev_sales")
    ecr.put_lifecycle_policy(repositoryName="dev_sales", lifecyclePolicyText=json.dumps({"rules": rules}))
    ensure_repository(environment, "dev_sales")

    assert _lifecycle(ecr) == ({"rules": rules} if stays else None)


def _described(*ages: int) -> list[dict[str, Any]]:
    """Images of these ages in days, as ECR describes them; the age is the digest."""
    now = datetime.datetime.now(datetime.UTC)
    return [{"imageDigest": str(age), "imagePushedAt": now - datetime.timedelta(days=age)} for age in ages]


@pytest.mark.parametrize(
    ("used", "gone"),
    [(set(), ["9", "5", "3"]), ({"9", "3"}, ["5"]), ({"1", "2"}, ["9", "5", "3"]), ({"3", "5", "9"}, [])],
    ids=["nothing-used", "old-ones-used", "new-ones-used", "all-old-ones-used"],
)
def test_newest_images_and_those_in_use_are_kept(used: set[str], gone: list[str]) -> None:
    assert images.outdated(_described(3, 1, 9, 2, 5), used, 2) == gone


def test_image_that_is_used_by_its_tag_is_kept() -> None:
    there = [{**image, "imageTags": [f"tag-{image['imageDigest']}"]} for image in _described(3, 1, 2)]

    assert images.outdated(there, {"tag-3"}, 1) == ["2"]


@pytest.mark.parametrize(
    ("uri", "version"),
    [("registry:5000/a/b@sha256:0", "sha256:0"), ("registry:5000/a/b:tag", "tag"), ("", "")],
)
def test_version_of_an_image_is_its_digest_or_its_tag(uri: str, version: str) -> None:
    assert images.version(uri) == version


@hypothesis_settings(max_examples=200, deadline=None, database=None)
@given(ages=st.sets(st.integers(0, 50)), used=st.sets(st.integers(0, 50)), count=st.integers(1, 10))
def test_no_image_in_use_is_ever_outdated(ages: set[int], used: set[int], count: int) -> None:
    gone = {int(digest) for digest in images.outdated(_described(*ages), {str(age) for age in used}, count)}
    kept = ages - gone

    assert not gone & used
    assert kept - used <= set(sorted(ages)[:count])
    assert len(kept) >= min(count, len(ages))


def test_old_images_that_nothing_uses_are_deleted_from_ecr(environment: Environment, ecr: Any) -> None:
    few = dataclasses.replace(environment, image_retention_count=2)
    ensure_repository(few, "dev_sales")
    asked: list[bool] = []
    digests = [_push(ecr, "dev_sales", str(number) * 16) for number in range(4)]
    pushed_one_by_one("dev_sales")

    def used() -> set[str]:
        asked.append(True)
        return {digests[0]}

    assert images.retire(few, "dev_sales", used) == [digests[1]]
    assert _images(ecr, "dev_sales") == {digests[0], *digests[2:]}
    assert images.retire(environment, "dev_sales", used) == images.retire(few, "gone", used) == []
    assert asked == [True]


def _images(ecr: Any, repository: str) -> set[str]:
    return {image["imageDigest"] for image in ecr.list_images(repositoryName=repository)["imageIds"]}


def test_images_are_deleted_by_digest_and_only_those_that_were_there_are_told(
    environment: Environment, ecr: Any
) -> None:
    ensure_repository(environment, "dev_sales")
    gone, stays = _push(ecr, "dev_sales", "1" * 16), _push(ecr, "dev_sales", "2" * 16)
    _push(ecr, "dev_sales", "3" * 16, content="1" * 16)  # a second name of the first

    assert images.delete(environment, "dev_sales", [gone, "sha256:" + "0" * 64]) == [gone]
    assert _images(ecr, "dev_sales") == {stays}
    assert images.delete(environment, "dev_sales", [gone]) == []


def test_ecr_is_never_asked_for_more_than_it_deletes_at_once(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Ecr:
        exceptions = type("Exceptions", (), {"RepositoryNotFoundException": KeyError})

        def batch_delete_image(self, repositoryName: str, imageIds: list[dict[str, str]]) -> Any:
            asked.append(len(imageIds))
            return {"imageIds": [{"imageDigest": "of an SBOM", **image} for image in imageIds]}

    monkeypatch.setattr(images, "client", lambda *_: Ecr())
    digests = [f"sha256:{number}" for number in range(205)]

    assert images.delete(environment, "dev_sales", digests) == digests
    assert asked == [100, 100, 100, 100, 10]  # an SBOM for each


def test_sbom_goes_with_its_image_and_is_not_told_or_counted_as_one(environment: Environment, ecr: Any) -> None:
    few = dataclasses.replace(environment, image_retention_count=2)
    ensure_repository(few, "dev_sales")
    digests = []
    for number in range(3):
        digests.append(_push(ecr, "dev_sales", str(number) * 16))
        _push(ecr, "dev_sales", images.sbom_tag(digests[-1]))
    pushed_one_by_one("dev_sales")

    assert images.sbom_tag("sha256:0") == "sha256-0.sbom"
    assert images.retire(few, "dev_sales", lambda: set()) == digests[:1]
    assert images.retire(few, "dev_sales", lambda: set()) == []
    left = {image["imageTag"] for image in ecr.list_images(repositoryName="dev_sales")["imageIds"]}
    assert left == {"1" * 16, "2" * 16, *map(images.sbom_tag, digests[1:])}


def test_deleting_from_a_repository_that_is_gone_is_no_error(environment: Environment, ecr: Any) -> None:
    assert images.delete(environment, "dev_sales", ["sha256:" + "0" * 64]) == []
    assert images.delete(environment, "dev_sales", []) == []


def test_repository_goes_with_its_images_and_no_other_does(environment: Environment, ecr: Any) -> None:
    for repository in ("dev_sales", "dev_sales_report"):
        ensure_repository(environment, repository)
        _push(ecr, repository, TAG)

    assert images.delete_repository(environment, "dev_sales") is True
    assert images.delete_repository(environment, "dev_sales") is False
    assert [each["repositoryName"] for each in ecr.describe_repositories()["repositories"]] == ["dev_sales_report"]


def test_image_that_is_in_ecr_is_not_pushed_again(environment: Environment, ecr: Any) -> None:
    """No Docker engine answers here: looking for one would fail."""
    ensure_repository(environment, "dev_sales")
    digest = _push(ecr, "dev_sales", TAG)
    pushed = images.push(environment, image_name(environment, "dev_sales", TAG))

    assert pushed.digest == digest


def test_local_images_go_through_the_port_of_the_emulator(local: Environment) -> None:
    uri = image_name(local, "local_sales", TAG).uri

    assert images.engine_name(local, uri) == f"127.0.0.1:{local.aws_port}/local_sales:{TAG}"


def test_local_images_go_to_the_address_of_the_settings(local: Environment) -> None:
    elsewhere = dataclasses.replace(local, aws_endpoint_url="http://127.0.0.2:4567")
    uri = image_name(elsewhere, "local_sales", TAG).uri

    assert images.engine_name(elsewhere, uri) == f"127.0.0.2:4567/local_sales:{TAG}"


def test_images_on_aws_go_to_ecr_with_a_login(environment: Environment, ecr: Any) -> None:
    uri = image_name(environment, "dev_sales", TAG).uri
    login = images.login(environment)

    assert images.engine_name(environment, uri) == uri
    assert login
    assert login["username"] == "AWS"
    assert login["password"]


class Engine:
    """A Docker engine of which only build and pull are played, with the events of a real one."""

    def __init__(self, events: list[dict[str, Any]], has: bool = False, architecture: str = "amd64") -> None:
        from docker.errors import ImageNotFound

        self.events, self.built = events, 0
        self.pulled: list[tuple[str, Any]] = []
        self.platforms: list[str | None] = []
        self.removed: list[str] = []
        outer = self

        class Images:
            def get(self, name: str) -> Any:
                if not has and not outer.built:
                    raise ImageNotFound(name)
                return type("Image", (), {"attrs": {"Size": 1_000_000, "Architecture": architecture}})()

            def remove(self, name: str, force: bool) -> None:
                outer.removed.append(name)

            def pull(self, name: str, auth_config: Any, platform: str | None) -> None:
                outer.pulled.append((name, auth_config))
                outer.platforms.append(platform)

        self.images, self.api = Images(), self

    def build(self, platform: str | None, **_: Any) -> list[dict[str, Any]]:
        self.built += 1
        self.platforms.append(platform)
        return self.events


ARM_BUILD_ON_X86 = [
    {"stream": "Step 2/2 : RUN pip install prefect\n"},
    {"stream": "exec /bin/sh: exec format error\n"},
    {"error": "The command '/bin/sh -c pip install prefect' returned a non-zero code: 1"},
]


def test_image_for_another_processor_says_what_this_machine_needs(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "docker_client", lambda: Engine(ARM_BUILD_ON_X86))
    changed = dataclasses.replace(environment, cpu_architecture="ARM64")
    with pytest.raises(PlatformError) as caught:
        images.build(changed, image_name(changed, "dev_sales", TAG), FILES, "Dockerfile")

    assert caught.value.what == "this machine's Docker engine can't build for linux/arm64"
    assert "cpu_architecture is ARM64 in environments/dev.tfvars" in caught.value.why
    assert "--install arm64" in caught.value.todo


def test_image_that_an_engine_made_for_the_wrong_processor_does_not_stay(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines without BuildKit take the base image they have, whatever was asked for."""
    engine = Engine([{"stream": "Step 1/1 : FROM x\n"}], architecture="amd64")
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    changed = dataclasses.replace(environment, cpu_architecture="ARM64")
    image = image_name(changed, "dev_sales", TAG)
    with pytest.raises(PlatformError) as caught:
        images.build(changed, image, FILES, "Dockerfile")

    assert "the image became one for amd64" in caught.value.why
    assert engine.removed == [image.uri]


@pytest.mark.parametrize(("architecture", "platform"), [("X86_64", "linux/amd64"), ("ARM64", "linux/arm64")])
def test_images_are_built_and_fetched_for_the_processor_of_the_settings(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch, architecture: str, platform: str
) -> None:
    engine = Engine([{"stream": "Step 1/1 : FROM x\n"}], architecture=platform.removeprefix("linux/"))
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    changed = dataclasses.replace(environment, cpu_architecture=architecture)
    image = image_name(changed, "dev_sales", TAG)
    images.fetch(changed, image.uri)
    images.build(changed, image, FILES, "Dockerfile")

    assert engine.platforms == [platform, platform]


def test_local_images_are_built_for_this_machine(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([{"stream": "Step 1/1 : FROM x\n"}])
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    images.build(local, image_name(local, "local_sales", TAG), FILES, "Dockerfile")

    assert engine.platforms == [None]


def test_build_that_fails_shows_the_step_and_what_it_printed(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [
        {"stream": "Step 1/2 : FROM x\n"},
        {"stream": "of the first step\n"},
        {"stream": "Step 2/2 : RUN pip install nothing\n"},
        {"stream": "ERROR: No matching distribution\n"},
        {"error": "The command returned a non-zero code: 1"},
    ]
    monkeypatch.setattr(images, "docker_client", lambda: Engine(events))
    with pytest.raises(PlatformError) as caught:
        images.build(environment, image_name(environment, "dev_sales", TAG), FILES, "Dockerfile")

    assert caught.value.why.splitlines() == [
        "Step 2/2 : RUN pip install nothing",
        "ERROR: No matching distribution",
        "The command returned a non-zero code: 1",
    ]


def test_failed_build_shows_neither_colours_nor_what_the_engine_says_to_itself(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = [
        {"stream": "Step 2/2 : RUN \x1b[1mmake\x1b[0m\n"},
        {"stream": " ---> Running in 0123456789ab\n\n"},
        {"stream": "\x1b[?25l\x1b[91mred\x1b[0m\x1b[K  \n"},
        {"stream": "Removing intermediate container 0123456789ab\n ---> ba9876543210\n"},
        {"stream": "   indented\n"},
        {"aux": {"ID": "sha256:0"}},
        {"error": "exit code: 2"},
    ]
    monkeypatch.setattr(images, "docker_client", lambda: Engine(events))
    with pytest.raises(images.BuildError) as caught:
        images.build(environment, image_name(environment, "dev_sales", TAG), FILES, "Dockerfile")

    assert caught.value.step == "Step 2/2 : RUN make"
    assert caught.value.lines == ["red", "   indented"]
    assert caught.value.reason == "exit code: 2"


@pytest.mark.parametrize("has", [False, True])
def test_image_is_built_when_the_engine_has_one_of_that_name(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(images, "docker_client", lambda: Engine([], has))

    assert images.is_built(environment, image_name(environment, "dev_sales", TAG)) is has


@pytest.mark.parametrize("has", [False, True])
def test_image_is_fetched_only_when_the_engine_has_it_not(
    local: Environment, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    engine, login = Engine([], has), {"username": "AWS", "password": "word"}
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    monkeypatch.setattr(images, "login", lambda _: login)
    pinned = dataclasses.replace(image_name(local, "local_sales", TAG), digest="sha256:0").pinned
    name = images.fetch(local, pinned)

    assert name == f"127.0.0.1:{local.aws_port}/local_sales@sha256:0"
    assert engine.pulled == ([] if has else [(name, login)])


def test_image_on_aws_is_fetched_with_a_login(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine([])
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    uri = image_name(environment, "dev_sales", TAG).uri
    images.fetch(environment, uri)
    [(pulled, login)] = engine.pulled

    assert pulled == uri
    assert login["username"] == "AWS"


class PushEngine:
    """A Docker engine that only pushes: each attempt does what it is told, and gives the events that it is told."""

    def __init__(self, *attempts: tuple[Callable[[], object], list[dict[str, Any]]]) -> None:
        self.api, self.attempts, self.tried = self, list(attempts), 0

    def push(self, name: str, stream: bool, decode: bool, auth_config: Any) -> list[dict[str, Any]]:
        arrive, events = self.attempts[self.tried]
        self.tried += 1
        arrive()
        return events


BROKEN: list[dict[str, Any]] = [{"error": "write tcp 127.0.0.1: connection reset by peer"}]


def _pushed_by(
    environment: Environment, engine: PushEngine, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], images.Image]:
    ensure_repository(environment, "dev_sales")
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    return lambda: images.push(environment, image_name(environment, "dev_sales", TAG))


def test_push_that_breaks_off_is_tried_again(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PushEngine((list, BROKEN), (lambda: _push(ecr, "dev_sales", TAG), []))

    assert _pushed_by(environment, engine, monkeypatch)().digest.startswith("sha256:")


def test_only_an_image_that_was_pushed_is_given_to_the_steps_that_follow(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}
    monkeypatch.setattr(github_actions, "output", lambda name, value: given.update({name: value}))
    push = _pushed_by(environment, PushEngine((lambda: _push(ecr, "dev_sales", TAG), [])), monkeypatch)
    digest = push().digest

    assert given == {
        "image_name": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/dev_sales",
        "image_digest": digest,
    }
    given.clear()
    push()
    assert given == {}


def test_push_whose_answer_was_lost_is_a_good_one(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags can't be pushed twice: trying again would fail for ever."""
    engine = PushEngine((lambda: _push(ecr, "dev_sales", TAG), BROKEN))

    assert _pushed_by(environment, engine, monkeypatch)().digest.startswith("sha256:")


@pytest.mark.parametrize(("words", "attempts"), [("denied: not yours", 1), (BROKEN[0]["error"], outages.ATTEMPTS)])
def test_push_that_never_arrives_is_told_in_the_words_of_the_registry(
    environment: Environment, ecr: Any, monkeypatch: pytest.MonkeyPatch, words: str, attempts: int
) -> None:
    engine = PushEngine(*[(list, [{"error": words}])] * outages.ATTEMPTS)
    with pytest.raises(PlatformError) as caught:
        _pushed_by(environment, engine, monkeypatch)()

    assert caught.value.why == words
    assert engine.tried == attempts


def test_old_images_that_cannot_be_deleted_fail_nothing(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> Any:
        raise PlatformError("ECR is busy")

    monkeypatch.setattr(images, "details", refused)

    assert images.retire(environment, "mine", set) == []
    assert "old images of mine stay: ECR is busy" in capsys.readouterr().err
