"""A sound pack on disk: its clips, the phrases people use for a label, its fixed mixtures."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Clip:
    """One row of ``manifest.csv``: ``path`` is relative to the pack, ``part`` divides the train split in two."""

    path: str
    label: str
    source: str
    split: str
    seconds: float
    recording: str
    part: str


@dataclass(frozen=True)
class MixtureSource:
    """A clip's place in a mixture: cut from ``start`` s, placed at ``at`` s, scaled to ``level_db``."""

    path: str
    start: float
    at: float
    level_db: float
    label: str
    prompt: str


@dataclass(frozen=True)
class Mixture:
    """One line of a mixture list."""

    id: str
    seconds: float
    caption: str
    sources: tuple[MixtureSource, ...]


def read_manifest(sounds: Path) -> list[Clip]:
    """Read ``manifest.csv`` of the pack in ``sounds``.

    Raises:
        ValueError: the file is missing, or a row has an unknown split; the message names the row.
    """
    path = sounds / "manifest.csv"
    if not path.is_file():
        raise ValueError(f"no manifest.csv in {sounds}: is this a sound pack?")
    clips = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if row["split"] not in SPLITS:
                raise ValueError(f"{path}:{number}: split must be one of {SPLITS}, got {row['split']!r}")
            clips.append(Clip(**{**row, "seconds": float(row["seconds"])}))  # type: ignore[arg-type]
    return clips


def read_phrases(sounds: Path) -> dict[str, tuple[str, ...]]:
    """Read ``phrases.json``: label -> the phrases people use for it."""
    data = json.loads((sounds / "phrases.json").read_text())
    return {label: tuple(phrases) for label, phrases in data.items()}


def read_mixtures(path: Path) -> list[Mixture]:
    """Read a mixture list, one JSON object a line.

    Raises:
        ValueError: a line lacks a field; the message names file and line.
    """
    mixtures = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            data = json.loads(line)
            sources = tuple(MixtureSource(**source) for source in data.pop("sources"))
            mixtures.append(Mixture(**data, sources=sources))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}:{number}: not a mixture line: {error}") from error
    return mixtures
