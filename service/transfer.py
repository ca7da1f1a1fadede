"""One request's bytes on their way in and out: counted, and never waited for too long.

uvicorn waits for a body, and for a reader, as long as the connection lives: an upload that stands still would keep its
place for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Send

from service.errors import Abandoned, RequestStalled, UploadTooLarge, WinnowError

# A body that has just begun is not slow yet: its first bytes take a round trip.
_MOMENT_S = 0.3


@dataclass(frozen=True)
class Pace:
    """What a body has to keep.

    Attributes:
        max_body_bytes: of the request.
        stall_s: seconds without a byte.
        min_rate: bytes a second on average, after the first ``stall_s``.
    """

    max_body_bytes: int
    stall_s: float
    min_rate: int

    def patience_s(self, n_bytes: int, waited_s: float) -> float:
        """Seconds to wait for the next bytes, when so many have come in so many seconds of waiting."""
        return max(0.0, min(self.stall_s, self.stall_s + n_bytes / self.min_rate - waited_s))


class Transfer:
    """Wraps ``receive`` and ``send`` of a request.

    Attributes:
        n_in: bytes of the body that have come.
        n_out: bytes of the answer's body that have gone.
        answering: the answer has begun.
    """

    def __init__(
        self, receive: Receive, send: Send, pace: Pace, on_gone: Callable[[], None], cut: Callable[[], None] | None
    ) -> None:
        """Begin.

        Args:
            receive: of the connection.
            send: of the connection.
            pace: what both have to keep.
            on_gone: told when the client has left.
            cut: closes the connection without a further word.
        """
        self._receive = receive
        self._send = send
        self._pace = pace
        self._on_gone = on_gone
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        # Time spent waiting for the client alone: a disk that is slow here is not the client's fault.
        self._waited_in_s = 0.0
        self._waited_out_s = 0.0
        self._waiting_since_s: float | None = None
        self._timeout: asyncio.Timeout | None = None
        self._dismissal: WinnowError | None = None
        self._body_ended = False
        self.n_in = 0
        self.n_out = 0
        self.answering = False

    def rate(self) -> float | None:
        """Bytes in a second of waiting for the body, infinite for a moment; None once it is there."""
        if self._body_ended:
            return None
        waited_s = self._waited_in_s
        if self._waiting_since_s is not None:
            waited_s += self._loop.time() - self._waiting_since_s
        return self.n_in / waited_s if waited_s > _MOMENT_S else float("inf")

    def dismiss(self, error: WinnowError) -> None:
        """Raise ``error`` in whoever waits for the rest of the body, now or next; nothing once it is there."""
        self._dismissal = error
        if self._timeout is not None:
            self._timeout.reschedule(self._loop.time())

    async def receive(self) -> Message:
        """The next piece of the body; after its end, the client's departure.

        Raises:
            UploadTooLarge: more bytes than may be.
            RequestStalled: it does not come on.
        """
        message = await (self._receive() if self._body_ended else self._next())
        if message["type"] == "http.request":
            self.n_in += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
            if self.n_in > self._pace.max_body_bytes:
                raise self._too_large()
        else:
            self._on_gone()
        return message

    async def _next(self) -> Message:
        if self._dismissal is not None:
            raise self._dismissal
        patience_s = self._pace.patience_s(self.n_in, self._waited_in_s)
        self._waiting_since_s = since_s = self._loop.time()
        try:
            async with asyncio.timeout(patience_s) as self._timeout:
                return await self._receive()
        except TimeoutError:
            raise self._dismissal or self._stalled() from None
        finally:
            self._timeout = self._waiting_since_s = None
            self._waited_in_s += self._loop.time() - since_s

    def _stalled(self) -> RequestStalled:
        pace = self._pace
        detail = f"a body must come at {pace.min_rate} bytes a second, and not stand still for {pace.stall_s:g} s"
        return RequestStalled(detail, limit=pace.stall_s)

    def _too_large(self) -> UploadTooLarge:
        limit = self._pace.max_body_bytes
        return UploadTooLarge(f"at most {limit} bytes", field="audio", limit=limit)

    def check_stated_length(self, content_length: str) -> None:
        """Raise UploadTooLarge when the request says itself that it is."""
        if content_length.isdecimal() and int(content_length) > self._pace.max_body_bytes:
            raise self._too_large()

    async def send(self, message: Message) -> None:
        """Pass a piece of the answer on; a client that does not take it loses the connection.

        Raises:
            Abandoned: it has lost it.
        """
        self.answering = True
        since_s = self._loop.time()
        try:
            async with asyncio.timeout(self._pace.patience_s(self.n_out, self._waited_out_s)):
                await self._send(message)
        except TimeoutError:
            self._on_gone()
            if self._cut is not None:
                self._cut()
                await asyncio.sleep(0)  # the connection learns of it
            raise Abandoned from None
        self._waited_out_s += self._loop.time() - since_s
        self.n_out += len(message.get("body", b""))
