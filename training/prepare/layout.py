"""What every layout shares: the audio that is there, the manifest's lines it gives, and what was missing."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from training.recording_folder import AUDIO_SUFFIXES
from training.recording_manifest import Recording

_NAMED = 3  # missing files that a report names


@dataclass
class Collected:
    """Lines of a manifest, and the names of the files that were listed and are not there."""

    recordings: list[Recording] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def report(self, layout: str) -> str:
        """One line for a terminal."""
        line = f"{layout}: {len(self.recordings)} recordings of {len({r.source for r in self.recordings})} sources"
        if not self.missing:
            return f"{line}, no file missing"
        names = list(dict.fromkeys(self.missing))  # a clip with five captions is listed five times
        named = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        return f"{line}, {len(names)} files missing ({named})"


class AudioTree:
    """The audio files under a folder, found by the name without its suffix, wherever they lie; walked once."""

    def __init__(self, root: Path) -> None:
        self.files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES]
        self._by_stem: dict[str, Path] = {}
        for path in self.files:
            self._by_stem.setdefault(path.stem, path)

    def find(self, *stems: str) -> Path | None:
        """The first of the stems that a file has."""
        return next((self._by_stem[stem] for stem in stems if stem in self._by_stem), None)


def listed(root: Path, *names: str) -> list[Path]:
    """Files of these names anywhere under ``root``, in the order of the names.

    Raises:
        ValueError: there is none.
    """
    if not root.is_dir():
        raise ValueError(f"no folder {root}")
    found = [path for name in names for path in sorted(root.rglob(name))]
    if not found:
        raise ValueError(f"none of {', '.join(names)} under {root}")
    return found


def rows(path: Path, *columns: str, encoding: str = "utf-8-sig") -> Iterator[dict[str, str]]:
    """Rows of a table with a header that has at least these columns.

    Raises:
        ValueError: a column is missing, or a row is shorter than the header; file and line are named.
    """
    with path.open(newline="", encoding=encoding) as file:
        table = csv.DictReader(file)
        lacking = [name for name in columns if name not in (table.fieldnames or [])]
        if lacking:
            raise ValueError(f"{path}: the header lacks {lacking}, it has {table.fieldnames}")
        for row in table:
            if any(row[name] is None for name in columns):
                raise ValueError(f"{path}:{table.line_num}: fewer fields than the header has")
            yield row


def spoken(label: str) -> str:
    """A label as one would say it: ``Acoustic_guitar`` is "acoustic guitar"."""
    return " ".join(label.replace("_", " ").lower().split())
