"""A client's connection: uvicorn's, with a bound on the head of a request, in bytes, lines and seconds.

uvicorn waits for a head as long as the connection lives (measured: a stalled one was open after 15 s and longer), lets
it grow without end, and answers what is not HTTP in plain text. It also reads 256 KiB at a time: who is refused by the
head would have sent that much of a body.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import problems
from service.envelope import Record, write_line
from service.errors import HeadTooLarge, MalformedRequest, RequestStalled, WinnowError
from service.gate import CUT

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_LINES = 256
READ_BYTES = 32 * 1024
_LAST_REQUEST_S = 0.5


class Connection(asyncio.BufferedProtocol, HttpToolsProtocol):  # type: ignore[misc]
    """One connection and the requests that come by it."""

    def __init__(self, *args: Any, head_s: float, on_end: Callable[[Record], None] = write_line, **kwargs: Any) -> None:
        """As uvicorn makes it; ``head_s`` is the time a head has, ``on_end`` takes the record of what was refused."""
        super().__init__(*args, **kwargs)
        self._head_s = head_s
        self._on_end = on_end
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._head_lines = 0
        self._error: WinnowError | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes."""
        super().data_received(data)
        # The parser shows a line when it is whole, and keeps what there is of it until then.
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + READ_BYTES:
                self._refuse(HeadTooLarge(f"at most {MAX_HEAD_BYTES} bytes of head", limit=MAX_HEAD_BYTES))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        self._head_is_there()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._head_s, self._on_timer)

    def _head_is_there(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._answering:
            # The next head waits behind an answer: uvicorn does not read on before that has gone.
            self._expect_head()
        else:
            self._refuse(RequestStalled(f"the head must come within {self._head_s:g} s", limit=self._head_s))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._head_lines = 0
        self.scope["extensions"] = {CUT: {"call": self.transport.abort}}
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head."""
        self._head_lines += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._head_is_there()
        self._in_head = False
        super().on_headers_complete()

    def _count(self, n_bytes: int) -> None:
        self._head_bytes += n_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._error = HeadTooLarge(f"at most {MAX_HEAD_BYTES} bytes of head", limit=MAX_HEAD_BYTES)
        elif self._head_lines > MAX_HEAD_LINES:
            self._error = HeadTooLarge(f"at most {MAX_HEAD_LINES} header lines", limit=MAX_HEAD_LINES)
        if self._error is not None:
            raise self._error  # the parser stops, and uvicorn calls what follows

    def shutdown(self) -> None:
        """The port is closed. A request that is on its way is answered still: uvicorn would hang up on it."""
        if self._answering:
            super().shutdown()
        else:
            self.loop.call_later(_LAST_REQUEST_S, self._hang_up)

    def _hang_up(self) -> None:
        if not self._answering:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser could not read."""
        self._refuse(self._error or MalformedRequest("this is not HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        """Go on in HTTP/1.1; but the parser drops the body of a request that offers another protocol."""
        if not {name for name, _ in self.headers}.isdisjoint({b"content-length", b"transfer-encoding"}):
            self._refuse(MalformedRequest("no other protocol is spoken here: leave the Upgrade header out"))

    def _refuse(self, error: WinnowError) -> None:
        """Write a problem past the application, unless an answer is on its way, and end the connection."""
        problem = problems.problem_of(error)
        request_id = uuid.uuid4().hex
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(problem.body(request_id)).encode()
            head = [
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
                f"content-type: {problems.PROBLEM_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "x-content-type-options: nosniff",
                "cache-control: no-store",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()
        self._on_end(Record(request_id, "-", "-", problem.status, 0.0, None, problem.kind))
