"""A manifest of captioned recordings: one JSON object a line, paths relative to the manifest.

    {"id": "audiocaps/1", "path": "audio/abc_30.wav", "caption": "A dog barks as a car passes",
     "phrases": ["a dog barking", "a car passing"], "start": 0.0, "seconds": 10.0,
     "source": "youtube:abc", "split": "train", "licence": "CC BY 4.0"}

``id``, ``path``, ``caption`` and ``source`` must be there. ``source`` names the recording that the file was cut from,
with its site, so that one recording which two data sets hold is known for one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_NEEDED = ("id", "path", "caption", "source")
_TEXTS = (*_NEEDED, "split", "licence")
_NUMBERS = ("start", "seconds")


@dataclass(frozen=True)
class Recording:
    """One line: seconds ``start`` to ``start + seconds`` of the file at ``path``, to its end where ``seconds`` is none.

    ``phrases`` name its sounds; empty where only the caption does.
    """

    id: str
    path: Path
    caption: str
    source: str
    phrases: tuple[str, ...] = ()
    start: float = 0.0
    seconds: float | None = None
    split: str = ""
    licence: str = ""


def read_recordings(path: Path) -> list[Recording]:
    """Read a manifest; paths come back joined to its folder. ``path`` may end in ``#train,valid`` to choose splits.

    Raises:
        ValueError: no such file, no recording in it (or in those splits), or a line is wrong; file and line are named.
    """
    name, _, splits = str(path).partition("#")
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"no manifest {path}")
    recordings = list(_parse(path))
    if not recordings:
        raise ValueError(f"{path}: no recording in it")
    if splits:
        known = sorted({recording.split for recording in recordings})
        wanted = splits.split(",")
        recordings = [recording for recording in recordings if recording.split in wanted]
        if not recordings:
            raise ValueError(f"{path}: no recording of split {splits!r}, it has {known}")
    return recordings


def _parse(path: Path) -> Iterator[Recording]:
    seen: dict[str, int] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                recording = _recording(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            if recording.id in seen:
                raise ValueError(f"{path}:{number}: id {recording.id!r} is that of line {seen[recording.id]} too")
            seen[recording.id] = number
            yield replace(recording, path=path.parent / recording.path)


def _recording(data: Any) -> Recording:
    if not isinstance(data, dict):
        raise ValueError(f"must be an object, got {type(data).__name__}")
    known = {*_TEXTS, *_NUMBERS, "phrases"}
    unknown, missing = sorted(set(data) - known), [key for key in _NEEDED if key not in data]
    if unknown or missing:
        raise ValueError(f"unknown keys {unknown}, missing keys {missing}")
    for key in set(_TEXTS) & set(data):
        if not isinstance(data[key], str) or (key in _NEEDED and not data[key].strip()):
            raise ValueError(f"{key} must be {'a text' if key in _NEEDED else 'a string'}, got {data[key]!r}")
    for key in set(_NUMBERS) & set(data):
        low = "at least 0" if key == "start" else "above 0"
        number = data[key]
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{key} must be a number of seconds, got {number!r}")
        if number < 0 or (key == "seconds" and number == 0) or number != number:
            raise ValueError(f"{key} must be {low}, got {number!r}")
    phrases = data.get("phrases", [])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise ValueError(f"phrases must be a list of texts, got {phrases!r}")
    return Recording(**{**data, "path": Path(data["path"]), "phrases": tuple(phrases)})


def write_recordings(path: Path, recordings: Iterable[Recording]) -> int:
    """Write a manifest with paths relative to it, complete or not at all; returns the number of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        for recording in recordings:
            file.write(json.dumps(_plain(recording, path.parent), ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


def _plain(recording: Recording, folder: Path) -> dict[str, Any]:
    """A line's JSON values, without those that say nothing."""
    values: dict[str, Any] = {**vars(recording), "phrases": list(recording.phrases)}
    values["path"] = Path(os.path.relpath(recording.path, folder)).as_posix()
    return {key: value for key, value in values.items() if key in _NEEDED or value not in ("", [], None, 0.0)}
