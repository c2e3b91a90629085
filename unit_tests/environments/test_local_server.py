import asyncio
import base64
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from environments.local_server import ask_in_one_go, check_schemas_once, let_writers_wait, listen, taking_keys
from unit_tests.conftest import LOOPBACK


def test_listens_on_the_address_given_and_no_other() -> None:
    with listen(LOOPBACK, 0) as listener:
        address, port = listener.getsockname()
        with socket.create_connection((LOOPBACK, port), timeout=5):
            pass

    assert address == LOOPBACK


def test_does_not_block_the_event_loop() -> None:
    with listen(LOOPBACK, 0) as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_port_is_free_again_at_once() -> None:
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((LOOPBACK, port), timeout=5):
            accepted, _ = listener.accept()
            accepted.close()
    with listen(LOOPBACK, port) as again:
        assert again.getsockname()[1] == port


def test_interface_that_is_not_there_is_refused() -> None:
    """Without its interface the socket would be open to others."""
    with pytest.raises(OSError, match=r"."):
        listen(LOOPBACK, 0, "nosuchbridge")


def test_small_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY each answer on a connection that stays open waits 40 ms for the client's acknowledgement."""

    async def option_of_a_connection() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            told.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(LOOPBACK, 0)
        async with await asyncio.start_server(serve, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            option = await asyncio.wait_for(told, 5)
            writer.close()
        return option

    assert asyncio.run(option_of_a_connection()) == 1


async def _two_that_read_and_then_write(database: Path) -> list[Any]:
    """Two transactions of the Prefect server at the same time; gives what each raised, or None, and the sum of both."""
    import sqlalchemy as sa
    from prefect.server.database.configurations import AioSqliteConfiguration

    configuration = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{database}", timeout=5)
    engine = await configuration.engine()

    async def add() -> None:
        async with await configuration.session(engine) as session, configuration.begin_transaction(session):
            number = await session.scalar(sa.text("SELECT number FROM numbers"))
            await asyncio.sleep(0.1)
            await session.execute(sa.text("UPDATE numbers SET number = :n"), {"n": number + 1})

    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE numbers AS SELECT 0 AS number"))
    outcome: list[Any] = [*await asyncio.gather(add(), add(), return_exceptions=True)]
    async with engine.connect() as connection:
        outcome.append(await connection.scalar(sa.text("SELECT number FROM numbers")))
    await engine.dispose()
    return outcome


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `let_writers_wait` replaces is put back after the test."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", AioSqliteConfiguration.begin_transaction)


@pytest.mark.usefixtures("unpatched")
def test_transactions_that_write_wait_for_each_other(tmp_path: Path) -> None:
    let_writers_wait()

    assert asyncio.run(_two_that_read_and_then_write(tmp_path / "database")) == [None, None, 2]


@pytest.mark.usefixtures("unpatched")
def test_a_transaction_inside_of_another_does_not_wait_for_it(tmp_path: Path) -> None:
    from prefect.server.database.configurations import AioSqliteConfiguration

    let_writers_wait()

    async def nested() -> str:
        configuration = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'database'}")
        engine = await configuration.engine()
        outer, inner = await configuration.session(engine), await configuration.session(engine)
        begin = configuration.begin_transaction
        async with asyncio.timeout(5), outer, inner, begin(outer), begin(inner):
            return "both began"

    assert asyncio.run(nested()) == "both began"


async def _queries(database: Path) -> tuple[list[Any], int]:
    """What queries of every kind answer, and how often one goes to the thread of its connection."""
    import sqlalchemy as sa
    from aiosqlite.core import Connection
    from prefect.server.database.configurations import AioSqliteConfiguration

    engine = await AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{database}").engine()
    real, went = Connection._execute, 0

    async def counted(self: Connection, *arguments: Any) -> Any:
        nonlocal went
        went += 1
        return await real(self, *arguments)

    answers: list[Any] = []
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"))
        insert = sa.text("INSERT INTO names (name) VALUES (:name)")
        answers.append((await connection.execute(insert, {"name": "one"})).lastrowid)
        answers.append((await connection.execute(insert, [{"name": "two"}, {"name": "three"}])).rowcount)
        answers.append((await connection.execute(sa.text("UPDATE names SET name = name || '!'"))).rowcount)
        made = await connection.execute(sa.text("INSERT INTO names (name) VALUES ('four') RETURNING id, name"))
        answers.append(made.all())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "_execute", counted)
            selected = await connection.execute(sa.text("SELECT name FROM names WHERE id < :id"), {"id": 3})
        answers.append((list(selected.keys()), selected.scalars().all()))
        answers.append((await connection.execute(sa.text("SELECT * FROM names WHERE id > 9"))).all())
        answers.append([row.id async for row in await connection.stream(sa.text("SELECT id FROM names"))])
        for wrong in (insert, sa.text("SELECT nothing"), sa.text("SELECT :name")):
            try:
                await connection.execute(wrong, {"name": "one!"} if wrong is insert else {})
            except sa.exc.SQLAlchemyError as error:
                answers.append((type(error).__name__, str(error.__cause__ or error)))
    await engine.dispose()
    return answers, went


