"""LAION-CLAP behind the embedders' protocol, frozen: the published weights in ``transformers.ClapModel``.

Source: arXiv 2211.06687 and the package ``laion-clap`` 1.1.7, which cannot be imported beside ours (docs/laion.md says
why). What differs: a recording above 10 s is the mean of the embeddings of windows that cover it, where the package
takes a random crop, so that one recording has one embedding; waveforms are not rounded to 16 bits, which would stop
the gradient; other sample rates are taken. The fused variants are not supported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.embedder.laion_keys import read_checkpoint, rename, sizes
from model.embedder.laion_tokenizer import LaionTokenizer
from model.embedder.mel import LogMel, MelConfig
from model.embedder.resample import Resampler
from model.spec import EmbedderSpec
from model.windows import repeats, window_starts

MAX_TOKENS = 77  # as the package cuts
_TEXTS_AT_ONCE = 256
_TOKENIZER_FOLDERS = ("tokenizer", "roberta-base")


class LaionText(nn.Module):
    """The text tower: token ids to the last hidden states and one unit vector.

    Shape:
        ids ``[B, L]`` int64, padding ``[B, L]`` bool (True where padded) -> tokens ``[B, L, D]``, pooled ``[B, E]``
    """

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.text_model, self.text_projection = clap.text_model, clap.text_projection
        self.pad = int(clap.config.text_config.pad_token_id)

    def forward(self, ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Embed; whatever id stands at a padded position."""
        ids = torch.where(padding, self.pad, ids)  # RoBERTa counts positions by it
        out = self.text_model(input_ids=ids, attention_mask=(~padding).long())
        return out.last_hidden_state, functional.normalize(self.text_projection(out.pooler_output), dim=-1)


class LaionAudio(nn.Module):
    """The audio tower with its front end: 10 s at 48 kHz to one unit vector.

    Shape:
        ``[B, config.n_samples]`` -> ``[B, E]``
    """

    def __init__(self, clap: Any, mel: MelConfig) -> None:
        super().__init__()
        self.mel = LogMel(mel)
        self.audio_model, self.audio_projection = clap.audio_model, clap.audio_projection

    def forward(self, waveform: Tensor) -> Tensor:
        """Embed."""
        out = self.audio_model(input_features=self.mel(waveform)[:, None])
        return functional.normalize(self.audio_projection(out.pooler_output), dim=-1)


