"""When a sound is heard: spans of made-up recordings whose onsets are known, however the windows fall."""

from __future__ import annotations

import numpy as np
import pytest

from model.frames import Frames
from model.presence import Presence, PresenceMeter, within
from model.spans import GAP_S, SpanFinder
from model.spec import SignalSpec
from model.spectral import MaskStream, bands

RATE = 16_000
SIGNAL = SignalSpec()


def burst_train(times: list[tuple[float, float]], duration_s: float, pitch: float | None, seed: int = 0) -> np.ndarray:
    """A tone, or noise, at the given times and silence between. Shape: [1, T]."""
    time = np.arange(round(duration_s * RATE)) / RATE
    rng = np.random.default_rng(seed)
    sound = 0.1 * rng.standard_normal(len(time)) if pitch is None else 0.1 * np.sin(2 * np.pi * pitch * time)
    sounding = np.zeros(len(time), bool)
    for begin, end in times:
        sounding |= (time >= begin) & (time < end)
    return (sound * sounding)[None].astype(np.float32)


def spans_of(sound: np.ndarray, rest: np.ndarray, likely: float = 0.9) -> tuple[tuple[float, float], ...]:
    """Spans of a sound in its mixture with a rest, by the ratio mask of what is known."""
    frames = Frames(SIGNAL, RATE)
    known = [bands(SIGNAL, frames.forward(part)[0]) for part in (sound, rest)]
    meter, step, windows = PresenceMeter(SIGNAL, 1), SIGNAL.window_frames - SIGNAL.overlap_frames, [0]

    def mask(window: np.ndarray) -> np.ndarray:
        first = step * windows[0]
        windows[0] += 1
        one, other = (part[:, first : first + window.shape[1]] for part in known)
        ratio = np.zeros((1, *window.shape), np.float32)
        ratio[0, :, : one.shape[1]] = one / (one + other + 1e-9)
        meter.add(window, ratio, np.array([likely]))
        return ratio

    stream = MaskStream(SIGNAL, RATE, 1, 1, mask)
    stream.push(sound + rest)
    stream.finish()
    return within(meter.finish()[0], sound.shape[1] / RATE).spans


@pytest.mark.parametrize("pitch", [440.0, 3_000.0, None])
@pytest.mark.parametrize("duration_s", [4.0, 17.3])
def test_onsets_and_ends_are_found(pitch: float | None, duration_s: float) -> None:
    rng = np.random.default_rng(7)
    begins = np.arange(0.5, duration_s - 0.9, 1.7) + rng.uniform(0, 0.2)
    times = [(float(begin), float(begin) + 0.6) for begin in begins]
    rest = 0.02 * np.random.default_rng(1).standard_normal((1, round(duration_s * RATE))).astype(np.float32)
    found = spans_of(burst_train(times, duration_s, pitch), rest)
    assert len(found) == len(times)
    errors = np.abs(np.array(found) - np.array(times))
    assert np.median(errors[:, 0]) <= 0.04 and errors.max() <= 0.08


def test_a_span_across_windows_is_one() -> None:
    found = spans_of(burst_train([(1.0, 14.0)], 16.0, 500.0), np.zeros((1, 16 * RATE), np.float32))
    assert len(found) == 1 and found[0] == pytest.approx((1.0, 14.0), abs=0.08)


def test_what_is_closer_together_than_the_gap_is_one_span() -> None:
    ticks = [(0.5 + 0.3 * number, 0.55 + 0.3 * number) for number in range(8)]
    found = spans_of(burst_train(ticks, 4.0, 1_000.0), np.zeros((1, 4 * RATE), np.float32))
    assert len(found) == 1 and found[0][1] > 2.6
    apart = [(0.5, 0.8), (0.8 + 2 * GAP_S, 2.0)]
    assert len(spans_of(burst_train(apart, 4.0, 1_000.0), np.zeros((1, 4 * RATE), np.float32))) == 2


def test_a_sound_that_rather_is_not_there_has_no_span() -> None:
    sound = burst_train([(0.5, 1.5)], 3.0, 500.0)
    assert spans_of(sound, np.zeros_like(sound), likely=0.4) == ()


def test_silence_has_no_span() -> None:
    silence = np.zeros((1, 2 * RATE), np.float32)
    assert spans_of(silence, silence) == ()


def test_a_leak_far_below_the_mixture_has_no_span() -> None:
    sound = burst_train([(0.5, 1.5)], 3.0, 500.0)
    assert spans_of(0.05 * sound, burst_train([(0.0, 3.0)], 3.0, 520.0)) == ()


@pytest.mark.parametrize("n_frames", [1, 5, 11, 447, 448, 449, 512, 1_000])
def test_spans_are_in_order_apart_and_inside(n_frames: int) -> None:
    rng = np.random.default_rng(n_frames)
    finder = SpanFinder(SIGNAL, 3)
    step, first = SIGNAL.window_frames - SIGNAL.overlap_frames, 0
    mixture = rng.uniform(size=n_frames)
    stems = mixture * (rng.uniform(size=(3, n_frames)) > 0.7).repeat(1, axis=1)
    while True:
        window = slice(first, first + SIGNAL.window_frames)
        finder.push(mixture[window], stems[:, window])
        if first + SIGNAL.window_frames >= n_frames:
            break
        first += step
    for spans in finder.finish():
        edges = [edge for span in within(Presence(1.0, spans), n_frames * SIGNAL.hop_s).spans for edge in span]
        assert edges == sorted(edges) and len(set(edges)) == len(edges)
        assert not edges or (edges[0] >= 0 and edges[-1] <= n_frames * SIGNAL.hop_s + 1e-9)


def test_an_hour_is_held_in_a_window_of_memory() -> None:
    finder = SpanFinder(SIGNAL, 2)
    rng = np.random.default_rng(0)
    mixture = rng.uniform(0.5, 1.0, SIGNAL.window_frames)
    held = set()
    for _ in range(800):
        finder.push(mixture, np.stack([mixture, np.zeros_like(mixture)]))
        held.add(finder._mixture.nbytes + finder._stems.nbytes + finder._likely.nbytes)
    assert max(held) < 1_000
    assert finder.finish() == [((0.0, pytest.approx(3_584.6, abs=0.5)),), ()]
