"""The contrastive losses against closed forms, and what must not move them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from training.contrastive import accuracy, bimodal_contrastive, released_contrastive


def unit(*shape: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def nothing(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, columns, dtype=torch.bool)


def test_the_released_form_is_the_cross_entropy_of_each_place_summed() -> None:
    audio, text = unit(2, 4, 8, seed=0), unit(2, 4, 8, seed=1)
    expected = sum(functional.cross_entropy(7.0 * a @ t.t(), torch.arange(4)) for a, t in zip(audio, text, strict=True))
    assert float(released_contrastive(audio, text, scale=7.0)) == pytest.approx(float(expected), rel=1e-5)


def test_the_released_form_takes_equal_prompts_for_negatives() -> None:
    audio = text = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert float(released_contrastive(audio, text, scale=50.0)) == pytest.approx(math.log(2.0), abs=1e-5)


def test_one_positive_each_is_the_mean_of_both_directions() -> None:
    audio, text = unit(5, 8, seed=2), unit(5, 8, seed=3)
    logits = 9.0 * audio @ text.t()
    own = torch.arange(5)
    expected = 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.t(), own))
    loss = bimodal_contrastive(audio, text, positive=torch.eye(5).bool(), ignored=nothing(5, 5), scale=9.0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_many_positives_share_a_row_and_right_angles_give_the_closed_form() -> None:
    # Two sounds of one prompt and one of another, texts at right angles.
    audio, text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.eye(2)
    positive = torch.tensor([[1, 0], [1, 0], [0, 1]]).bool()
    loss = bimodal_contrastive(audio, text, positive=positive, ignored=nothing(3, 2), scale=2.0)
    hit = math.log(math.exp(2) + 1) - 2
    to_audio = (math.log(2 * math.exp(2) + 1) - 2 + math.log(math.exp(2) + 2) - 2) / 2
    assert float(loss) == pytest.approx(0.5 * (hit + to_audio), rel=1e-5)


def test_it_is_symmetric_in_sounds_and_texts() -> None:
    one, other = unit(6, 8, seed=4), unit(4, 8, seed=5)
    positive = torch.rand(6, 4, generator=torch.Generator().manual_seed(6)) > 0.6
    forward = bimodal_contrastive(one, other, positive=positive, ignored=nothing(6, 4), scale=3.0)
    back = bimodal_contrastive(other, one, positive=positive.t(), ignored=nothing(4, 6), scale=3.0)
    assert float(forward) == pytest.approx(float(back), rel=1e-6)


def test_the_order_of_sounds_and_texts_does_not_matter() -> None:
    audio, text = unit(6, 8, seed=7), unit(5, 8, seed=8)
    positive = torch.rand(6, 5, generator=torch.Generator().manual_seed(9)) > 0.7
    ignored = ~positive & (torch.rand(6, 5, generator=torch.Generator().manual_seed(10)) > 0.7)
    rows, columns = torch.randperm(6), torch.randperm(5)
    loss = bimodal_contrastive(audio, text, positive=positive, ignored=ignored, scale=4.0)
    moved = bimodal_contrastive(
        audio[rows],
        text[columns],
        positive=positive[rows][:, columns],
        ignored=ignored[rows][:, columns],
        scale=4.0,
    )
    assert float(loss) == pytest.approx(float(moved), rel=1e-5)


def test_what_is_ignored_has_no_influence_at_all() -> None:
    audio, text = unit(4, 8, seed=11), unit(6, 8, seed=12)
    positive = torch.eye(4, 6).bool()
    ignored = nothing(4, 6)
    ignored[:, 4:] = True
    other = text.clone()
    other[4:] = unit(2, 8, seed=13)
    loss = bimodal_contrastive(audio, text, positive=positive, ignored=ignored, scale=5.0)
    changed = bimodal_contrastive(audio, other, positive=positive, ignored=ignored, scale=5.0)
    without = bimodal_contrastive(audio, text[:, :][:4], positive=positive[:, :4], ignored=ignored[:, :4], scale=5.0)
    assert float(loss) == float(changed) == pytest.approx(float(without), abs=1e-6)


def test_one_ignored_pair_takes_no_gradient() -> None:
    audio, text = unit(2, 8, seed=14).requires_grad_(True), unit(3, 8, seed=15).requires_grad_(True)
    ignored = nothing(2, 3)
    ignored[:, 2] = True
    bimodal_contrastive(audio, text, positive=torch.eye(2, 3).bool(), ignored=ignored, scale=5.0).backward()
    assert text.grad is not None and not text.grad[2].any() and text.grad[0].any()


def test_a_bank_only_adds_negatives() -> None:
    audio, text, bank = unit(4, 8, seed=16), unit(4, 8, seed=17), unit(9, 8, seed=18)
    alone = bimodal_contrastive(audio, text, positive=torch.eye(4).bool(), ignored=nothing(4, 4), scale=5.0)
    texts = torch.cat([text, bank])
    more = bimodal_contrastive(audio, texts, positive=torch.eye(4, 13).bool(), ignored=nothing(4, 13), scale=5.0)
    logits = 5.0 * audio @ texts.t()
    expected = functional.cross_entropy(logits, torch.arange(4))
    back = functional.cross_entropy(logits.t()[:4], torch.arange(4))
    assert float(more) == pytest.approx(float(0.5 * (expected + back)), rel=1e-5)
    assert float(more) > float(alone)


def test_the_gain_forgets_what_the_embedder_hears_everywhere() -> None:
    # The same vector added to every sound and to every mixture is a constant for each text.
    audio, heard, text, bias = unit(5, 8, seed=19), unit(5, 8, seed=20), unit(5, 8, seed=21), unit(8, seed=22)
    positive, ignored = torch.eye(5).bool(), nothing(5, 5)
    plain = bimodal_contrastive(audio, text, positive=positive, ignored=ignored, scale=6.0, heard=heard)
    biased = bimodal_contrastive(audio + bias, text, positive=positive, ignored=ignored, scale=6.0, heard=heard + bias)
    assert float(plain) == pytest.approx(float(biased), rel=1e-4)
    without = bimodal_contrastive(audio + bias, text, positive=positive, ignored=ignored, scale=6.0)
    assert float(without) != pytest.approx(float(biased), rel=1e-2)


def test_naming_rightly_costs_less_than_naming_wrongly() -> None:
    text = unit(5, 16, seed=23)
    positive, ignored = torch.eye(5).bool(), nothing(5, 5)
    right = bimodal_contrastive(text, text, positive=positive, ignored=ignored, scale=20.0)
    wrong = bimodal_contrastive(text.roll(1, 0), text, positive=positive, ignored=ignored, scale=20.0)
    assert float(right) < 0.1 < 5.0 < float(wrong)
    assert accuracy(text, text, positive=positive, ignored=ignored) == 1.0
    assert accuracy(text.roll(1, 0), text, positive=positive, ignored=ignored) == 0.0


def test_accuracy_does_not_look_at_what_is_ignored() -> None:
    text = torch.eye(3)
    ignored = nothing(1, 3)
    ignored[0, 1] = True
    positive = torch.tensor([[True, False, False]])
    near = functional.normalize(torch.tensor([[0.5, 1.0, 0.1]]), dim=-1)
    assert accuracy(near, text, positive=positive, ignored=nothing(1, 3)) == 0.0
    assert accuracy(near, text, positive=positive, ignored=ignored) == 1.0


def test_no_prediction_with_a_prompt_is_no_loss() -> None:
    none = nothing(2, 3)
    loss = bimodal_contrastive(unit(2, 8, seed=1), unit(3, 8, seed=2), positive=none, ignored=none, scale=1.0)
    assert float(loss) == 0.0
