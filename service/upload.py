"""Reading the form: one file on disk, and text fields."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import InvalidField, MalformedRequest, MissingField, NotMultipart, TooManyFiles
from service.workspace import no_room, require_room

FORM_TYPE = "multipart/form-data"
_MAX_FIELDS = 128
_MAX_FIELD_BYTES = 64 * 1024


@asynccontextmanager
async def read_upload(
    request: Request, min_free_bytes: int = 0
) -> AsyncIterator[tuple[BinaryIO, dict[str, list[str]]]]:
    """Read the body; yields the file ``audio``, which is gone afterwards, and the text fields by name.

    Args:
        request: whose body it is.
        min_free_bytes: that must be free where it goes, before any of it is read.

    Raises:
        StorageFull: there is no room for it.
        NotMultipart: the body is another kind of thing.
        MalformedRequest: the form cannot be parsed, or has too many or too long fields.
        TooManyFiles: ``audio`` is there more than once.
        MissingField: ``audio`` is not there.
        InvalidField: ``audio`` is text, or another field is a file.
    """
    content_type = request.headers.get("content-type", "")
    if content_type and content_type.partition(";")[0].strip().lower() != FORM_TYPE:
        raise NotMultipart(f"send {FORM_TYPE}", field="Content-Type", limit=FORM_TYPE)
    await asyncio.to_thread(require_room, min_free_bytes)
    try:
        async with aclosing(request.stream()) as stream:
            form = await _Form(request.headers, stream).parse() if content_type else FormData()
    except MultiPartException as error:
        raise MalformedRequest(error.message) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room() from error
        raise
    try:
        texts: dict[str, list[str]] = {}
        files: list[UploadFile] = []
        for name, value in form.multi_items():
            if isinstance(value, str):
                texts.setdefault(name, []).append(value)
            elif name == "audio":
                files.append(value)
            else:
                raise InvalidField("only audio is a file", field=name if name == "prompt" else None, limit="text")
        if "audio" in texts:
            raise InvalidField("audio must be a file (curl: -F audio=@mix.wav)", field="audio", limit="a file")
        if not files:
            raise MissingField("send a recording (curl: -F audio=@mix.wav)", field="audio", limit=1)
        if len(files) > 1:
            raise TooManyFiles("send one file", field="audio", limit=1)
        yield files[0].file, texts
    finally:
        await form.close()


class _Form(MultiPartParser):
    """Starlette's parser, for which a form that ends early is whole: it forgets the file at the end, open."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None]) -> None:
        # One file more than allowed is read, so as to tell two files from a broken form.
        super().__init__(
            headers, self._whole(stream), max_files=2, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
        self._ended = False

    def on_end(self) -> None:
        """The last boundary was there."""
        self._ended = True

    async def _whole(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("the form ends before its boundary")
