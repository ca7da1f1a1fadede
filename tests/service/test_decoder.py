"""A file that breaks its decoder, over HTTP: an answer for it, and the next request is fine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import soundfile

from service.child import ChildDied
from service.decode import AudioLimits
from service.decoder import Decoder
from service.errors import Abandoned, AudioTooLong, StorageFull
from service.nursery import Nursery
from service.sandbox import ChildLimits
from service.settings import Settings
from tests.service.conftest import PATIENCE_S, Running, required
from tests.service.sounds import encode, noise
from tests.service.test_child import MIB, pid_of, wait_until

GOOD = encode(noise(1_600))
LIMITS = AudioLimits(8_000, 192_000, 3_600.0, 8, 2**32)
GENEROUS = ChildLimits(256 * MIB, 60, PATIENCE_S, 0)


def with_fault(service: Running, fault: str, child: ChildLimits | None = None) -> Callable[[], None]:
    """Let a service's files be decoded by a fault; returns what undoes it."""
    shared = service.app.state.service
    before = shared.separator
    decoder = before.decoder
    broken = dataclasses.replace(
        decoder,
        target=f"tests.service.faults:{fault}",
        child=child or decoder.child,
        limits=dataclasses.replace(decoder.limits, max_decoded_bytes=MIB),
    )
    shared.separator = dataclasses.replace(before, decoder=broken)

    def undo() -> None:
        shared.separator = before

    return undo


