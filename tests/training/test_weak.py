"""Weak supervision: which prompts a loss moves, what a perfect separator gets, and when a loss counts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.training.toy_parts import FEATURES, SIGNAL, TONES, batch_of, caption, touched, toy_parts
from training.weak import Questions, Weak, WeakConfig
from training.weak_mixing import WeakBatch

ALL = {"url": 1.0, "crl": 1.0, "cnt": 0.1, "whole": 0.5, "silence": 0.1}
ROWS = (((0, 1), (2, 3)), ((4, 5), (6, 7)))


def blurred(seed: int = 0) -> torch.Tensor:
    """Masks that are wrong everywhere, so that every loss has a slope."""
    return 0.2 + 0.6 * torch.rand(FEATURES, SIGNAL.n_bands, generator=torch.Generator().manual_seed(seed))


def config(**changes: object) -> WeakConfig:
    return WeakConfig(**{"warmup": 0.0, "ramp": 0.0, "bank": 0, **changes})  # type: ignore[arg-type]


def captions_of(batch: WeakBatch) -> set[str]:
    return {name for row in batch.captions for name in row}


def phrases_of(batch: WeakBatch) -> set[str]:
    return {name for row in batch.phrases for part in row for name in part}


@pytest.mark.parametrize(
    ("loss", "moved"), [("url", captions_of), ("crl", phrases_of), ("whole", phrases_of), ("cnt", phrases_of)]
)
def test_each_loss_moves_its_own_prompts_alone(loss: str, moved: object) -> None:
    batch = batch_of((((0, 1), (2,)), ((4,), (6, 7, 8))), absent=((9,), (10,)))
    parts = toy_parts(batch, table=blurred())
    outcome = Weak(config(), {loss: 1.0})(parts, batch, 1.0)
    assert set(outcome.terms) == {loss}
    assert callable(moved) and touched(parts, outcome.loss) == moved(batch)


def test_only_silence_sees_absent_prompts() -> None:
    batch = batch_of(ROWS, absent=((8, 9), (9, 10)))
    parts = toy_parts(batch, table=blurred())
    outcome = Weak(config(), ALL)(parts, batch, 1.0)
    assert touched(parts, outcome.terms["silence"][0]) == {TONES[8], TONES[9], TONES[10]}
    rest = sum((value for name, (value, _) in outcome.terms.items() if name != "silence"), torch.zeros(()))
    assert touched(parts, rest) == captions_of(batch) | phrases_of(batch)


def test_a_perfect_separator_gets_the_least_that_can_be_had() -> None:
    batch = batch_of(ROWS, absent=((8,), (9,)))
    outcome = Weak(config(), ALL)(toy_parts(batch), batch, 1.0)
    figures = {name: float(value) for name, value in outcome.figures.items()}
    assert figures["url"] < -23 and figures["crl"] < -23 and figures["whole"] < -23
    assert figures["silence"] < 0.5
    assert figures["cnt"] < 0.1 and figures["cnt_accuracy"] == 1.0
    worse = Weak(config(), ALL)(toy_parts(batch, table=blurred()), batch, 1.0).figures
    assert all(float(worse[name]) > figures[name] + 0.5 for name in ("url", "crl", "whole", "silence", "cnt"))


def test_crl_wants_a_recordings_own_phrases() -> None:
    right = batch_of(ROWS[:1])
    wrong = dataclasses.replace(right, phrases=[right.phrases[0][::-1]])
    parts = toy_parts(right)
    mode = Weak(config(), {"crl": 1.0})
    losses = [float(mode(parts, batch, 1.0).loss.detach()) for batch in (right, wrong)]
    assert losses[0] < -20 and losses[1] > 2.0


def test_crl_skips_recordings_of_which_sounds_were_not_asked() -> None:
    rows = (((0, 1), (2, 3)),)
    batch = batch_of(rows)
    partial = dataclasses.replace(batch, phrases=[[[TONES[0]], [TONES[2], TONES[3]]]], complete=[[False, True]])
    parts = toy_parts(batch, table=blurred())
    loss = Weak(config(), {"crl": 1.0})(parts, partial, 1.0).loss
    assert touched(parts, loss) == {TONES[2], TONES[3]}
    nothing = dataclasses.replace(partial, complete=[[False, False]])
    assert float(Weak(config(), {"crl": 1.0})(parts, nothing, 1.0).loss.detach()) == 0.0


@pytest.mark.parametrize("loss", ["url", "crl", "whole", "silence"])
def test_a_batch_of_unequal_rows_is_the_mean_of_its_rows(loss: str) -> None:
    rows, absent = (((0,), (1, 2, 3)), ((4, 5, 6), (7, 8)), ((9,), (10,))), ((4,), (1,), (2,))
    batch = batch_of(rows, absent=absent)
    parts = toy_parts(batch, table=blurred())
    mode = Weak(config(), {loss: 1.0})
    single = [batch_of((row,), absent=(none,)) for row, none in zip(rows, absent, strict=True)]
    alone = [float(mode(parts, one, 1.0).loss.detach()) for one in single]
    assert float(mode(parts, batch, 1.0).loss.detach()) == pytest.approx(sum(alone) / 3, abs=1e-4)


def test_the_order_of_rows_and_of_phrases_does_not_matter() -> None:
    one = batch_of((((0, 1, 2), (3,)), ((4,), (5, 6))))
    moved = batch_of((((4,), (6, 5)), ((2, 0, 1), (3,))))
    other = dataclasses.replace(moved, captions=one.captions[::-1])
    parts = toy_parts(one, table=blurred())
    weights = {"url": 1.0, "crl": 1.0, "cnt": 0.3, "whole": 0.2}
    first, second = (Weak(config(), weights)(parts, batch, 1.0) for batch in (one, other))
    for name in weights:
        assert float(first.figures[name]) == pytest.approx(float(second.figures[name]), abs=2e-4), name


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("contrastive", ["bimodal", "released"])
@pytest.mark.parametrize("reconstruction", ["sdr", "l1"])
def test_one_to_five_sounds_a_recording(count: int, contrastive: str, reconstruction: str) -> None:
    batch = batch_of((((*range(count),), (*range(5, 5 + count),)),))
    weights = {"url": 1.0, "crl": 1.0, "cnt": 0.1}
    mode = Weak(config(contrastive=contrastive, reconstruction=reconstruction), weights)
    good, bad = (mode(toy_parts(batch, table=table), batch, 1.0) for table in (None, blurred()))
    for name in ("url", "crl"):
        assert float(good.figures[name]) < float(bad.figures[name]), name
    assert float(good.figures["cnt_accuracy"]) == 1.0
    assert torch.isfinite(bad.loss)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (1.0, 1.0)])
def test_listening_grows_after_the_warm_up(progress: float, share: float) -> None:
    batch = batch_of(ROWS)
    parts = toy_parts(batch, table=blurred())
    outcome = Weak(WeakConfig(bank=0, warmup=0.2, ramp=0.2), {"url": 2.0, "crl": 3.0, "cnt": 0.5})(
        parts, batch, progress
    )
    assert float(outcome.terms["url"][0].detach()) == pytest.approx(2.0 * float(outcome.figures["url"]))
    assert set(outcome.terms) == ({"url", "crl", "cnt"} if share else {"url"})
    for name, weight in (("crl", 3.0), ("cnt", 0.5)):
        if share:
            expected = share * weight * float(outcome.figures[name])
            assert float(outcome.terms[name][0].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_shuffled_control_changes_the_contrast_alone() -> None:
    batch = batch_of(ROWS)
    weights = {"url": 1.0, "crl": 1.0, "cnt": 1.0}
    torch.manual_seed(0)
    true, control = (
        Weak(config(shuffled=shuffled), weights)(toy_parts(batch), batch, 1.0).figures for shuffled in (False, True)
    )
    assert torch.equal(true["url"], control["url"]) and torch.equal(true["crl"], control["crl"])
    assert float(control["cnt"]) > float(true["cnt"]) + 1.0 and float(control["cnt_accuracy"]) < 1.0


def test_a_bank_makes_naming_harder_and_a_mixtures_own_prompts_make_it_easier() -> None:
    batch = batch_of(ROWS)
    losses = {}
    for name, made in {
        "batch": config(),
        "bank": config(bank=99),
        "mixture": config(scope="mixture", bank=99),
    }.items():
        mode = Weak(made, {"cnt": 1.0}, TONES)
        losses[name] = float(mode(toy_parts(batch, table=blurred()), batch, 1.0).loss.detach())
    assert losses["mixture"] < losses["batch"] < losses["bank"]


def test_within_a_mixture_the_other_rows_do_not_count() -> None:
    row, others = ROWS[0], (((5,), (6,)), ((7, 8), (9, 10)))
    mode = Weak(config(scope="mixture"), {"cnt": 1.0})
    grads = []
    for other in others:
        batch = batch_of((row, other))
        parts = toy_parts(batch_of((row, *others)), table=blurred())
        mode(parts, batch, 1.0).loss.backward()
        grad = next(parts.separator.parameters()).grad
        assert grad is not None
        grads.append(grad[: len(TONES)][[0, 1, 2, 3]] * len(phrases_of(batch)))
    assert torch.allclose(grads[0], grads[1], rtol=1e-3, atol=1e-6)


def test_equal_prompts_are_positives_of_each_other() -> None:
    batch = batch_of((((0, 1), (2, 3)), ((0, 4), (5, 6))))
    outcome = Weak(config(), {"cnt": 1.0})(toy_parts(batch), batch, 1.0)
    assert float(outcome.figures["cnt_accuracy"]) == 1.0
    # Of seven texts one has two sounds: ln 2 in its column, next to nothing elsewhere.
    assert float(outcome.loss.detach()) < 0.2


def test_padding_is_asked_and_looked_at_by_no_one() -> None:
    questions = Questions.of(batch_of((((0,), (1, 2, 3)), ((4,), (5,))), absent=((6,), (7,))))
    assert {len(row) for row in questions.prompts} == {2 + 4 + 1}
    assert questions.prompts[1] == [caption((4,)), caption((5,)), "tone 4", "tone 5", "tone 7", *[caption((4,))] * 2]
    assert questions.owner.sum(dim=(1, 2)).tolist() == [4.0, 2.0]
    assert (questions.owner.sum(dim=1) <= 1).all()
    assert questions.absent.nonzero().tolist() == [[0, 6], [1, 4]]


def test_mix_and_separate_asks_for_captions_alone() -> None:
    batch = batch_of(ROWS)
    parts = toy_parts(batch, ear=False)
    (_, mask) = Weak(WeakConfig(), {"url": 1.0})(parts, batch, 1.0).terms["url"]
    assert mask.shape[1] == 2


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="pit"):
        Weak(WeakConfig(), {"pit": 1.0})
    with pytest.raises(ValueError, match=r"weak\.scope .* 'world'"):
        WeakConfig(scope="world")
    batch = batch_of(ROWS)
    with pytest.raises(ValueError, match="needs an embedder"):
        Weak(config(), {"cnt": 1.0})(toy_parts(batch, ear=False), batch, 1.0)
