"""FSD50K: ``FSD50K.ground_truth/dev.csv`` (fname,labels,mids,split) and ``eval.csv``, audio named by Freesound id.

The ground truth names a sound's ancestors too (an electric guitar is a guitar, a plucked string instrument, a musical
instrument, music): as phrases they would be one sound asked for five times. A label is left out where another of the
clip's labels never comes without it, which is what an ancestor is in labels that were propagated upwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from training.prepare.layout import AudioTree, Collected, listed, rows, spoken
from training.recording_manifest import Recording


def collect(root: Path) -> Collected:
    """Lines of FSD50K; the development set's are of split train or val, the evaluation set's of split test.

    Raises:
        ValueError: no ground truth, or a table that is not of this layout.
    """
    collected, tree = Collected(), AudioTree(root)
    tables = [(table, list(rows(table, "fname", "labels"))) for table in listed(root, "dev.csv", "eval.csv")]
    labels = [row["labels"].split(",") for _, table in tables for row in table]
    ancestors = find_ancestors(labels)
    for table, clips in tables:
        licences = _licences(root, f"{table.stem}_clips_info_FSD50K.json")
        for row in clips:
            sound = row["fname"]
            path = tree.find(sound)
            if path is None:
                collected.missing.append(sound)
                continue
            phrases = tuple(spoken(label) for label in most_exact(row["labels"].split(","), ancestors))
            collected.recordings.append(
                Recording(
                    id=f"fsd50k/{sound}",
                    path=path,
                    caption=" and ".join(phrases),
                    source=f"freesound:{sound}",
                    phrases=phrases,
                    split=row.get("split") or "test",
                    licence=licences.get(sound, ""),
                )
            )
    return collected


def find_ancestors(clips: Iterable[list[str]]) -> dict[str, set[str]]:
    """Label -> those other labels that every clip with it has too."""
    always: dict[str, set[str]] = {}
    for labels in clips:
        for label in labels:
            always[label] = always[label] & set(labels) if label in always else set(labels)
    return {label: others - {label} for label, others in always.items()}


def most_exact(labels: list[str], ancestors: dict[str, set[str]]) -> list[str]:
    """The labels that are no other's ancestor, in their order; of two that never part, the first."""
    kept = []
    for place, label in enumerate(labels):
        above = [other for other in labels if label in ancestors[other]]
        if all(other in ancestors[label] and labels.index(other) > place for other in above):
            kept.append(label)
    return kept


def _licences(root: Path, name: str) -> dict[str, str]:
    """Clip -> licence, from the metadata; empty without them."""
    found = sorted(root.rglob(name))
    if not found:
        return {}
    about = json.loads(found[0].read_text(encoding="utf-8"))
    return {sound: str(clip.get("license", "")) for sound, clip in about.items()}
