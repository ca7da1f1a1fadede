"""The process that children are forked from: small, single-threaded, with the decoders' libraries already loaded.

It is a program of its own, started by :class:`service.nursery.Nursery`, with no secrets in its environment. A request
on its control socket is one byte with file descriptors: the cord, the link, and the job's files. It forks; the child
reads its job from the link and answers there. The cord stays here: its status is written to it when the child ends, and
when the other end closes, for whatever reason, the child is killed. When the control socket closes, everything ends.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
from typing import Any

from service.errors import AudioError, StorageFull
from service.landlock import forbid_files, supported
from service.link import receive_frame, send_frame
from service.sandbox import ChildLimits, confine, drop_capabilities, leave_network

PRELOADED = ("service.decode", "service.encode", "service.ffmpeg")
STATUS = struct.Struct("<i")
OUT_OF_MEMORY = 71  # exit code of a child that cannot even say so
_MAX_FILES = 8
_MAX_JOB_BYTES = 1024 * 1024


def main(control_descriptor: int) -> None:
    """Serve until the control socket closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the service, which ends this process when it is done
    isolated = leave_network()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each child's first collection would copy every page
    with socket.socket(fileno=control_descriptor) as control:
        _Forkserver(control, isolated).serve()


class _Forkserver:
    def __init__(self, control: socket.socket, isolated: bool) -> None:
        self._control = control
        self._isolated = isolated
        self._cords: dict[int, socket.socket] = {}  # by process id
        self._wake, waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif descriptor == self._control.fileno():
                    if not self._take():
                        self._kill(list(self._cords))
                        return
                else:
                    self._poll.unregister(descriptor)
                    self._kill([pid for pid, cord in self._cords.items() if cord.fileno() == descriptor])
            self._reap()

    def _take(self) -> bool:
        """Fork for one request; False when there will be none any more."""
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, _MAX_FILES + 2)
        if not message:
            return False
        if len(descriptors) != message[0]:  # some did not fit into this process's limit: the other end sees it close
            for descriptor in descriptors:
                os.close(descriptor)
            return True
        cord_descriptor, link_descriptor, *files = descriptors
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            _be_child(link_descriptor, files, self._isolated)
        for descriptor in (link_descriptor, *files):
            os.close(descriptor)
        cord = socket.socket(fileno=cord_descriptor)
        if pid < 0:
            cord.close()
            return True
        self._cords[pid] = cord
        self._poll.register(cord, 0)  # asks for its end alone
        return True

    @staticmethod
    def _kill(pids: list[int]) -> None:
        """Kill children, and what they started; their ids are theirs until they are reaped here."""
        for pid in pids:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._cords:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            cord = self._cords.pop(pid)
            with contextlib.suppress(KeyError):
                self._poll.unregister(cord)
            with contextlib.suppress(OSError):
                cord.send(STATUS.pack(os.waitstatus_to_exitcode(status)))
            cord.close()


def _be_child(link_descriptor: int, files: list[int], isolated: bool) -> None:
    """Do one job and end; returns never."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _close_all_but({0, 1, 2, link_descriptor, *files})
        with socket.socket(fileno=link_descriptor) as link:
            code = _do_job(link, files, isolated)
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException as error:
        os.write(2, f"winnow child: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _do_job(link: socket.socket, files: list[int], isolated: bool) -> int:
    job = json.loads(receive_frame(link, _MAX_JOB_BYTES) or b"{}")
    module, _, name = job["target"].partition(":")
    target = getattr(importlib.import_module(module), name)
    confine(ChildLimits(**job["limits"]), may_thread=job["may_exec"])
    if not job["may_exec"]:
        forbid_files()
    drop_capabilities()
    os.dup2(0, 2)  # libraries tell the standard error about every bad frame of a file, as often as the file likes
    try:
        answer: dict[str, Any] = {"result": target(job["arguments"], files, link)}
    except (AudioError, StorageFull) as error:
        answer = {"error": type(error).__name__, "detail": error.detail, "limit": error.limit}
    except MemoryError:
        return OUT_OF_MEMORY
    except OSError as error:
        answer = {"fault": _fault_of(error), "detail": str(error)}
    except Exception as error:
        answer = {"fault": "exception", "detail": f"{type(error).__name__}: {error}"}
    if job["target"].endswith(":ping"):
        answer["result"]["isolated"] = isolated
    send_frame(link, json.dumps(answer).encode())
    return 0


def _fault_of(error: OSError) -> str:
    kinds = {errno.EFBIG: "size", errno.EMFILE: "files", errno.ENOMEM: "memory"}
    return "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else kinds.get(error.errno or 0, "exception")


def _close_all_but(kept: set[int]) -> None:
    low = 0
    for descriptor in [*sorted(kept), 1 << 20]:
        if low < descriptor:  # an empty range would be taken for the whole
            os.closerange(low, descriptor)
        low = descriptor + 1


def ping(arguments: dict[str, Any], files: list[int], link: socket.socket) -> dict[str, Any]:
    """A job that does nothing, to see whether children can be had."""
    return {"landlock": supported()}
