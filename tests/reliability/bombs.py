"""Row 10: hours of silence in small files are refused at once, and cost the service's process nothing.

``python -m tests.reliability.bombs`` sends an hour and ten hours in FLAC, Vorbis, Opus and MP3 to a real service that
takes ten minutes, then ten hours to one that takes an hour, as it does unless told otherwise. ``quiet`` ones do not say
how long they are, or lie: they are decoded up to the limit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import soundfile

from service.server_process import ServerProcess
from service.settings import Settings
from tests.reliability.report import Report
from tests.service.ogg_pages import longer, pages, sealed
from tests.service.sounds import encode, noise, silence

MIB = 1024 * 1024
BAR_S = 3.0
BAR_MIB = 50.0
LIMIT_S = 600.0
PATIENCE_S = 600.0
_SEED_S = 60
# MPEG-2, layer 3, 8 kbit/s, 24 kHz, joint stereo; side information and data of zeros are silence.
_MP3_FRAME = bytes([0xFF, 0xF3, 0x14, 0x44]) + bytes(20)
_MP3_FRAME_S = 576 / 24_000


@dataclass(frozen=True)
class Trip:
    """A file's way: what was answered, after how many seconds, and what the service's process took beside."""

    status: int
    kind: str
    seconds: float


def flac(path: Path, hours: float, quiet: bool = False) -> None:
    """Mono at 16 kHz; when quiet, its header leaves the length open, as that of one written into a pipe does."""
    block = np.zeros(65_536, np.int16)
    left = int(hours * 3_600 * 16_000)
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        while left > 0:
            file.write(block[:left])
            left -= len(block)
    if quiet:
        with path.open("r+b") as file:
            file.seek(21)
            high = file.read(1)[0] & 0xF0
            file.seek(21)
            file.write(bytes([high, 0, 0, 0, 0]))


def ogg(path: Path, hours: float, codec: str, quiet: bool = False) -> None:
    """Stereo, pages of a minute again and again; when quiet, the last page says that a second was all."""
    rate = 44_100 if codec == "VORBIS" else 48_000
    seed = encode(silence(_SEED_S * rate, 2), rate, "OGG", codec)
    with path.open("wb") as file:
        held = b""
        for page in longer(seed, int(hours * 3_600 / (_SEED_S - 2)) + 1):
            file.write(held)
            held = page
        file.write(sealed(held[:6] + rate.to_bytes(8, "little") + held[14:]) if quiet else held)
    assert len(pages(seed)) > 3


def mp3(path: Path, hours: float) -> None:
    """Stereo at 24 kHz, the least bits there are, no tag of an encoder: always quiet."""
    left = int(hours * 3_600 / _MP3_FRAME_S) + 1
    with path.open("wb") as file:
        while left > 0:
            file.write(_MP3_FRAME * min(left, 10_000))
            left -= 10_000


def make(folder: Path, hours: float) -> Iterator[tuple[str, Path]]:
    """Files of so many hours, with a name for each."""
    for name, write in {
        "FLAC": lambda path: flac(path, hours),
        "Vorbis": lambda path: ogg(path, hours, "VORBIS"),
        "Opus": lambda path: ogg(path, hours, "OPUS"),
        "MP3": lambda path: mp3(path, hours),
    }.items():
        path = folder / f"{name.lower()}-{hours:g}"
        write(path)
        yield name, path


def send(url: str, path: Path) -> Trip:
    """Send a file; the time runs from its first byte to the end of the answer."""
    with path.open("rb") as file:
        began_s = time.perf_counter()
        response = httpx.post(
            f"{url}/separate", files={"audio": ("a", file)}, data={"prompt": "dog"}, timeout=PATIENCE_S
        )
        seconds = time.perf_counter() - began_s
    kind = "" if response.status_code == 200 else str(response.json()["type"])
    return Trip(response.status_code, kind, seconds)


def _measure(report: Report, server: ServerProcess, name: str, path: Path) -> None:
    before = server.memory_bytes()
    server.reset_peak()
    trip = send(f"http://127.0.0.1:{server.port}", path)
    grown_mib = (server.peak_bytes() - before) / MIB
    refused = trip.status == 413 and trip.kind == "/problems/audio-too-long"
    report.figure(f"{name}: the file", path.stat().st_size / 1e6, "MB")
    report.at_least(f"{name}: refused with 413", float(refused), 1)
    report.at_most(f"{name}: time", trip.seconds, BAR_S, "s")
    report.at_most(f"{name}: memory of the service", grown_mib, BAR_MIB, "MiB")


def run() -> int:
    """Send them all; returns the exit code."""
    report = Report("bombs: silence in small files")
    with tempfile.TemporaryDirectory() as folder:
        bombs = {hours: list(make(Path(folder), hours)) for hours in (1, 10)}
        quiet = Path(folder, "quiet")
        for limit_s, chosen in ((LIMIT_S, (1, 10)), (3_600.0, (10,))):
            os.environ["WINNOW_MAX_AUDIO_S"] = str(limit_s)
            with ServerProcess(Settings(threads=2)) as server:
                url = f"http://127.0.0.1:{server.port}"
                Path(folder, "good").write_bytes(encode(noise(16_000)))
                for _ in range(5):  # so that the service has all that it needs for any request
                    send(url, Path(folder, "good"))
                for hours in chosen:
                    for name, path in bombs[hours]:
                        _measure(report, server, f"limit {limit_s:g} s, {hours} h of {name}", path)
                if limit_s == LIMIT_S:
                    for name, codec in (("Vorbis", "VORBIS"), ("Opus", "OPUS")):
                        ogg(quiet, 1, codec, quiet=True)
                        trip = send(url, quiet)
                        report.figure(
                            f"1 h of {name} that says it is a second: answer {trip.status}", trip.seconds, "s"
                        )
                    flac(quiet, 1, quiet=True)
                    _measure(report, server, f"limit {limit_s:g} s, 1 h of quiet FLAC", quiet)
                good = send(url, Path(folder, "good"))
                report.at_least("a good file afterwards: answered with 200", float(good.status == 200), 1)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run())
