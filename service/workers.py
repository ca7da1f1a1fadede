"""Several processes of the service on one port, for a machine with more cores than one inference keeps busy.

Each is ``winnow serve`` with a share of the cores and its own model, cache, quotas and places; the system deals out
connections among them. One that dies is replaced. This process loads no model and answers nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from service.errors import StartError
from service.settings import Settings
from service.workspace import remove_leftovers

log = logging.getLogger("winnow.workers")
_BACKLOG = 2_048
_POLL_S = 0.1
# A worker that dies so often in so short a time will do so again.
_MAX_DEATHS = 5
_WITHIN_S = 60.0


def require_sense(settings: Settings, n_workers: int, n_cores: int) -> None:
    """Refuse several processes where they only do harm.

    Raises:
        StartError: says which harm.
    """
    if n_workers < 1:
        raise StartError("--workers must be at least 1")
    if n_workers > n_cores:
        raise StartError(f"--workers {n_workers} on {n_cores} cores: they would only take turns")
    if settings.device == "cuda":
        raise StartError(
            "--workers is for CPUs: on CUDA each process would load the model into the same GPU's memory, and windows "
            "of different processes make no batch together; one process serves one GPU"
        )
    if settings.redis_url is None:
        raise StartError("--workers needs WINNOW_REDIS_URL: without it a job is known to one of the processes alone")


class Workers:
    """The processes, and the port that they share."""

    def __init__(self, settings: Settings, n_workers: int, n_cores: int) -> None:
        """Open the port and start them.

        Raises:
            StartError: see :func:`require_sense`.
            OSError: the port cannot be had.
        """
        require_sense(settings, n_workers, n_cores)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
        self.port = int(self._listener.getsockname()[1])
        self._settings = settings
        self._threads = settings.threads or max(n_cores // n_workers, 1)
        self._deaths_s: list[float] = []
        self._signals: list[int] = []
        self._stopping = False
        self._processes = [self._start(number) for number in range(n_workers)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        environment = {**os.environ, "WINNOW_THREADS": str(self._threads), "WINNOW_DEVICE": "cpu"}
        if self._settings.metrics_port:
            environment["WINNOW_METRICS_PORT"] = str(self._settings.metrics_port + number)
        command = [sys.executable, "-m", "service.cli", "serve", "--fd", str(descriptor)]
        command += ["--host", self._settings.host]  # what it may do without keys hangs on it
        return subprocess.Popen(command, env=environment, pass_fds=[descriptor])

    def run(self) -> int:
        """Keep them running until a signal has ended them all; returns the exit code."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            while True:
                self._pass_signals_on()
                codes = [process.poll() for process in self._processes]
                if self._stopping and None not in codes:
                    ended = (0, -signal.SIGTERM, -signal.SIGINT)  # the latter: while it was still loading
                    return int(any(code not in ended for code in codes))
                if not self._stopping and not self._replace(codes):
                    self._stopping = True
                    self._signals.append(signal.SIGTERM)
                time.sleep(_POLL_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._listener.close()
            remove_leftovers()  # of one that was killed, when no other started after it

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _pass_signals_on(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            self._stopping = self._stopping or number != signal.SIGHUP
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(number)
            if self._stopping:
                self._listener.close()  # or the port would stay open after the last worker has closed it

    def _replace(self, codes: list[int | None]) -> bool:
        """Start a new one for each that died; False when that has no end."""
        for number, code in enumerate(codes):
            if code is not None:
                now_s = time.monotonic()
                self._deaths_s = [when_s for when_s in self._deaths_s if now_s - when_s < _WITHIN_S] + [now_s]
                if len(self._deaths_s) > _MAX_DEATHS:
                    log.error("workers die again and again: giving up")
                    return False
                log.error("worker %d ended with %d and is replaced", number, code)
                self._processes[number] = self._start(number)
        return True