FAULTS = {
    "segfault": (415, "corrupt-audio", "crash", None),
    "take_memory": (415, "corrupt-audio", "memory", None),
    "spin": (415, "corrupt-audio", "cpu", ChildLimits(64 * MIB, 1, PATIENCE_S, 0)),
    "sleep": (415, "corrupt-audio", "wall", ChildLimits(64 * MIB, 60, 0.5, 0)),
    "write_for_ever": (413, "audio-too-long", "size", None),
    "leak_descriptors": (415, "corrupt-audio", "files", None),
    "fail": (500, "child-lost", "exception", None),
    "be_killed": (500, "child-lost", "killed", None),
    "lie": (500, "child-lost", None, None),
    "talk_nonsense": (500, "child-lost", None, None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_own_request_alone(service: Running, fault: str) -> None:
    status, kind, reason, child = FAULTS[fault]
    killed = service.app.state.service.separator.nursery.killed
    before = killed["decode", reason]
    undo = with_fault(service, fault, child)
    try:
        response = service.separate(GOOD)
    finally:
        undo()
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{kind}")
    assert "secret" not in response.text
    assert killed["decode", reason] == before + (reason is not None)
    if reason is not None:
        assert f'winnow_decoder_killed_total{{why="{reason}",work="decode"}}' in service.client.get("/metrics").text
    assert service.separate(GOOD).status_code == 200


def test_no_file_is_read_in_the_service_itself(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own process opens WAVs to write, and nothing to read."""
    opened = []
    real = soundfile.SoundFile.__init__

    def spy(sound: soundfile.SoundFile, file: object, mode: str = "r", *arguments: object, **options: object) -> None:
        opened.append((mode, options.get("format")))
        real(sound, file, mode, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", spy)
    for name in ("wav", "flac", "ogg", "mp3"):
        assert service.separate(GOOD, format=name).status_code == 200
    assert opened == [("w", "WAV")]


def test_the_client_goes_and_the_child_with_it(service: Running) -> None:
    undo = with_fault(service, "sleep")
    forking = pid_of(service.app.state.service.separator.nursery)
    try:
        with pytest.raises(httpx.TimeoutException):
            service.client.post(
                "/separate", files={"audio": ("a.wav", GOOD)}, data={"prompt": "dog"}, timeout=httpx.Timeout(2.0)
            )
        wait_until(lambda: not _children(forking))
    finally:
        undo()
    assert service.separate(GOOD).status_code == 200


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


def test_the_event_loop_does_not_wait_for_a_child(service: Running) -> None:
    """With the forking process stopped no child starts: requests wait, and the rest of the service answers."""
    forking = pid_of(service.app.state.service.separator.nursery)
    os.kill(forking, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as threads:
            try:
                answer = threads.submit(service.separate, GOOD)
                time.sleep(0.5)
                for _ in range(20):
                    assert service.client.get("/healthz", timeout=PATIENCE_S).status_code == 200
                assert not answer.done()
            finally:
                os.kill(forking, signal.SIGCONT)
            assert answer.result(PATIENCE_S).status_code == 200
    finally:
        os.kill(forking, signal.SIGCONT)


def test_the_forking_process_is_killed_and_nobody_notices(service: Running) -> None:
    nursery = service.app.state.service.separator.nursery
    first = pid_of(nursery)
    os.kill(first, signal.SIGKILL)
    assert service.separate(GOOD).status_code == 200
    assert pid_of(nursery) != first


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def test_a_deadline_ends_a_decoder(nursery: Nursery, tmp_path: Path) -> None:
    decoder = Decoder(nursery, LIMITS, GENEROUS, target="tests.service.faults:spin")
    gone = threading.Event()

    def check() -> None:
        if gone.is_set():
            raise Abandoned

    threading.Timer(0.2, gone.set).start()
    (tmp_path / "a.wav").write_bytes(GOOD)
    with (tmp_path / "a.wav").open("rb") as file, pytest.raises(Abandoned):
        decoder.decode(file, tmp_path, check)


def test_a_full_disk_is_told_from_a_bad_file(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(GOOD)
    arguments = {"limits": LIMITS.__dict__, "transcoded": False}
    with (tmp_path / "a.wav").open("rb") as file, open("/dev/full", "wb") as full:
        child = nursery.start(
            "service.decode:decode_in_child",
            arguments,
            [file.fileno(), full.fileno()],
            GENEROUS.with_file(MIB),
            work="test",
        )
        with contextlib.closing(child), pytest.raises(ChildDied) as died:
            child.result(lambda: None)
    assert died.value.reason == "disk"
    assert isinstance(Decoder(nursery, LIMITS, GENEROUS)._error_of(died.value, GENEROUS), StorageFull)


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("webm", "libopus")])
def test_ffmpeg_stops_at_the_limits(nursery: Nursery, tmp_path: Path, suffix: str, codec: str) -> None:
    target = tmp_path / f"long.{suffix}"
    source = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-t", "60"]
    subprocess.run([required("ffmpeg"), "-v", "error", *source, "-c:a", codec, "-strict", "-2", target], check=True)
    short = dataclasses.replace(LIMITS, max_audio_s=10.0)
    with target.open("rb") as file, pytest.raises(AudioTooLong) as refused:
        Decoder(nursery, short, GENEROUS).decode(file, tmp_path, lambda: None)
    assert refused.value.limit == 10.0
    small = dataclasses.replace(LIMITS, max_decoded_bytes=MIB)
    with target.open("rb") as file, pytest.raises(AudioTooLong) as refused:
        Decoder(nursery, small, GENEROUS).decode(file, tmp_path, lambda: None)
    assert not list(tmp_path.glob("upload*"))


def test_ffmpeg_may_write_its_one_file_alone(nursery: Nursery, tmp_path: Path) -> None:
    """A program in ffmpeg's place tries to write elsewhere, and to reach a port."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho no > {tmp_path}/elsewhere\nfor last; do :; done\necho yes > ${{last#file:}}\n")
    program.chmod(0o755)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    decoder = Decoder(nursery, LIMITS, GENEROUS, ffmpeg=str(program))
    with (tmp_path / "a.m4a").open("rb") as file:
        path = decoder._transcode(file.fileno(), "M4A", tmp_path, lambda: None)
    assert path.read_text() == "yes\n"
    assert not (tmp_path / "elsewhere").exists()


def test_settings_reach_the_children(start) -> None:
    running = start(child_cpu_s=7, child_wall_s=8.0, child_memory_bytes=64 * MIB)
    separator = running.app.state.service.separator
    assert separator.decoder.child == separator.encoder.child == ChildLimits(64 * MIB, 7, 8.0, 0)
    assert running.separate(GOOD).status_code == 200
    assert Settings().child_wall_s > Settings().deadline_s
