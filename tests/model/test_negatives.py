"""The rules of negative prompts: what any of them must hold to."""

from __future__ import annotations

import numpy as np
import pytest

from model.negatives import RULES, lower

MASKS = np.random.default_rng(0).uniform(size=(5, 12, 20)).astype(np.float32)


def test_without_negatives_masks_come_back_as_they_are() -> None:
    assert lower(MASKS, 5) is not MASKS[:3] and np.array_equal(lower(MASKS, 5), MASKS)


@pytest.mark.parametrize("rule", RULES)
def test_masks_stay_masks_and_rise_nowhere(rule: str) -> None:
    lowered = lower(MASKS, 3, rule=rule)
    assert lowered.shape == (3, 12, 20) and lowered.dtype == np.float32
    assert (lowered >= 0).all() and (lowered <= MASKS[:3] + 1e-6).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_negative_that_claims_nothing_or_does_not_count_takes_nothing(rule: str) -> None:
    silent = np.concatenate([MASKS[:3], np.zeros((1, 12, 20), np.float32)])
    np.testing.assert_allclose(lower(silent, 3, rule=rule), MASKS[:3], atol=1e-2)
    np.testing.assert_allclose(lower(MASKS, 3, np.zeros(2), rule), MASKS[:3], atol=1e-2)


@pytest.mark.parametrize("rule", RULES)
def test_the_more_a_negative_claims_the_less_is_left(rule: str) -> None:
    quiet = lower(np.concatenate([MASKS[:1], 0.5 * MASKS[1:2]]), 1, rule=rule)
    loud = lower(MASKS[:2], 1, rule=rule)
    assert (loud <= quiet + 1e-6).all() and loud.sum() < quiet.sum()


@pytest.mark.parametrize("rule", RULES)
def test_of_several_negatives_the_strongest_counts_and_their_order_does_not(rule: str) -> None:
    one = lower(MASKS[[0, 1, 2]], 1, rule=rule)
    assert np.array_equal(one, lower(MASKS[[0, 2, 1]], 1, rule=rule))
    assert np.array_equal(one, lower(np.stack([MASKS[0], np.maximum(MASKS[1], MASKS[2])]), 1, rule=rule))
