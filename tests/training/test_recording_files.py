from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.training.recorded import write_noise
from training.recording_files import FileRecordings, ManifestRecordings
from training.recording_manifest import Recording, write_recordings
from training.recordings import Recordings


def by_and(caption: str) -> list[str]:
    return caption.split(" and ")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    paths = [write_noise(tmp_path / f"{name}.wav", seed=seed, seconds=2.0) for seed, name in enumerate("ab")]
    write_recordings(
        tmp_path / "m.jsonl",
        [
            Recording("a", paths[0], "a dog and a cat", "x:a"),
            Recording("b", paths[1], "rain and wind", "x:b", ("heavy rain", "wind"), 0.5, 1.0, "test"),
        ],
    )
    return tmp_path / "m.jsonl"


def test_it_is_recordings_with_phrases_of_its_own_or_of_the_splitter(manifest: Path) -> None:
    recordings = ManifestRecordings(manifest, 32_000, by_and)
    assert isinstance(recordings, Recordings)
    assert [list(recordings.phrases(i)) for i in range(2)] == [["a dog", "a cat"], ["heavy rain", "wind"]]
    assert recordings.caption(0) == "a dog and a cat"
    assert [recordings.n_samples(i) for i in range(2)] == [64_000, 32_000]
    assert recordings.source(1) == "x:b"
    assert len(ManifestRecordings(Path(f"{manifest}#test"), 32_000)) == 1


def test_captions_are_split_by_training_captions_unless_told_otherwise(manifest: Path) -> None:
    assert [phrase.lower() for phrase in ManifestRecordings(manifest, 32_000).phrases(0)] == ["a dog", "a cat"]


def test_a_caption_without_phrases_is_one(manifest: Path) -> None:
    assert ManifestRecordings(manifest, 32_000, lambda caption: []).phrases(0) == ("a dog and a cat",)


def test_the_line_s_part_of_the_file_is_heard(manifest: Path) -> None:
    recordings = ManifestRecordings(manifest, 44_100, by_and)
    whole = FileRecordings([Recording("b", manifest.parent / "b.wav", "x", "x")], 44_100)
    np.testing.assert_array_equal(recordings.audio(1), whole.audio(0, 22_050, 44_100))
    assert len(recordings.audio(1, 44_000, 9_000)) == 100


def test_threads_and_processes_hear_the_same(manifest: Path) -> None:
    recordings = ManifestRecordings(manifest, 32_000, str.split)
    expected = [recordings.audio(i % 2, 100 * i, 500) for i in range(8)]
    copy = pickle.loads(pickle.dumps(recordings))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: copy.audio(i % 2, 100 * i, 500), range(8)))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_went_away_is_named(manifest: Path) -> None:
    recordings = ManifestRecordings(manifest, 32_000)
    (manifest.parent / "a.wav").unlink()
    with pytest.raises(ValueError, match=r"a\.wav"):
        recordings.audio(0)
