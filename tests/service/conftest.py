from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.engine import Engine
from service.server import Server
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.fakes import FakeNetwork, fake_engine

PATIENCE_S = 120.0  # for what takes a moment, on a machine that is busy with something else


@dataclass
class Running:
    """A service on a real socket, in a thread of this process."""

    url: str
    client: httpx.Client
    engine: Engine
    app: FastAPI

    @property
    def network(self) -> FakeNetwork:
        assert isinstance(self.engine.network, FakeNetwork)
        return self.engine.network

    def separate(self, audio: bytes, prompt: str | list[str] = "dog barking", **fields: str) -> httpx.Response:
        headers = {"Accept": fields.pop("accept")} if "accept" in fields else {}
        return self.client.post(
            "/separate", files={"audio": ("mix.wav", audio)}, data={"prompt": prompt, **fields}, headers=headers
        )


@pytest.fixture(autouse=True)
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All temporary files of a test go here, and none may be left when it ends."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    deadline = time.monotonic() + PATIENCE_S
    while (left := list(folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command line sets logging up for its process, which is the tests' here."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def launch(engine: Engine | None = None, **settings: object) -> tuple[Running, Callable[[], None]]:
    """Start a service around an engine, a fake one unless given; returns it and what stops it."""
    engine = engine or fake_engine()
    chosen = Settings(**settings)
    app = create_app(chosen, engine)
    server = Server.of(app, chosen)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = httpx.Client(base_url=url, timeout=PATIENCE_S)

    def stop() -> None:
        client.close()
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()

    return Running(url, client, engine, app), stop


@pytest.fixture
def start(temp_folder: Path) -> Iterator[Callable[..., Running]]:
    """Start services of a test's own: settings by keyword, and an engine or a fake one."""
    stops: list[Callable[[], None]] = []

    def start_one(engine: Engine | None = None, **settings: object) -> Running:
        running, stop = launch(engine, **settings)
        stops.append(stop)
        return running

    yield start_one
    for stop in stops:
        stop()


@pytest.fixture(scope="module")
def shared_service() -> Iterator[Running]:
    running, stop = launch()
    yield running
    stop()


@pytest.fixture
def service(shared_service: Running) -> Running:
    """A service with default settings that a module's tests share; its model is as new."""
    shared_service.network.reset()
    return shared_service


def required(program: str) -> str:
    """Path of a program; a test without it is skipped, but never where continuous integration runs."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


class RedisServer:
    """A redis-server process of our own on a free port."""

    def __init__(self, program: str, folder: Path) -> None:
        self._command = [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self._command, "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(required("redis-server"), tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle: the one that ships, else a tiny one, which takes a while to export."""
    if (SHIPPED_BUNDLE / "manifest.json").is_file():
        return SHIPPED_BUNDLE
    toy = pytest.importorskip("tests.toy", reason="making a bundle needs the training extra")
    path = tmp_path_factory.mktemp("bundles") / "toy"
    toy.toy_bundle(path)
    return path
