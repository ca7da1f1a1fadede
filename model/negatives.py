"""Negative prompts: the masks of what is wanted, lowered where the masks of what is not wanted are.

Both kinds of phrase go through the network side by side; what is here comes afterwards and is a function of the masks
alone, so it costs the negatives' decoder passes and nothing else. Of several negatives the strongest counts in each
band and frame. `python -m training.negatives` measures the rules.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_SMALL = 1e-6


def product(wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """What is left when the unwanted is taken out first: ``m_p (1 - m_n)``."""
    return wanted * (1.0 - unwanted)


def cap(wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """No more than the unwanted leaves over: ``min(m_p, 1 - m_n)``; masks that agree stay as they are."""
    return np.minimum(wanted, 1.0 - unwanted)


def share(wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """Both claims cut to size where they add up to more than there is: ``m_p / max(1, m_p + m_n)``."""
    return wanted / np.maximum(1.0, wanted + unwanted)


def ratio(wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """Ratio of the claims: ``m_p m_p / (m_p + m_n)``."""
    return wanted * wanted / (wanted + unwanted + _SMALL)


def compete(wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
    """Ratio of the claims' squares: ``m_p m_p^2 / (m_p^2 + m_n^2)``; lowers also where there was room for both."""
    squared = np.square(wanted)
    return wanted * squared / (squared + np.square(unwanted) + _SMALL)


Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]
RULES: dict[str, Rule] = {"product": product, "cap": cap, "share": share, "ratio": ratio, "compete": compete}
RULE = "compete"


def lower(masks: np.ndarray, n_wanted: int, weights: np.ndarray | None = None, rule: str = RULE) -> np.ndarray:
    """Masks of the wanted prompts, lowered by those of the rest; without negatives they come back as they are.

    Args:
        masks: the negatives last.
        n_wanted: number of wanted prompts, P.
        weights: how much each negative counts, by default wholly: how surely it is there, so that naming what is not
            there costs little.
        rule: one of ``RULES``.

    Shape:
        masks [P + Q, K, N] in 0..1, weights [Q]; returns [P, K, N] in 0..1, nowhere above the wanted ones.
    """
    wanted, unwanted = masks[:n_wanted], masks[n_wanted:]
    if not len(unwanted):
        return wanted
    if weights is not None:
        unwanted = unwanted * weights.astype(masks.dtype)[:, None, None]
    return RULES[rule](wanted, unwanted.max(axis=0)).astype(masks.dtype, copy=False)
