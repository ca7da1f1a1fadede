"""A bolted port: nobody new comes in, and nobody who is in notices."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.door import bolt
from tests.service.conftest import PATIENCE_S

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has these filters")


def test_who_is_connected_goes_on_and_nobody_else_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, PATIENCE_S) as early:
            bolt(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, 0.2)
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"a question")
                assert accepted.recv(64) == b"a question"
                accepted.sendall(b"an answer")
                assert early.recv(64) == b"an answer"
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_who_knocks_at_a_bolted_port_finds_it_closed() -> None:
    with ThreadPoolExecutor(1) as threads:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            bolt(listener)
            late = threads.submit(socket.create_connection, listener.getsockname(), PATIENCE_S)
            with pytest.raises(TimeoutError):
                late.result(0.2)
        with pytest.raises(ConnectionRefusedError):
            late.result(PATIENCE_S)


def test_a_socket_of_another_kind_is_left_alone() -> None:
    listener, other = socket.socketpair()
    with listener, other:
        bolt(listener)
        other.sendall(b"x")
        assert listener.recv(1) == b"x"
