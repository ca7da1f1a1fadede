"""Paired differences and shares of a gap against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from training.ablation_figures import Sounds, share_closed, spread
from training.interval import Interval


def rows(values: np.ndarray) -> list[dict[str, Any]]:
    """A mixture a row of ``values [M, S]``."""
    return [
        {"id": f"m{number:03d}", "present": [{"source": f"s{place}", "sdri": value} for place, value in enumerate(row)]}
        for number, row in enumerate(values.tolist())
    ]


def sounds(*seeds: np.ndarray) -> Sounds:
    return Sounds.of([rows(values) for values in seeds], "sdri")


def test_a_paired_interval_is_that_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    hard, gain = rng.normal(0, 10, size=(40, 1)), rng.normal(0.5, 0.3, size=(40, 1))
    found = sounds(hard + gain).less(sounds(hard)).interval()
    low, high = stats.t.interval(0.95, 39, loc=gain.mean(), scale=stats.sem(gain[:, 0]))
    assert found is not None and (found.mean, found.low, found.high) == pytest.approx((gain.mean(), low, high))
    alone = sounds(hard + gain).interval()
    assert (
        alone is not None
        and alone.high is not None
        and alone.low is not None
        and alone.high - alone.low > 10 * (high - low)
    )


def test_seeds_are_averaged_sound_by_sound() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    assert sounds(one, other).interval() == sounds((one + other) / 2).interval()
    deviation = spread([rows(one), rows(other)], "sdri")
    assert deviation == pytest.approx(abs(one.mean() - other.mean()) / np.sqrt(2))
    assert spread([rows(one)], "sdri") is None
    with pytest.raises(ValueError, match="same mixtures"):
        sounds(one, one[:5])
    with pytest.raises(ValueError, match="same mixtures"):
        sounds(one).less(sounds(one[:5]))


def test_a_source_alone_is_the_mean_of_its_column() -> None:
    values = np.random.default_rng(2).normal(size=(12, 2))
    found = sounds(values).interval("s1")
    assert found == Interval.of(values[:, 1].tolist(), [f"m{number:03d}" for number in range(12)])
    assert sounds(values).interval("s7") is None


def test_an_undefined_figure_is_left_out() -> None:
    made = [{"id": "a", "present": [{"source": "s", "bss": None}, {"source": "s"}, {"source": "s", "bss": 2.0}]}]
    found = Sounds.of([made], "bss").interval()
    assert found is not None and (found.mean, found.values) == (2.0, 1)


def test_the_share_of_a_gap_is_exact_where_arms_differ_by_constants() -> None:
    hard = np.random.default_rng(3).normal(0, 5, size=(30, 2))
    share = share_closed(supervised=sounds(hard + 2.0), unsupervised=sounds(hard), weak=sounds(hard + 1.5))
    assert (share.value, share.low, share.high) == pytest.approx((0.75, 0.75, 0.75))
    assert str(share) == "75 % (75 to 75)"


def test_the_shares_interval_agrees_with_the_delta_method() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(0, 5, size=(300, 1))
    gap, gain = rng.normal(2.0, 1.0, size=(300, 1)), rng.normal(1.0, 1.0, size=(300, 1))
    share = share_closed(supervised=sounds(base + gap), unsupervised=sounds(base), weak=sounds(base + gain))
    ratio = gain.mean() / gap.mean()
    error = np.std(gain - ratio * gap, ddof=1) / np.sqrt(300) / gap.mean()
    assert share.value == pytest.approx(ratio) and share.low is not None and share.high is not None
    assert (share.high - share.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_a_gap_that_may_be_nothing_has_no_share() -> None:
    noise = np.random.default_rng(5).normal(0, 1, size=(3, 20, 1))
    share = share_closed(supervised=sounds(noise[0]), unsupervised=sounds(noise[1]), weak=sounds(noise[2]))
    assert share.low is None and str(share) == "gap not clear of zero"
