"""Row 10: mutated audio files, each decoded as a request's would be; the service's process feels nothing.

``python -m tests.reliability.fuzz [number of files] [number of the first]``

Every file has a fresh child, as in the service. A child may die; whoever sent the file is told so, and its number is
printed here, with which :func:`tests.reliability.mutants.mutant` makes the file again.
"""

from __future__ import annotations

import collections
import os
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from service.decode import AudioLimits
from service.decoder import Decoder
from service.errors import AudioError
from service.nursery import Nursery
from service.sandbox import ChildLimits
from tests.reliability.mutants import mutant, seeds
from tests.reliability.report import Report

FILES = 20_000
THREADS = 3  # as many as the service works on at once
WALL_S = 60.0
MIB = 1024 * 1024
LIMITS = AudioLimits(8_000, 192_000, 600.0, 8, 256 * MIB)
CHILD = ChildLimits(memory_bytes=512 * MIB, cpu_s=20, wall_s=WALL_S, file_bytes=0)
_SETTLED = 0.1  # share of the files after which this process has all the memory it needs


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        answers: how many had each answer: ``decoded``, or the name of the error.
        strange: what should not be, by the file's number.
        slowest_s: the longest that a file took.
        grown_bytes: resident memory of this process at the end, less that when it had settled.
        descriptors: how many more are open at the end than at the start.
        left: names of files that were left behind.
        killed: children that gave no answer, by reason.
        seconds: that it took in all.
    """

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    strange: dict[int, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    grown_bytes: int = 0
    descriptors: int = 0
    left: list[str] = field(default_factory=list)
    killed: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    seconds: float = 0.0


def fuzz(n_files: int, first: int = 0, progress: bool = False) -> Outcome:
    """Decode so many mutants, from a number on."""
    outcome, files, lock = Outcome(), seeds(), threading.Lock()
    nursery = Nursery()
    nursery.warm_up()
    decoder = Decoder(nursery, LIMITS, CHILD)
    began_s, open_before = time.monotonic(), len(os.listdir("/proc/self/fd"))
    settled_bytes = 0

    def decode(number: int) -> None:
        nonlocal settled_bytes
        began_s = time.monotonic()
        name, data = mutant(files, number)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
            file.write(data)
            try:
                recording = decoder.decode(file, Path(folder), lambda: None)
                answer = "decoded" if recording.n_samples else "nothing"
                left = {path.name for path in Path(folder).iterdir()} - {"recording.f32"}
            except AudioError as error:
                answer, left = type(error).__name__, set()
            except Exception as error:
                answer, left = type(error).__name__, set()
                with lock:
                    outcome.strange[number] = f"{name}: {type(error).__name__}: {error}"
        with lock:
            outcome.answers[answer] += 1
            outcome.left += left
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - began_s)
            done = sum(outcome.answers.values())
            if done == int(_SETTLED * n_files):
                settled_bytes = resident_bytes()
            if progress and done % 1_000 == 0:
                print(f"  {done} files, {resident_bytes() // MIB} MiB, {dict(nursery.killed)}", flush=True)

    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(first, first + n_files, 500):
            list(threads.map(decode, range(start, min(start + 500, first + n_files))))
    outcome.grown_bytes = resident_bytes() - settled_bytes
    outcome.descriptors = len(os.listdir("/proc/self/fd")) - open_before
    outcome.killed = nursery.killed
    outcome.seconds = time.monotonic() - began_s
    nursery.close()
    return outcome


def resident_bytes() -> int:
    """Resident memory of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def run(n_files: int = FILES, first: int = 0) -> int:
    """Print what became of so many; returns the exit code."""
    report = Report(f"fuzz: {n_files} mutated files from number {first}, a child for each")
    outcome = fuzz(n_files, first, progress=True)
    for answer, count in outcome.answers.most_common():
        report.figure(answer, count, "files")
    for (work, reason), count in sorted(outcome.killed.items()):
        report.figure(f"children that died, {work}: {reason}", count)
    for number, what in sorted(outcome.strange.items())[:20]:
        print(f"  number {number}: {what}")
    report.figure("a file", 1_000 * outcome.seconds / n_files, "ms")
    report.at_most("files without an answer of their own", len(outcome.strange), 0)
    report.at_most("the slowest file", outcome.slowest_s, WALL_S, "s")
    report.at_most("memory gained", outcome.grown_bytes / MIB, 16, "MiB")
    report.at_most("descriptors gained", outcome.descriptors, 1)
    report.at_most("files left behind", len(outcome.left), 0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run(*map(int, sys.argv[1:3])))
