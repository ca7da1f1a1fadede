"""VGGSound: ``vggsound.csv`` without header (id,start,label,split), clips named ``{id}_{start:06d}``.

A label is one sound, with synonyms after commas ("playing violin, fiddle"): the first is the phrase and the caption.
"""

from __future__ import annotations

import csv
from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, spoken
from training.recording_manifest import Recording


def collect(root: Path) -> Collected:
    """Lines of VGGSound.

    Raises:
        ValueError: no table, or a row that is not of this layout; file and line are named.
    """
    collected, tree = Collected(), AudioTree(root)
    for table in listed(root, "vggsound.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if len(row) != 4 or not row[1].isdigit():
                    raise ValueError(f"{table}:{number}: must be id,start,label,split, got {row}")
                video, start, label, split = row
                stem = f"{video}_{int(start):06d}"
                path = tree.find(stem, f"{video}_{int(start)}")
                if path is None:
                    collected.missing.append(stem)
                    continue
                phrase = spoken(label.split(",")[0].translate({ord("("): " ", ord(")"): " "}))
                collected.recordings.append(
                    Recording(
                        id=f"vggsound/{stem}",
                        path=path,
                        caption=phrase,
                        source=f"youtube:{video}",
                        phrases=(phrase,),
                        split=split,
                    )
                )
    return collected
