"""What goes into a workflow's image, when it is built, and what is told of builds that fail."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from environments.errors import PlatformError
from environments.settings import Environment
from infra import images
from register_action import workflow_image
from register_action.discovery import FoundFlow
from register_action.packages import Packages
from register_action.registered import Project
from register_action.source import Source
from register_action.workflow import Choice, Entry, Workflow
from register_action.workflow_image import repository_name

Aws = Callable[[str], Any]
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
BASE = f"{ECR}/dev_dataflow_automation_agent@sha256:{'0' * 64}"
ON_BASE = b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY . /app\n"
ON_OTHER = b"FROM python:3.11\nCOPY . /app\n"
PIP = "Step 6/9 : RUN [ ! -s requirements.txt ] || (     python3 -m venv /opt/pip"


def workflow(files: dict[str, bytes] | None = None, packages: Packages | None = None) -> Workflow:
    flow = FoundFlow("flow.py", "sales", "sales", 3)
    return Workflow(
        source=Source(Path("/nowhere"), "sales", "", "", "", "."),
        choice=Choice(),
        entries=(Entry("dev", flow),),
        packages=packages or Packages(),
        files={"flow.py": b"one", "sub/more.py": b"two", **(files or {})},
    )


class Engine:
    """A Docker engine that knows images by name only, and whose pushes arrive in the ECR that moto plays."""

    def __init__(self, ecr: Any) -> None:
        self.ecr = ecr
        self.has = {BASE}
        self.builds: list[dict[str, Any]] = []
        self.pulls: list[str] = []
        self.events: list[dict[str, str]] = [{"stream": "Step 1/1 : FROM x\n"}]
        self.api: Any = self
        self.images = types.SimpleNamespace(get=self.get, pull=self.pull)

    def get(self, name: str) -> Any:
        if name not in self.has:
            raise ImageNotFound(name)
        return types.SimpleNamespace(attrs={"Size": 1_000_000})

    def pull(self, name: str, auth_config: Any, platform: str | None = None) -> None:
        self.pulls.append(name)
        self.has.add(name)

    def build(self, **request: Any) -> list[dict[str, str]]:
        self.builds.append(request)
        if not any("error" in event for event in self.events):
            self.has.add(request["tag"])
        return self.events

    def push(self, target: str, **_options: Any) -> list[dict[str, str]]:
        assert target in self.has
        repository, _, tag = target.partition("/")[2].rpartition(":")
        put(self.ecr, repository, tag)
        return [{"status": "Pushed"}]


def put(ecr: Any, repository: str, tag: str) -> str:
    """Put an image into ECR; gives its digest."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": [{"digest": f"sha256:{tag}"}]})
    answer = ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)
    return str(answer["image"]["imageId"]["imageDigest"])