def test_queries_go_to_the_database_once_and_answer_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_cursor as Adapter

    before, four_times = asyncio.run(_queries(tmp_path / "before"))
    monkeypatch.setattr(Adapter, "execute", Adapter.execute)
    ask_in_one_go()
    after, once = asyncio.run(_queries(tmp_path / "after"))

    assert after == before
    assert (four_times, once) == (4, 1)


def schemas_checked(monkeypatch: pytest.MonkeyPatch, *schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """Which of these schemas are looked through when they are checked one after the other."""
    from prefect.utilities.schema_tools import validation

    checked: list[dict[str, Any]] = []
    real = validation._VALIDATOR.check_schema

    def check(schema: dict[str, Any], **options: Any) -> None:
        checked.append(schema)
        real(schema, **options)

    monkeypatch.setattr(validation._VALIDATOR, "check_schema", check)
    check_schemas_once()
    for schema in schemas:
        with contextlib.suppress(ValueError):
            validation.is_valid_schema(schema, preprocess=False)
    return checked


def test_a_valid_schema_is_checked_once_and_a_wrong_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    good, same, other, wrong = ({"type": "object"}, {"type": "object"}, {"type": "string"}, {"type": 3})

    assert schemas_checked(monkeypatch, good, same, other, wrong, wrong, good) == [good, other, wrong, wrong]


def test_prefect_alone_still_refuses_one_of_them(tmp_path: Path) -> None:
    """When this fails, Prefect has solved it, and `let_writers_wait` can go."""
    *outcome, number = asyncio.run(_two_that_read_and_then_write(tmp_path / "database"))

    assert number == 1
    assert ["database is locked" in str(error) for error in outcome if error] == [True]


OWN = "own:word"


async def _through(key_file: Path, scope: dict[str, Any], *events: dict[str, Any]) -> tuple[Any, list[Any]]:
    """What the Prefect server gets to see of a request: its scope, and the events it receives."""
    seen: list[Any] = []
    coming = list(events)

    async def application(scope: dict[str, Any], receive: Any, _: Any) -> None:
        seen.append(scope)
        seen.extend([await receive() for _ in events])

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    await taking_keys(application, key_file, OWN)(scope, receive, None)
    return seen[0], seen[1:]


def _login(key: str) -> bytes:
    return b"Basic " + base64.b64encode(key.encode())


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("local:present")
    (tmp_path / "key_earlier").write_text("local:earlier\nlocal:oldest")
    return tmp_path / "key"


@pytest.mark.parametrize("key", ["local:present", "local:earlier", "local:oldest"])
def test_request_with_a_key_that_is_taken_gets_in(key_file: Path, key: str) -> None:
    scope = {"type": "http", "headers": [(b"host", b"x"), (b"authorization", _login(key))]}
    seen, _ = asyncio.run(_through(key_file, scope))

    assert seen["headers"] == [(b"host", b"x"), (b"authorization", _login(OWN))]


@pytest.mark.parametrize(
    "value",
    [_login("local:other"), _login(""), b"Basic %%%", b"Basic", b"", b"Bearer local:present", _login("local:\u00e9")],
)
def test_any_other_login_goes_on_as_it_came(key_file: Path, value: bytes) -> None:
    """The server refuses it."""
    scope = {"type": "http", "headers": [(b"authorization", value)]}
    seen, _ = asyncio.run(_through(key_file, scope))

    assert seen == scope


def test_key_is_taken_or_refused_as_soon_as_the_file_says_so(key_file: Path) -> None:
    scope = {"type": "http", "headers": [(b"authorization", _login("local:earlier"))]}
    before, _ = asyncio.run(_through(key_file, scope))
    (key_file.parent / "key_earlier").unlink()
    after, _ = asyncio.run(_through(key_file, scope))

    assert (before["headers"][0][1], after["headers"][0][1]) == (_login(OWN), _login("local:earlier"))


@pytest.mark.parametrize(("token", "becomes"), [("local:earlier", OWN), ("local:other", "local:other")])
def test_websocket_logs_in_with_its_first_message(key_file: Path, token: str, becomes: str) -> None:
    events = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": json.dumps({"type": "auth", "token": token})},
        {"type": "websocket.receive", "text": "no json"},
        {"type": "websocket.receive", "text": None, "bytes": b"x"},
        {"type": "websocket.receive", "text": '["a list"]'},
    ]
    _, seen = asyncio.run(_through(key_file, {"type": "websocket", "headers": []}, *events))

    assert json.loads(seen[1]["text"]) == {"type": "auth", "token": becomes}
    assert [seen[0], *seen[2:]] == [events[0], *events[2:]]
