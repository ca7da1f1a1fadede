"""A load client of a few lines: raw sockets on asyncio, so that it costs the cores that the service needs little.

One connection a request. The body is written while the answer is read, for a refusal may come before the body has gone;
with ``Expect: 100-continue`` it is not written before it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Reply:
    """What became of a request; times in seconds.

    Attributes:
        status: 0 when there was no answer.
        began_s: when it was due, or sent where it was not due, on the clock of :func:`time.perf_counter`.
        late_s: from then to when this client sent it, which is not the service's fault.
        head_s: from when it was due to the end of the answer's head.
        end_s: from then to its last byte.
        wrong: what went wrong, empty when nothing did.
    """

    status: int
    began_s: float
    head_s: float
    end_s: float
    n_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wrong: str = ""
    late_s: float = 0.0

    @property
    def ended_s(self) -> float:
        """When the last byte had come, on the clock of :func:`time.perf_counter`."""
        return self.began_s + self.end_s


@dataclass(frozen=True)
class Request:
    """A request as bytes."""

    head: bytes
    body: bytes = b""


def get(path: str) -> Request:
    """A request for what is at ``path``."""
    return Request(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())


def separation(audio: bytes, prompt: str = "dog barking", **headers: str) -> Request:
    """The form that ``curl -F audio=@… -F prompt=…`` sends."""
    edge = uuid.uuid4().hex
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="audio"; filename="mix.wav"\r\n\r\n'
    ).encode() + b"".join((audio, f"\r\n--{edge}--\r\n".encode()))
    lines = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": f"multipart/form-data; boundary={edge}",
        "Content-Length": str(len(body)),
        **headers,
    }
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Request(f"POST /separate HTTP/1.1\r\n{text}\r\n".encode(), body)


Once = Callable[[float | None], Coroutine[Any, Any, Reply]]


class Target:
    """A service on a port of this machine."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self.port = port
        self._timeout_s = timeout_s

    async def send(self, request: Request, due_s: float | None = None) -> Reply:
        """Send it and read the answer; its times count from ``due_s`` where that is given. Never raises for the net."""
        now_s = time.perf_counter()
        began_s = now_s if due_s is None else due_s
        try:
            async with asyncio.timeout(self._timeout_s):
                return replace(await self._exchange(request, began_s), late_s=now_s - began_s)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            passed_s = time.perf_counter() - began_s
            return Reply(0, began_s, passed_s, passed_s, wrong=type(error).__name__)

    def asks(self, request: Request) -> Once:
        """What the loops below take: each call sends the request once more."""
        return lambda due_s: self.send(request, due_s)

    async def _exchange(self, request: Request, began_s: float) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        expects = b"\r\nExpect: 100-continue\r\n" in request.head
        sending = asyncio.ensure_future(_write(writer, replace(request, body=b"") if expects else request))
        try:
            head = await _head(reader)
            if expects and head[0].split()[1] == "100":
                sending = asyncio.ensure_future(_write(writer, replace(request, head=b"")))
                head = await _head(reader)
            head_s = time.perf_counter() - began_s
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            status = int(head[0].split()[1])
            kept, n_bytes = bytearray(), 0
            left = int(headers["content-length"]) if "content-length" in headers else None
            while left is None or n_bytes < left:
                piece = await reader.read(1 << 18)
                if not piece:
                    break
                n_bytes += len(piece)
                if status != 200 or len(kept) < 65_536:
                    kept += piece
            wrong = "" if left is None or n_bytes == left else "the answer ends early"
            return Reply(
                status, began_s, head_s, time.perf_counter() - began_s, n_bytes, headers, bytes(kept), wrong=wrong
            )
        finally:
            sending.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sending
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> list[str]:
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")


async def _write(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(request.head)
    for start in range(0, len(request.body), 1 << 16):
        writer.write(request.body[start : start + (1 << 16)])
        await writer.drain()


async def closed_loop(once: Once, clients: int, seconds: float) -> list[Reply]:
    """So many clients, each of which asks again when it has its answer; those under way at the end are waited for."""
    until_s = time.perf_counter() + seconds
    replies: list[Reply] = []

    async def client() -> None:
        while time.perf_counter() < until_s:
            replies.append(await once(None))

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


async def open_loop(once: Once, rate: float, seconds: float) -> list[Reply]:
    """So many requests a second, whatever becomes of those before; latencies count from when each was due.

    A client that were to wait for answers would be slowed down by what it measures, and so measure too little.
    """
    began_s = time.perf_counter()
    tasks: list[asyncio.Task[Reply]] = []
    for number in range(round(rate * seconds)):
        due_s = began_s + number / rate
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        tasks.append(asyncio.ensure_future(once(due_s)))
    return list(await asyncio.gather(*tasks))


async def every(once: Once, pause_s: float, stop: asyncio.Event) -> list[Reply]:
    """One request after another with a pause between, until stopped: a probe."""
    replies = []
    while not stop.is_set():
        replies.append(await once(None))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
    return replies


async def measure_lag(stop: asyncio.Event) -> list[float]:
    """How late this client's own loop wakes up, in seconds: what it cannot blame on the service."""
    lags = []
    while not stop.is_set():
        due_s = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        lags.append(time.perf_counter() - due_s)
    return lags


def throughput(replies: list[Reply], status: int = 200) -> float:
    """Answers of a status a second, from the first request's beginning to the last such answer's end."""
    ends = [reply.ended_s for reply in replies if reply.status == status]
    return len(ends) / (max(ends) - min(reply.began_s for reply in replies)) if ends else 0.0
