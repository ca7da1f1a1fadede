"""``winnow bench --device``: windows a second by batch, convolution search, precision and kind of buffers.

What an operator's GPU does best is measured there and not believed. The choices that a CPU has, batch and precision,
run on it as well, so that this program is tested where there is no GPU.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.batch import BUCKETS, Features
from model.bundle import Bundle, BundleError
from model.device import CONV_ALGORITHMS, CUDA, CudaOptions, OutOfMemory
from model.runtime import Runtime
from service.bench import about_machine
from service.errors import StartError
from service.half_precision import convert
from service.loading import check_builds, installed_builds, stop_telemetry
from service.settings import Settings

MOST_LOSS_DB = 0.1
PRECISIONS = ("fp32", "fp16")
_PROMPT = "dog barking"
_RATE = 16_000
_RUNS = 3  # each of a share of the seconds; their median counts


@dataclass(frozen=True)
class Choice:
    """How the separator is run."""

    precision: str
    algorithm: str
    bound: bool

    def open(self, bundle: Bundle, threads: int, device: str, half: Path) -> Runtime:
        """Load it so."""
        options = CudaOptions(conv_algorithm=self.algorithm, io_binding=self.bound)
        return Runtime(bundle, threads, device, options, half if self.precision == "fp16" else None)


@dataclass(frozen=True)
class Row:
    """A line of the table; a rate of 0 where the batch did not fit into memory."""

    batch: int
    algorithm: str
    precision: str
    io_binding: bool
    windows_per_s: float
    first_run_s: float


def compare(
    device: Literal["auto", "cpu", "cuda"],
    seconds: float,
    json_path: Path | None,
    threads: int,
    batches: Sequence[int] = BUCKETS,
) -> int:
    """Measure every choice for so many seconds each, print the table, and write JSON where asked.

    Raises:
        StartError: there is no such device, or the bundle cannot be used.
    """
    check_builds(installed_builds())
    stop_telemetry()
    settings = Settings(device=device, threads=threads)
    machine = about_machine(settings)
    try:
        bundle = Bundle.open(settings.model)
        plain = Runtime(bundle, settings.threads, device)
    except (BundleError, OSError, ValueError, RuntimeError) as error:
        raise StartError(f"bench on device {device!r}: {error}") from error
    machine |= {"provider": plain.provider, "bundle": bundle.version}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"{'batch':>5}  {'search':<10} {'precision':<9} {'binding':<7} {'windows/s':>10} {'first run, ms':>14}")
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        half = convert(bundle.file("separator.onnx"), Path(folder))
        rows = []
        for choice in choices(plain.provider):
            for row in measure(choice.open(bundle, settings.threads, device, half), choice, batches, seconds):
                rows.append(row)
                print(
                    f"{row.batch:>5}  {row.algorithm:<10} {row.precision:<9} {'yes' if row.io_binding else 'no':<7} "
                    f"{row.windows_per_s:>10.2f} {1_000 * row.first_run_s:>14.1f}",
                    flush=True,
                )
        loss_db = loss(plain, Runtime(bundle, settings.threads, device, separator=half))
    within = loss_db <= MOST_LOSS_DB
    print(f"fp16 against fp32: {loss_db:.4f} dB of SI-SDR lost, {'within' if within else 'over'} {MOST_LOSS_DB} dB")
    fits = [row for row in rows if within or row.precision == "fp32"]
    best = max(fits, key=lambda row: row.windows_per_s)
    print(
        f"fastest of what may be used: batch {best.batch}, {best.algorithm}, {best.precision}, bound {best.io_binding}"
    )
    if json_path is not None:
        figures: dict[str, Any] = {
            "machine": machine,
            "rows": [asdict(row) for row in rows],
            "fp16_loss_db": min(loss_db, 1e9),
        }
        json_path.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def choices(provider: str) -> Iterator[Choice]:
    """What there is to choose from; searches of convolutions are CUDA's alone."""
    algorithms = CONV_ALGORITHMS if provider == CUDA else ("none",)
    for precision, algorithm, bound in itertools.product(PRECISIONS, algorithms, (False, True)):
        yield Choice(precision, algorithm, bound)


def measure(runtime: Runtime, choice: Choice, batches: Sequence[int], seconds: float) -> Iterator[Row]:
    """A row for each batch; a larger one than memory holds ends it."""
    signal, embedding = runtime.bundle.signal, runtime.embed([_PROMPT])
    window = np.random.default_rng(0).uniform(0, 0.1, (signal.n_bands, signal.window_frames)).astype(np.float32)
    for batch in batches:
        windows = [(window, embedding)] * batch
        try:
            began_s = time.perf_counter()
            runtime.masks(windows)
            first_s = time.perf_counter() - began_s
            rate = statistics.median(_rate(runtime, windows, seconds / _RUNS) for _ in range(_RUNS))
        except OutOfMemory:
            yield Row(batch, choice.algorithm, choice.precision, choice.bound, 0.0, 0.0)
            return
        yield Row(batch, choice.algorithm, choice.precision, choice.bound, rate, first_s)


def _rate(runtime: Runtime, windows: list[tuple[np.ndarray, Features]], seconds: float) -> float:
    began_s, n_runs = time.perf_counter(), 0
    while (passed_s := time.perf_counter() - began_s) < seconds or not n_runs:
        runtime.masks(windows)
        n_runs += 1
    return n_runs * len(windows) / passed_s


def loss(plain: Runtime, half: Runtime) -> float:
    """Decibels of SI-SDR that the worst stem loses; infinite where one is not finite.

    The mixtures are of a tone that comes and goes and of noise at three levels; the tone is the target.
    """
    rng = np.random.default_rng(0)
    clock = np.arange(10 * _RATE) / _RATE
    target = (0.2 * np.sin(2 * np.pi * 440 * clock) * (np.sin(np.pi * clock) > 0)).astype(np.float32)
    losses = []
    for level in (0.01, 0.05, 0.2):
        mixture = target + level * rng.standard_normal(len(target)).astype(np.float32)
        try:
            ratios = [si_sdr_db(one.separate(mixture[None], _RATE, [_PROMPT])[0, 0], target) for one in (plain, half)]
        except FloatingPointError:
            return float("inf")
        losses.append(ratios[0] - ratios[1])
    return max(losses)


def si_sdr_db(estimate: np.ndarray, target: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio of waveforms [T] (Le Roux et al., 2019), means removed."""
    estimate, target = (np.asarray(wave, np.float64) - np.mean(wave, dtype=np.float64) for wave in (estimate, target))
    aimed = (estimate @ target) / (target @ target) * target
    return float(10 * np.log10((aimed @ aimed) / ((estimate - aimed) @ (estimate - aimed))))
