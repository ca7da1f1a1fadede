"""Pages of other origins: none may call unless the operator lists it, and never with cookies."""

from __future__ import annotations

from typing import Any

from service.settings import Settings, listed

_SENT = [
    "Authorization",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout",
    "Prefer",
    "Idempotency-Key",
    "Last-Event-ID",
    "Range",
]
_READ = [
    "X-Request-ID",
    "X-Model-Version",
    "X-Embedding-Cache",
    "X-Presence",
    "X-Audio-Duration",
    "Server-Timing",
    "Content-Disposition",
    "Retry-After",
    "Location",
]


def cors_options(settings: Settings) -> dict[str, Any]:
    """What Starlette's middleware, which is pure ASGI, takes."""
    return {
        "allow_origins": listed(settings.cors_origins),
        "allow_credentials": False,
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": _SENT,
        "expose_headers": _READ,
        "max_age": 600,
    }
