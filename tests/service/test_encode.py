"""Stems written by a child are the same bytes as written in one piece; a child that dies is an error, never a wait."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.encode import Encoder
from service.errors import Abandoned, ChildError
from service.formats import FORMATS, Encoding
from service.nursery import Nursery
from service.quantise import to_steps
from service.sandbox import ChildLimits
from service.stem_file import StemFile, frames_of
from tests.service.conftest import PATIENCE_S
from tests.service.sounds import noise
from tests.service.test_child import MIB, pid_of, wait_until

GENEROUS = ChildLimits(256 * MIB, 60, PATIENCE_S, 0)
FLAC = Encoding(FORMATS["flac"], "pcm16")


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    nursery = Nursery()
    yield Encoder(nursery, GENEROUS)
    nursery.close()


def blocks_of(samples: np.ndarray, encoding: Encoding, seed: int = 1) -> list[np.ndarray]:
    """Cut [C, T] at random places, some blocks empty, in steps where the encoding has them."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, samples.shape[1] + 1, 6))
    parts = np.split(samples, cuts, axis=1)
    return parts if encoding.pcm_bits is None else [to_steps(part, encoding.pcm_bits) for part in parts]


ENCODINGS = [Encoding(item, subtype) for item in FORMATS.values() for subtype in (item.subtypes or [None])]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda item: f"{item.format.name}-{item.subtype}")
@pytest.mark.parametrize(
    ("sample_rate", "n_channels", "n_samples"), [(44_100, 2, 90_001), (96_000, 1, 70_000), (8_000, 2, 1)]
)
def test_a_child_writes_the_same_bytes(
    encoder: Encoder, tmp_path: Path, encoding: Encoding, sample_rate: int, n_channels: int, n_samples: int
) -> None:
    blocks = blocks_of(noise(n_samples, n_channels, level=0.5), encoding)
    with encoder.open(tmp_path / "child", encoding, sample_rate, n_channels, n_samples) as writer:
        for block in blocks:
            writer.write(block)
    with (tmp_path / "here").open("w+b") as file:
        stem = StemFile(file, encoding, sample_rate, n_channels, n_samples)
        for block in blocks:
            stem.append(frames_of(block, encoding))
        stem.finish()
    assert (tmp_path / "child").read_bytes() == (tmp_path / "here").read_bytes()


def fed(encoder: Encoder, path: Path, check: Callable[[], None] = lambda: None, n_blocks: int = 40) -> None:
    """Write ten megabytes, many times what a pipe holds."""
    with encoder.open(path, FLAC, 48_000, 2, n_blocks * 65_536, check) as writer:
        for _ in range(n_blocks):
            writer.write(to_steps(noise(65_536, 2), 16))


@pytest.mark.parametrize("fault", ["segfault", "encode_half", "be_killed", "fail"])
def test_a_child_that_dies_is_an_error(encoder: Encoder, tmp_path: Path, fault: str) -> None:
    broken = dataclasses.replace(encoder, target=f"tests.service.faults:{fault}")
    with pytest.raises(ChildError):
        fed(broken, tmp_path / "stem.flac")
    fed(encoder, tmp_path / "stem.flac", n_blocks=1)


def test_a_child_that_does_not_read_is_given_up(encoder: Encoder, tmp_path: Path) -> None:
    stuck = dataclasses.replace(
        encoder, target="tests.service.faults:sleep", child=dataclasses.replace(GENEROUS, wall_s=0.5)
    )
    with pytest.raises(ChildError):
        fed(stuck, tmp_path / "stem.flac")
    assert encoder.nursery.killed["encode", "wall"] >= 1


def test_a_call_that_is_given_up_ends_its_encoder(encoder: Encoder, tmp_path: Path) -> None:
    stuck = dataclasses.replace(encoder, target="tests.service.faults:sleep")
    until = time.monotonic() + 0.3

    def check() -> None:
        if time.monotonic() > until:
            raise Abandoned

    with pytest.raises(Abandoned):
        fed(stuck, tmp_path / "stem.flac", check)
    forking = pid_of(encoder.nursery)
    wait_until(lambda: not Path(f"/proc/{forking}/task/{forking}/children").read_text().strip())


def test_whoever_feeds_waits_for_the_codec(encoder: Encoder, tmp_path: Path) -> None:
    """The child begins to read after a second: what it has not read is not piled up in memory."""
    late = dataclasses.replace(encoder, target="tests.service.faults:encode_late")
    fed(encoder, tmp_path / "stem.flac", n_blocks=1)
    started = time.monotonic()
    with late.open(tmp_path / "stem.flac", FLAC, 48_000, 2, 20 * 65_536) as writer:
        for _ in range(20):
            writer.write(np.zeros((2, 65_536), np.int32))
        assert time.monotonic() - started > 0.9


def test_wav_in_process_leaves_no_memory_behind(encoder: Encoder, tmp_path: Path) -> None:
    """What speaks for writing WAV here: as many files as one likes cost nothing."""
    steps = to_steps(noise(48_000, 2), 16)

    def write(n_files: int) -> int:
        for _ in range(n_files):
            with encoder.open(tmp_path / "stem.wav", Encoding(FORMATS["wav"], "pcm16"), 48_000, 2, 48_000) as writer:
                writer.write(steps)
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return 1024 * int(found[1])

    before = write(50)
    assert write(500) - before < 2 * MIB
