"""Confidence intervals over mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from training.interval import Interval


def test_one_value_a_mixture_is_the_textbook_interval() -> None:
    values = np.random.default_rng(0).normal(8.0, 3.0, size=20).tolist()
    interval = Interval.of(values, [str(n) for n in range(20)])
    assert interval is not None
    low, high = stats.t.interval(0.95, 19, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((np.mean(values), low, high))


def test_a_repeated_source_adds_no_certainty() -> None:
    values = [1.0, 4.0, 2.5, 7.0]
    names = list("abcd")
    once, twice = Interval.of(values, names), Interval.of(values * 2, names * 2)
    assert once is not None and twice is not None
    assert (twice.mean, twice.low, twice.high) == pytest.approx((once.mean, once.low, once.high))
    assert (twice.values, twice.mixtures) == (8, 4)


def test_sources_of_a_mixture_that_cancel_are_certain() -> None:
    interval = Interval.of([3.0, 5.0, 1.0, 7.0], ["a", "a", "b", "b"])
    assert interval is not None and interval.mean == 4.0
    assert (interval.low, interval.high) == pytest.approx((4.0, 4.0))


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        common = rng.normal(size=12)
        values = np.repeat(common, 2) + 0.2 * rng.normal(size=24)
        interval = Interval.of(values.tolist(), [str(n // 2) for n in range(24)])
        assert interval is not None and interval.low is not None and interval.high is not None
        covered += interval.low <= 0.0 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_what_is_not_defined_is_left_out() -> None:
    assert Interval.of([], []) is None
    assert Interval.of([math.nan], ["a"]) is None
    assert Interval.of([2.0, math.nan], ["a", "b"]) == Interval(2.0, None, None, 1, 1, 2.0)
    assert str(Interval(2.0, None, None, 1, 1, 2.0)) == "2.00"
    assert str(Interval(2.0, 1.0, 3.0, 4, 2, 2.0)) == "2.00 ±1.00"


def test_the_median_is_of_the_values_not_of_the_mixtures() -> None:
    interval = Interval.of([1.0, 2.0, 30.0, math.nan], ["a", "a", "b", "c"])
    assert interval is not None and interval.median == 2.0 and interval.mean == pytest.approx(11.0)
