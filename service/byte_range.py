"""Part of a file over HTTP: Range, If-Range and If-None-Match (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import asyncio
import re
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import RangeNotSatisfiable

_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*", re.IGNORECASE)


def chosen(text: str | None, n_bytes: int) -> tuple[int, int] | None:
    """Begin and end (exclusive) that a Range header names in ``n_bytes``; None where the whole is to be sent.

    Several ranges, other units and what is no range are ignored, as the RFC allows: the whole answers them too.

    Raises:
        RangeNotSatisfiable: it names nothing that is there.
    """
    found = _RANGE.fullmatch(text or "")
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (int(part[:19]) if part else None for part in found.groups())
    if first is None:
        assert last is not None
        begin, end = max(n_bytes - last, 0), n_bytes
    else:
        if last is not None and last < first:
            return None
        begin, end = first, n_bytes if last is None else min(last + 1, n_bytes)
    if begin >= end:
        raise RangeNotSatisfiable(f"there are {n_bytes} bytes", field="Range", limit=n_bytes)
    return begin, end


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the ETag, or is ``*``."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (item.strip().removeprefix("W/") for item in header.split(","))


class FileResponse(Response):
    """A stretch of an open file, or the part of it that the request asks for; closes the file."""

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        n_bytes: int,
        etag: str,
        request_headers: Headers,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        """Choose what to send.

        Args:
            file: open, and closed here.
            offset: of the stretch in the file.
            n_bytes: of the stretch.
            etag: of the stretch, strong.
            request_headers: Range, If-Range and If-None-Match are read.
            headers: of every answer.
            media_type: of the stretch.

        Raises:
            RangeNotSatisfiable: the request names nothing that is there.
        """
        self._file = file
        status, self._offset, self._left = 200, offset, n_bytes
        headers = {**headers, "Accept-Ranges": "bytes", "ETag": etag}
        if matches(request_headers.get("if-none-match"), etag):
            status, self._left = 304, 0
        else:
            part = None
            if request_headers.get("if-range", etag).strip() == etag:
                part = chosen(request_headers.get("range"), n_bytes)
            if part is not None:
                status, self._offset, self._left = 206, offset + part[0], part[1] - part[0]
                headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{n_bytes}"
            headers["Content-Length"] = str(self._left)
        super().__init__(None, status, headers, media_type)
        if status == 304:
            for name in ("content-length", "content-type", "content-disposition"):
                if name in self.headers:
                    del self.headers[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it block by block; stop when the client has gone."""
        gone = asyncio.ensure_future(until_gone(receive))
        left = 0 if scope["method"] == "HEAD" else self._left
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._file.seek(self._offset)
            while left and not gone.done():
                chunk = await asyncio.to_thread(self._file.read, min(left, _CHUNK_BYTES))
                if not chunk:
                    raise EOFError("a result is shorter than its record says")
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": bool(left)})
            if not gone.done() and (not self._left or scope["method"] == "HEAD"):
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._file.close()


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        continue
