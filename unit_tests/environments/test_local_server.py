import socket
import urllib.request

import pytest

from environments.local_server import listen


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


def test_unit_tests_reach_no_network() -> None:
    with pytest.raises(pytest.fail.Exception, match="wanted to connect"):
        urllib.request.urlopen("http://127.0.0.1:9/")
