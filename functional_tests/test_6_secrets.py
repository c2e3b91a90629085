"""The Prefect key is where it must be and nowhere else; the search itself is shown to find it."""

import gzip
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import psutil
import pytest

from functional_tests.platform import Platform

PREFIX = "local_dataflow_automation"
PLACES = ("image layers and history", "Terraform state", "logs", "process list", "task definitions", "Docker labels")


@pytest.fixture(scope="module")
def used(sample_workflow: Platform) -> Platform:
    """A platform whose workflow has run at least once, so that all places are filled."""
    sample_workflow.invoke("run", "sample_workflow")
    return sample_workflow


@pytest.mark.parametrize("place", PLACES)
def test_the_key_is_not_in(used: Platform, place: str) -> None:
    secret = used.key.partition(":")[2].encode()
    looked_through = 0
    for name, text in contents(used, place):
        looked_through += len(text)
        assert secret not in text, f"the Prefect key is in {place}: {name}"
    assert looked_through > 100, f"nothing to search in {place}"


@pytest.mark.parametrize("line", ["ENV PLANTED={}", "RUN echo {} > /planted && sync", "LABEL planted={}"])
def test_the_search_finds_a_key_in_an_image(used: Platform, line: str) -> None:
    secret = os.urandom(12).hex()
    engine = docker.from_env()
    context = io.BytesIO(f"FROM python:3.11-slim-bookworm\n{line.format(secret)}\n".encode())
    image, _ = engine.images.build(fileobj=context, tag="planted-key-test", rm=True, forcerm=True)
    try:
        assert any(secret.encode() in text for _, text in image_contents("planted-key-test"))
    finally:
        engine.images.remove(image.id, force=True)


def test_the_key_file_is_for_this_user_only(used: Platform) -> None:
    file = used.folder / ".local" / "local" / "prefect_key"
    assert file.stat().st_mode & 0o077 == 0


def contents(platform: Platform, place: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of all there is in a place."""
    if place == "image layers and history":
        tags = [tag for image in docker.from_env().images.list() for tag in image.tags]
        yield from image_contents(*(tag for tag in tags if f":{platform.aws_port}/" in tag))
    elif place == "Terraform state":
        s3, bucket = platform.aws("s3"), "local-dataflow-automation-state-000000000000"
        for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
            body = s3.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
            yield version["Key"], body
    elif place == "logs":
        for file in Path(platform.folder, ".local").rglob("logs/*"):
            yield str(file), file.read_bytes()
        logs = platform.aws("logs")
        for group in logs.describe_log_groups()["logGroups"]:
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:
                    yield group["logGroupName"], event["message"].encode()
    elif place == "process list":
        for process in psutil.process_iter(["cmdline"]):
            yield str(process.pid), " ".join(process.info["cmdline"] or []).encode()
    elif place == "task definitions":
        ecs = platform.aws("ecs")
        for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
            yield arn, str(ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]).encode()
    elif place == "Docker labels":
        for container in platform.containers("", everything=True):
            yield container.name, str([container.labels, container.attrs["Path"], container.attrs["Args"]]).encode()


def image_contents(*tags: str) -> Iterator[tuple[str, bytes]]:
    """Every layer of these images, each once, and their configurations with their histories."""
    with tempfile.NamedTemporaryFile() as saved:
        subprocess.run(["docker", "save", "--output", saved.name, *tags], check=True, capture_output=True)
        with tarfile.open(saved.name) as archive:
            for member in archive:
                if data := archive.extractfile(member):
                    raw = data.read()
                    # Newer engines keep layers compressed.
                    yield member.name, gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
