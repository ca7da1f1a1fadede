"""The compact embedder: our own two towers, small enough to ship, in one folder on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.embedder.audio import MIN_FRAMES, AudioConfig, AudioTower
from model.embedder.text import TextConfig, TextTokenizer, TextTower
from model.layers import BandAnalysis
from model.spec import EmbedderSpec, SignalSpec

FORMAT = 1


class CompactEmbedder(nn.Module):
    """Text tower, audio tower, tokenizer and the scale of their logits; an :class:`model.embedder.Embedder`."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        text: TextConfig,
        audio: AudioConfig,
        signal: SignalSpec,
        *,
        seconds: float = 5.0,
    ) -> None:
        super().__init__()
        if text.embedding_features != audio.embedding_features:
            raise ValueError(
                f"both towers must give as many features, got {text.embedding_features} and {audio.embedding_features}"
            )
        if audio.n_bands != signal.n_bands:
            raise ValueError(f"the audio tower must take the signal's {signal.n_bands} bands, got {audio.n_bands}")
        self.tokenizer, self.signal, self.seconds = tokenizer, signal, seconds
        self.text_tower = TextTower(text)
        self.audio_tower = AudioTower(audio)
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        self.analyses: dict[int, BandAnalysis] = {}

    @property
    def logit_scale(self) -> Tensor:
        """Scalar that multiplies cosines into logits, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)

    @property
    def spec(self) -> EmbedderSpec:
        """What the bundle's manifest says of the embedder."""
        text = self.text_tower.config
        return EmbedderSpec(
            kind="compact",
            max_tokens=text.max_tokens,
            token_features=text.embedding_features,
            embedding_features=text.embedding_features,
            logit_scale=round(float(self.logit_scale.detach()), 4),
            audio_seconds=self.seconds,
        )

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed phrases; see :meth:`model.embedder.Embedder.text`.

        Raises:
            ValueError: there is no phrase.
        """
        if not prompts:
            raise ValueError("text needs at least one prompt, got none")
        device = self.log_scale.device
        ids, padding = (part.to(device) for part in self.tokenizer.encode(prompts))
        tokens, pooled = self.text_tower(ids, padding)
        return tokens, padding, pooled

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embed waveforms ``[B, T]``; see :meth:`model.embedder.Embedder.audio`.

        Raises:
            ValueError: the sample rate has no whole hop.
        """
        analysis = self.analyses.get(sample_rate)
        if analysis is None:
            analysis = self.analyses.setdefault(sample_rate, BandAnalysis(self.signal, sample_rate))
        _, bands = analysis.to(waveform.device)(waveform)
        short = MIN_FRAMES - bands.shape[2]
        bands = torch.nn.functional.pad(bands, (0, short)) if short > 0 else bands
        return self.audio_tower(bands)

    def fresh_audio(self, config: AudioConfig, *, seed: int) -> CompactEmbedder:
        """Put an untrained audio tower of ``config`` in place of the present one; returns self."""
        torch.manual_seed(seed)
        self.audio_tower = AudioTower(config)
        self.log_scale.data.fill_(20.0).log_()
        return self

    def save(self, path: Path) -> None:
        """Write the folder: ``embedder.json``, ``tokenizer.json`` and, last, ``weights.pt``; each appears whole."""
        path.mkdir(parents=True, exist_ok=True)
        description = {
            "format": FORMAT,
            "seconds": self.seconds,
            "text": vars(self.text_tower.config),
            "audio": {**vars(self.audio_tower.config), "channels": list(self.audio_tower.config.channels)},
            "signal": self.signal.to_json(),
            "spec": self.spec.to_json(),
        }
        _replace(path / "embedder.json", lambda to: to.write_text(json.dumps(description, indent=1) + "\n"))
        _replace(path / "tokenizer.json", self.tokenizer.save)
        _replace(path / "weights.pt", lambda to: torch.save(self.state_dict(), to))

    @classmethod
    def load(cls, path: Path | str) -> CompactEmbedder:
        """Read the folder :meth:`save` wrote, for inference.

        Raises:
            ValueError: a file is missing, of another format, or the weights do not fit.
        """
        path = Path(path)
        for name in ("embedder.json", "tokenizer.json", "weights.pt"):
            if not (path / name).is_file():
                raise ValueError(f"{path} is no compact embedder: it lacks {name}")
        description: dict[str, Any] = json.loads((path / "embedder.json").read_text())
        if description.get("format") != FORMAT:
            raise ValueError(f"{path}: embedder format must be {FORMAT}, got {description.get('format')}")
        text = TextConfig(**description["text"])
        audio = AudioConfig(**{**description["audio"], "channels": tuple(description["audio"]["channels"])})
        tokenizer = TextTokenizer.load(path / "tokenizer.json", text.max_tokens)
        signal = SignalSpec.from_json(description["signal"])
        embedder = cls(tokenizer, text, audio, signal, seconds=description["seconds"])
        state = torch.load(path / "weights.pt", map_location="cpu", weights_only=True)
        try:
            embedder.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{path}: weights do not fit their description: {error}") from error
        return embedder.eval()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)
