"""API keys: a file of names and hashes, read again when it changes, so that a key is rotated without a restart.

A line of the file is ``id sha256-of-the-key-in-hex [quota]``; empty lines and lines that begin with # do not count. For
a while both the old and the new key of a caller stand there, under two ids.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers

from service.errors import StartError, Unauthorized
from service.quota import Quota
from service.settings import Settings

log = logging.getLogger("winnow.keys")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK_EVERY_S = 1.0
_REFUSAL = "send a key: Authorization: Bearer KEY, or X-API-Key: KEY"


@dataclass(frozen=True)
class Key:
    """A line of the file. ``id`` may stand in logs; ``quota`` is None for one without limits."""

    id: str
    digest: str
    quota: Quota | None


class KeyRing:
    """The keys that open the service."""

    def __init__(self, path: Path, quota: Quota | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read them.

        Args:
            path: the file.
            quota: of keys whose line names none.
            clock: seconds, which says when to look at the file again.

        Raises:
            StartError: the file cannot be read, or holds no key.
        """
        self._path = path
        self._quota = quota
        self._clock = clock
        self._stamp = self._stat()
        self._keys = self._read()
        self._looked_s = clock()

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise StartError(f"WINNOW_API_KEYS_FILE: {error.strerror}") from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> list[Key]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError("WINNOW_API_KEYS_FILE cannot be read as text") from error
        keys = []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if words and not words[0].startswith("#"):
                keys.append(self._key(words, number))
        if not keys:
            raise StartError("WINNOW_API_KEYS_FILE holds no key; `winnow key NAME` makes one")
        if len({key.id for key in keys}) < len(keys):
            raise StartError("WINNOW_API_KEYS_FILE has an id twice")
        return keys

    def _key(self, words: list[str], number: int) -> Key:
        if len(words) not in (2, 3) or not _ID.fullmatch(words[0]) or not _DIGEST.fullmatch(words[1].lower()):
            raise StartError(f"WINNOW_API_KEYS_FILE, line {number}: not `id sha256-in-hex [quota]`")
        try:
            quota = Quota.parse(words[2]) if len(words) == 3 else self._quota
        except ValueError as error:
            raise StartError(f"WINNOW_API_KEYS_FILE, line {number}: {error}") from error
        return Key(words[0], words[1].lower(), quota)

    def refresh(self, force: bool = False) -> None:
        """Read the file again if it has changed, or in any case; a broken one is reported, and the old keys stay."""
        now_s = self._clock()
        if not force and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            stamp = self._stat()
            if force or stamp != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
                log.info("keys read again: %s", ", ".join(key.id for key in self._keys))
        except StartError as error:
            log.error("keys stay as they were: %s", error.detail)

    def require(self, headers: Headers) -> Key:
        """The key that a request brings.

        Raises:
            Unauthorized: none, several that differ, or one that is not on the ring.
        """
        self.refresh()
        offered = {value.strip() for value in headers.getlist("x-api-key")}
        for value in headers.getlist("authorization"):
            scheme, _, secret = value.strip().partition(" ")
            if scheme.lower() == "bearer":
                offered.add(secret.strip())
        if len(offered) != 1:
            raise Unauthorized(_REFUSAL, field="Authorization")
        digest = digest_of(offered.pop())
        # Every key is compared, found or not, so that the time taken tells nothing of which one.
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise Unauthorized("the key is not known here", field="Authorization")
        return found[0]


def digest_of(secret: str) -> str:
    """What the file keeps of a key. A plain hash does, for keys are random: there is no dictionary to try."""
    return hashlib.sha256(secret.encode("latin-1", "replace")).hexdigest()


def line_of(name: str, secret: str) -> str:
    """A key's line in the file.

    Raises:
        StartError: the name cannot stand there.
    """
    if not _ID.fullmatch(name):
        raise StartError("a key's name is 1 to 64 of A-Z a-z 0-9 . _ -")
    return f"{name} {digest_of(secret)}"


def new_secret() -> str:
    """A key of 256 random bits."""
    return "wk_" + secrets.token_urlsafe(32)


def require_keys_or_loopback(settings: Settings) -> None:
    """Refuse to serve strangers by accident.

    Raises:
        StartError: other machines could reach the service, and it asks for no keys.
    """
    if settings.api_keys_file is None and not settings.allow_anonymous and not _is_loopback(settings.host):
        raise StartError(
            f"{settings.host} is open to other machines and there are no keys: "
            "set WINNOW_API_KEYS_FILE, or WINNOW_ALLOW_ANONYMOUS=1 where something else guards the door"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
