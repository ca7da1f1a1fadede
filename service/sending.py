"""Sending an answer's file, and clearing up behind it, whatever becomes of the client."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answer import Answer
from service.workspace import Workspace

_CHUNK_BYTES = 256 * 1024


class AnswerResponse(Response):
    """A file with its length, from a workspace that is removed once it is sent or cannot be."""

    def __init__(self, answer: Answer, workspace: Workspace, headers: dict[str, str]) -> None:
        self._path = answer.path
        self._workspace = workspace
        super().__init__(
            None,
            200,
            {
                **headers,
                "Content-Length": str(answer.path.stat().st_size),
                "Content-Disposition": f'attachment; filename="{quote(answer.filename, safe="._-")}"',
            },
            answer.media_type,
        )

    def discard(self) -> None:
        """Nobody will ask for it."""
        self._workspace.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it block by block; stop when the client has gone."""
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with self._path.open("rb") as file:
                left = self._path.stat().st_size
                while left and not gone.done():
                    chunk = await asyncio.to_thread(file.read, _CHUNK_BYTES)
                    left -= len(chunk)
                    await send({"type": "http.response.body", "body": chunk, "more_body": bool(left)})
        finally:
            gone.cancel()
            # Not here: a file system may take milliseconds to forget a file, and everybody would wait for it.
            asyncio.get_running_loop().run_in_executor(None, self._workspace.close)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
