"""Sharing a recording out among all its sounds."""

from __future__ import annotations

import numpy as np

from model.sharing import share_out

MASKS = np.random.default_rng(0).uniform(0.05, 1.0, size=(4, 12, 20)).astype(np.float32)


def test_shares_are_masks_and_add_up_to_the_whole() -> None:
    shares = share_out(MASKS, 4)
    assert shares.dtype == np.float32 and (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-3)
    assert (shares.sum(axis=0) <= 1.0 + 1e-6).all()


def test_the_unwanted_have_their_shares_too() -> None:
    np.testing.assert_array_equal(share_out(MASKS, 2), share_out(MASKS, 4)[:2])


def test_who_claims_more_gets_more_and_doubt_is_made_good() -> None:
    careful = np.array([0.3, 0.1], np.float32)[:, None, None]
    np.testing.assert_allclose(share_out(careful, 2).ravel(), [0.75, 0.25], atol=1e-3)


def test_a_sound_that_is_not_there_takes_nothing() -> None:
    with_absent = share_out(MASKS, 4, np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(with_absent[:3], share_out(MASKS[:3], 3), rtol=1e-6)
    assert not with_absent[3].any()


def test_what_nobody_is_heard_in_stays_with_nobody() -> None:
    assert not share_out(np.zeros((2, 3, 4), np.float32), 2).any()
    assert not share_out(MASKS, 4, np.zeros(4)).any()
