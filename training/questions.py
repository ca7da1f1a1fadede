"""Recordings with prompts of which half are there: what presence is calibrated and tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.presence import energy_db
from model.runtime import Runtime
from model.spectral import MaskStream
from training.dataset import Pack
from training.manifest import Mixture
from training.mixing import render

_MOST_ASKED = 3  # sounds of a recording, and as many that are not in it


@dataclass(frozen=True)
class Question:
    """A recording ``[T]`` and prompts, the first half of which are in it."""

    waveform: np.ndarray
    sample_rate: int
    prompts: tuple[str, ...]

    @property
    def present(self) -> np.ndarray:
        """Whether each prompt's sound is there. Shape: [P] bool."""
        return np.arange(len(self.prompts)) < len(self.prompts) // 2


def questions(
    mixtures: Sequence[Mixture],
    pack: Pack,
    phrases: Mapping[str, Sequence[str]],
    *,
    joined: int = 1,
    asked_by: Mapping[str, str] | None = None,
) -> Iterator[Question]:
    """Render mixtures, ``joined`` of them end to end to a recording, and ask; the same prompts for every model.

    Sounds are asked for by their line's prompt, or by ``asked_by`` where it has their label; absent ones are drawn from
    the labels of ``phrases``.
    """
    for first in range(0, len(mixtures) - joined + 1, joined):
        lines = mixtures[first : first + joined]
        rng = np.random.default_rng([first, joined])
        sources = [source for line in lines for source in line.sources]
        asked = [sources[row] for row in rng.permutation(len(sources))[:_MOST_ASKED]]
        there = {source.label for source in sources}
        strangers = sorted(set(phrases) - there)
        absent = [strangers[row] for row in rng.permutation(len(strangers))[: len(asked)]]
        prompts = [source.prompt for source in asked]
        prompts += [phrases[label][int(rng.integers(len(phrases[label])))] for label in absent]
        if asked_by:
            labels = [*(source.label for source in asked), *absent]
            prompts = [asked_by.get(label, prompt) for label, prompt in zip(labels, prompts, strict=True)]
        waveform = np.concatenate([render(line, pack, pack.sample_rate)[0] for line in lines])
        yield Question(waveform, pack.sample_rate, tuple(prompts))


def measure(runtime: Runtime, question: Question) -> np.ndarray:
    """What :class:`model.calibration.Calibration` weighs: cosine, stem's cosine, stem's energy in dB, window by window.

    From an audio tower that takes waveforms there is the cosine alone, in its own windows.

    Shape:
        returns ``[W, P, 3]``, or ``[W, P, 1]``; silent windows are left out
    """
    embedding = runtime.embed(question.prompts)
    rows: list[np.ndarray] = []
    if runtime.audio_rate:
        import soxr

        waveform = soxr.resample(question.waveform, question.sample_rate, runtime.audio_rate)
        for first in range(0, len(waveform), runtime.audio_samples):
            part = waveform[max(0, min(first, len(waveform) - runtime.audio_samples)) :][: runtime.audio_samples]
            if part.any():
                rows.append(runtime.similarity(part, embedding[2])[:, None])
        return np.stack(rows)

    def mask(bands: np.ndarray) -> np.ndarray:
        masks = runtime.mask(bands, embedding)
        if bands.any():
            stems = runtime.stem_similarity(bands, masks, embedding[2])
            rows.append(np.column_stack([runtime.similarity(bands, embedding[2]), stems, energy_db(bands, masks)]))
        return masks

    stream = MaskStream(runtime.bundle.signal, question.sample_rate, 1, len(question.prompts), mask)
    stream.push(question.waveform[None])
    stream.finish()
    return np.stack(rows)
