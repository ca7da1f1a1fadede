"""Take the file system and TCP away from a process (Linux 5.13 and later; elsewhere nothing happens).

A child works on descriptors that it was handed. Should somebody's file turn its decoder into their program, there is no
path it can open: not the file of keys, not another caller's recording.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_VERSION = 1
_PATH_BENEATH = 1
_RULE = struct.Struct("=Qi")
_TCP = 0b11  # bind and connect
# How many kinds of access to files each version knows; a request for more is refused.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FILE_RIGHTS_NOW = 16
_READING = 0b1101  # execute, read a file, list a folder
_WRITE, _TRUNCATE = 1 << 1, 1 << 14


def supported() -> int:
    """Version of Landlock in this kernel; 0 when there is none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def forbid_files() -> bool:
    """From now on no path can be opened and no TCP port reached; what is open stays open. Whether it could be done.

    The process must have given up new privileges before (:func:`service.sandbox.confine` does).
    """
    return _restrict(lambda rights: rights, None)


def forbid_writing(allowed: int) -> bool:
    """Like :func:`forbid_files`, for a program that must find its libraries: reading is free.

    Args:
        allowed: descriptor of the one file that may be opened for writing.
    """
    return _restrict(lambda rights: rights & ~_READING, allowed)


def _restrict(choose: Callable[[int], int], allowed: int | None) -> bool:
    version = supported()
    if not version:
        return False
    rights = choose((1 << _FILE_RIGHTS.get(version, _FILE_RIGHTS_NOW)) - 1)
    wanted = [rights, _TCP] if version >= 4 else [rights]
    attributes = (ctypes.c_uint64 * len(wanted))(*wanted)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return False
    try:
        if allowed is not None:
            rule = _RULE.pack(rights & (_WRITE | _TRUNCATE), allowed)
            if _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) < 0:
                return False
        return _call(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        with contextlib.suppress(OSError):
            os.close(ruleset)


def _call(number: int, *arguments: object) -> int:
    """A system call; negative when it failed."""
    try:
        return int(_LIBRARY.syscall(number, *arguments))
    except (AttributeError, OSError):
        return -1
