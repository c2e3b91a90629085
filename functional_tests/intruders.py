"""Another host on the network, as a second network namespace, and the ports that it may knock at.

Source: https://man7.org/linux/man-pages/man8/ip-netns.8.html
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil

from functional_tests.platform import Platform

Address = tuple[str, int]
KNOCK = """
import itertools, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def answers(address):
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False

addresses = [tuple(address) for address in json.load(sys.stdin)]
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(itertools.compress(addresses, pool.map(answers, addresses)))))
"""
SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]


class Neighbour:
    """Another host: it has this machine for its way to everywhere, its Docker networks and 127.0.0.1 included."""

    def __init__(self, name: str, here: str) -> None:
        self.name, self.here = name, here

    def knock(self, addresses: list[Address]) -> list[Address]:
        """Those of these addresses where somebody answers."""
        command = [*SUDO, "ip", "netns", "exec", self.name, sys.executable, "-c", KNOCK]
        done = subprocess.run(command, input=json.dumps(addresses), capture_output=True, text=True, check=True)
        return [(host, port) for host, port in json.loads(done.stdout)]


@contextlib.contextmanager
def neighbour() -> Iterator[Neighbour]:
    """Set a neighbour up on a cable of its own, and take it away again."""
    number = os.getpid() % 200 + 20
    name, cable, here, there = f"other{number}", f"cable{number}", f"198.18.{number}.1", f"198.18.{number}.2"
    inside = ["netns", "exec", name]
    try:
        ip("netns", "add", name)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{here}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", name, "address", "add", f"{there}/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", here)
        # As an attacker does who is root there: packets to 127.0.0.1 go out to this machine.
        ip(*inside, "sysctl", "--quiet", "--write", "net.ipv4.conf.all.route_localnet=1")
        ip("-n", name, "route", "add", "127.0.0.0/8", "via", here)
        yield Neighbour(name, here)
    finally:
        for part in (("netns", "delete", name), ("link", "delete", cable)):
            subprocess.run([*SUDO, "ip", *part], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    """Run iproute2."""
    subprocess.run([*SUDO, "ip", *arguments], check=True, capture_output=True)


def own_addresses() -> list[str]:
    """Every IPv4 address of this machine."""
    found = {part.address for each in psutil.net_if_addrs().values() for part in each if part.family == socket.AF_INET}
    return sorted(found)


def listening(platform: Platform) -> dict[str, set[int]]:
    """The ports at which the platform listens: by the address of each container, and by "" its own processes'."""
    found: dict[str, set[int]] = {"": set()}
    for process in platform.servers().values():
        found[""] |= _ports(process)
    for container in platform.containers(""):
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        with contextlib.suppress(FileNotFoundError):  # it does not run yet, or not any more
            found[network["IPAddress"]] = _ports(container.attrs["State"]["Pid"])
    return found


def _ports(process: int) -> set[int]:
    """Ports at which somebody listens in a process's network namespace, or the process itself in this one."""
    if os.readlink(f"/proc/{process}/ns/net") == os.readlink("/proc/self/ns/net"):
        connections = psutil.Process(process).net_connections("tcp")
        return {each.laddr[1] for each in connections if each.status == psutil.CONN_LISTEN}
    command = [*SUDO, "cat", f"/proc/{process}/net/tcp", f"/proc/{process}/net/tcp6"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split() for line in lines if ":" in line]
    return {int(each[1].rpartition(":")[2], 16) for each in fields if each[3] == "0A"}
