"""`invoke destroy` leaves nothing: no process, container, network, image or file."""

import docker
import psutil

from functional_tests.platform import Platform, folder_of, image_tags


def test_destroy_asks_first(deployed: Platform) -> None:
    refused = deployed.invoke("destroy", check=False)
    assert refused.returncode == 1
    assert "--yes" in refused.stdout
    assert deployed.servers()


def test_destroy_leaves_nothing(sample_workflow: Platform) -> None:
    platform = sample_workflow
    assert len(platform.servers()) == 2
    assert platform.containers("")
    platform.invoke("destroy", "--yes")
    engine = docker.from_env()
    assert platform.servers() == {}
    assert platform.containers("", everything=True) == []
    assert [n.name for n in engine.networks.list() if str(platform.aws_port) in n.name] == []
    assert [tag for tag in image_tags() if f":{platform.aws_port}/" in tag] == []
    assert not (platform.folder / ".local" / "local").exists()
    assert [p for p in psutil.process_iter() if str(platform.folder) in folder_of(p)] == []


def test_destroy_of_nothing_is_no_error(platform: Platform) -> None:
    assert platform.invoke("destroy", "--yes").returncode == 0
