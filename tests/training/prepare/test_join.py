from __future__ import annotations

from pathlib import Path

import pytest

from training.prepare.__main__ import main
from training.prepare.join import join
from training.recording_manifest import Recording, read_recordings, write_recordings


def line(name: str, source: str, split: str = "train") -> Recording:
    return Recording(name, Path(f"{name}.wav"), f"sound of {name}", source, split=split)


TESTED = line("ac/4", "youtube:t", "test")
AUDIOCAPS = [line("ac/1", "youtube:a"), line("ac/2", "youtube:a"), line("ac/3", "youtube:b"), TESTED]
VGGSOUND = [line("vgg/1", "youtube:a"), line("vgg/2", "youtube:c"), line("vgg/3", "youtube:t")]


def test_no_source_is_left_twice_and_none_that_is_tested_on() -> None:
    joined = join([AUDIOCAPS[:3], VGGSOUND], AUDIOCAPS[3:])
    assert [recording.id for recording in joined.recordings] == ["ac/1", "ac/2", "ac/3", "vgg/2"]
    assert (joined.n_tested, joined.n_shared) == (1, 1)


def test_the_earlier_manifest_keeps_what_is_shared() -> None:
    assert [recording.id for recording in join([VGGSOUND, AUDIOCAPS]).recordings] == ["vgg/1", "vgg/2", "vgg/3", "ac/3"]


def test_nothing_left_and_ids_that_meet() -> None:
    with pytest.raises(ValueError, match="nothing is left: 3 recordings are tested on, 0 are shared"):
        join([VGGSOUND], VGGSOUND)
    with pytest.raises(ValueError, match="two recordings have the id 'x'"):
        join([[line("x", "youtube:a")], [line("x", "youtube:b")]])


def test_the_command_says_how_many_and_its_paths_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, recordings in (("a", AUDIOCAPS), ("v", VGGSOUND)):
        placed = [Recording(**{**vars(r), "path": tmp_path / name / f"{r.id[-1]}.wav"}) for r in recordings]
        write_recordings(tmp_path / name / "m.jsonl", placed)
    a, v, out = (str(tmp_path / name) for name in ("a/m.jsonl", "v/m.jsonl", "joined/deep/m.jsonl"))
    assert main(["join", f"{a}#train", v, "--against", f"{a}#test", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "4 recordings kept; 1 dropped that are tested on, 1 dropped whose source an earlier manifest has" in said
    found = {recording.id: recording.path.resolve() for recording in read_recordings(Path(out))}
    assert found["vgg/2"] == tmp_path / "v" / "2.wav"
    assert main(["join", str(tmp_path / "none.jsonl"), "--out", out]) == 2
    assert "no manifest" in capsys.readouterr().err
