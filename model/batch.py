"""Several windows in one run of a graph, in batches of few sizes: a GPU prepares itself anew for each size it meets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUCKETS = (1, 2, 4, 8, 16)
Features = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens [P, L, D], padding [P, L] (True = pad), pooled [P, E]


def bucket(n_windows: int) -> int:
    """The least batch that holds so many.

    Raises:
        ValueError: none does.
    """
    for size in BUCKETS:
        if n_windows <= size:
            return size
    raise ValueError(f"a batch has at most {BUCKETS[-1]} windows, got {n_windows}")


def pad_rows(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Rows ``[B, ...]`` with the last one repeated: a row of zeros might be what a graph divides by."""
    missing = n_rows - len(rows)
    return rows if missing == 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def stack(windows: Sequence[tuple[np.ndarray, Features]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The separator's inputs, those of ``names``, for windows that are alike, filled up to a bucket.

    Shape:
        bands ``[K, N]`` and features of P prompts each -> ``[B, K, N]``, ``[B, P, L, D]``, ``[B, P, L]``, ``[B, P, E]``

    Raises:
        ValueError: there is no window, there are too many, or they are not alike in frames and prompts.
    """
    shapes = {(bands.shape, len(pooled)) for bands, (_, _, pooled) in windows}
    if len(shapes) != 1:
        raise ValueError(f"windows of one batch must be alike in frames and prompts, got {sorted(shapes)}")
    longest = max(tokens.shape[1] for _, (tokens, _, _) in windows)

    def made(name: str) -> list[np.ndarray]:
        if name == "bands":
            return [bands for bands, _ in windows]
        if name == "pooled":
            return [pooled for _, (_, _, pooled) in windows]
        if name == "tokens":
            return [np.pad(tokens, ((0, 0), (0, longest - tokens.shape[1]), (0, 0))) for _, (tokens, _, _) in windows]
        return [
            np.pad(padding, ((0, 0), (0, longest - padding.shape[1])), constant_values=True)
            for _, (_, padding, _) in windows
        ]

    return {name: pad_rows(np.stack(made(name)), bucket(len(windows))) for name in names}
