"""Mixtures of mixtures: exact sums, the same for the same step, of recordings that share no sound."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch

from training.prompts import PromptTable
from training.weak_mixing import WeakMixingConfig, WeakSampler

RATE = 8_000


class Noises:
    """Recordings in memory; recording ``i`` names ``sounds[i]`` and every sample of it is told apart by its value."""

    sample_rate = RATE

    def __init__(self, sounds: Sequence[Sequence[str]], *, seconds: float = 0.5) -> None:
        self.sounds, self.length = sounds, round(seconds * RATE)
        self.heard: set[int] = set()

    def __len__(self) -> int:
        return len(self.sounds)

    def caption(self, index: int) -> str:
        return f"recording {index}"

    def phrases(self, index: int) -> Sequence[str]:
        return self.sounds[index]

    def n_samples(self, index: int) -> int:
        return self.length

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        self.heard.add(index)
        whole = np.random.default_rng(index).uniform(0.01, 0.3, self.length).astype(np.float32)
        return whole[start : None if length is None else start + length]


def sounds_of(n_recordings: int, k: int) -> list[list[str]]:
    """Neighbouring recordings share sounds, those further apart do not."""
    return [[f"sound {index + place}" for place in range(k)] for index in range(n_recordings)]


def sampler(recordings: Noises, *, kept: bool = False, seed: int = 1, **config: object) -> WeakSampler:
    settings = WeakMixingConfig(**{"seconds": 0.2, "batch": 3, **config})  # type: ignore[arg-type]
    names = [recordings.caption(index) for index in range(len(recordings))]
    phrases = sorted({phrase for row in recordings.sounds for phrase in row} | set(names))
    return WeakSampler(recordings, PromptTable(phrases, torch.eye(len(phrases))), settings, seed=seed, held=kept)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("mixtures", [2, 3])
def test_a_mixture_is_the_sum_of_its_parts(k: int, mixtures: int) -> None:
    made = sampler(Noises(sounds_of(60, k)), mixtures=mixtures, absent=1)
    for step in range(3):
        batch = made.sample(step)
        assert batch.parts.shape == (3, mixtures, 1600)
        assert np.abs(batch.mixture - batch.parts.sum(axis=1)).max() <= 1e-6
        assert {len(part) for row in batch.phrases for part in row} == {k}
        assert all(all(row) for row in batch.complete)


def test_the_same_step_gives_the_same_batch_and_another_step_or_seed_another() -> None:
    recordings = Noises(sounds_of(40, 2))
    made = sampler(recordings)
    made.sample(3)
    first, again, other = made.sample(7), sampler(recordings).sample(7), made.sample(8)
    assert np.array_equal(first.mixture, again.mixture) and first.phrases == again.phrases
    assert first.captions == again.captions and first.absent == again.absent
    assert not np.array_equal(first.mixture, other.mixture)
    assert not np.array_equal(first.mixture, sampler(recordings, seed=2).sample(7).mixture)


def test_captions_phrases_and_audio_belong_together() -> None:
    recordings = Noises(sounds_of(40, 2), seconds=0.2)
    batch = sampler(recordings, level_db=3.0).sample(0)
    for captions, phrases, parts in zip(batch.captions, batch.phrases, batch.parts, strict=True):
        for name, asked, part in zip(captions, phrases, parts, strict=True):
            index = int(name.split()[1])
            assert list(asked) == recordings.sounds[index]
            gain = part / recordings.audio(index)
            assert gain.std() < 1e-5 and 10 ** (-3 / 20) <= gain.mean() <= 10 ** (3 / 20)


@pytest.mark.parametrize("mixtures", [2, 3])
def test_recordings_with_a_sound_in_common_are_not_added_up(mixtures: int) -> None:
    made = sampler(Noises(sounds_of(30, 3)), mixtures=mixtures, batch=20, absent=2)
    for step in range(5):
        batch = made.sample(step)
        for row, absent in zip(batch.phrases, batch.absent, strict=True):
            for one, other in combinations(row, 2):
                assert not set(one) & set(other)
            assert len(absent) == 2 and not set(absent) & {p for part in row for p in part}


def test_alike_is_told_by_vectors_and_not_by_words() -> None:
    recordings = Noises([["dog"], ["hound"], ["rain"], ["drizzle"]])
    phrases = ["dog", "hound", "rain", "drizzle"]
    near = np.sqrt(1 - 0.9**2)
    vectors = torch.tensor([[1, 0, 0, 0], [0.9, near, 0, 0], [0, 0, 1, 0], [0, 0, 0.9, near]])
    settings = WeakMixingConfig(seconds=0.1, batch=30, absent=1)
    made = WeakSampler(recordings, PromptTable(phrases, vectors), settings, seed=0)
    batch = made.sample(0)
    kinds = {"dog": "animal", "hound": "animal", "rain": "weather", "drizzle": "weather"}
    for row in batch.phrases:
        assert {kinds[part[0]] for part in row} == {"animal", "weather"}


def test_held_recordings_are_never_heard_in_training() -> None:
    recordings = Noises(sounds_of(30, 1))
    made = sampler(recordings, batch=30, held=6, absent=1)
    batches = [made.sample(step) for step in range(4)]
    assert recordings.heard == set(range(24))
    assert {int(p.split()[1]) for batch in batches for row in batch.absent for p in row} <= set(range(24))


def test_held_recordings_are_all_that_is_heard_where_they_are_asked_for() -> None:
    recordings = Noises(sounds_of(30, 1))
    batch = sampler(recordings, kept=True, batch=30, held=6, absent=1).sample(0)
    assert recordings.heard == set(range(24, 30))
    assert {int(name.split()[1]) for row in batch.captions for name in row} == set(range(24, 30))
    assert {int(phrase.split()[1]) for row in batch.absent for phrase in row} <= set(range(24, 30))


def test_short_recordings_lie_somewhere_in_silence() -> None:
    recordings = Noises(sounds_of(30, 1), seconds=0.05)
    parts = sampler(recordings, batch=10).sample(0).parts.reshape(-1, 1600)
    starts = set()
    for part in parts:
        (sounding,) = np.nonzero(part)
        assert len(sounding) == 400 and sounding[-1] - sounding[0] == 399
        starts.add(int(sounding[0]))
    assert len(starts) > 10


def test_of_many_phrases_some_are_asked_in_their_order_and_the_recording_is_incomplete() -> None:
    recordings = Noises([[f"sound {10 * index + place}" for place in range(7)] for index in range(8)])
    batch = sampler(recordings, phrases=3, batch=10).sample(0)
    asked = [part for row in batch.phrases for part in row]
    for part in asked:
        numbers = [int(p.split()[1]) for p in part]
        assert len(numbers) == 3 and numbers == sorted(numbers)
    assert len({tuple(part) for part in asked}) > 10
    assert not any(flag for row in batch.complete for flag in row)


def test_a_phrase_named_twice_is_asked_once_and_the_recording_is_complete() -> None:
    batch = sampler(Noises([["rain", "rain", "wind"], ["dog"], ["cat"]])).sample(0)
    for row, flags in zip(batch.phrases, batch.complete, strict=True):
        assert all(len(set(part)) == len(part) for part in row) and all(flags)


def test_too_few_recordings_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="mixture of 3 needs as many recordings, got 2"):
        sampler(Noises(sounds_of(2, 1)), mixtures=3)


def test_no_recording_is_added_to_itself_even_where_all_are_alike() -> None:
    batch = sampler(Noises([["rain"]] * 5), batch=50).sample(0)
    assert all((row[0] != row[1]).any() for row in batch.parts)


def test_where_every_phrase_is_heard_none_is_called_absent() -> None:
    assert sampler(Noises([["rain"]] * 5), batch=1, absent=1).sample(0).absent == [[]]
    some = sampler(Noises([["rain"], ["rain"], ["dog"]]), batch=20, absent=2).sample(0)
    for present, absent in zip(some.phrases, some.absent, strict=True):
        heard = {phrase for part in present for phrase in part}
        assert absent == ([] if heard == {"rain", "dog"} else ["dog", "dog"])
