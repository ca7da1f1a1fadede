"""A recording whose sounds are all named: what is in it is shared out among them.

A mask alone is careful: where the network doubts, it takes little. Who knows that nothing else is in the recording
need not be: in each band and frame a sound gets its mask's share of all masks, each weighed by how surely its sound is
there. So stems add up to the recording (the mixture consistency of arXiv 1811.08521, on masks).
`python -m training.evaluate --exhaustive` measures it.
"""

from __future__ import annotations

import numpy as np

_SMALL = 1e-12  # where no mask is above nothing, nobody gets anything


def share_out(masks: np.ndarray, n_wanted: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Masks of the wanted sounds as shares of all: ``w m / sum(w m)``.

    Args:
        masks: of every sound there is, those that are not wanted last.
        n_wanted: number of wanted sounds, P.
        weights: how surely each sound is there, 0 to 1, so that naming one that is not costs little; by default 1.

    Shape:
        masks [P + Q, K, N] in 0..1, weights [P + Q]; returns [P, K, N], which with the others' add up to 1 at most
    """
    weighed = masks if weights is None else masks * weights.astype(masks.dtype)[:, None, None]
    return weighed[:n_wanted] / (weighed.sum(axis=0) + np.asarray(_SMALL, masks.dtype))
