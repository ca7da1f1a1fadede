"""MUSIC: ``MUSIC*_videos.json``, ``{"videos": {"acoustic_guitar": [id, ...], "flute violin": [id, ...]}}``.

Solos have one label, duets two, parted by a space. Audio is named by the video's id. There is no split.
"""

from __future__ import annotations

import json
from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, spoken
from training.recording_manifest import Recording


def collect(root: Path) -> Collected:
    """Lines of MUSIC; a video that two of the lists name is taken once.

    Raises:
        ValueError: no list, or one that is not of this layout; the message names it.
    """
    collected, tree = Collected(), AudioTree(root)
    seen: set[str] = set()
    for path in listed(root, "MUSIC*_videos.json"):
        try:
            videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
            pairs = [(labels, str(video)) for labels, group in videos.items() for video in group]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{path}: must be {{"videos": {{label: [id, ...]}}}}: {error!r}') from error
        for labels, video in pairs:
            if video in seen:
                continue
            seen.add(video)
            audio = tree.find(video)
            if audio is None:
                collected.missing.append(video)
                continue
            phrases = tuple(spoken(label) for label in labels.split())
            collected.recordings.append(
                Recording(
                    id=f"music/{video}",
                    path=audio,
                    caption=" and ".join(phrases),
                    source=f"youtube:{video}",
                    phrases=phrases,
                )
            )
    return collected
