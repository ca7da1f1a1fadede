"""Prompts to vectors: every phrase a run can ask for, embedded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.embedder import load_embedder


class PromptTable:
    """Text features of a fixed set of phrases, looked up by phrase.

    ``pooled [n, E]`` has unit norm; ``tokens [n, L, D]`` and ``padding [n, L]`` are there when the embedder gives them.
    """

    def __init__(
        self, phrases: list[str], pooled: Tensor, tokens: Tensor | None = None, padding: Tensor | None = None
    ) -> None:
        self.rows = {phrase: row for row, phrase in enumerate(phrases)}
        self.pooled, self.tokens, self.padding = pooled, tokens, padding

    @classmethod
    def build(cls, embedder: Path, phrases: Iterable[str]) -> PromptTable:
        """Embed ``phrases`` with the embedder at a path, or read them from an ``.npz`` of ``phrases`` and ``pooled``.

        Raises:
            ValueError: the ``.npz`` lacks one of the phrases; the message names it.
        """
        wanted = sorted(set(phrases))
        if embedder.suffix == ".npz":
            table = np.load(embedder)
            rows = {str(phrase): row for row, phrase in enumerate(table["phrases"])}
            lacking = [phrase for phrase in wanted if phrase not in rows]
            if lacking:
                raise ValueError(f"{embedder} lacks {len(lacking)} phrases, the first is {lacking[0]!r}")
            return cls(wanted, torch.from_numpy(table["pooled"][[rows[phrase] for phrase in wanted]]).float())
        with torch.no_grad():
            tokens, padding, pooled = load_embedder(embedder).text(wanted)
        return cls(wanted, pooled, tokens, padding)

    def lookup(self, prompts: list[list[str]]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Features of ``prompts [B][P]``: pooled ``[B, P, E]``, tokens ``[B, P, L, D]``, padding ``[B, P, L]``."""
        rows = torch.tensor([[self.rows[phrase] for phrase in row] for row in prompts])
        return (
            self.pooled[rows],
            None if self.tokens is None else self.tokens[rows],
            None if self.padding is None else self.padding[rows],
        )

    def pooled_of(self, phrases: Sequence[str]) -> Tensor:
        """Pooled vectors ``[n, E]`` of phrases of the table."""
        return self.pooled[[self.rows[phrase] for phrase in phrases]]

    def similarity(self, one: Sequence[str], other: Sequence[str]) -> Tensor:
        """Cosines ``[n, m]`` of phrases of the table."""
        return self.pooled_of(one) @ self.pooled_of(other).t()
