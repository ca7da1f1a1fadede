"""Phrases to vectors by a bundle's own text tower: what training asks with is what the service will ask with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from model.runtime import Runtime
from training.prompts import PromptTable

_AT_ONCE = 256


def embed_prompts(runtime: Runtime, phrases: Iterable[str]) -> PromptTable:
    """Vectors of the phrases by a bundle's own text tower; token features only where its network attends to them."""
    wanted = sorted(set(phrases))
    parts = [runtime.embed(wanted[at : at + _AT_ONCE]) for at in range(0, len(wanted), _AT_ONCE)]
    pooled = torch.from_numpy(np.concatenate([part[2] for part in parts]))
    if runtime.bundle.network.conditioning != "attention":
        return PromptTable(wanted, pooled)
    longest = max(part[1].shape[1] for part in parts)

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        missing = longest - values.shape[1]
        return np.pad(values, ((0, 0), (0, missing), *((0, 0),) * (values.ndim - 2)), constant_values=fill)

    tokens = torch.from_numpy(np.concatenate([padded(part[0], 0.0) for part in parts]))
    padding = torch.from_numpy(np.concatenate([padded(part[1], True) for part in parts]))
    return PromptTable(wanted, pooled, tokens, padding)
