"""What happens to a job, as server-sent events: numbered, so that a client that was cut off asks for the rest.

The store is asked a few times a second, whichever it is: a stream holds no connection of its own to Redis, and one that
nobody reads any more holds nothing at all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.byte_range import until_gone
from service.errors import JobsUnavailable
from service.job import LAST_EVENTS, Event, stamp

log = logging.getLogger("winnow.events")
MEDIA_TYPE = "text/event-stream"
POLL_S = 0.25
HEARTBEAT_S = 10.0
_RETRY_MS = 2_000


def encode(event: Event) -> bytes:
    """An event on the wire; the same bytes whenever it is sent."""
    data = json.dumps({"at": stamp(event.at_s), "progress": round(event.progress, 4)})
    return f"id: {event.number}\nevent: {event.name}\ndata: {data}\n\n".encode()


def last_event_id(header: str | None) -> int:
    """The number that a Last-Event-ID header names; 0 where it names none of ours."""
    text = (header or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


class EventStream(Response):
    """A job's events from one on, until its last, until the client leaves, or until the server ends."""

    def __init__(
        self,
        ask: Callable[[int], Awaitable[list[Event] | None]],
        after: int,
        ends: Callable[[], bool],
        on_end: Callable[[], None],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """Begin.

        Args:
            ask: the job's events after a number; None when there is no such job any more.
            after: number of the last event that the client has.
            ends: whether the server is about to end; the client then asks again, and another replica answers.
            on_end: called once, when the stream has ended.
            heartbeat_s: seconds of silence after which a comment is sent, which tells a dead connection.
        """
        super().__init__(None, 200, {"X-Accel-Buffering": "no"}, MEDIA_TYPE)
        del self.headers["content-length"]
        self._ask = ask
        self._after = after
        self._ends = ends
        self._on_end = on_end
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is, and what comes."""
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _say(send, f"retry: {_RETRY_MS}\n\n".encode())
            said_s = time.monotonic()
            while not gone.done() and not self._ends():
                text, last = await self._news()
                if not text and not last and time.monotonic() - said_s >= self._heartbeat_s:
                    text = b": heartbeat\n\n"
                if text:
                    await _say(send, text)
                    said_s = time.monotonic()
                if last:
                    break
                await asyncio.wait([gone], timeout=POLL_S)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._on_end()

    async def _news(self) -> tuple[bytes, bool]:
        """What has happened since, and whether nothing more will."""
        try:
            events = await self._ask(self._after)
        except JobsUnavailable:
            return b"", False  # the stream goes on when the store is back
        if events is None:
            return b"", True
        if events:
            self._after = events[-1].number
        return b"".join(map(encode, events)), bool(events) and events[-1].name in LAST_EVENTS


async def _say(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})
