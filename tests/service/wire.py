"""HTTP by hand, for what clients do that no library lets one do."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from service.routes import Service
from tests.service.conftest import PATIENCE_S, Running


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self
        return str(self.json()["type"]).removeprefix("/problems/")


def service_of(running: Running) -> Service:
    service = running.app.state.service
    assert isinstance(service, Service)
    return service


def inside(running: Running) -> int:
    return service_of(running).admission.inside


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
    """Wait for it; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + timeout_s, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - began


def form(sound: bytes, prompt: str = "dog") -> tuple[bytes, str]:
    """A form's body and its content type."""
    request = httpx.Request("POST", "http://x/", files={"audio": ("a.wav", sound)}, data={"prompt": prompt})
    return request.read(), request.headers["content-type"]


class Served(Protocol):
    """A service that listens somewhere."""

    @property
    def url(self) -> str: ...


def connect(running: Served) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), PATIENCE_S)


def head(method: str, path: str, headers: Mapping[str, object] = {}) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def post(
    running: Served,
    body: bytes,
    content_type: str,
    length: int | None = None,
    headers: Mapping[str, object] = {},
) -> socket.socket:
    """Send a form, or a part of it, to /separate and leave the connection to the test."""
    connection = connect(running)
    stated = {"Content-Type": content_type, "Content-Length": len(body) if length is None else length, **headers}
    connection.sendall(head("POST", "/separate", stated) + body)
    return connection


def leave(connection: socket.socket) -> None:
    """Go, with a reset where something is still unread: as a process that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read(connection: socket.socket) -> Answer:
    """One answer, by its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        assert piece, data
        data += piece
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        piece = connection.recv(65_536)
        assert piece, "the answer is cut short"
        body += piece
    return Answer(int(status.split()[1]), headers, body)


def closed(connection: socket.socket) -> bool:
    """Whether the other side ends the connection; waits for it, and drops what comes before."""
    with connection:
        try:
            while connection.recv(65_536):
                continue
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True
