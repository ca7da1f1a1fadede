from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.recorded import write_noise
from training.recording_manifest import Recording, read_recordings, write_recordings
from training.recording_set import open_recordings
from training.recordings import Recordings
from training.shards import write_shards


def test_each_kind_is_told_by_its_path(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "folder" / "a.wav", rate=32_000)
    path.with_suffix(".txt").write_text("a dog")
    write_recordings(tmp_path / "m.jsonl", [Recording("a", path, "a dog", "x:a", split="train")])
    write_shards(read_recordings(tmp_path / "m.jsonl"), tmp_path / "shards", 10**6)
    (tmp_path / "rendered").mkdir()
    (np.round(open_recordings(str(tmp_path / "m.jsonl"), 32_000).audio(0) * 32767).astype("<i2")).tofile(
        tmp_path / "rendered" / "mixtures.pcm"
    )
    (tmp_path / "rendered" / "mixtures.json").write_text(
        json.dumps({"sample_rate": 32_000, "offsets": [0, 32_000], "captions": ["a dog"], "phrases": [["dog"]]})
    )
    specs = [
        "m.jsonl",
        "m.jsonl#train",
        "folder",
        "shards",
        "shards/shard-000000.tar",
        "shards/shard-{000000..000000}.tar",
        "rendered",
    ]
    heard = [open_recordings(f"{tmp_path}/{spec}", 32_000, lambda caption: ["dog"]) for spec in specs]
    for recordings in heard:
        assert isinstance(recordings, Recordings)
        assert (len(recordings), recordings.caption(0), list(recordings.phrases(0))) == (1, "a dog", ["dog"])
        np.testing.assert_allclose(recordings.audio(0, 5, 300), heard[0].audio(0, 5, 300), atol=1e-4)
    with pytest.raises(ValueError, match="rendered at 32000 Hz, 16000 Hz are asked for"):
        open_recordings(str(tmp_path / "rendered"), 16_000)


def test_nothing_of_the_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest \(\.jsonl\), shards \(\.tar\) or a folder"):
        open_recordings(str(tmp_path / "nothing"), 32_000)
