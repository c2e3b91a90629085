"""Prefect goes away or limits the rate of requests, and AWS misbehaves, for as long as a block runs.

The misbehaving AWS is microburst, a proxy that answers in the very words of each AWS service. It stands between the
emulated AWS and everything that speaks to it on this machine (boto3, Terraform, the Docker engine): the settings of the
platform name its address instead. It also listens where containers reach this machine, for those that are told to.
"""

import asyncio
import contextlib
import http.client
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import docker
import psutil
from aiohttp import web
from microburst.core.pipeline import Microburst

from functional_tests.platform import Platform, free_port

PROXY = "127.0.0.2"
"""All of 127/8 is this machine, and a registry without TLS to Docker."""
ONE_CONNECTION = ("connection", "proxy-connection", "keep-alive", "transfer-encoding")
"""Headers that a proxy does not hand on."""
START = "from environments import local_stack, settings; local_stack.start(settings.load('local'))"


class MisbehavingAws:
    """A proxy in front of a platform's emulated AWS; `rules` of microburst say how it misbehaves, none at first."""

    def __init__(self, platform: Platform) -> None:
        self.proxy = Microburst(f"http://127.0.0.1:{platform.aws_port}", resign=False)
        # Clients sign the host that they speak to and the length of what they send.
        upstream: Any = self.proxy.upstream
        headers = upstream._outbound_headers
        upstream._outbound_headers = lambda request: {**headers(request), **signed_headers(request)}
        self.port = free_port()
        network = docker.from_env().networks.get(f"{platform.prefix}_{platform.aws_port}")
        gateway = network.attrs["IPAM"]["Config"][0]["Gateway"].split("/")[0]
        self.places = [(PROXY, platform.aws_port), (gateway, self.port)]

    @property
    def containers_url(self) -> str:
        """How containers reach it."""
        return f"http://host.docker.internal:{self.port}"

    def misbehave(self, rules: list[dict[str, Any]]) -> Counter[str]:
        """Go by these rules from now on, by none it behaves; gives the faults of the rules before, how many of each."""
        counts: Counter[str] = Counter()
        for (*_, kind), count in self.proxy.fault_counts.items():
            counts[kind.partition(":")[0]] += count
        self.proxy.fault_counts.clear()
        self.proxy.engine.set_rules(rules)
        return counts

    async def head(self, request: web.Request) -> web.Response:
        """Answer a registry's HEAD as it is: microburst leaves out the length, without which Docker pushes nothing."""
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        url = f"{self.proxy.upstream.base_url}{request.rel_url.raw_path_qs}"
        async with self.proxy.upstream.session.head(url, headers=headers) as answer:
            return web.Response(status=answer.status, headers=answer.headers)

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Listen until told to stop."""
        application = web.Application(client_max_size=2**40)  # layers of images
        application.on_startup.append(self.proxy.start)
        application.on_cleanup.append(self.proxy.stop)
        application.router.add_route("HEAD", "/v2/{rest:.*}", self.head)
        application.router.add_route("*", "/{rest:.*}", self.proxy.handle_proxy)
        runner = web.AppRunner(application)
        await runner.setup()
        for address, port in self.places:
            await web.TCPSite(runner, address, port).start()
        started.set()
        await stop.wait()
        await runner.cleanup()


def signed_headers(request: web.Request) -> dict[str, str]:
    """Headers that microburst would make anew, and that signatures are made of."""
    return {name: request.headers[name] for name in ("host", "content-length") if name in request.headers}


@contextlib.contextmanager
def misbehaving_aws(platform: Platform) -> Iterator[MisbehavingAws]:
    """A proxy that the platform's commands speak to, instead of its emulated AWS, until the block ends."""
    aws = MisbehavingAws(platform)
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(aws.serve(started, stop),), daemon=True)
    thread.start()
    assert started.wait(10)
    # It reads the descriptions of all AWS services first; no command should have to wait for that.
    with urllib.request.urlopen(f"http://{PROXY}:{platform.aws_port}/_ministack/health", timeout=60):
        pass
    settings = platform.folder / "environments" / "local.tfvars"
    before = settings.read_text()
    settings.write_text(before.replace(f"http://127.0.0.1:{platform.aws_port}", f"http://{PROXY}:{platform.aws_port}"))
    try:
        yield aws
    finally:
        settings.write_text(before)
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@contextlib.contextmanager
def prefect_away(platform: Platform, hangs: bool = False) -> Iterator[None]:
    """While the block runs, Prefect's port is closed; or it is open and nobody answers."""
    server = psutil.Process(platform.servers()["prefect"])
    if hangs:
        server.suspend()
    else:
        server.kill()
        server.wait(10)
    try:
        yield
    finally:
        if hangs:
            server.resume()
        else:
            subprocess.run([sys.executable, "-c", START], cwd=platform.folder, check=True)


class LimitingProxy:
    """An HTTP proxy that answers 429 to every third request for Prefect, and hands on all others.

    `variables` have a command use it; `refused` counts the answers 429.
    """

    def __init__(self, platform: Platform) -> None:
        self.prefect_port = platform.prefect_port
        self.seen = self.refused = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.variables = {"http_proxy": f"http://127.0.0.1:{self.server.server_address[1]}"}

    def refuses(self, url: str) -> bool:
        """Whether this request is one too many."""
        if urlsplit(url).port != self.prefect_port:
            return False
        with self.lock:
            self.seen += 1
            self.refused += self.seen % 3 == 0
            return self.seen % 3 == 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Refuse a request, or hand it on and its answer back."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        status, headers, content = 429, {"Retry-After": "1"}, b'{"detail": "too many requests"}'
        if not self.refuses(request.path):
            url = urlsplit(request.path)
            connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
            path = url._replace(scheme="", netloc="").geturl()
            kept = {name: each for name, each in request.headers.items() if name.lower() not in ONE_CONNECTION}
            connection.request(request.command, path, body, kept)
            answer = connection.getresponse()
            status, headers, content = answer.status, dict(answer.getheaders()), answer.read()
            connection.close()
        request.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in (*ONE_CONNECTION, "content-length"):
                request.send_header(name, value)
        length = headers.get("content-length", "0") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(content)


@contextlib.contextmanager
def prefect_limits_requests(platform: Platform) -> Iterator[LimitingProxy]:
    """A proxy for commands, behind which Prefect limits the rate of requests until the block ends."""
    proxy = LimitingProxy(platform)
    thread = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
