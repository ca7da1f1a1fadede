"""A port that takes nobody new: Linux drops what opens a connection, and what is open already goes on."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26  # from Linux' asm-generic/socket.h; Python has no name for it
# Classic BPF, from the TCP header on: load the byte of flags; with SYN in it keep nothing of the packet, else all.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [(0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
)


def bolt(listener: socket.socket) -> None:
    """Let nobody begin a connection any more, for all processes that share the port; elsewhere than on Linux, nothing.

    Who asks now asks again after a second, as for a packet that was lost, and finds the port closed. Closing it without
    this resets whoever connected since the last look, and a small backlog resets those who came at the same moment.
    """
    if not sys.platform.startswith("linux") or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    fprog = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a sandbox that forbids it
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
