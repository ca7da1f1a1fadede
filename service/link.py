"""Messages over a socket or a pipe: four bytes of length, then so many bytes."""

from __future__ import annotations

import socket
import struct
from typing import BinaryIO

HEAD = struct.Struct("<I")


def send_frame(link: socket.socket, data: bytes) -> None:
    """Send one message; blocks until the other end has room."""
    link.sendall(HEAD.pack(len(data)) + data)


def receive_frame(link: socket.socket, max_bytes: int) -> bytes | None:
    """Receive one message; None when the other end closed before one was whole.

    Raises:
        ValueError: it is longer than ``max_bytes``.
    """
    with link.makefile("rb") as file:
        return read_frame(file, max_bytes)


def read_frame(file: BinaryIO, max_bytes: int) -> bytes | None:
    """Read one message from a file, like :func:`receive_frame`."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (length,) = HEAD.unpack(head)
    if length > max_bytes:
        raise ValueError(f"a message of {length} bytes, of at most {max_bytes}")
    body = file.read(length)
    return body if len(body) == length else None
