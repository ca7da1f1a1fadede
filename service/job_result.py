"""What a job leaves behind: a file, and where in it each sound is.

Several sounds are in a zip that is stored and not deflated, so that each is a stretch of its bytes and the disk holds
it once.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from service.answer import Answer, file_names
from service.ask import Ask

_CHUNK_BYTES = 1024 * 1024
# Where in a local file header the lengths of name and extra are, and how long the header is without them.
_LENGTHS_AT, _HEADER_BYTES = 26, 30


def describe(answer: Answer, ask: Ask, path: Path, headers: dict[str, str]) -> dict[str, Any]:
    """The record of an answer whose file is now at ``path``, as JSON can hold it.

    Each stem has ``prompt`` (None for the residual), ``file``, ``presence`` and ``spans`` (None for the residual),
    ``media_type``, and ``offset`` and ``bytes`` in the file; ``etag`` is a hash of its bytes.
    """
    names = file_names(ask)
    prompts: list[str | None] = [*(ask.prompts if ask.wants_stems else ()), *([None] if ask.wants_residual else [])]
    presence = dict(zip(ask.prompts, answer.presence, strict=True))
    with path.open("rb") as file:
        n_bytes = path.stat().st_size
        stretches = _entries(file) if _is_zip(answer) else {names[0]: (0, n_bytes)}
        stems = []
        for prompt, name in zip(prompts, names, strict=True):
            offset, length = stretches[name]
            heard = None if prompt is None else presence[prompt]
            stems.append(
                {
                    "prompt": prompt,
                    "file": name,
                    "presence": None if heard is None else heard.probability,
                    "spans": None if heard is None else [list(span) for span in heard.spans],
                    "media_type": ask.encoding.format.media_type,
                    "offset": offset,
                    "bytes": length,
                    "etag": etag_of(file, offset, length),
                }
            )
        whole = stems[0]["etag"] if not _is_zip(answer) else etag_of(file, 0, n_bytes)
    return {
        "file": path.name,
        "filename": answer.filename,
        "media_type": answer.media_type,
        "bytes": n_bytes,
        "etag": whole,
        "headers": headers,
        "stems": stems,
    }


def _is_zip(answer: Answer) -> bool:
    return answer.path.suffix == ".zip"


def _entries(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Offset and length of each file in a stored zip."""
    entries = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            file.seek(info.header_offset + _LENGTHS_AT)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            entries[info.filename] = (info.header_offset + _HEADER_BYTES + name_bytes + extra_bytes, info.file_size)
    return entries


def etag_of(file: BinaryIO, offset: int, n_bytes: int) -> str:
    """A strong ETag of a stretch of a file: a hash of its bytes."""
    digest = hashlib.sha256()
    file.seek(offset)
    while n_bytes and (chunk := file.read(min(n_bytes, _CHUNK_BYTES))):
        digest.update(chunk)
        n_bytes -= len(chunk)
    return f'"{digest.hexdigest()[:32]}"'
