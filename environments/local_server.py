"""One background server of environment local: `python -m environments.local_server aws|prefect ...`.

It listens on 127.0.0.1 for this machine, and on the gateway address of the containers' network for them. That second
socket is bound to the network's bridge: packets that come in by any other way never reach it, so that nobody beyond
this machine can talk to it, whatever routes they set.
"""

import argparse
import asyncio
import base64
import contextlib
import contextvars
import hmac
import json
import logging
import os
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from environments import emulated_rate_limit, local_keys

REMEMBERED_SCHEMAS = 1000


def main() -> None:
    """Serve until SIGTERM; an orderly stop saves everything."""
    parser = argparse.ArgumentParser(prog="environments.local_server", description=__doc__)
    parser.add_argument("server", choices=("aws", "prefect"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gateway", required=True, help="address of this machine in the containers' network")
    parser.add_argument("--bridge", required=True, help="network interface of the containers' network")
    parser.add_argument("--network", required=True, help="id of the containers' Docker network")
    options = parser.parse_args()
    sockets = [listen("127.0.0.1", options.port), listen(options.gateway, options.port, options.bridge)]
    if options.server == "aws":
        from environments import emulated_aws

        asyncio.run(emulated_aws.serve(sockets, options.port, options.gateway, options.network))
    else:
        asyncio.run(serve_prefect(sockets))


def listen(address: str, port: int, interface: str = "") -> socket.socket:
    """A listening TCP socket, on one network interface only if one is named."""
    # Only where the protocol is named does asyncio send small answers at once (TCP_NODELAY), not after 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if interface:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    listener.bind((address, port))
    listener.listen(512)
    listener.setblocking(False)
    return listener


async def serve_prefect(sockets: list[socket.socket]) -> None:
    """Serve the Prefect API and its web page; settings come from PREFECT_* variables, KEY_FILE names the key's file."""
    key_file, own = Path(os.environ["KEY_FILE"]), f"own:{secrets.token_urlsafe(24)}"
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = own
    import uvicorn
    from prefect.server.api.server import create_app

    let_writers_wait()
    ask_in_one_go()
    check_schemas_once()
    application: Any = create_app(final=True)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    application = taking_keys(application, key_file, own)
    application = emulated_rate_limit.limited(application, key_file.with_name(emulated_rate_limit.FILE))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5))
    await server.serve(sockets=sockets)


def taking_keys(application: Any, key_file: Path, own: str) -> Any:
    """Wrap the Prefect server so that it takes the keys of a file, which may change while it runs.

    The server knows one key, read when it starts. That is one of its own, which nobody else has; a good key that
    comes in is replaced by it, in the header of a request or in the first message of a websocket. Anything else goes on
    as it came, and the server refuses it.
    """

    def known(key: str) -> bool:
        return any([hmac.compare_digest(key.encode(), each.encode()) for each in local_keys.accepted(key_file)])

    def login(value: bytes) -> bytes:
        with contextlib.suppress(ValueError):
            scheme, _, credentials = value.partition(b" ")
            if scheme == b"Basic" and known(base64.b64decode(credentials).decode()):
                return b"Basic " + base64.b64encode(own.encode())
        return value

    async def translated(receive: Any) -> Any:
        event = await receive()
        with contextlib.suppress(ValueError):
            message = json.loads(event.get("text") or "null")
            if isinstance(message, dict) and message.get("type") == "auth" and known(str(message.get("token"))):
                event = {**event, "text": json.dumps({**message, "token": own})}
        return event

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(name, login(value) if name == b"authorization" else value) for name, value in scope["headers"]]
            await application({**scope, "headers": headers}, receive, send)
        elif scope["type"] == "websocket":
            await application(scope, lambda: translated(receive), send)
        else:
            await application(scope, receive, send)

    return wrapped


def let_writers_wait() -> None:
    """Let a transaction of the Prefect server that will write wait for the one before it, in memory.

    SQLite refuses, without waiting, to turn a reading transaction into a writing one when another has written
    meanwhile; the server answers 503 then, and its clients lose seconds. One that begins as a writer waits, but asks
    again at intervals of up to 100 ms. A transaction inside of another begins as Prefect has it.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    configuration: Any = AioSqliteConfiguration
    begin = configuration.begin_transaction
    turn = asyncio.Lock()
    has_turn: contextvars.ContextVar[bool] = contextvars.ContextVar("has_turn", default=False)

    @contextlib.asynccontextmanager
    async def begin_to_write(self: Any, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
        if has_turn.get():
            async with begin(self, session, with_for_update) as transaction:
                yield transaction
            return
        async with turn:
            token = has_turn.set(True)
            try:
                async with begin(self, session, with_for_update=True) as transaction:
                    yield transaction
            finally:
                has_turn.reset(token)

    configuration.begin_transaction = begin_to_write


def ask_in_one_go() -> None:
    """Let a query of the Prefect server go to the thread of its connection and back once.

    SQLAlchemy's adapter sends it there four times: to open a cursor, to run the query, to fetch its rows and to close
    the cursor. Each time costs more than most queries, and that was a quarter of a deployment's registration.
    """
    from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_cursor

    adapter: Any = AsyncAdapt_aiosqlite_cursor
    execute_in_steps = adapter.execute

    def execute(self: Any, operation: Any, parameters: Any = None) -> None:
        if self.server_side:
            execute_in_steps(self, operation, parameters)
            return

        def ask(database: Any) -> tuple[Any, list[Any], int, int]:
            with contextlib.closing(database.cursor()) as cursor:
                cursor.execute(operation, () if parameters is None else parameters)
                return cursor.description, cursor.fetchall(), cursor.lastrowid, cursor.rowcount

        try:
            answer = self.await_(self._connection._execute(ask, self._connection._conn))
        except Exception as error:
            self._adapt_connection._handle_exception(error)
        self.description, rows, row_id, changed = answer
        self._rows = deque(rows)
        self.lastrowid, self.rowcount = (-1, -1) if self.description else (row_id, changed)

    adapter.execute = execute


def check_schemas_once() -> None:
    """Let the Prefect server remember which JSON schemas are valid ones.

    It checks the work pool's with each deployment that is registered; that alone would be half of the time it takes.
    """
    from prefect.utilities.schema_tools import validation

    validator: Any = validation._VALIDATOR
    check, valid = validator.check_schema, set[str]()

    def check_once(schema: Any, *arguments: Any, **options: Any) -> None:
        text = json.dumps(schema, sort_keys=True, default=str)
        if text not in valid:
            check(schema, *arguments, **options)
            if len(valid) > REMEMBERED_SCHEMAS:
                valid.clear()
            valid.add(text)

    validator.check_schema = check_once


if __name__ == "__main__":
    main()
