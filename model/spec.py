"""The numbers of a separator: signal, network, embedder. Each has its one home here and round-trips through JSON.

Nothing but the standard library is imported, so that the service reads a manifest without torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self


class _JsonSpec:
    """JSON round trip for frozen dataclasses of plain values; strict, so that a stray key is an error.

    ``LATER`` names fields that manifests written before they came lack; their defaults say what was true then.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build from :meth:`to_json`'s dictionary.

        Raises:
            ValueError: a key is unknown or missing; the message names it.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - set(fields))
        missing = sorted(name for name in fields if name not in data and name not in cls.LATER)
        if unknown or missing:
            raise ValueError(f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


@dataclass(frozen=True)
class SignalSpec(_JsonSpec):
    """A spectrogram in seconds: bins are ``1 / window_s`` apart at every sample rate.

    The network sees the first ``n_bins`` bins pooled into ``n_bands`` triangular bands, linear below ``linear_hz`` and
    logarithmic above. Masks are computed on windows of ``window_frames`` frames, consecutive ones sharing
    ``overlap_frames`` over which they are cross-faded.
    """

    window_s: float = 0.040
    hop_s: float = 0.010
    n_bins: int = 640
    n_bands: int = 128
    linear_hz: float = 1000.0
    window_frames: int = 512
    overlap_frames: int = 64
    frame_multiple: int = 32
    min_rate: int = 8_000
    max_rate: int = 192_000

    def __post_init__(self) -> None:
        if not 0 < self.hop_s <= self.window_s / 2:
            raise ValueError(f"hop_s must be in (0, window_s / 2], got {self.hop_s} for window_s {self.window_s}")
        if not 1 < self.n_bands <= self.n_bins:
            raise ValueError(f"n_bands must be in 2..n_bins, got {self.n_bands} for {self.n_bins} bins")
        if self.window_frames % self.frame_multiple:
            raise ValueError(
                f"window_frames must be a multiple of frame_multiple {self.frame_multiple}, got {self.window_frames}"
            )
        if not 0 <= self.overlap_frames <= self.window_frames // 2:
            raise ValueError(f"overlap_frames must be in 0..window_frames / 2, got {self.overlap_frames}")

    @property
    def bin_hz(self) -> float:
        """Distance between two STFT bins in hertz."""
        return 1.0 / self.window_s

    @property
    def bandwidth_hz(self) -> float:
        """Upper edge in hertz of what the network sees."""
        return self.n_bins * self.bin_hz

    def window_length(self, sample_rate: int) -> int:
        """Length of the analysis window in samples."""
        return round(self.window_s * sample_rate)


@dataclass(frozen=True)
class NetworkSpec(_JsonSpec):
    """A conditional U-Net: a text-free Head, a Modulator of the deepest scales, a decoder gated by the prompt.

    ``channels`` lists the encoder's levels from the stem down; the first ``head_levels`` of them form the Head. Levels
    of the Modulator carry self-attention and the conditioning. ``conditioning`` is one of ``CONDITIONINGS``.
    """

    CONDITIONINGS: ClassVar[tuple[str, ...]] = ("attention", "film", "concatenation", "gate")

    kind: str = "base"
    channels: tuple[int, ...] = (32, 48, 96, 160, 192)
    head_levels: int = 3
    decoder_channels: tuple[int, ...] = (32, 48, 80, 128)
    mask_maps: int = 16
    attention_heads: int = 4
    conditioning: str = "film"
    token_features: int = 384
    embedding_features: int = 384

    def __post_init__(self) -> None:
        if self.kind not in ("base", "paper"):
            raise ValueError(f"kind must be 'base' or 'paper', got {self.kind!r}")
        if self.conditioning not in self.CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {self.CONDITIONINGS}, got {self.conditioning!r}")
        if not 1 <= self.head_levels < len(self.channels):
            raise ValueError(f"head_levels must be in 1..{len(self.channels) - 1}, got {self.head_levels}")
        if self.kind == "base" and len(self.decoder_channels) != len(self.channels) - 1:
            raise ValueError(
                f"decoder_channels needs one entry a level, {len(self.channels) - 1}, got {len(self.decoder_channels)}"
            )


@dataclass(frozen=True)
class EmbedderSpec(_JsonSpec):
    """The joint audio-text embedder: what the text tower takes and both towers give.

    ``max_tokens`` counts the two special tokens; ``logit_scale`` multiplies cosines into logits;
    ``embedding_features`` is E, ``token_features`` is D. The audio tower takes the separator's ``bands``, or a
    ``waveform`` of ``audio_seconds`` at ``audio_sample_rate`` hertz, which is 0 for bands. ``anchors`` is the number
    of known phrases to which the text tower's answer is drawn, at ``anchor_temperature``; 0 where it is left as it is.
    """

    LATER: ClassVar[tuple[str, ...]] = ("audio_input", "audio_sample_rate", "anchors", "anchor_temperature")

    kind: str = "compact"
    max_tokens: int = 48
    token_features: int = 384
    embedding_features: int = 384
    logit_scale: float = 20.0
    audio_seconds: float = 5.0
    audio_input: str = "bands"
    audio_sample_rate: int = 0
    anchors: int = 0
    anchor_temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("compact", "laion"):
            raise ValueError(f"kind must be 'compact' or 'laion', got {self.kind!r}")
        if self.audio_input not in ("bands", "waveform"):
            raise ValueError(f"audio_input must be 'bands' or 'waveform', got {self.audio_input!r}")
        if (self.audio_input == "waveform") != (self.audio_sample_rate > 0):
            raise ValueError(
                f"audio_sample_rate must be above 0 for a waveform and 0 for bands, got {self.audio_sample_rate} "
                f"for {self.audio_input!r}"
            )

    @property
    def audio_samples(self) -> int:
        """Samples of the one waveform that the audio tower takes; 0 where it takes bands."""
        return round(self.audio_seconds * self.audio_sample_rate)
