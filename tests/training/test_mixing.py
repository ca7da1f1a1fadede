"""The books of a mixture: what is in it, at which level, and that it adds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.dataset import Pack
from training.manifest import read_mixtures, read_phrases
from training.mixing import (
    REFERENCE_RMS,
    MixingConfig,
    SingleSourceSampler,
    known_clips,
    limit_peak,
    render,
    scale_to_level,
)

SAMPLERS = {
    "pairs": MixingConfig(seconds=1.0, batch=4, source_counts=(0.0, 1.0), absent=0.0),
    "shipped": MixingConfig(seconds=1.0, batch=4),
    "crowded": MixingConfig(seconds=0.7, batch=3, source_counts=(0, 0, 0.5, 0.5), absent=0.3, level_db=20.0),
    "absent": MixingConfig(seconds=0.5, batch=4, absent=1.0),
}


def sampler(toy_pack: Pack, toy_sounds: Path, name: str, seed: int = 3) -> SingleSourceSampler:
    return SingleSourceSampler(toy_pack, read_phrases(toy_sounds), SAMPLERS[name], seed=seed)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mixture_is_the_sum_of_its_targets_and_the_rest(toy_pack: Pack, toy_sounds: Path, name: str) -> None:
    for step in range(5):
        batch = sampler(toy_pack, toy_sounds, name).sample(step)
        assert np.abs(batch.mixture - batch.targets.sum(axis=1) - batch.rest).max() <= 1e-6
        assert np.abs(batch.mixture).max() <= 1.0 + 1e-6
        assert np.abs(batch.mixture).max() > 0.01


def test_the_same_step_gives_the_same_batch_and_another_step_another(toy_pack: Pack, toy_sounds: Path) -> None:
    first, again = (sampler(toy_pack, toy_sounds, "shipped").sample(7) for _ in range(2))
    other = sampler(toy_pack, toy_sounds, "shipped").sample(8)
    assert np.array_equal(first.mixture, again.mixture)
    assert first.prompts == again.prompts
    assert not np.array_equal(first.mixture, other.mixture)


def test_interferers_never_share_the_targets_label(
    toy_pack: Pack, toy_sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sampler(toy_pack, toy_sounds, "crowded")
    drawn: list[str] = []
    source = made._source

    def record(label: str, level_db: float, rng: np.random.Generator) -> np.ndarray:
        drawn.append(label)
        return source(label, level_db, rng)

    monkeypatch.setattr(made, "_source", record)
    for step in range(20):
        rng = np.random.default_rng(step)
        drawn.clear()
        _, targets, _, prompts = made._mixture(rng)
        assert len(set(drawn)) == len(drawn) >= 3
        for target, prompt in zip(targets, prompts, strict=True):
            label = prompt.removeprefix("the ").removeprefix("a ")
            assert (label in drawn) == bool(np.any(target))


def test_the_target_of_an_absent_sound_is_silence(toy_pack: Pack, toy_sounds: Path) -> None:
    batch = sampler(toy_pack, toy_sounds, "absent").sample(0)
    assert not batch.targets.any()
    assert np.array_equal(batch.rest, batch.mixture)


def test_training_never_hears_the_validation_split(toy_pack: Pack, toy_sounds: Path) -> None:
    made = sampler(toy_pack, toy_sounds, "pairs")
    heard = {index for indices in made.by_label.values() for index in indices}
    assert heard and all(toy_pack.clips[index].split == "train" for index in heard)


def test_levels_are_rms_over_the_cuts_own_samples() -> None:
    cut = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    scaled = scale_to_level(cut, 6.0)
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(REFERENCE_RMS * 10 ** (6 / 20), rel=1e-5)
    assert not scale_to_level(np.zeros(10, np.float32), 0.0).any()


def test_a_peak_over_one_scales_mixture_and_sources_alike() -> None:
    sources = np.array([[0.9, 0.1], [0.6, -0.2]], dtype=np.float32)
    mixture, scaled = limit_peak(sources)
    assert mixture[0] == pytest.approx(1.0)
    assert scaled == pytest.approx(sources / 1.5)
    quiet, same = limit_peak(sources / 2)
    assert quiet == pytest.approx(sources.sum(axis=0) / 2) and same == pytest.approx(sources / 2)


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000])
def test_rendering_follows_the_list(toy_pack: Pack, toy_sounds: Path, rate: int) -> None:
    line = read_mixtures(toy_sounds / "mixtures-valid-2.jsonl")[0]
    mixture, sources = render(line, toy_pack, rate)
    assert mixture.shape == (rate,) and sources.shape == (2, rate)
    assert np.abs(mixture - sources.sum(axis=0)).max() <= 1e-6
    assert not sources[1, : round(0.1 * rate)].any(), "the second source starts at 0.1 s"
    assert sources[1, round(0.12 * rate) :].any()
    first = sources[0]
    assert np.sqrt(np.mean(first[first != 0] ** 2)) == pytest.approx(REFERENCE_RMS, rel=0.02)


def test_too_few_labels_is_refused_with_both_numbers(toy_pack: Pack, toy_sounds: Path) -> None:
    config = MixingConfig(source_counts=(0, 0, 0, 0, 0, 0, 1.0))
    with pytest.raises(ValueError, match="8 labels"):
        SingleSourceSampler(toy_pack, read_phrases(toy_sounds), config, seed=0)


def test_a_smaller_share_of_the_clips_is_a_part_of_a_larger_one(toy_pack: Pack) -> None:
    shares = [set(known_clips(toy_pack, "separator", share)) for share in (0.0, 0.25, 0.5, 1.0)]
    assert shares[0] == set() and shares[0] < shares[1] < shares[2] < shares[3]
    train = set(toy_pack.indices(split="train"))
    assert shares[3] == train and len(shares[1]) == round(0.25 * len(train))
    assert known_clips(toy_pack, "", 0.5) == known_clips(toy_pack, "", 0.5) == sorted(shares[2])
    assert known_clips(toy_pack, "embedder", 1.0) == []


def test_a_share_of_singles_is_all_that_is_mixed(toy_pack: Pack, toy_sounds: Path) -> None:
    config = MixingConfig(seconds=0.3, batch=2, source_counts=(1.0,), prompts=1, known=0.5)
    made = SingleSourceSampler(toy_pack, read_phrases(toy_sounds), config, seed=0)
    assert sorted(index for group in made.by_label.values() for index in group) == known_clips(toy_pack, "", 0.5)
