"""The process that listens: uvicorn's server, which says good-bye properly.

On SIGTERM uvicorn closes its port at once and ends with the signal's code. Here the service first says that it is not
ready any more and refuses new work, so that a proxy learns of it; then the port closes and what is in flight may end;
then what is left is told 503. A second signal skips the waiting. When the engine will never answer again the process
says so for a while, and ends by itself with a code that is not 0: its supervisor starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.admission import Admission
from service.app import create_app
from service.connection import Connection
from service.door import bolt
from service.engine import Engine
from service.envelope import Record, write_line
from service.routes import Service
from service.settings import Settings, listed

log = logging.getLogger("winnow.server")
_LAST_WORDS_S = 1.0
_DOOR_S = 0.5
_STUCK_S = 10.0  # that a probe may see why, and that a batch which comes to its end after all is forgiven


def serve(settings: Settings, engine: Engine, listener: int | None = None) -> int:
    """Serve an engine until a signal ends it; nothing of it runs and no file of a request is left when this returns.

    Returns the exit code: 0, or 1 where the engine would not answer any more.

    Args:
        settings: where to listen, and all else.
        engine: stays the caller's to close.
        listener: file descriptor of a socket that listens already, shared with other processes.
    """
    app = create_app(settings, engine)
    service: Service = app.state.service
    if service.separator is not None:
        service.separator.warm_up()  # said here, what cannot start is one line; the event loop would say it in forty
    server = Server.of(app, settings)
    server.run(None if listener is None else [socket.socket(fileno=listener)])
    if not service.admission.wait(_LAST_WORDS_S):
        log.warning("work that does not stop is left behind")
    return int(server.failed)


class Server(uvicorn.Server):
    """A server of one application.

    Attributes:
        on_hangup: called from the event loop after SIGHUP.
        stuck: whether the engine will never answer again.
        failed: whether that is why it has ended.
        holding: whether there is work that nobody else can do, and whose callers have to be able to ask for it.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, admission: Admission, on_end: Callable[[Record], None] = write_line
    ) -> None:
        """Make it; ``admission`` is the application's, ``on_end`` takes records of what never reached it."""
        connection = functools.partial(Connection, head_s=settings.head_s, on_end=on_end)
        proxies = listed(settings.trusted_proxies)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=connection,  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",  # the same, whatever else is installed (Ray brings uvloop)
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
            )
        )
        self.on_hangup: Callable[[], None] = lambda: None
        self.holding: Callable[[], bool] = lambda: False
        self.stuck: Callable[[], bool] = lambda: False
        self.failed = False
        self._admission = admission
        self._pre_stop_s = settings.pre_stop_s
        self._grace_s = settings.grace_s
        self._drain_since_s: float | None = None
        self._stuck_since_s: float | None = None
        self._hung_up = False
        self._at_once = False

    @classmethod
    def of(cls, app: FastAPI, settings: Settings) -> Server:
        """Make the server of an application of ours."""
        service: Service = app.state.service
        server = cls(app, settings, service.admission, app.state.telemetry.ended)
        if service.keys is not None:
            server.on_hangup = functools.partial(service.keys.refresh, force=True)
        server.stuck = lambda: service.separator is not None and service.separator.engine.stuck
        if service.jobs is not None:
            server.holding = service.jobs.holding
        return server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; the event loop acts on it."""
        if sig == getattr(signal, "SIGHUP", None):
            self._hung_up = True
        elif self._drain_since_s is not None:
            self._at_once = True
        else:
            self._drain_since_s = time.monotonic()
            if sig == signal.SIGINT:
                self._pre_stop_s = 0.0  # a person at the keyboard, and no proxy

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals while serving. uvicorn would raise them again at the end, and the process die of them."""
        with super().capture_signals():
            try:
                hangup = signal.signal(signal.SIGHUP, self.handle_exit)
            except (ValueError, AttributeError):  # not the main thread, or no such signal
                yield
                return
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, hangup)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to leave the main loop."""
        if self._hung_up:
            self._hung_up = False
            self.on_hangup()
        self._watch_engine()
        if self._drain_since_s is not None:
            if not self._admission.leaving:
                log.info("draining: %d requests inside", self._admission.inside)
            self._admission.leaving = True
            waited_s = time.monotonic() - self._drain_since_s - self._pre_stop_s
            # Until then a proxy may not have heard of it, and cannot send elsewhere a body that it has passed on.
            self._admission.draining = waited_s >= 0
            if self._at_once or waited_s >= self._grace_s or (waited_s >= 0 and not self.holding()):
                self.should_exit = True
        return await super().on_tick(counter)

    def _watch_engine(self) -> None:
        if not self.stuck():
            self._stuck_since_s = None
            return
        if self._stuck_since_s is None:
            self._stuck_since_s = time.monotonic()
            log.critical("the engine does not answer; without a change this process ends in %g s", _STUCK_S)
        if time.monotonic() - self._stuck_since_s >= _STUCK_S:
            self.failed = self._at_once = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, let requests end, give up the rest."""
        self._admission.leaving = self._admission.draining = True
        await self._take_those_at_the_door()
        ending = asyncio.create_task(self._give_up_in_time())
        await super().shutdown(sockets)
        ending.cancel()

    async def _take_those_at_the_door(self) -> None:
        """Accept who is connected already: a closed port resets them, and they would not know whether to repeat."""
        listeners = [listener for server in self.servers for listener in server.sockets]
        if self._drain_since_s is not None:  # with the signal every process that shares the port leaves
            for listener in listeners:
                with socket.socket(fileno=os.dup(listener.fileno())) as same:
                    bolt(same)
        until_s = time.monotonic() + _DOOR_S
        await asyncio.sleep(_DOOR_S / 10)
        while select.select(listeners, [], [], 0)[0] and time.monotonic() < until_s:
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()  # before anything else runs: at the last look nobody was there

    async def _give_up_in_time(self) -> None:
        until_s = time.monotonic() + self._grace_s
        if self._drain_since_s is not None:  # what was held for jobs is of the same grace
            until_s = min(until_s, self._drain_since_s + self._pre_stop_s + self._grace_s)
        while time.monotonic() < until_s and not self._at_once:
            await asyncio.sleep(0.05)
        log.warning("%d requests are given up", self._admission.inside)
        self._admission.give_up()
        until_s = time.monotonic() + _LAST_WORDS_S
        while self.server_state.tasks and time.monotonic() < until_s:
            await asyncio.sleep(0.02)
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0.05)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
