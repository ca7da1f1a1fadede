"""The programs about files, shortly: hundreds of mutants instead of thousands, an hour of silence instead of ten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability import bombs
from tests.reliability.fuzz import WALL_S, fuzz
from tests.reliability.mutants import mutant, seeds
from tests.service.conftest import Running, launch
from tests.service.sounds import encode, noise
from tests.service.test_mpeg import SILENT

MIB = 1024 * 1024
FIRST = 1_000_000  # none of the program's


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start services with settings of a test's own."""
    stops: list[Callable[[], None]] = []

    def start_one(**settings: object) -> Running:
        running, stop = launch(**settings)
        stops.append(stop)
        return running

    yield start_one
    for stop in stops:
        stop()


def test_hundreds_of_mutants_each_have_an_answer() -> None:
    outcome = fuzz(350, FIRST)
    assert outcome.strange == {}
    assert outcome.slowest_s < WALL_S
    assert outcome.grown_bytes < 16 * MIB
    assert outcome.descriptors <= 1
    assert outcome.left == []
    # The mutations are neither harmless nor all refused at the door.
    assert outcome.answers["decoded"] > 35
    assert outcome.answers["CorruptAudio"] + outcome.answers["TruncatedAudio"] > 35


def test_a_mutant_is_known_by_its_number() -> None:
    files = seeds()
    assert [mutant(files, number) for number in range(50)] == [mutant(files, number) for number in range(50)]
    assert len({mutant(files, number)[1] for number in range(50)}) > 45


def test_mutants_over_http_are_answers_or_problems(start: Callable[..., Running]) -> None:
    service = start()
    files = seeds()
    for number in range(FIRST, FIRST + 60):
        response = service.separate(mutant(files, number)[1])
        assert response.status_code in {200, 413, 415, 422}, number
    assert service.separate(encode(noise(1_600))).status_code == 200


@pytest.mark.parametrize("name", ["FLAC", "Vorbis", "Opus", "MP3"])
def test_an_hour_of_silence_is_refused_without_decoding_it(
    start: Callable[..., Running], tmp_path: Path, name: str
) -> None:
    """On its own word; the memory of this process, which is the service's, stays what it was."""
    path = tmp_path / "bomb"
    if name == "FLAC":
        bombs.flac(path, 1)
    elif name == "MP3":
        bombs.mp3(path, 1)
    else:
        bombs.ogg(path, 1, name.upper())
    assert path.stat().st_size < 4_000_000
    service = start(max_audio_s=1_800)
    resident_before = _reset_peak()
    trip = bombs.send(service.url, path)
    assert (trip.status, trip.kind) == (413, "/problems/audio-too-long")
    assert _peak() - resident_before < 50 * MIB
    assert service.separate(encode(noise(1_600))).status_code == 200


def test_silence_that_does_not_say_how_long_it_is_is_counted(start: Callable[..., Running], tmp_path: Path) -> None:
    service = start(max_audio_s=30)
    bombs.flac(tmp_path / "quiet", 1, quiet=True)
    assert bombs.send(service.url, tmp_path / "quiet").status == 413
    (tmp_path / "gaps").write_bytes((SILENT * 100 + b"\0") * 100)  # 240 s, no two and a half of them in a row
    assert bombs.send(service.url, tmp_path / "gaps").status == 413
    bombs.ogg(tmp_path / "lie", 0.1, "VORBIS", quiet=True)
    began_s = time.monotonic()
    assert bombs.send(service.url, tmp_path / "lie").status in {200, 413, 415, 422}
    assert time.monotonic() - began_s < bombs.PATIENCE_S


def _reset_peak() -> int:
    """Begin anew with this process's peak of memory; returns what is resident."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
