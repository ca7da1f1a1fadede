"""What a decoder could do to us, as jobs for a child; each takes what :func:`service.decode.decode_in_child` takes."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import service.encode

Arguments = dict[str, Any]


def segfault(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    ctypes.string_at(0)
    return {}


def take_memory(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    hoard = []
    while True:
        hoard.append(bytearray(16 * 1024 * 1024))


def spin(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    while True:
        pass


def sleep(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    while True:
        time.sleep(3_600)


def write_for_ever(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    while True:
        os.write(files[1], bytes(65_536))


def leak_descriptors(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    while True:
        os.dup(files[0])


def fail(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    raise RuntimeError("a secret of the child's")


def be_killed(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def lie(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    """Claims samples that are not on disk."""
    return {"sample_rate": 44_100, "n_channels": 2, "n_samples": 1_000}


def talk_nonsense(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    return {"sample_rate": "44100", "n_channels": True, "n_samples": None}


def answer_without_end(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    link.sendall(b"\xff\xff\xff\x7f")
    while True:
        link.sendall(bytes(65_536))


def answer_no_json(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    link.sendall(b"\x04\0\0\0[[[[")
    return {}


def look_around(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    """What is within reach: what could be opened, reached, started, and seen."""
    found: Arguments = {"environment": sorted(os.environ)}
    for name, attempt in {
        "read": lambda: Path(arguments["path"]).read_bytes(),
        "write": lambda: Path(arguments["path"] + ".new").write_bytes(b"x"),
        "connect": lambda: socket.create_connection(("127.0.0.1", arguments["port"]), 2).close(),
    }.items():
        try:
            attempt()
            found[name] = "yes"
        except OSError as error:
            found[name] = type(error).__name__
    found["open"] = [number for number in range(256) if _is_open(number)]
    return found


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def have_children(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    """Writes the ids of itself and of a child of its own to its file, and waits."""
    try:
        pid = os.fork()
    except BlockingIOError:  # only the superuser gets past the limit
        pid = os.getpid()
    if pid:
        os.write(files[1], f"{os.getpid()} {pid}\n".encode())
    return sleep(arguments, files, link)


def encode_late(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    time.sleep(1.0)
    return service.encode.encode_in_child(arguments, files, link)


def encode_half(arguments: Arguments, files: list[int], link: socket.socket) -> Arguments:
    """Reads a little, then crashes."""
    os.read(files[1], 100_000)
    ctypes.string_at(0)
    return {}
