"""What is evaluated: a bundle through the code that serves it, or a checkpoint through the same streaming in torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from model import spectral
from model.sharing import share_out
from model.spec import SignalSpec
from training.prompts import PromptTable


class Separator(Protocol):
    """Separates a recording by phrases."""

    def separate(
        self, waveform: np.ndarray, sample_rate: int, prompts: list[str], *, exhaustive: bool = False
    ) -> np.ndarray:
        """``[C, T]`` and P prompts -> ``[P, C, T]``; ``exhaustive`` says that they name every sound."""
        ...


class CheckpointSeparator:
    """A checkpoint's network behind :func:`model.spectral.separate`: only the mask is computed by torch."""

    def __init__(self, network: nn.Module, signal: SignalSpec, prompts: PromptTable) -> None:
        self.network, self.signal, self.prompts = network.eval(), signal, prompts

    def separate(
        self, waveform: np.ndarray, sample_rate: int, prompts: list[str], *, exhaustive: bool = False
    ) -> np.ndarray:
        """``[C, T]`` and P prompts, each in the table -> ``[P, C, T]``; presence is not heard."""
        pooled, tokens, padding = self.prompts.lookup([prompts])
        attends = getattr(getattr(self.network, "spec", None), "conditioning", "") == "attention"
        extra = (tokens, padding) if attends else ()

        def mask(bands: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                found: np.ndarray = self.network(torch.from_numpy(bands)[None], pooled, *extra)[0].float().numpy()
                return share_out(found, len(found)) if exhaustive else found

        return spectral.separate(self.signal, sample_rate, waveform, len(prompts), mask)


def open_separator(
    model: Path, embedder: Path | None, phrases: Iterable[str], *, threads: int
) -> tuple[Separator, SignalSpec]:
    """Open a bundle (a folder) or a checkpoint (a file), the latter with the embedder for ``phrases``.

    Raises:
        ValueError: the model cannot be read, or a checkpoint comes without an embedder.
    """
    if model.is_dir():
        from model.bundle import Bundle
        from model.runtime import Runtime

        bundle = Bundle.open(model)
        return Runtime(bundle, threads=threads), bundle.signal
    if embedder is None:
        raise ValueError(f"{model} is a checkpoint, which needs --embedder: its prompts' vectors come from there")
    from training.checkpoint import load_separator

    torch.set_num_threads(threads)
    network, _, signal = load_separator(model)
    return CheckpointSeparator(network, signal, PromptTable.build(embedder, phrases)), signal