@pytest.fixture
def engine(aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine(aws_mocked("ecr"))
    for module in (images, workflow_image):
        monkeypatch.setattr(module, "docker_client", lambda: fake)
    return fake


def content(environment: Environment, made_from: Workflow, base: str = BASE) -> workflow_image.Content:
    return workflow_image.content(environment, made_from, Project(base, ()))


def test_repository_is_named_after_environment_and_workflow(environment: Environment) -> None:
    assert repository_name(environment, "sales_report") == "dev_sales_report"


@pytest.mark.usefixtures("engine")
def test_image_holds_code_packages_and_our_dockerfile(environment: Environment) -> None:
    packages = Packages("requirements.txt", b"-r more/dev.txt\n", extra={"more/dev.txt": b"pandas\n"})
    made = content(environment, workflow(packages=packages))

    assert made.files == {
        "workflow/flow.py": b"one",
        "workflow/sub/more.py": b"two",
        "packages/requirements.txt": b"-r more/dev.txt\n",
        "packages/more/dev.txt": b"pandas\n",
        "Dockerfile": workflow_image.DOCKERFILE.read_bytes(),
    }
    assert not made.by_author
    assert made.image.repository == "dev_sales"


@pytest.mark.usefixtures("engine")
def test_change_of_prefect_yaml_is_no_change_of_the_image(environment: Environment) -> None:
    without, one, other = (
        content(environment, workflow(files)) for files in ({}, {"prefect.yaml": b"a: 1"}, {"prefect.yaml": b"a: 2"})
    )

    assert without == one == other
    assert not [name for name in one.files if "prefect.yaml" in name]


@pytest.mark.usefixtures("engine")
def test_dockerfile_of_the_author_is_used_with_the_whole_folder(environment: Environment) -> None:
    made_from = workflow(
        {"Dockerfile": ON_OTHER, "prefect.yaml": b"a: 1"}, Packages("requirements.txt", b"x", (), {"c.txt": b""})
    )
    made = content(environment, made_from)

    assert made.files == made_from.files
    assert made.by_author


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "change",
    [
        workflow({"flow.py": b"changed"}),
        workflow({"new.py": b""}),
        workflow(packages=Packages("requirements.txt", b"pandas\n")),
        workflow(packages=Packages(extra={"more.txt": b"pandas\n"})),
        workflow({"Dockerfile": ON_BASE}),
    ],
    ids=["code", "file", "requirements", "extra-file", "dockerfile"],
)
def test_image_has_another_name_when_anything_in_it_changed(environment: Environment, change: Workflow) -> None:
    assert content(environment, change).image.tag != content(environment, workflow()).image.tag


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("files", "counts"),
    [({}, True), ({"Dockerfile": ON_BASE}, True), ({"Dockerfile": ON_OTHER}, False)],
    ids=["ours", "authors-on-base", "authors-on-another"],
)
def test_base_image_is_in_the_name_only_where_it_is_used(
    environment: Environment, files: dict[str, bytes], counts: bool
) -> None:
    tags = {content(environment, workflow(files), base).image.tag for base in (BASE, BASE[:-1] + "1")}

    assert len(tags) == (2 if counts else 1)


def build(environment: Environment, made_from: Workflow) -> images.Image:
    return workflow_image.build(environment, made_from, Project(BASE, ()), content(environment, made_from))


def test_image_is_built_on_the_agents_and_not_pushed_yet(environment: Environment, engine: Engine) -> None:
    image = build(environment, workflow())
    [request] = engine.builds

    assert request["tag"] == image.uri
    assert request["buildargs"] == {"BASE_IMAGE": BASE}
    assert image.digest == ""
    assert engine.ecr.describe_repositories()["repositories"] == []


def test_image_of_the_same_content_is_built_once(environment: Environment, engine: Engine) -> None:
    assert build(environment, workflow()) == build(environment, workflow({"prefect.yaml": b"x: 1"}))
    assert len(engine.builds) == 1


@pytest.mark.parametrize(("dockerfile", "fetched"), [(ON_BASE, [BASE]), (ON_OTHER, [])])
def test_base_image_is_fetched_only_where_it_is_used(
    environment: Environment, engine: Engine, dockerfile: bytes, fetched: list[str]
) -> None:
    engine.has.clear()
    build(environment, workflow({"Dockerfile": dockerfile}))
    [request] = engine.builds

    assert engine.pulls == fetched
    assert list(request["buildargs"].values()) == fetched


def test_pushed_image_has_its_repository_and_its_digest(environment: Environment, engine: Engine) -> None:
    pushed = workflow_image.push(environment, build(environment, workflow()))
    [there] = engine.ecr.describe_images(repositoryName="dev_sales")["imageDetails"]

    assert there["imageTags"] == [pushed.tag]
    assert pushed.pinned == f"{ECR}/dev_sales@{there['imageDigest']}"


