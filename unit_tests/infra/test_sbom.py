import base64
import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from environments import outages
from environments.errors import PlatformError
from environments.settings import Environment
from infra import images, sbom
from infra.images import Image
from infra.sbom import Inventory
from unit_tests.conftest import LOOPBACK

HEX = "ab" * 32
IMAGE = Image(
    "local_etl", "0" * 16, f"000000000000.dkr.ecr.eu-west-1.amazonaws.com/local_etl:{'0' * 16}", f"sha256:{HEX}"
)
TAG = f"sha256-{HEX}.sbom"
INVENTORY = Inventory(
    {
        "python": "3.11.2",
        "distributions": [["prefect", "3.8.8"], ["Typing_Extensions", "4.16.0"], ["prefect", "3.8.8"]],
        "packages": [["zlib1g", "1:1.2.13.dfsg-1", "amd64"]],
        "os": {"ID": "debian", "VERSION_ID": "12"},
    },
    "2026-12-01T00:43:53.123456789Z",
)


class Registry:
    """A registry that takes blobs and manifests as the distribution specification says, from whoever logs in."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.refusals: list[int] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                login = base64.b64decode(self.headers["Authorization"].removeprefix("Basic "))
                code = registry.refusals.pop(0) if registry.refusals else 201
                if login != b"AWS:word":
                    code = 401
                elif code == 201 and (self.command, path) == ("POST", "/v2/local_etl/blobs/uploads/"):
                    code = 202
                elif code == 201 and (self.command, path) == ("PUT", "/v2/local_etl/blobs/uploads/7"):
                    digest = query.removeprefix("state=x&digest=").replace("%3A", ":")
                    assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
                    registry.blobs[digest] = body
                elif code == 201 and self.command == "PUT" and path.startswith("/v2/local_etl/manifests/"):
                    assert {each["digest"] for each in _descriptors(json.loads(body))} <= registry.blobs.keys()
                    registry.manifests[path.rpartition("/")[2]] = self.headers["Content-Type"], body
                self.send_response(code)
                self.send_header("Location", "/v2/local_etl/blobs/uploads/7?state=x")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST = _take

            def log_message(self, *_: Any) -> None:
                pass

        self.httpd = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.httpd.server_address[1]}"


def _descriptors(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest["config"], *manifest["layers"]]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry()
    threading.Thread(target=made.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(images, "login", lambda _: {"username": "AWS", "password": "word"})
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0)
    yield made
    made.httpd.shutdown()
    made.httpd.server_close()


@pytest.fixture
def emulated(local: Environment, registry: Registry) -> Environment:
    """Environment local, whose emulated AWS is the registry."""
    return dataclasses.replace(local, aws_endpoint_url=registry.url)


def test_document_is_valid_cyclonedx_and_names_everything_that_is_installed() -> None:
    document = sbom.document(IMAGE, INVENTORY)
    told = json.loads(document)

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert {each["purl"] for each in told["components"]} == {
        "pkg:generic/python@3.11.2",
        "pkg:pypi/prefect@3.8.8",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12",
    }
    assert len(told["components"]) == 4
    assert told["metadata"]["component"]["version"] == IMAGE.digest
    assert told["metadata"]["component"]["purl"].startswith("pkg:oci/local_etl@sha256:")
    assert told["metadata"]["timestamp"].startswith("2026-12-01T00:43:53")


def test_document_is_the_same_whenever_it_is_made_and_another_for_another_image() -> None:
    other = dataclasses.replace(IMAGE, digest="sha256:" + "0" * 64)

    assert sbom.document(IMAGE, INVENTORY) == sbom.document(IMAGE, INVENTORY)
    assert sbom.document(other, INVENTORY) != sbom.document(IMAGE, INVENTORY)


def test_image_without_packages_of_debian_or_a_name_of_its_system_has_a_document() -> None:
    bare = Inventory(
        {"python": "3.12.1", "distributions": [], "packages": [["x", "1", "all"]], "os": {}}, INVENTORY.built
    )
    told = json.loads(sbom.document(IMAGE, bare))

    assert {each["purl"] for each in told["components"]} == {
        "pkg:generic/python@3.12.1",
        "pkg:deb/debian/x@1?arch=all&distro=debian",
    }


def test_sbom_lies_beside_the_image_as_cosign_lays_it(emulated: Environment, registry: Registry) -> None:
    sbom.push(emulated, IMAGE, INVENTORY)
    [(tag, (kind, text))] = registry.manifests.items()
    manifest = json.loads(text)
    [layer] = manifest["layers"]

    assert (tag, kind) == (TAG, "application/vnd.oci.image.manifest.v1+json")
    assert layer["mediaType"] == "application/vnd.cyclonedx+json"
    assert registry.blobs[layer["digest"]] == sbom.document(IMAGE, INVENTORY)
    assert [each["size"] for each in _descriptors(manifest)] == [
        len(registry.blobs[each["digest"]]) for each in _descriptors(manifest)
    ]


def test_push_goes_on_after_a_failure_that_passes(emulated: Environment, registry: Registry) -> None:
    registry.refusals = [503, 201, 500]
    sbom.push(emulated, IMAGE, INVENTORY)

    assert set(registry.manifests) == {TAG}


@pytest.mark.parametrize("code", [400, 403, 405])
def test_refusal_is_told_at_once(emulated: Environment, registry: Registry, code: int) -> None:
    registry.refusals = [code] * 3
    with pytest.raises(PlatformError) as caught:
        sbom.push(emulated, IMAGE, INVENTORY)

    assert "SBOM" in caught.value.what
    assert f"HTTP {code}" in caught.value.why
    assert len(registry.refusals) == 2


def test_registry_of_aws_is_asked_by_https(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "login", lambda _: {"username": "AWS", "password": "word"})
    image = dataclasses.replace(images.image_name(environment, "dev_etl", "0" * 16), digest=IMAGE.digest)

    assert sbom._Registry(environment, image).url == ("https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/dev_etl")


def test_nothing_to_push_asks_nobody(emulated: Environment, registry: Registry) -> None:
    sbom.push(emulated, IMAGE, None)

    assert registry.blobs == {}


class Engine:
    """A Docker engine whose container prints this or fails; notes how it was started."""

    def __init__(self, printed: bytes, fails: bool = False) -> None:
        from docker.errors import ContainerError

        self.started: list[dict[str, Any]] = []
        engine = self

        class Containers:
            def run(self, name: str, command: list[str], **options: Any) -> bytes:
                engine.started.append({"name": name, "command": command, **options})
                if fails:
                    raise ContainerError(None, 1, command, name, printed)
                return printed

        class Images:
            def get(self, name: str) -> Any:
                return type("Image", (), {"attrs": {"Created": INVENTORY.built}})()

        self.containers, self.images = Containers(), Images()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    def put(printed: bytes, fails: bool = False) -> Engine:
        made = Engine(printed, fails)
        for module in (images, sbom):
            monkeypatch.setattr(module, "docker_client", lambda: made)
        return made

    return put


def test_inventory_is_what_a_container_of_the_image_prints_last(
    local: Environment, engine: Callable[..., Engine]
) -> None:
    used = engine(b"a warning\n" + json.dumps(INVENTORY.listed).encode() + b"\n")
    new = dataclasses.replace(IMAGE, digest="")
    [found, [started]] = [sbom.inventory(local, new), used.started]

    assert found == INVENTORY
    assert started["name"] == images.engine_name(local, IMAGE.uri)
    assert (started["network_disabled"], started["remove"], started["cap_drop"]) == (True, True, ["ALL"])
    assert set(started["tmpfs"]) == {"/tmp"}


@pytest.mark.parametrize(("printed", "fails"), [(b"no python here", True), (b"no json", False), (b"", False)])
def test_image_whose_packages_can_not_be_listed_is_an_error(
    local: Environment, engine: Callable[..., Engine], printed: bytes, fails: bool
) -> None:
    engine(printed, fails)
    with pytest.raises(PlatformError, match="can't be listed") as caught:
        sbom.inventory(local, dataclasses.replace(IMAGE, digest=""))

    assert IMAGE.uri in caught.value.what
    assert not fails or "no python here" in caught.value.why


def test_image_whose_sbom_is_in_ecr_needs_neither_engine_nor_push(
    environment: Environment, aws_mocked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "docker_client", lambda: pytest.fail("no engine is needed"))
    monkeypatch.setattr(images, "login", lambda _: pytest.fail("no push is needed"))
    ecr = aws_mocked("ecr")
    ecr.create_repository(repositoryName="local_etl")
    manifest = {"schemaVersion": 2, "mediaType": sbom.MANIFEST, "layers": [{"digest": "x"}]}
    ecr.put_image(repositoryName="local_etl", imageManifest=json.dumps(manifest), imageTag=TAG)

    assert sbom.inventory(environment, IMAGE) is None
    sbom.keep(environment, IMAGE)
