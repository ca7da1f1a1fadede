"""Join manifests so that no recording is heard twice, and none that a test asks for is heard at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.recording_manifest import Recording


@dataclass(frozen=True)
class Joined:
    """What is left, how many lines were tested on and how many are of a source that an earlier manifest has."""

    recordings: list[Recording]
    n_tested: int
    n_shared: int


def join(manifests: Sequence[Sequence[Recording]], against: Sequence[Recording] = ()) -> Joined:
    """Join manifests by their sources.

    Two lines of one source in one manifest both stay (five captions of a clip); of two manifests the earlier keeps it.
    A source is a whole recording: another ten seconds of a video that is tested on are dropped too.

    Args:
        manifests: in the order of who keeps what is shared.
        against: lines that are tested on.

    Raises:
        ValueError: nothing is left, or two lines that stay have one id.
    """
    tested = {recording.source for recording in against}
    taken: set[str] = set()
    kept: list[Recording] = []
    n_tested = n_shared = 0
    for manifest in manifests:
        for recording in manifest:
            if recording.source in tested:
                n_tested += 1
            elif recording.source in taken:
                n_shared += 1
            else:
                kept.append(recording)
        taken.update(recording.source for recording in manifest)
    if not kept:
        raise ValueError(f"nothing is left: {n_tested} recordings are tested on, {n_shared} are shared")
    ids: set[str] = set()
    for recording in kept:
        if recording.id in ids:
            raise ValueError(f"two recordings have the id {recording.id!r}, of different sources")
        ids.add(recording.id)
    return Joined(kept, n_tested, n_shared)
