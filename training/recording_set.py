"""Open captioned recordings by what their path is."""

from __future__ import annotations

from pathlib import Path

from training.recording_files import ManifestRecordings, Splitter, split_caption
from training.recording_folder import FolderRecordings
from training.recording_shards import ShardRecordings
from training.recordings import Recordings
from training.rendered import RenderedMixtures


def open_recordings(spec: str, sample_rate: int, splitter: Splitter = split_caption) -> Recordings:
    """Open recordings.

    Args:
        spec: a manifest (``x.jsonl``, ``x.jsonl#train`` for a split of it); shards (``x.tar``, ``x-{000..127}.tar``,
            a folder of tar files); rendered mixtures (a folder with ``mixtures.json``); or a folder of captioned files.
        sample_rate: of what is heard, in Hz.
        splitter: makes phrases of captions that come without.

    Raises:
        ValueError: nothing of the kind is there, something in it is wrong, or rendered mixtures have another rate.
    """
    path = Path(spec)
    if Path(spec.partition("#")[0]).suffix == ".jsonl":
        return ManifestRecordings(path, sample_rate, splitter)
    if path.suffix == ".tar" or "{" in spec:
        return ShardRecordings(spec, sample_rate, splitter)
    if not path.is_dir():
        raise ValueError(f"recordings must be a manifest (.jsonl), shards (.tar) or a folder, got {spec!r}")
    if (path / "mixtures.json").is_file():
        rendered = RenderedMixtures(path)
        if rendered.sample_rate != sample_rate:
            raise ValueError(f"{path} was rendered at {rendered.sample_rate} Hz, {sample_rate} Hz are asked for")
        return rendered
    shards = sorted(path.glob("*.tar"))
    if shards:
        return ShardRecordings(shards, sample_rate, splitter)
    return FolderRecordings(path, sample_rate, splitter)
