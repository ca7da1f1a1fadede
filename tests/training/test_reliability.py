"""Figures of probabilities against closed forms, and the regression against what made its data."""

from __future__ import annotations

import numpy as np
import pytest

from training.logistic import fit
from training.reliability import auc, brier, calibration_error, reliability


def test_auc_of_a_perfect_an_inverse_and_an_ignorant_score() -> None:
    present = np.array([True, True, False, False])
    for score, expected in (([0.9, 0.8, 0.2, 0.1], 1.0), ([0.1, 0.2, 0.8, 0.9], 0.0), ([0.5] * 4, 0.5)):
        assert auc(probability=np.array(score), present=present) == expected
    assert auc(probability=np.array([0.9, 0.4, 0.5, 0.1]), present=present) == 0.75


def test_brier_and_calibration_error_in_closed_form() -> None:
    present = np.array([True, False, False, False])
    said = np.full(4, 0.25)
    assert calibration_error(probability=said, present=present) == pytest.approx(0.0)
    assert brier(probability=said, present=present) == pytest.approx(0.1875)
    assert calibration_error(probability=np.ones(4), present=present) == pytest.approx(0.75)
    table = reliability(probability=np.array([0.05, 0.06, 0.95, 1.0]), present=present)
    assert [(item.low, item.count, item.true) for item in table] == [(0.0, 2, 0.5), (0.9, 2, 0.0)]


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_fit_finds_the_weights_whatever_the_share_of_the_present(share: float) -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.5, 3.0, -0.2])
    measures = rng.normal(size=(60_000, 2)) * [0.3, 5.0] + [0.1, -10.0]
    present = rng.random(len(measures)) < 1 / (1 + np.exp(-(true[0] + measures @ true[1:] - 2.0)))
    kept = np.flatnonzero(present)
    strangers = np.flatnonzero(~present)
    n_kept = min(len(kept), round(share / (1 - share) * len(strangers)))
    rows = np.concatenate([kept[:n_kept], strangers[: round(n_kept * (1 - share) / share)]])
    weights = fit(measures[rows], present[rows])
    np.testing.assert_allclose(weights[1:], true[1:], rtol=0.12)
    even = fit(measures, present)
    assert weights[0] == pytest.approx(even[0], abs=0.3)  # the prior is a half, whatever was in the data


def test_a_fit_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="prompts that are there"):
        fit(np.zeros((3, 1)), np.ones(3, bool))


def test_measures_that_tell_the_classes_apart_without_error_give_finite_weights() -> None:
    weights = fit(np.array([[0.0], [0.1], [0.9], [1.0]]), np.array([False, False, True, True]))
    assert np.isfinite(weights).all() and weights[1] > 0
