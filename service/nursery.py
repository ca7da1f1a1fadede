"""Where child processes come from: one small process of our own that forks them (:mod:`service.forkserver`).

The service itself has threads, a network's weights and secrets, and is not forked. Against multiprocessing's
forkserver: descriptors are handed over instead of names, nothing of the caller's main module is imported again, a child
dies with the call that wanted it, and threads do not reap each other's children.
"""

from __future__ import annotations

import collections
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.child import Child, ChildDied
from service.errors import ChildError, StartError
from service.link import send_frame
from service.sandbox import ChildLimits

_FORKSERVER = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from service.forkserver import main; main(int(sys.argv[2]))"
)
# All that a decoder needs to know of where it runs; addresses and keys stay behind.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
_SEND_TIMEOUT_S = 10.0
_FIRST_CHILD = ChildLimits(memory_bytes=256 * 1024 * 1024, cpu_s=60, wall_s=120.0, file_bytes=0)


class Nursery:
    """Gives children. Safe to use from several threads; the process behind it starts with the first child.

    Attributes:
        killed: how many children gave no answer, by (work, reason); reasons are those of
            :class:`service.child.ChildDied`.
        process: the one behind it, once there is one.
    """

    def __init__(self) -> None:
        """Begin, without a process."""
        self.killed: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self._end: Callable[[], object] = lambda: None

    def start(
        self,
        target: str,
        arguments: dict[str, Any],
        files: Sequence[int],
        limits: ChildLimits,
        *,
        work: str,
        may_exec: bool = False,
    ) -> Child:
        """Start a child.

        Args:
            target: ``module:function``, called in the child with ``arguments``, ``files`` and the link.
            arguments: anything JSON has.
            files: descriptors that the child gets; the caller keeps and closes its own.
            limits: what the child may use.
            work: what it is for, for the counts.
            may_exec: whether it becomes another program, which opens its own files and starts its own threads.

        Raises:
            ChildError: there is no process to fork one.
        """
        job = {"target": target, "arguments": arguments, "limits": limits.__dict__, "may_exec": may_exec}
        data = json.dumps(job).encode()
        try:
            try:
                link, cord = self._fork(data, files)
            except (BrokenPipeError, ConnectionResetError):  # killed with what it had been sent and not read
                link, cord = self._fork(data, files)
        except OSError as error:
            self._count(work, "lost")
            raise ChildError("no child process can be started") from error
        return Child(link, cord, limits, lambda reason: self._count(work, reason))

    def warm_up(self) -> dict[str, Any]:
        """Start the process behind it and have one child; returns what holds for all of them.

        ``isolated`` is whether they are without network, ``landlock`` the version that takes files away, 0 for none.

        Raises:
            StartError: this system does not let us; the message says so.
        """
        try:
            child = self.start("service.forkserver:ping", {}, [], _FIRST_CHILD, work="start")
            try:
                return child.result(lambda: None)
            finally:
                child.close()
        except (ChildError, ChildDied) as error:
            cause = error.__cause__ or error
            raise StartError(
                f"no child process can be started ({cause}); files are decoded in children, which need fork and Unix "
                "sockets, and limits of processes and memory that leave room for them"
            ) from error

    def close(self) -> None:
        """End the process behind it, and with it every child; there will be no other."""
        with self._lock:
            self._closed = True
            self._end()
            self._control = None

    def _count(self, work: str, reason: str) -> None:
        with self._lock:
            self.killed[work, reason] += 1

    def _fork(self, job: bytes, files: Sequence[int]) -> tuple[socket.socket, socket.socket]:
        """Have a child forked and give it its job; returns its link and its cord."""
        link, their_link = socket.socketpair()
        cord, their_cord = socket.socketpair()
        try:
            with their_link, their_cord:
                self._send([their_cord.fileno(), their_link.fileno(), *files])
            send_frame(link, job)
        except BaseException:
            link.close()
            cord.close()
            raise
        return link, cord

    def _send(self, descriptors: list[int]) -> None:
        with self._lock:
            for control in (self._control, None):
                control = control or self._launch()
                try:
                    socket.send_fds(control, [bytes([len(descriptors)])], descriptors)
                    return
                except (BrokenPipeError, ConnectionResetError):  # it was killed: there will be another
                    self._end()
                    self._control = None
        raise BrokenPipeError("the process that forks children ends at once")

    def _launch(self) -> socket.socket:
        if self._closed:
            raise BrokenPipeError("there are no children any more")
        control, theirs = socket.socketpair()
        control.settimeout(_SEND_TIMEOUT_S)
        path = [str(Path(__file__).parents[1]), *(os.path.abspath(entry) for entry in sys.path)]
        environment = {name: value for name in _ENVIRONMENT if (value := os.environ.get(name)) is not None}
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _FORKSERVER, json.dumps(path), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**environment, **_ONE_THREAD},
                )
        except OSError:
            control.close()
            raise
        self._control, self.process = control, process
        self._end = weakref.finalize(self, _finish, control, process)
        return control


def _finish(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
