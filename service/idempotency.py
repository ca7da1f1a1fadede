"""Idempotency-Key: a job that is sent twice, since its sender was not told of the first, is one job.

The key counts for its sender alone and as long as the job is known. What was sent is told by a hash of the recording's
bytes and of the fields as they were understood.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.datastructures import Headers

from service.errors import InvalidField

HEADER = "Idempotency-Key"
MAX_CHARS = 255


def read_key(headers: Headers, owner: str | None) -> str | None:
    """The request's key and its owner as one name of plain letters, or None without a key.

    Raises:
        InvalidField: several, none but space, too long, or not printable ASCII.
    """
    keys = headers.getlist(HEADER)
    if not keys:
        return None
    key = keys[0].strip()
    if len(keys) > 1 or not 1 <= len(key) <= MAX_CHARS or not (key.isascii() and key.isprintable()):
        raise InvalidField(f"one key of 1 to {MAX_CHARS} printable characters", field=HEADER, limit=MAX_CHARS)
    return hashlib.sha256(json.dumps([owner, key]).encode()).hexdigest()


def digest_of(upload_sha256: str, ask: dict[str, Any]) -> str:
    """One digest of all that was sent."""
    return hashlib.sha256(json.dumps([upload_sha256, ask], sort_keys=True).encode()).hexdigest()
