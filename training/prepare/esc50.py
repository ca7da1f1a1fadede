"""ESC-50: ``meta/esc50.csv`` (filename,fold,target,category,esc10,src_file,take) and ``audio/``.

``src_file`` is the Freesound id. The five folds become splits ``fold1`` to ``fold5``. ESC-10, a part of it, is under
CC BY, the rest CC BY-NC.
"""

from __future__ import annotations

from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, rows, spoken
from training.recording_manifest import Recording


def collect(root: Path) -> Collected:
    """Lines of ESC-50.

    Raises:
        ValueError: no table, or one that is not of this layout.
    """
    collected, tree = Collected(), AudioTree(root)
    for table in listed(root, "esc50.csv"):
        for row in rows(table, "filename", "fold", "category", "esc10", "src_file"):
            path = tree.find(Path(row["filename"]).stem)
            if path is None:
                collected.missing.append(row["filename"])
                continue
            phrase = spoken(row["category"])
            collected.recordings.append(
                Recording(
                    id=f"esc50/{row['filename']}",
                    path=path,
                    caption=phrase,
                    source=f"freesound:{row['src_file']}",
                    phrases=(phrase,),
                    split=f"fold{row['fold']}",
                    licence="CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0",
                )
            )
    return collected
