"""Distillation: its loss, its cache, and a run that was killed is the run that was not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.embedder.text import TextConfig, TextTokenizer, TextTower
from training.distill import Distillation, DistillConfig, distillation_loss, one_cycle, pad, teach

TEXTS = [
    f"{a} {b}" for a in ("dog", "bell", "rain", "the old piano") for b in ("barking", "ringing", "falling", "sounds")
]
SIZES = TextConfig(vocabulary=60, table_features=8, features=8, layers=1, heads=2, max_tokens=8, embedding_features=6)


def fake_encoder(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that depend on the letters alone."""
    counts = np.array([[text.count(letter) + 0.1 for letter in "abeinr"] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@functools.cache
def toy_tokenizer() -> TextTokenizer:
    """Learned once: the trainer breaks ties between equally common pieces by chance, and a run keeps its tokenizer."""
    return TextTokenizer.train(TEXTS, vocabulary=SIZES.vocabulary, max_tokens=SIZES.max_tokens)


def distillation(out: Path, steps: int) -> Distillation:
    torch.manual_seed(0)
    tokenizer = toy_tokenizer()
    config = DistillConfig(steps=steps, batch_tokens=24, learning_rate=0.02, checkpoint_every=5)
    taught = torch.from_numpy(fake_encoder(TEXTS))
    return Distillation(
        config,
        TextTower(SIZES),
        tokenizer,
        TEXTS,
        [2] * len(TEXTS),
        taught,
        out,
        seed=3,
        bf16=False,
        device=torch.device("cpu"),
    )


def test_learns_and_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distillation(tmp_path / "whole", 40)
    whole.run()
    assert np.mean(whole.curve[-8:]) < 0.5 * np.mean(whole.curve[:4])

    killed = distillation(tmp_path / "killed", 40)
    step = Distillation._step

    def dies(self: Distillation) -> float:
        if self.step == 18:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Distillation, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    monkeypatch.undo()
    resumed = distillation(tmp_path / "killed", 40)
    assert resumed.step == 15, "the last checkpoint before the kill"
    resumed.run()
    np.testing.assert_array_equal(resumed.curve, whole.curve)
    for one, other in zip(resumed.tower.parameters(), whole.tower.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    distillation(tmp_path, 5).run()
    tokenizer = toy_tokenizer()
    with pytest.raises(ValueError, match="learned from 16 texts and there are 3"):
        Distillation(
            DistillConfig(),
            TextTower(SIZES),
            tokenizer,
            TEXTS[:3],
            [1] * 3,
            torch.from_numpy(fake_encoder(TEXTS[:3])),
            tmp_path,
            seed=3,
            bf16=False,
            device=torch.device("cpu"),
        )


def test_every_text_is_shown_its_times_in_the_first_epoch(tmp_path: Path) -> None:
    made = distillation(tmp_path, 40)
    shown = np.concatenate([made._batch(step) for step in range(made.per_epoch)])
    assert sorted(shown) == sorted(made.rows)
    lengths = [made.lengths[made._batch(step)] for step in range(made.per_epoch)]
    assert all(int(row.min()) * len(row) <= made.config.batch_tokens for row in lengths)


def test_loss_is_zero_at_the_teacher_and_one_at_a_right_angle() -> None:
    teacher = functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(distillation_loss(teacher, teacher, 1.0)) == pytest.approx(0.0, abs=1e-6)
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(distillation_loss(east, north, 1.0)) == pytest.approx(1.0)
    # A turned teacher keeps every similarity: only the cosine is lost.
    assert float(distillation_loss(-teacher, teacher, 1.0)) == pytest.approx(2.0, abs=1e-6)


def test_vectors_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def encoder(texts: Sequence[str]) -> np.ndarray:
        calls.append(len(texts))
        return fake_encoder(texts)

    first = teach(lambda: encoder, "toy", TEXTS, tmp_path, part=6)
    assert calls == [6, 6, 4]
    again = teach(lambda: pytest.fail("the encoder was made again"), "toy", TEXTS, tmp_path, part=6)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, torch.from_numpy(fake_encoder(TEXTS)), atol=1e-3, rtol=0)
    teach(lambda: encoder, "another", TEXTS, tmp_path, part=6)
    assert len(calls) == 6


def test_one_cycle_rises_and_falls_to_zero() -> None:
    rates = [one_cycle(step, 200) for step in range(200)]
    assert rates[0] < 0.1 and max(rates) > 0.99 and rates[-1] < 0.001
    assert rates.index(max(rates)) < 20


def test_pad() -> None:
    ids, padding = pad([[2, 5, 3], [2, 3]])
    assert ids.tolist() == [[2, 5, 3], [2, 3, 0]]
    assert padding.tolist() == [[False, False, False], [False, False, True]]
