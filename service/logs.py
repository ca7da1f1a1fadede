"""The log: one line an event, JSON or text, in which nothing that a caller wrote can begin a line or pass for a field.

Prompts are private. A request's line carries a short hash of each, made with a key that lives as long as the process:
enough to see that two requests asked the same, not enough to look a phrase up in a dictionary.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import sys
import time
from typing import Any

from service.envelope import Record
from service.settings import Settings

log = logging.getLogger("winnow.request")
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure_logging(settings: Settings) -> None:
    """Send every logger's lines to stderr in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says, in order; the traceback without the words that ``extra={"hide": ...}`` names."""
    said = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **getattr(record, "facts", {}),
    }
    if record.exc_info and record.exc_info[0] is not None:
        trace = logging.Formatter().formatException(record.exc_info)
        said["traceback"] = _without(trace, getattr(record, "hide", ()))
    return said


def _without(text: str, words: tuple[str, ...]) -> str:
    for word in sorted(words, key=len, reverse=True):
        for form in {word, repr(word)[1:-1], ascii(word)[1:-1]}:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "[prompt]", text)
    return text


class JsonLines(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """As JSON in ASCII, so that no character is a line's end to anybody."""
        return json.dumps(facts(record), default=str)


class TextLines(logging.Formatter):
    """For people: time, level, logger and message, then what else there is as name=value; a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """As text; control characters and those that turn the direction of writing are escaped."""
        said = facts(record)
        trace = said.pop("traceback", "")
        head = " ".join(str(said.pop(name)) for name in ("time", "level", "logger", "message"))
        rest = (f"{name}={_plain(value)}" for name, value in said.items())
        lines = [" ".join([head, *rest]), *("    " + line for line in trace.splitlines())]
        return "\n".join(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{_plain(item)}" for name, item in value.items())
    if isinstance(value, str) and re.fullmatch(r"[\w./:{}-]+", value):
        return value
    return json.dumps(value, default=str)


class RequestLog:
    """Writes the line of each request."""

    def __init__(self, with_prompts: bool = False) -> None:
        """``with_prompts`` writes them out instead of their hashes."""
        self._with_prompts = with_prompts
        self._key = secrets.token_bytes(16)

    def write(self, record: Record, route: str, trace_id: str | None = None) -> None:
        """Put a request into the log; a probe that went well only where the log tells everything."""
        quiet = route in _PROBES and record.status < 400
        log.log(
            logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": self.facts(record, route, trace_id)}
        )

    def facts(self, record: Record, route: str, trace_id: str | None = None) -> dict[str, Any]:
        """What is said of a request, by name; what does not apply is left out."""
        said: dict[str, Any] = {
            "request_id": record.request_id,
            "trace_id": trace_id,
            "key": record.caller,
            "method": record.method if record.method.isascii() and record.method.isalpha() else "other",
            "route": route,
            "status": record.status,
            "problem": record.problem,
            "duration_ms": round(record.duration_ms, 1),
            "bytes_in": record.n_in,
            "bytes_out": record.n_out,
        }
        timings = record.timings
        if timings is not None:
            said["stages_ms"] = {name: round(value, 1) for name, value in timings.stages.items()}
            said["audio_in_s"] = round(timings.audio_in_s, 3)
            said["audio_out_s"] = round(timings.audio_out_s, 3)
            said["cache"] = list(timings.cache_states)
            said["prompts"] = [prompt if self._with_prompts else self.hashed(prompt) for prompt in timings.prompts]
        return {name: value for name, value in said.items() if value is not None}

    def hashed(self, prompt: str) -> str:
        """Eight hexadecimal digits; the same for the same prompt while this process lives."""
        return hashlib.blake2b(prompt.encode("utf-8", "replace"), key=self._key, digest_size=4).hexdigest()
