"""AudioCaps: ``train.csv``, ``val.csv``, ``test.csv`` (audiocap_id,youtube_id,start_time,caption), audio anywhere.

A clip is named ``{youtube_id}_{start}`` or ``Y{youtube_id}``, as the common downloaders do. The five captions of a
validation or test clip give five lines of one source. Captions come without phrases.
"""

from __future__ import annotations

from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, rows
from training.recording_manifest import Recording


def collect(root: Path) -> Collected:
    """Lines of AudioCaps.

    Raises:
        ValueError: no table, or a table that is not of this layout.
    """
    collected, tree = Collected(), AudioTree(root)
    for table in listed(root, "train.csv", "val.csv", "test.csv"):
        for row in rows(table, "audiocap_id", "youtube_id", "start_time", "caption"):
            video, start = row["youtube_id"], int(float(row["start_time"]))
            path = tree.find(f"{video}_{start}", f"Y{video}_{start}", f"{video}_{start:06d}", f"Y{video}", video)
            if path is None:
                collected.missing.append(f"{video}_{start}")
                continue
            collected.recordings.append(
                Recording(
                    id=f"audiocaps/{row['audiocap_id']}",
                    path=path,
                    caption=row["caption"].strip(),
                    source=f"youtube:{video}",
                    split=table.stem,
                )
            )
    return collected