class LaionEmbedder(nn.Module):
    """Both towers and the tokenizer, an :class:`model.embedder.Embedder`; stays in inference mode and has no gradient
    but to its waveforms."""

    scale: Tensor

    def __init__(self, clap: Any, tokenizer: LaionTokenizer, mel: MelConfig) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_tower = LaionText(clap)
        self.audio_tower = LaionAudio(clap, mel)
        self.register_buffer("scale", clap.logit_scale_a.detach().exp().clone())
        self.token_features = int(clap.config.text_config.hidden_size)
        self.embedding_features = int(clap.config.projection_dim)
        self.resamplers: dict[int, Resampler] = {}
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LaionEmbedder:
        """Change nothing: dropout in a judge would be noise in its judgement."""
        super().train(False)
        return self

    @property
    def logit_scale(self) -> Tensor:
        """Scalar that multiplies cosines into logits: the audio's, which the contrastive loss of the paper uses."""
        return self.scale

    @property
    def spec(self) -> EmbedderSpec:
        """What the bundle's manifest says of the embedder."""
        mel = self.audio_tower.mel.config
        return EmbedderSpec(
            kind="laion",
            max_tokens=self.tokenizer.max_tokens,
            token_features=self.token_features,
            embedding_features=self.embedding_features,
            logit_scale=round(float(self.scale), 4),
            audio_seconds=mel.seconds,
            audio_input="waveform",
            audio_sample_rate=mel.sample_rate,
        )

    @torch.no_grad()
    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed phrases; see :meth:`model.embedder.Embedder.text`.

        Raises:
            ValueError: there is no phrase.
        """
        if not prompts:
            raise ValueError("text needs at least one prompt, got none")
        ids, padding = (part.to(self.scale.device) for part in self.tokenizer.encode(prompts))
        parts = [
            self.text_tower(*part)
            for part in zip(ids.split(_TEXTS_AT_ONCE), padding.split(_TEXTS_AT_ONCE), strict=True)
        ]
        return torch.cat([tokens for tokens, _ in parts]), padding, torch.cat([pooled for _, pooled in parts])

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embed waveforms ``[B, T]``; see :meth:`model.embedder.Embedder.audio`.

        Raises:
            ValueError: there is no sample, or the rate is below 1.
        """
        mel = self.audio_tower.mel.config
        resampler = self.resamplers.get(sample_rate)
        if resampler is None:
            resampler = self.resamplers.setdefault(sample_rate, Resampler(sample_rate, mel.sample_rate))
        waveform = resampler.to(waveform.device)(waveform)
        n_samples, length = waveform.shape[1], mel.n_samples
        if n_samples <= length:
            repeated = waveform.repeat(1, repeats(n_samples, length))
            return self.audio_tower(functional.pad(repeated, (0, length - repeated.shape[1])))
        starts = window_starts(n_samples, length)
        windows = torch.stack([waveform[:, start : start + length] for start in starts], dim=1)
        embedded = self.audio_tower(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return functional.normalize(embedded.mean(dim=1), dim=-1)

    @classmethod
    def load(cls, folder: Path | str) -> LaionEmbedder:
        """Read a Hugging Face folder: ``config.json``, weights, tokenizer and, if it is there, the front end's config.

        Raises:
            ValueError: a file is missing or says something this embedder is not.
        """
        from transformers import ClapModel

        folder = Path(folder)
        config = _read_json(folder / "config.json")
        if config.get("model_type") != "clap":
            raise ValueError(f"{folder}: model_type must be 'clap', got {config.get('model_type')!r}")
        if config.get("audio_config", {}).get("enable_fusion"):
            raise ValueError(f"{folder}: fused models are not supported; take an unfused one")
        mel = _front_end(folder)
        try:
            loaded: Any = ClapModel.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                attn_implementation="eager",
                dtype=torch.float32,
            )
        except OSError as error:
            raise ValueError(f"{folder}: {error}") from error
        clap, loading = loaded
        # What is missing would be filled with random numbers and a warning.
        missing = {key for key in loading["missing_keys"] if not key.endswith(("_ids", "relative_position_index"))}
        if missing or loading["mismatched_keys"]:
            raise ValueError(f"{folder}: weights lack or do not fit {sorted(missing) or loading['mismatched_keys']}")
        return cls(clap, _tokenizer_of(clap, folder), mel)

    @classmethod
    def load_original(cls, path: Path | str, tokenizer: Path | str | None = None) -> LaionEmbedder:
        """Read an original ``.pt`` checkpoint, unfused HTSAT and RoBERTa.

        Args:
            path: the checkpoint.
            tokenizer: folder of RoBERTa's tokenizer; ``tokenizer`` or ``roberta-base`` beside the file if not given.

        Raises:
            ValueError: a file is missing, or the checkpoint is of something else.
        """
        from transformers import ClapConfig, ClapModel

        path = Path(path)
        state = rename(read_checkpoint(path))
        clap: Any = ClapModel._from_config(ClapConfig(**sizes(state)), attn_implementation="eager")
        own = {key for key in clap.state_dict() if key.endswith(("_ids", "relative_position_index"))}
        try:
            unmatched = clap.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{path}: weights do not fit: {error}") from error
        wrong = [*sorted(set(unmatched.missing_keys) - own), *unmatched.unexpected_keys]
        if wrong:
            raise ValueError(f"{path}: {len(wrong)} weights are missing or too many, the first is {wrong[0]}")
        beside = [path.parent / name for name in _TOKENIZER_FOLDERS]
        folder = Path(tokenizer) if tokenizer else next((at for at in beside if at.is_dir()), beside[0])
        return cls(clap, _tokenizer_of(clap, folder), MelConfig())


def _tokenizer_of(clap: Any, folder: Path) -> LaionTokenizer:
    text = clap.config.text_config
    return LaionTokenizer.load(folder, MAX_TOKENS, vocabulary=text.vocab_size, pad=text.pad_token_id)


def _front_end(folder: Path) -> MelConfig:
    """Numbers of the feature extractor beside the weights, the published ones where there is none."""
    if (folder / "preprocessor_config.json").is_file():
        said = _read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        said = _read_json(folder / "processor_config.json").get("feature_extractor", {})
    else:
        return MelConfig()
    for key, wanted in (("truncation", "rand_trunc"), ("padding", "repeatpad")):
        if said.get(key, wanted) != wanted:
            raise ValueError(f"{folder}: the feature extractor's {key} must be {wanted!r}, got {said[key]!r}")
    named = {
        "sample_rate": "sampling_rate",
        "window_length": "fft_window_size",
        "hop": "hop_length",
        "n_mels": "feature_size",
        "min_hz": "frequency_min",
        "max_hz": "frequency_max",
        "seconds": "max_length_s",
    }
    return MelConfig(**{ours: said[theirs] for ours, theirs in named.items() if theirs in said})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold an object")
    return content
