"""The pack: decoded once, complete or not at all, the same samples as the files'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.dataset import Pack, read_mono
from training.manifest import read_manifest, read_mixtures


def test_a_clip_from_the_cache_is_the_files_audio(toy_pack: Pack, toy_sounds: Path) -> None:
    for index in (0, 5, len(toy_pack.clips) - 1):
        whole = read_mono(toy_sounds / toy_pack.clips[index].path, 32_000)
        assert np.abs(toy_pack.audio(index) - whole).max() < 1e-4
        assert np.array_equal(toy_pack.audio(index, 100, 50), toy_pack.audio(index)[100:150])
        assert toy_pack.n_samples(index) == len(whole)


def test_a_decode_that_was_cut_off_is_not_taken_for_a_pack(
    toy_sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import dataset

    reads = 0

    def fail_late(path: Path, rate: int) -> np.ndarray:
        nonlocal reads
        reads += 1
        if reads > 3:
            raise KeyboardInterrupt
        return read_mono(path, rate)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "read_mono", fail_late)
        Pack.open(toy_sounds, tmp_path)
    pack = Pack.open(toy_sounds, tmp_path)
    assert len(pack.samples) == pack.offsets[-1] > 0


def test_bad_packs_are_named(tmp_path: Path, toy_sounds: Path) -> None:
    with pytest.raises(ValueError, match="no manifest"):
        read_manifest(tmp_path)
    (tmp_path / "noise.wav").write_text("not audio")
    with pytest.raises(ValueError, match=r"noise\.wav"):
        read_mono(tmp_path / "noise.wav", 32_000)
    (tmp_path / "list.jsonl").write_text('{"id": "x", "seconds": 1.0, "caption": ""}\n')
    with pytest.raises(ValueError, match=r"list\.jsonl:1"):
        read_mixtures(tmp_path / "list.jsonl")
    header = "path,label,source,split,seconds,recording,part\n"
    (tmp_path / "manifest.csv").write_text(header + "a.wav,x,y,test,1.0,r,separator\n")
    with pytest.raises(ValueError, match="'test'"):
        read_manifest(tmp_path)


def test_stereo_is_read_as_its_middle(tmp_path: Path) -> None:
    left, right = np.full(100, 0.5), np.full(100, -0.1)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 32_000, subtype="FLOAT")
    assert read_mono(tmp_path / "stereo.wav", 32_000) == pytest.approx(np.full(100, 0.2), abs=1e-6)
