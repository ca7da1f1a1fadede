from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.recorded import write_noise
from training.recording_files import FileRecordings
from training.recording_manifest import Recording
from training.recording_order import ShuffledRecordings
from training.recordings import Recordings


def test_each_is_there_once_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    paths = [write_noise(tmp_path / f"{n}.wav", seed=n, seconds=0.1 + n / 100) for n in range(9)]
    lines = [Recording(str(n), path, str(n), f"x:{n}", (f"p{n}",)) for n, path in enumerate(paths)]
    plain = FileRecordings(lines, 32_000)
    mixed = ShuffledRecordings(plain, seed=3)
    assert isinstance(mixed, Recordings)
    order = [int(mixed.caption(index)) for index in range(len(mixed))]
    assert sorted(order) == list(range(9)) != order
    assert order == [int(ShuffledRecordings(plain, seed=3).caption(index)) for index in range(9)]
    for index, row in enumerate(order):
        assert mixed.phrases(index) == plain.phrases(row)
        assert mixed.n_samples(index) == plain.n_samples(row)
        np.testing.assert_array_equal(mixed.audio(index, 5, 50), plain.audio(row, 5, 50))
