"""Around every request: an id, the byte count of its body, the last resort for errors, one line in the log.

Pure ASGI: a middleware of Starlette's BaseHTTPMiddleware kind hides from the handler that its client has gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.errors import Abandoned, UploadTooLarge, WinnowError

log = logging.getLogger("winnow.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINGER_S = 1.0
_LINGER_BYTES = 16 * 1024 * 1024


class Envelope:
    """The outermost middleware.

    ``scope["state"]["request_id"]`` is the caller's X-Request-ID where that is a plain word, else a new one.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        exchange = _Exchange(receive, send, request_id, self.max_body_bytes, has_body)
        started = time.perf_counter()
        try:
            exchange.check_stated_length(headers.get("content-length", ""))
            await self.app(scope, exchange.receive, exchange.send)
        except (ClientDisconnect, Abandoned):
            exchange.status = exchange.status or 499
        except WinnowError as error:
            await exchange.answer(scope, problems.problem_of(error))
        except Exception:
            log.exception("request %s failed", request_id)
            await exchange.answer(scope, problems.INTERNAL)
        finally:
            log.info(
                "%s %s %s %s %.1f ms",
                request_id,
                scope["method"],
                scope["path"].encode("unicode_escape").decode(),
                exchange.status or 499,
                1_000 * (time.perf_counter() - started),
            )


class _Exchange:
    """One request and its response as they pass."""

    def __init__(self, receive: Receive, send: Send, request_id: str, max_body_bytes: int, has_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._max_body_bytes = max_body_bytes
        self._received = 0
        self._body_ended = not has_body
        self.status = 0

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(f"at most {self._max_body_bytes} bytes", field="audio", limit=self._max_body_bytes)

    def check_stated_length(self, content_length: str) -> None:
        """Raise UploadTooLarge when the request says itself that it is."""
        if content_length.isdecimal() and int(content_length) > self._max_body_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """Pass a piece of the body on, counted."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
            if self._received > self._max_body_bytes:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Pass a piece of the response on, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            if not self._body_ended and self.status >= 400:
                headers["Connection"] = "close"
        if self.status >= 400 and not self._body_ended and _ends(message):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """Read on for a moment after a refusal: closing on a client that still sends would reset the connection, and
        with it the refusal that the client has not read."""

        async def drain() -> None:
            received = 0
            while received < _LINGER_BYTES:
                message = await self._receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                received += len(message.get("body", b""))

        try:
            await asyncio.wait_for(drain(), _LINGER_S)
        except TimeoutError:
            return

    async def answer(self, scope: Scope, problem: problems.Problem) -> None:
        """Send a problem, unless the response has begun; then the connection is cut, which the length gives away."""
        if self.status:
            raise RuntimeError(f"request {self._request_id} failed after its response had begun")
        await problems.response(problem, self._request_id)(scope, self.receive, self.send)


def _ends(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)
