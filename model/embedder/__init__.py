"""Joint audio-text embedders behind one protocol: the separator never knows which one it has.

Nothing is imported here but torch's types: the towers live in :mod:`model.embedder.compact` and its neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from model.embedder.compact import CompactEmbedder
    from model.embedder.laion import LaionEmbedder


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of phrases and of sounds in one space."""

    @property
    def logit_scale(self) -> Tensor:
        """Scalar that multiplies cosines into logits."""
        ...

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed phrases: tokens ``[B, L, D]``, padding ``[B, L]`` (True where padded), pooled ``[B, E]``, unit norm."""
        ...

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embed ``[B, T]``: ``[B, E]`` of unit norm, differentiable to the waveform."""
        ...


def load_embedder(path: Path | str) -> CompactEmbedder | LaionEmbedder:
    """Read whichever embedder is at a path: a folder of the compact one, or one of LAION-CLAP's two forms.

    Args:
        path: a folder that ``python -m training.embed`` wrote (``embedder.json``), a Hugging Face folder of a
            ``ClapModel`` (``config.json``), or an original ``.pt`` with its tokenizer's folder, ``tokenizer`` or
            ``roberta-base``, beside it.

    Raises:
        ValueError: there is none of these, or it cannot be read.
    """
    path = Path(path)
    if (path / "embedder.json").is_file():
        from model.embedder.compact import CompactEmbedder

        return CompactEmbedder.load(path)
    if (path / "config.json").is_file() or path.suffix == ".pt":
        from model.embedder.laion import LaionEmbedder

        return LaionEmbedder.load(path) if path.is_dir() else LaionEmbedder.load_original(path)
    raise ValueError(
        f"no embedder at {path}: a folder with embedder.json or with config.json is wanted, or a .pt checkpoint"
    )
