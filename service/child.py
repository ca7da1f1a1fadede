"""A child process at work: what it says, how it ended, and its end when nobody wants it any more."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from service.errors import AudioError, StorageFull, WinnowError
from service.forkserver import OUT_OF_MEMORY, STATUS
from service.link import HEAD
from service.sandbox import ChildLimits

_POLL_MS = 50  # how often whoever waits asks whether the work is still wanted
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_DETAIL_CHARS = 500
_KINDS: dict[str, type[WinnowError]] = {kind.__name__: kind for kind in AudioError.__subclasses__()}
_KINDS[StorageFull.__name__] = StorageFull


class ChildDied(Exception):
    """A child that gave no answer.

    Attributes:
        reason: ``crash`` (a signal such as SIGSEGV), ``cpu``, ``memory``, ``files``, ``size``, ``disk``, ``wall`` (its
            limits), ``exception`` (it failed in a way nobody thought of), ``killed`` (from outside) or ``lost``
            (together with the process it came from).
        detail: for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Child:
    """One child. It dies when this is closed, or forgotten, or the process that holds it dies."""

    def __init__(
        self, link: socket.socket, cord: socket.socket, limits: ChildLimits, on_death: Callable[[str], None]
    ) -> None:
        """Take over the service's ends of a child's link and cord; ``on_death`` is told why it gave no answer."""
        link.setblocking(False)
        cord.setblocking(False)
        self._link = link
        self._cord = cord
        self._limits = limits
        self._on_death = on_death
        self._since_s = time.monotonic()

    def result(self, check: Callable[[], None]) -> dict[str, Any]:
        """Wait for the answer.

        Args:
            check: called many times a second; whatever it raises ends the wait, and then close this.

        Raises:
            AudioError: as the child raised it.
            StorageFull: likewise.
            ChildDied: there was no answer.
        """
        answer = self._answer(check)
        if answer is None:
            raise self._death(*self._why(self._status(check)))
        return answer

    def exit_code(self, check: Callable[[], None]) -> int:
        """Wait for the end of a child that becomes another program: its exit code. Raises like :meth:`result`."""
        self._answer(check)  # closes without one when the other program begins
        status = self._status(check)
        if status is None or status < 0:
            raise self._death(*self._why(status))
        return status

    def _answer(self, check: Callable[[], None]) -> dict[str, Any] | None:
        """Wait for the answer; None when the link closes without one."""
        received = bytearray()
        while len(received) < HEAD.size or len(received) < HEAD.size + HEAD.unpack_from(received)[0]:
            if len(received) > _MAX_ANSWER_BYTES:
                raise self._death("exception", "an answer without end")
            data = self._receive(self._link, check)
            if not data:
                return None
            received += data
        return self._read_answer(bytes(received[HEAD.size :]))

    def _status(self, check: Callable[[], None]) -> int | None:
        """Wait for the end: the exit code, negative for a signal; None when it was lost."""
        data = self._receive(self._cord, check)
        return int(STATUS.unpack(data)[0]) if len(data) == STATUS.size else None

    def _receive(self, end: socket.socket, check: Callable[[], None]) -> bytes:
        """Wait for some bytes; none when it has closed."""
        while True:
            self._wait(end, select.POLLIN, check)
            try:
                return end.recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def feed(self, descriptor: int, data: memoryview, check: Callable[[], None]) -> None:
        """Write all of ``data`` to a pipe of the child's that does not block; waits while it is full.

        Raises:
            BrokenPipeError: the child does not read any more; its result says why.
            ChildDied: it took nothing for as long as it may.
        """
        self.moved()
        while data:
            self._wait(descriptor, select.POLLOUT, check)
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                continue
            self.moved()

    def moved(self) -> None:
        """The child has come on: its time runs from now."""
        self._since_s = time.monotonic()

    def close(self) -> None:
        """End the child if it lives."""
        self._cord.close()
        self._link.close()

    def _wait(self, file: socket.socket | int, events: int, check: Callable[[], None]) -> None:
        """Return when something happened on ``file`` or after a moment."""
        poll = select.poll()
        poll.register(file, events)
        while True:
            check()
            if poll.poll(_POLL_MS):
                return
            if time.monotonic() - self._since_s > self._limits.wall_s:
                raise self._death("wall", f"more than {self._limits.wall_s:g} s")

    def _why(self, status: int | None) -> tuple[str, str]:
        if status is None:
            return "lost", "with the process it came from"
        if status == OUT_OF_MEMORY:
            return "memory", f"more than {self._limits.memory_bytes} bytes"
        if status >= 0:
            return "exception", f"exit code {status}"
        if status == -signal.SIGXCPU:
            return "cpu", f"more than {self._limits.cpu_s} s"
        if status == -signal.SIGXFSZ:
            return "size", f"more than {self._limits.file_bytes} bytes"
        if status == -signal.SIGKILL:
            return "killed", "from outside"
        return "crash", signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"

    def _death(self, reason: str, detail: str) -> ChildDied:
        self._on_death(reason)
        return ChildDied(reason, detail)

    def _read_answer(self, data: bytes) -> dict[str, Any]:
        """Read what the child said, which a file may have taught it: nothing is believed that is not of its type."""
        try:
            answer = json.loads(data)
            if isinstance(answer.get("result"), dict):
                return dict(answer["result"])
            detail = str(answer.get("detail", ""))[:_MAX_DETAIL_CHARS]
            kind = _KINDS.get(str(answer.get("error")))
            limit = answer.get("limit")
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._death("exception", "an answer that is none") from error
        if kind is StorageFull:
            raise StorageFull(detail, retry_after_s=30)
        if kind is not None:
            raise kind(detail, limit=limit if _is_limit(limit) else None)
        reason = answer.get("fault")
        known = isinstance(reason, str) and reason in {"size", "files", "memory", "disk"}
        raise self._death(reason if known else "exception", detail)


def _is_limit(value: object) -> bool:
    return isinstance(value, int | float | str) or (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )
