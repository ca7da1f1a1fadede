"""What is evaluated: mixtures with known sources, of a list or a folder, and prompts for what is not in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from training.dataset import Pack
from training.manifest import Mixture, read_manifest, read_mixtures
from training.mixing import render

MIXTURE = "mixture"
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff")


class Prompt(NamedTuple):
    """A phrase to separate by; ``label`` and ``source`` are what its figures are grouped by."""

    prompt: str
    label: str
    source: str


class Scene(NamedTuple):
    """Audio of a case: mixture ``[C, T]``, its sources ``[S, C, T]``, sample rate in hertz."""

    mixture: np.ndarray
    sources: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Case:
    """One mixture: ``present`` are its sources' prompts in order, ``absent`` prompts for sounds it does not have."""

    id: str
    present: tuple[Prompt, ...]
    load: Callable[[], Scene]
    absent: tuple[Prompt, ...] = ()


def cases_of_list(path: Path, sounds: Path, sample_rate: int) -> list[Case]:
    """Read the lines of a mixture list; each is rendered when its case is loaded.

    Raises:
        ValueError: list or pack cannot be read, or a line names a clip that the pack lacks.
    """
    if not path.is_file():
        raise ValueError(f"no mixture list {path}")
    clips = read_manifest(sounds)
    source_of = {clip.path: clip.source for clip in clips}
    # Rendering reads the files themselves; the decoded copy, which training keeps at its own rate, is not needed.
    pack = Pack(sounds, clips, sample_rate, np.zeros(0, np.int16), np.zeros(1, np.int64))
    cases = []
    for line in read_mixtures(path):
        unknown = [source.path for source in line.sources if source.path not in source_of]
        if unknown:
            raise ValueError(f"{path}: mixture {line.id} names {unknown[0]}, which is not in the pack's manifest")
        present = tuple(Prompt(source.prompt, source.label, source_of[source.path]) for source in line.sources)
        cases.append(Case(line.id, present, _renderer(line, pack)))
    return cases


def _renderer(line: Mixture, pack: Pack) -> Callable[[], Scene]:
    def load() -> Scene:
        mixture, sources = render(line, pack, pack.sample_rate)
        return Scene(mixture[None], sources[:, None], pack.sample_rate)

    return load


def cases_of_folder(folder: Path) -> list[Case]:
    """Find one case a sub-folder: ``mixture.wav`` and a stem a prompt, ``dog_barking.wav`` for "dog barking".

    Stems need not add up to the mixture: what nobody asks for may be left out.

    Raises:
        ValueError: there is no sub-folder with a mixture, or one has no stem.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    cases = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in inner.iterdir() if path.suffix.lower() in EXTENSIONS)
        mixtures = [path for path in files if path.stem == MIXTURE]
        stems = [path for path in files if path.stem != MIXTURE]
        if not mixtures:
            continue
        if len(mixtures) > 1 or not stems:
            raise ValueError(f"{inner} needs one {MIXTURE} and at least one stem, got {[path.name for path in files]}")
        phrases = [path.stem.replace("_", " ") for path in stems]
        present = tuple(Prompt(phrase, phrase, folder.name) for phrase in phrases)
        cases.append(Case(inner.name, present, _reader(mixtures[0], stems)))
    if not cases:
        raise ValueError(f"{folder} has no sub-folder with a {MIXTURE}.wav")
    return cases


def _reader(mixture: Path, stems: Sequence[Path]) -> Callable[[], Scene]:
    def load() -> Scene:
        heard, sample_rate = soundfile.read(mixture, dtype="float32", always_2d=True)
        sources = []
        for path in stems:
            stem, rate = soundfile.read(path, dtype="float32", always_2d=True)
            if (rate, stem.shape) != (sample_rate, heard.shape):
                raise ValueError(
                    f"{path} must have its mixture's {sample_rate} Hz and {heard.shape} samples and channels, "
                    f"got {rate} Hz and {stem.shape}"
                )
            sources.append(stem.T)
        return Scene(heard.T, np.stack(sources), sample_rate)

    return load


def asked_by(cases: Sequence[Case], phrases: Mapping[str, str]) -> list[Case]:
    """Ask for each sound by its label's phrase in ``phrases`` instead of by its own prompt.

    Raises:
        ValueError: a label has no phrase there.
    """
    lacking = sorted({prompt.label for case in cases for prompt in case.present} - set(phrases))
    if lacking:
        raise ValueError(f"{len(lacking)} labels have no phrase to be asked by, the first is {lacking[0]!r}")
    return [
        replace(case, present=tuple(prompt._replace(prompt=phrases[prompt.label]) for prompt in case.present))
        for case in cases
    ]


def with_absent(
    cases: Sequence[Case], phrases: Mapping[str, Sequence[str]], count: int, source_of: Mapping[str, str]
) -> list[Case]:
    """Give each case ``count`` prompts of labels that it does not have, drawn by its id alone.

    Args:
        cases: to add to.
        phrases: label -> phrases to draw from.
        count: prompts a case.
        source_of: label -> the source its figures count for; empty for those it lacks.

    Raises:
        ValueError: fewer than ``count`` labels are absent from a case.
    """
    return [replace(case, absent=_absent(case, phrases, count, source_of)) for case in cases]


def _absent(
    case: Case, phrases: Mapping[str, Sequence[str]], count: int, source_of: Mapping[str, str]
) -> tuple[Prompt, ...]:
    taken = {name for prompt in case.present for name in (prompt.label, prompt.prompt)}
    labels = sorted(label for label, group in phrases.items() if label not in taken and not taken & set(group))
    if len(labels) < count:
        raise ValueError(f"mixture {case.id}: {count} absent prompts need as many other labels, got {len(labels)}")
    rng = np.random.default_rng(list(hashlib.sha256(case.id.encode()).digest()))
    drawn = [labels[index] for index in rng.choice(len(labels), size=count, replace=False)] if count else []
    return tuple(
        Prompt(str(phrases[label][int(rng.integers(len(phrases[label])))]), label, source_of.get(label, ""))
        for label in drawn
    )
