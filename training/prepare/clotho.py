"""Clotho: ``clotho_captions_SPLIT.csv`` (file_name,caption_1..5) and ``clotho_metadata_SPLIT.csv`` beside it.

The metadata give the Freesound id, by which clips shared with FSD50K and ESC-50 are known, and the licence; without
them a file is a source of its own. Each of a clip's five captions gives a line.
"""

from __future__ import annotations

from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, rows
from training.recording_manifest import Recording

_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def collect(root: Path) -> Collected:
    """Lines of Clotho.

    Raises:
        ValueError: no table of captions, or one that is not of this layout.
    """
    collected, tree = Collected(), AudioTree(root)
    for table in listed(root, "clotho_captions_*.csv"):
        split = table.stem.removeprefix("clotho_captions_")
        about = _metadata(table.with_name(f"clotho_metadata_{split}.csv"))
        here = {path.name: path for path in tree.files if split in path.parent.parts}
        for row in rows(table, "file_name", *_CAPTIONS):
            name = row["file_name"]
            # Splits have files of the same name: the one in the split's own folder is meant.
            path = here.get(name) or tree.find(Path(name).stem)
            if path is None:
                collected.missing.append(name)
                continue
            known = about.get(name.strip(), {})
            sound = known.get("sound_id", "")
            collected.recordings.extend(
                Recording(
                    id=f"clotho/{split}/{name}#{number}",
                    path=path,
                    caption=row[column].strip(),
                    source=f"freesound:{sound}" if sound.isdigit() else f"clotho:{name}",
                    split=split,
                    licence=known.get("license", ""),
                )
                for number, column in enumerate(_CAPTIONS, start=1)
            )
    return collected


def _metadata(path: Path) -> dict[str, dict[str, str]]:
    """File name -> its row; empty without the table. It is published in Latin 1."""
    if not path.is_file():
        return {}
    return {row["file_name"].strip(): row for row in rows(path, "file_name", "sound_id", encoding="latin-1")}
