"""The software bill of materials (SBOM) of an image: a CycloneDX document that lies beside the image in ECR.

It is pushed as cosign does, under the tag `sha256-<digest of the image>.sbom`: `cosign download sbom IMAGE` gets it.
The manifest has neither `artifactType` nor `subject`, which ECR does not take everywhere:
https://github.com/aws/containers-roadmap/issues/2783
Sources: https://cyclonedx.org/docs/1.6/json/, https://github.com/sigstore/cosign/blob/main/specs/SBOM_SPEC.md, and for
the requests https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push
"""

import base64
import dataclasses
import hashlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from environments import leftovers, outages, progress
from environments.errors import PlatformError
from environments.local_stack import docker_client, docker_errors
from environments.settings import ROOT, Environment
from infra import images
from infra.images import Image

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

LIST_PACKAGES = ROOT / "infra" / "installed_packages.py"
CYCLONEDX, CONFIG = "application/vnd.cyclonedx+json", "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SCRATCH = "tmp"
"""The volume of the agent's image; in memory while packages are listed, because Docker would leave it behind."""
TIMEOUT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What is in an image: what `installed_packages.py` printed there, and when the image was built."""

    listed: dict[str, Any]
    built: str


class RegistryError(PlatformError):
    """The registry refused a request, or did not answer it; `passing` if it may take it later."""

    def __init__(self, what: str, why: str, passing: bool) -> None:
        super().__init__(what, why, "run the same command again; it goes on from here")
        self.passing = passing


def artifact(image: Image) -> Image:
    """The SBOM of an image, as an image of the same repository."""
    tag = images.sbom_tag(image.digest)
    return Image(image.repository, tag, f"{image.uri.rsplit(':', 1)[0]}:{tag}")


def keep(environment: Environment, image: Image) -> None:
    """Make sure that an image in ECR has its SBOM beside it."""
    push(environment, image, inventory(environment, image))


def inventory(environment: Environment, image: Image) -> Inventory | None:
    """List what is in an image; None when ECR has the image with its SBOM already.

    Raises:
        PlatformError: Python does not run in the image.
    """
    if image.digest and images.find(environment, artifact(image)):
        progress.note("already in ECR")
        return None
    errors, engine = docker_errors(), docker_client()
    name = images.fetch(environment, image.uri)
    try:
        printed = engine.containers.run(
            name,
            ["python", "-c", LIST_PACKAGES.read_text(encoding="utf-8")],
            remove=True,
            labels=leftovers.label(),
            network_disabled=True,
            tmpfs={f"/{SCRATCH}": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        listed = json.loads(printed.decode().splitlines()[-1])
    except (errors.ContainerError, errors.APIError, ValueError, LookupError) as error:
        last_words = getattr(error, "stderr", None) or str(error).encode()
        raise PlatformError(
            f"what is installed in {image.uri} can't be listed", last_words.decode(errors="replace").strip()
        ) from error
    progress.note(f"{len(listed['distributions'])} of Python, {len(listed['packages'])} of Debian")
    return Inventory(listed, engine.images.get(name).attrs["Created"])


def push(environment: Environment, image: Image, contents: Inventory | None) -> None:
    """Push the SBOM of an image that is in ECR.

    Args:
        environment: whose ECR.
        image: with its digest.
        contents: what is in it; None when its SBOM is in ECR already.

    Raises:
        PlatformError: the registry refused it, or did not answer.
    """
    if contents is None:
        progress.note("already in ECR")
        return
    text = document(image, contents)
    registry = _Registry(environment, image)
    outages.repeated(
        lambda: registry.push(images.sbom_tag(image.digest), text),
        lambda error: isinstance(error, RegistryError) and error.passing,
    )
    progress.note(f"{len(text) / 1e3:.0f} KB")


def document(image: Image, contents: Inventory) -> bytes:
    """The SBOM as JSON; the same for the same image, whoever makes it and whenever."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    name = image.repository
    identity = PackageURL(
        "oci", name=name, version=image.digest, qualifiers={"repository_url": image.pinned.partition("@")[0]}
    )
    root = Component(
        name=name, version=image.digest, type=ComponentType.CONTAINER, purl=identity, bom_ref=str(identity)
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, image.pinned), components=_components(contents.listed))
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromisoformat(contents.built[:19]).replace(tzinfo=UTC)
    bom.register_dependency(root, bom.components)
    return JsonV1Dot6(bom).output_as_string().encode()


def _components(listed: dict[str, Any]) -> "list[Component]":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    system = listed["os"].get("ID", "debian")
    distribution = f"{system}-{listed['os']['VERSION_ID']}" if "VERSION_ID" in listed["os"] else system
    urls = [PackageURL("generic", name="python", version=listed["python"])]
    urls += [PackageURL("pypi", name=name, version=version) for name, version in listed["distributions"]]
    urls += [
        PackageURL("deb", system, name, version, {"arch": architecture, "distro": distribution})
        for name, version, architecture in listed["packages"]
    ]
    return [
        Component(name=url.name, version=url.version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))
        for url in dict.fromkeys(urls)
    ]


class _Registry:
    """ECR by the registry protocol, for one repository."""

    def __init__(self, environment: Environment, image: Image) -> None:
        host = image.uri.partition("/")[0]
        scheme, host = ("http", environment.emulated_registry) if environment.is_local else ("https", host)
        login = images.login(environment)
        self.url = f"{scheme}://{host}/v2/{image.repository}"
        self.login = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()

    def push(self, tag: str, text: bytes) -> None:
        """Push a document as the only layer of an artifact."""
        layer = _descriptor(CYCLONEDX, text)
        rootfs = {"type": "layers", "diff_ids": [layer["digest"]]}
        config = json.dumps({"architecture": "", "os": "", "config": {}, "rootfs": rootfs}).encode()
        for blob in (text, config):
            self._blob(blob)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(CONFIG, config), "layers": [layer]}
        self._send("PUT", f"{self.url}/manifests/{tag}", json.dumps(manifest).encode(), MANIFEST)

    def _blob(self, blob: bytes) -> None:
        location = self._send("POST", f"{self.url}/blobs/uploads/", b"")
        upload = urllib.parse.urljoin(self.url, location)
        digest = urllib.parse.quote(_descriptor("", blob)["digest"])
        self._send("PUT", f"{upload}{'&' if '?' in upload else '?'}digest={digest}", blob)

    def _send(self, method: str, url: str, body: bytes, kind: str = "application/octet-stream") -> str:
        """Send a request; gives where the answer says to go on."""
        headers = {"Authorization": f"Basic {self.login}", "Content-Type": kind}
        request = urllib.request.Request(url, body, headers, method=method)
        what = f"pushing the SBOM to {self.url} failed"
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return str(answer.headers.get("Location", ""))
        except urllib.error.HTTPError as error:
            answer_text = error.read().decode(errors="replace")[:500]
            raise RegistryError(
                what, f"HTTP {error.code}: {answer_text}", error.code >= 500 or error.code == 429
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(what, f"{type(error).__name__}: {error}", True) from error


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(blob), "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}"}
