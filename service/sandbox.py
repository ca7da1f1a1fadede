"""What a child process may use and may do, applied by the child to itself before it reads a byte of anybody's file.

Everything beyond the resource limits is taken where the system has it: Linux knows all of it, and a container's policy
may still refuse a part. ``service.landlock`` takes the file system away.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass, replace

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_CAPABILITY_VERSION_3 = 0x2008_0522
_OPEN_FILES = 32
_LIBRARY = ctypes.CDLL(None, use_errno=True)  # once, and not in every child
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ChildLimits:
    """What one child may use.

    Attributes:
        memory_bytes: address space on top of what the child starts with.
        cpu_s: seconds of processor time.
        wall_s: seconds until it has its result, or between two steps of one that is fed.
        file_bytes: size of a file it writes.
    """

    memory_bytes: int
    cpu_s: int
    wall_s: float
    file_bytes: int

    def with_file(self, n_bytes: int) -> ChildLimits:
        """The same, for a file of ``n_bytes``."""
        return replace(self, file_bytes=n_bytes)


def confine(limits: ChildLimits, *, may_thread: bool = False) -> None:
    """Bind this process to its limits. There is no way back.

    Args:
        limits: the limits.
        may_thread: whether it may start threads and processes (ffmpeg does).
    """
    os.setsid()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 2)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_AS, _address_space() + limits.memory_bytes)
    if not may_thread:
        _limit(resource.RLIMIT_NPROC, 0)
    with contextlib.suppress(OSError):  # when memory ends, the kernel's choice should be the child, not the service
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, b"1000")
        os.close(descriptor)
    with contextlib.suppress(OSError):
        _system("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _system("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up what the superuser may, where this process is one (in a user namespace it is)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    with contextlib.suppress(OSError):
        _system("capset", header, nothing)


def leave_network() -> bool:
    """Move this process, and all it will start, to a network of its own that leads nowhere; whether it could."""
    for flags in (_CLONE_NEWNET, _CLONE_NEWNET | _CLONE_NEWUSER):
        try:
            _system("unshare", flags)
        except OSError:
            continue
        return True
    return False


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    _, ceiling = resource.getrlimit(kind)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    with contextlib.suppress(ValueError, OSError):  # not every system has every limit
        resource.setrlimit(kind, (soft, hard))


def _address_space() -> int:
    """Bytes of address space in use."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * _PAGE_BYTES
    except OSError:
        return 0


def _system(name: str, *arguments: object) -> int:
    """Call the C library; OSError when it says no, or has no such function."""
    function = getattr(_LIBRARY, name, None)
    if function is None:
        raise OSError(f"no {name}")
    result = int(function(*arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
