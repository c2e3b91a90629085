"""GitHub's REST API for tests, as far as the pipelines ask it: a server on this machine that knows one repository.

https://docs.github.com/en/rest/deployments/environments
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVIEWED = [{"id": 3515, "type": "required_reviewers", "reviewers": [{"type": "User"}]}, {"type": "branch_policy"}]
"""Protection rules of an environment that is set up."""


@contextlib.contextmanager
def serving(repository: str, token: str, environments: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Serve one repository to whoever shows a token; gives the address of the API.

    Args:
        repository: as owner/name.
        token: whose bearer may read it.
        environments: protection rules of its environments; may change meanwhile.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, content = self.found()
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def found(self) -> tuple[int, dict[str, Any]]:
            if self.headers.get("Authorization") != f"Bearer {token}":
                return 401, {"message": "Bad credentials", "status": "401"}
            name = self.path.removeprefix(f"/repos/{repository}/environments/")
            if name not in environments:
                return 404, {"message": "Not Found", "status": "404"}
            return 200, {"id": 161088068, "name": name, "protection_rules": environments[name]}

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
