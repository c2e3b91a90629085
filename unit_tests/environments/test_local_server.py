import asyncio
import contextlib
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from environments.local_server import check_schemas_once, let_writers_wait, listen


def test_listens_on_the_address_given_and_no_other(loopback: str) -> None:
    with listen(loopback, 0) as listener:
        address, port = listener.getsockname()
        with socket.create_connection((loopback, port), timeout=5):
            pass

    assert address == loopback


def test_does_not_block_the_event_loop(loopback: str) -> None:
    with listen(loopback, 0) as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_port_is_free_again_at_once(loopback: str) -> None:
    with listen(loopback, 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((loopback, port), timeout=5):
            accepted, _ = listener.accept()
            accepted.close()
    with listen(loopback, port) as again:
        assert again.getsockname()[1] == port


def test_interface_that_is_not_there_is_refused(loopback: str) -> None:
    """Without its interface the socket would be open to others."""
    with pytest.raises(OSError, match=r"."):
        listen(loopback, 0, "nosuchbridge")


def test_small_answers_are_sent_at_once(loopback: str) -> None:
    """Without TCP_NODELAY each answer on a connection that stays open waits 40 ms for the client's acknowledgement."""

    async def option_of_a_connection() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            told.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(loopback, 0)
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


def test_unit_tests_reach_no_network() -> None:
    with pytest.raises(pytest.fail.Exception, match="wanted to connect"):
        urllib.request.urlopen("http://127.0.0.1:9/")
