"""A request's temporary folder: made when the request is worked on, gone when its answer is sent or it fails.

Its process holds a lock on it, which the system lets go when the process dies, however it dies. So what a killed
process left is told from what a neighbour is using, also across containers that share a disk, where process ids repeat.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from service.errors import StorageFull

log = logging.getLogger("winnow.workspace")
PREFIX = "winnow-"
_NAME = re.compile(re.escape(PREFIX) + r"\d+-[a-z0-9_]+")


class Workspace:
    """A folder of one request. Closing it twice is fine; files still being read stay readable on POSIX systems."""

    def __init__(self, min_free_bytes: int = 0) -> None:
        """Make it.

        Args:
            min_free_bytes: that must be free where it is made.

        Raises:
            StorageFull: they are not, or it cannot be made for want of room.
        """
        require_room(min_free_bytes)
        while True:
            try:
                self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise no_room() from error
                raise
            lock = _open_locked(self.path, wait=True)
            if lock is not None:
                self._lock = lock
                return

    def close(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_room(min_free_bytes: int) -> None:
    """Raise StorageFull unless so much is free where temporary files go."""
    if shutil.disk_usage(tempfile.gettempdir()).free < min_free_bytes:
        raise no_room(min_free_bytes)


def no_room(limit: float | None = None) -> StorageFull:
    """The error of a disk that is full; ``limit`` is what would be needed, in bytes."""
    return StorageFull("no room for the request's temporary files", retry_after_s=30, limit=limit)


def remove_leftovers() -> int:
    """Remove the folders of processes that died; returns how many. Called at the start."""
    n_removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not _NAME.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            lock = _open_locked(path, wait=False)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
                n_removed += 1
    if n_removed:
        log.warning("removed %d folders of processes that died", n_removed)
    return n_removed


def _open_locked(path: Path, *, wait: bool) -> int | None:
    """Open a folder and lock it; None when it has gone, or, without waiting, when somebody has it.

    Where the file system knows no locks, a folder of our own is used without, and one that was found is left alone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        if wait:
            return descriptor
        os.close(descriptor)
        return None
    try:
        # Whoever looks for leftovers may have taken it between its making and its lock.
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None
