"""Around every request: an id, the last resort for errors, one record of it at its end.

Pure ASGI: a middleware of Starlette's BaseHTTPMiddleware kind hides from the handler that its client has gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.errors import Abandoned, Draining, WinnowError
from service.timings import Timings

log = logging.getLogger("winnow.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GONE = 499
_LINGER_S = 1.0
_LINGER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """What is kept of a request; nothing that its caller wrote but the path.

    Attributes:
        status: 499 when the client left before an answer.
        caller: id of its key, None without one.
        problem: kind of the problem that was answered, None when there was none.
        route: template of the path, None where it never came to one.
        n_in: bytes of the body that were read.
        n_out: bytes of the answer's body that were sent.
        timings: the account of its separation, None where there was none.
        traceparent: the header of that name, as sent.
    """

    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    caller: str | None
    problem: str | None
    route: str | None = None
    n_in: int = 0
    n_out: int = 0
    timings: Timings | None = None
    traceparent: str | None = None


def write_line(record: Record) -> None:
    """Put a record into the log as one line."""
    log.info(
        "%s %s %s %s %.1f ms%s%s",
        record.request_id,
        record.method,
        record.path,
        record.status,
        record.duration_ms,
        f" key={record.caller}" if record.caller else "",
        f" problem={record.problem}" if record.problem else "",
    )


class Envelope:
    """The outermost middleware.

    ``scope["state"]["request_id"]`` is the caller's X-Request-ID where that is a plain word, else a new one.
    """

    def __init__(
        self, app: ASGIApp, on_end: Callable[[Record], None] = write_line, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        """Wrap ``app``; ``on_end`` takes each request's record, ``leaving`` says whether connections should end."""
        self.app = app
        self._on_end = on_end
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        exchange = _Exchange(receive, send, request_id, headers, self._leaving)
        started = time.perf_counter()
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except (ClientDisconnect, Abandoned):
            exchange.status = exchange.status or _GONE
        except WinnowError as error:
            await exchange.answer(scope, problems.problem_of(error))
        except asyncio.CancelledError:
            # The server cancels what has not ended by the end of its grace.
            if not self._leaving() or exchange.status:
                raise
            await exchange.answer(scope, problems.problem_of(Draining("the service stops", retry_after_s=1)))
        except Exception:
            timings: Timings | None = state.get("timings")
            log.exception("request %s failed", request_id, extra={"hide": timings.prompts if timings else ()})
            await exchange.answer(scope, problems.INTERNAL)
        finally:
            self._on_end(
                Record(
                    request_id,
                    scope["method"],
                    scope["path"].encode("unicode_escape").decode(),
                    exchange.status or _GONE,
                    1_000 * (time.perf_counter() - started),
                    state.get("caller"),
                    state.get("problem"),
                    getattr(scope.get("route"), "path", None),
                    exchange.n_in,
                    exchange.n_out,
                    state.get("timings"),
                    headers.get("traceparent"),
                )
            )
        await exchange.finish()


class _Exchange:
    """One request and its response as they pass."""

    def __init__(
        self, receive: Receive, send: Send, request_id: str, headers: Headers, leaving: Callable[[], bool]
    ) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._leaving = leaving
        self._body_ended = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        # Reading on would ask the client for the body that it has not sent.
        self._invited = headers.get("expect", "").lower() != "100-continue"
        self._last: Message | None = None
        self.status = self.n_in = self.n_out = 0

    async def receive(self) -> Message:
        """Pass a piece of the body on."""
        self._invited = True
        message = await self._receive()
        if message["type"] == "http.request":
            self.n_in += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass a piece of the response on, with the headers that every response has."""
        self.n_out += len(message.get("body", b""))
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            if not self._body_ended or self._leaving():
                headers["Connection"] = "close"
        elif not self._body_ended and not message.get("more_body", False):
            # The response is whole for its reader, who knows its length; the connection ends in finish().
            await self._send({**message, "more_body": True})
            self._last = {"type": "http.response.body", "body": b"", "more_body": False}
            return
        await self._send(message)

    async def finish(self) -> None:
        """End the connection of a request that was answered before its body had come.

        What still comes is read for a moment: closing on a client that still sends would reset the connection, and with
        it the answer that the client has not read.
        """
        if self._last is None:
            return

        async def drain() -> None:
            received = 0
            while received < _LINGER_BYTES:
                message = await self._receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                received += len(message.get("body", b""))

        try:
            if self._invited:
                await asyncio.wait_for(drain(), _LINGER_S)
        except TimeoutError:
            pass
        await self._send(self._last)

    async def answer(self, scope: Scope, problem: problems.Problem) -> None:
        """Send a problem, unless the response has begun; then the connection is cut, which the length gives away."""
        if self.status:
            raise RuntimeError(f"request {self._request_id} failed after its response had begun")
        scope["state"]["problem"] = problem.kind
        await problems.response(problem, self._request_id)(scope, self.receive, self.send)
