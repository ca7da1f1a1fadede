"""``winnow bench``: how fast, how large, how soon. Every figure in the documents comes from here.

``speed`` and ``latency`` run the service's own code path in this process, file to file; ``http``, ``memory`` and
``startup`` drive a real ``winnow serve`` process over a socket.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from service.ask import PromptLimits, read_ask
from service.call import Call
from service.errors import InvalidField
from service.loading import installed_builds, load_engine
from service.separation import Separator
from service.server_process import ServerProcess
from service.settings import Settings
from service.workspace import Workspace

RATE, CHANNELS = 48_000, 2
PROMPTS = ("dog barking", "rain", "a violin", "church bells")
_MB = 1e6


def run(sections: list[str] | None, threads: int, with_hour: bool, json_path: Path | None) -> int:
    """Measure the sections that are named (all when None), print a table, and write JSON where asked.

    Raises:
        InvalidField: a section is unknown.
        StartError: the service cannot start.
    """
    unknown = set(sections or ()) - set(SECTIONS)
    if unknown:
        raise InvalidField(f"unknown sections {sorted(unknown)}; there are {list(SECTIONS)}")
    settings = Settings(threads=threads)
    figures: list[dict[str, Any]] = []

    def report(section: str, name: str, value: float, unit: str) -> None:
        figures.append({"section": section, "name": name, "value": round(value, 3), "unit": unit})
        print(f"{section:<10}{name:<48}{value:>12.2f} {unit}", flush=True)

    machine = about_machine(settings)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        for name in sections or SECTIONS:
            SECTIONS[name](Bench(settings, Path(folder), with_hour, lambda *args, at=name: report(at, *args)))
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    return 0


def about_machine(settings: Settings) -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "runtime": "+".join(installed_builds()),
        "threads": settings.threads,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


class Bench:
    """What the sections share."""

    def __init__(
        self, settings: Settings, folder: Path, with_hour: bool, report: Callable[[str, float, str], None]
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.with_hour = with_hour
        self.report = report

    def recording(self, duration_s: int) -> Path:
        """A 16-bit stereo WAV at 48 kHz: half a minute of tones in noise, over and over."""
        path = self.folder / f"{duration_s}.wav"
        if not path.exists():
            clock = np.arange(min(duration_s, 30) * RATE) / RATE
            rng = np.random.default_rng(0)
            sound = 0.05 * rng.standard_normal((len(clock), CHANNELS)) + 0.2 * np.sin(
                2 * np.pi * 440 * clock * (1 + 0.1 * np.sin(clock))
            ).reshape(-1, 1)
            with soundfile.SoundFile(path, "w", RATE, CHANNELS, subtype="PCM_16") as file:
                for _ in range(0, duration_s, 30):
                    file.write(sound.astype(np.float32))
        return path

    def separate(self, separator: Separator, duration_s: int, prompts: tuple[str, ...]) -> float:
        """Seconds that a separation takes, file to file."""
        ask = read_ask({"prompt": list(prompts)}, None, PromptLimits(8, 256))
        with self.recording(duration_s).open("rb") as file, Workspace() as workspace:
            started = time.perf_counter()
            separator.run(file, ask, workspace.path, Call())
            return time.perf_counter() - started

    def separator(self) -> Separator:
        """The engine in this process."""
        return Separator.of(load_engine(self.settings), self.settings)


def _speed(bench: Bench) -> None:
    separator = bench.separator()
    for n_prompts in (1, 2, 4, 8):
        prompts = (PROMPTS * 2)[:n_prompts]
        best = min(bench.separate(separator, 60, prompts) for _ in range(3))
        bench.report(f"60 s of 48 kHz stereo, {n_prompts} prompts, best of 3", 60 / best, "s of audio per s")
    separator.engine.close()


def _latency(bench: Bench) -> None:
    separator = bench.separator()
    first = bench.separate(separator, 10, PROMPTS[:1])
    times = sorted(bench.separate(separator, 10, PROMPTS[:1]) for _ in range(20))
    bench.report("10 s clip, first request", 1_000 * first, "ms")
    bench.report("10 s clip, median of 20", 1_000 * statistics.median(times), "ms")
    bench.report("10 s clip, slowest of 20", 1_000 * times[-1], "ms")
    separator.engine.close()


def _http(bench: Bench) -> None:
    with ServerProcess(bench.settings) as server:
        trips = [server.separate(bench.recording(10), PROMPTS[0]) for _ in range(21)][1:]
        bench.report("10 s clip over HTTP, to the first byte, median", _median([t.first_byte_s for t in trips]), "ms")
        bench.report("10 s clip over HTTP, to the last byte, median", _median([t.last_byte_s for t in trips]), "ms")
        bench.report(
            "10 s clip over HTTP, first byte to last, median",
            _median([t.last_byte_s - t.first_byte_s for t in trips]),
            "ms",
        )


def _median(seconds: list[float]) -> float:
    return 1_000 * statistics.median(seconds)


def _memory(bench: Bench) -> None:
    with ServerProcess(bench.settings) as server:
        idle = server.memory_bytes()
        bench.report("idle", idle / _MB, "MB")
        for duration_s, name in ((10, "10 s"), (600, "10 min"), (3_600, "1 h")):
            if duration_s == 3_600 and not bench.with_hour:
                continue
            path = bench.recording(duration_s)
            server.reset_peak()
            trip = server.separate(path, PROMPTS[0])
            bench.report(f"{name} of 48 kHz stereo, peak above idle", (server.peak_bytes() - idle) / _MB, "MB")
            bench.report(f"{name} of 48 kHz stereo, request to last byte", trip.last_byte_s, "s")


def _startup(bench: Bench) -> None:
    times = []
    for _ in range(3):
        with ServerProcess(bench.settings) as server:
            times.append(server.start_s)
    bench.report("process start to ready, median of 3", statistics.median(times), "s")


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "speed": _speed,
    "latency": _latency,
    "http": _http,
    "memory": _memory,
    "startup": _startup,
}