def test_image_that_ecr_has_needs_no_engine(
    environment: Environment, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = workflow_image.push(environment, build(environment, workflow()))
    monkeypatch.setattr(images, "docker_client", lambda: pytest.fail("no engine is needed"))
    again = build(environment, workflow())

    assert again == first
    assert workflow_image.push(environment, again) == first


def failed(environment: Environment, engine: Engine, made_from: Workflow, step: str, *lines: str) -> PlatformError:
    engine.events = [{"stream": f"{step}\n"}, *({"stream": f"{line}\n"} for line in lines), {"error": "exit code: 1"}]
    with pytest.raises(PlatformError) as caught:
        build(environment, made_from)
    return caught.value


ASKING = workflow(packages=Packages("Pipfile.lock", b"pandas==0\n"))


def test_packages_that_clash_are_told_with_all_that_pip_says_of_it(environment: Environment, engine: Engine) -> None:
    complaint = [
        "ERROR: Cannot install a==1 and b==2 because these package versions have conflicting dependencies.",
        "The conflict is caused by:",
        "    a 1 depends on c==1",
        "    b 2 depends on c==2",
        "ERROR: ResolutionImpossible",
    ]
    error = failed(environment, engine, ASKING, PIP, "Collecting a==1", "  Downloading a.whl", *complaint)

    assert error.what == "the workflow's packages don't install together with Prefect"
    assert error.why.splitlines() == complaint
    assert error.todo == "correct Pipfile.lock and register again"
    assert (error.file, error.line) == ("Pipfile.lock", 1)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["Successfully installed x-1", "prefect 3.8.8 has requirement x>=2, but you have x 1."],
            "prefect 3.8.8 has requirement x>=2, but you have x 1.",
        ),
        (["Collecting x", "  error: subprocess-exited-with-error"], "error: subprocess-exited-with-error"),
        (["Killed"], "Killed\nexit code: 1"),
        (["ERROR: Failed to build x", *map(str, range(50))], "\n".join(map(str, range(35, 50)))),
    ],
    ids=["pip-check", "package-that-does-not-build", "without-a-word-of-pip", "the-end-of-much"],
)
def test_what_else_goes_wrong_with_packages_is_told(
    environment: Environment, engine: Engine, lines: list[str], told: str
) -> None:
    assert failed(environment, engine, ASKING, PIP, *lines).why == told


@pytest.mark.parametrize("step", ["Step 2/3 : RUN make", "Step 2/3 : RUN pip install -r requirements.txt"])
def test_step_of_the_authors_dockerfile_that_fails_is_named_with_its_last_lines(
    environment: Environment, engine: Engine, step: str
) -> None:
    error = failed(environment, engine, workflow({"Dockerfile": ON_OTHER}), step, "first", "ERROR: second")

    assert error.what == f"building the image failed at {step}"
    assert error.why.splitlines() == ["first", "ERROR: second", "exit code: 1"]
    assert error.todo == "correct Dockerfile and register again"
    assert (error.file, error.line) == ("Dockerfile", 1)


def test_step_of_ours_that_fails_blames_no_file_of_the_author(environment: Environment, engine: Engine) -> None:
    error = failed(environment, engine, ASKING, "Step 3/9 : COPY packages /opt/packages", "no space left on device")

    assert error.what == "building the image failed at Step 3/9 : COPY packages /opt/packages"
    assert "no space left" in error.why
    assert (error.todo, error.file) == ("register again", "")


def test_unused_images_of_the_workflow_are_deleted_and_no_others(environment: Environment, engine: Engine) -> None:
    digests = {}
    for repository in ("dev_sales", "dev_sales_report"):
        engine.ecr.create_repository(repositoryName=repository)
        digests[repository] = [put(engine.ecr, repository, tag) for tag in ("a", "b", "c")]
    sales = digests["dev_sales"]
    of_another = f"{ECR}/dev_sales_report@{digests['dev_sales_report'][0]}"
    unused = {f"{ECR}/dev_sales@{sales[0]}", f"{ECR}/dev_sales@{sales[1]}", of_another, f"{ECR}/dev_sales:c", ""}

    assert workflow_image.delete_unused(environment, "sales", unused) == sorted(sales[:2])
    assert [each["imageTag"] for each in engine.ecr.list_images(repositoryName="dev_sales")["imageIds"]] == ["c"]
    assert len(engine.ecr.list_images(repositoryName="dev_sales_report")["imageIds"]) == 3


def test_nothing_unused_asks_ecr_for_nothing(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "client", lambda *_: pytest.fail("nothing is to be asked"))

    assert workflow_image.delete_unused(environment, "sales", {f"{ECR}/dev_other@sha256:0"}) == []


@pytest.mark.parametrize(
    ("files", "base"),
    [({}, BASE), ({"Dockerfile": ON_BASE}, BASE), ({"Dockerfile": ON_OTHER}, "")],
    ids=["ours", "authors-on-base", "authors-on-another"],
)
def test_base_image_is_the_agents_unless_the_authors_dockerfile_has_another(files: dict[str, bytes], base: str) -> None:
    assert workflow_image.base_image(workflow(files), Project(BASE, ())) == base
