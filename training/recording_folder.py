"""A folder of recordings with their captions beside them: the least that a user has to write.

One of, where the first found counts:

    captions.jsonl    {"file": "a.wav", "caption": "...", "phrases": [...]} a line; phrases may be left out
    captions.csv      a header with file and caption
    NAME.txt          beside NAME.wav: the caption
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from training.recording_files import FileRecordings, Splitter, split_caption
from training.recording_manifest import Recording

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")


class FolderRecordings(FileRecordings):
    """The captioned recordings of a folder, in the order of its list or of their names.

    Raises:
        ValueError: no folder, no captioned recording in it, or its list names a file that is not there.
    """

    def __init__(self, folder: Path, sample_rate: int, splitter: Splitter = split_caption) -> None:
        super().__init__(read_folder(folder), sample_rate, splitter)


def read_folder(folder: Path) -> list[Recording]:
    """The recordings of a folder; each file is a source of its own.

    Raises:
        ValueError: as :class:`FolderRecordings`.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    if (folder / "captions.jsonl").is_file():
        found = list(_from_lines(folder / "captions.jsonl"))
    elif (folder / "captions.csv").is_file():
        found = list(_from_table(folder / "captions.csv"))
    else:
        found = list(_from_neighbours(folder))
    if not found:
        raise ValueError(f"{folder}: no captioned recording: write captions.csv (file,caption) or NAME.txt by NAME.wav")
    return found


def _from_lines(path: Path) -> Iterator[Recording]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            phrases = data.get("phrases", [])
            if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
                raise ValueError(f"phrases must be a list of texts, got {phrases!r}")
            yield _recording(path.parent, data["file"], data["caption"], tuple(phrases))
        except KeyError as error:
            raise ValueError(f"{path}:{number}: lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error


def _from_table(path: Path) -> Iterator[Recording]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
        table = csv.DictReader(file)
        lacking = [name for name in ("file", "caption") if name not in (table.fieldnames or [])]
        if lacking:
            raise ValueError(f"{path}: the header must have file and caption, got {table.fieldnames}")
        for row in table:
            try:
                yield _recording(path.parent, row["file"], row["caption"], ())
            except ValueError as error:
                raise ValueError(f"{path}:{table.line_num}: {error}") from error


def _from_neighbours(folder: Path) -> Iterator[Recording]:
    for path in sorted(folder.rglob("*")):
        caption = path.with_suffix(".txt")
        if path.suffix.lower() in AUDIO_SUFFIXES and caption.is_file():
            name = path.relative_to(folder).as_posix()
            try:
                yield _recording(folder, name, caption.read_text(encoding="utf-8"), ())
            except ValueError as error:
                raise ValueError(f"{caption}: {error}") from error


def _recording(folder: Path, file: str, caption: str | None, phrases: tuple[str, ...]) -> Recording:
    if not caption or not caption.strip():
        raise ValueError(f"{file!r} has no caption")
    if not (folder / file).is_file():
        raise ValueError(f"no file {file!r} in {folder}")
    return Recording(
        id=file, path=folder / file, caption=" ".join(caption.split()), source=f"file:{file}", phrases=phrases
    )
