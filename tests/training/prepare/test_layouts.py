"""Every published layout, as a tiny tree with some of its files missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training.prepare.__main__ import LAYOUTS, main
from training.prepare.fsd50k import find_ancestors, most_exact
from training.recording_manifest import Recording, read_recordings


def touch(root: Path, *names: str) -> None:
    """Files that are there; a manifest's maker opens none of them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(root: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding=encoding)


def audiocaps(root: Path) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    write(root, "dataset/train.csv", f'{header}1,abc,30,"A dog barks, then a car"\n2,gone,0,Rain\n3,-x_y,0,Wind\n')
    write(root, "dataset/test.csv", header + "".join(f"{10 + n},tst,10,Caption {n}\n" for n in range(5)))
    touch(root, "audio/train/abc_30.wav", "audio/test/Ytst.wav", "audio/train/-x_y_0.flac")


def clotho(root: Path) -> None:
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    for split in ("development", "evaluation"):
        write(root, f"clotho_captions_{split}.csv", f"{header}a b.wav,1,2,3,4,{split}\ngone.wav,1,2,3,4,5\n")
        touch(root, f"{split}/a b.wav")
    about = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    write(root, "clotho_metadata_development.csv", f"{about}a b.wav,é,123,link,x,y,CC0\n", "latin-1")


def vggsound(root: Path) -> None:
    write(
        root,
        "vggsound.csv",
        'abc,30,"playing violin, fiddle",train\n-d_e,1,police car (siren),test\ngone,5,cat meowing,train\n',
    )
    touch(root, "video/abc_000030.flac", "video/-d_e_000001.wav")


def music(root: Path) -> None:
    write(root, "MUSIC_solo_videos.json", json.dumps({"videos": {"acoustic_guitar": ["-s1", "gone"], "tuba": ["s2"]}}))
    write(root, "MUSIC21_solo_videos.json", json.dumps({"videos": {"tuba": ["s2"]}}))
    write(root, "MUSIC_duet_videos.json", json.dumps({"videos": {"saxophone acoustic_guitar": ["d1"]}}))
    touch(root, "audio/acoustic_guitar/-s1.mp3", "audio/tuba/s2.wav", "duet/d1.wav")


def fsd50k(root: Path) -> None:
    write(
        root,
        "FSD50K.ground_truth/dev.csv",
        "fname,labels,mids,split\n"
        '1,"Electric_guitar,Guitar,Music",x,train\n2,"Guitar,Music",x,val\n3,"Bark,Dog,Rain",x,train\n4,Music,x,train\n'
        "5,Rain,x,train\n6,Dog,x,val\n",
    )
    write(root, "FSD50K.ground_truth/eval.csv", "fname,labels,mids\n7,Rain,x\n")
    write(root, "FSD50K.metadata/dev_clips_info_FSD50K.json", json.dumps({"1": {"license": "CC0"}}))
    touch(root, *(f"FSD50K.dev_audio/{n}.wav" for n in (1, 2, 3, 5)), "FSD50K.eval_audio/7.wav")


def esc50(root: Path) -> None:
    header = "filename,fold,target,category,esc10,src_file,take"
    lines = ["1-1-A-0.wav,1,0,crying_baby,True,1,A", "5-9-B-3.wav,5,3,hen,False,9,B", "g.wav,1,0,x,True,2,A"]
    write(root, "meta/esc50.csv", "\n".join([header, *lines]))
    touch(root, "audio/1-1-A-0.wav", "audio/5-9-B-3.wav")


TREES: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (audiocaps, clotho, vggsound, music, fsd50k, esc50)
}


MISSING = {
    "audiocaps": (1, "gone_0"),
    "clotho": (1, "gone.wav"),
    "vggsound": (1, "gone_000005"),
    "music": (1, "gone"),
    "fsd50k": (2, "4, 6"),
    "esc50": (1, "g.wav"),
}


def prepared(layout: str, folder: Path) -> list[Recording]:
    """The manifest of a layout, as training reads it."""
    TREES[layout](folder / "root")
    assert main([layout, str(folder / "root"), "--out", str(folder / "lists" / "m.jsonl")]) == 0
    return read_recordings(folder / "lists" / "m.jsonl")


def test_every_layout_has_a_tree() -> None:
    assert set(TREES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", TREES)
def test_paths_lead_from_the_manifest_to_the_files(layout: str, tmp_path: Path) -> None:
    recordings = prepared(layout, tmp_path)
    assert all(recording.path.is_file() for recording in recordings)
    assert all(recording.id.startswith(f"{layout}/") for recording in recordings)


@pytest.mark.parametrize("layout", TREES)
def test_missing_files_are_counted_and_named(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(layout, tmp_path)
    count, names = MISSING[layout]
    assert f"{count} files missing ({names})" in capsys.readouterr().out


@pytest.mark.parametrize("layout", TREES)
def test_all_missing_is_an_error(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TREES[layout](tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.suffix in (".wav", ".flac", ".mp3"):
            path.unlink()
    assert main([layout, str(tmp_path), "--out", str(tmp_path / "m.jsonl")]) == 2
    assert "listed files are missing" in capsys.readouterr().err
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("layout", TREES)
def test_another_tree_is_an_error(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([layout, str(tmp_path), "--out", str(tmp_path / "m.jsonl")]) == 2
    assert main([layout, str(tmp_path / "none"), "--out", str(tmp_path / "m.jsonl")]) == 2
    TREES[layout](tmp_path)
    for path in (*tmp_path.rglob("*.csv"), *tmp_path.rglob("MUSIC*.json")):
        path.write_text('["other"]\n1\n')
    assert main([layout, str(tmp_path), "--out", str(tmp_path / "m.jsonl")]) == 2
    none, folder, wrong = capsys.readouterr().err.splitlines()
    assert "none of" in none
    assert "no folder" in folder
    assert str(tmp_path) in wrong


def test_audiocaps_keeps_all_captions_of_a_clip(tmp_path: Path) -> None:
    recordings = prepared("audiocaps", tmp_path)
    test = [recording for recording in recordings if recording.split == "test"]
    assert [recording.caption for recording in test] == [f"Caption {n}" for n in range(5)]
    assert {recording.source for recording in test} == {"youtube:tst"}
    assert {recording.path.name for recording in test} == {"Ytst.wav"}
    assert [r.caption for r in recordings if r.split == "train"] == ["A dog barks, then a car", "Wind"]
    assert all(recording.phrases == () for recording in recordings)


def test_clotho_knows_freesound_and_keeps_splits_apart(tmp_path: Path) -> None:
    recordings = prepared("clotho", tmp_path)
    development, evaluation = recordings[:5], recordings[5:]
    assert {(r.source, r.licence, r.path.parent.name) for r in development} == {("freesound:123", "CC0", "development")}
    assert {(r.source, r.path.parent.name) for r in evaluation} == {("clotho:a b.wav", "evaluation")}
    assert [recording.caption for recording in evaluation] == ["1", "2", "3", "4", "evaluation"]


def test_vggsound_takes_the_first_synonym(tmp_path: Path) -> None:
    violin, siren = prepared("vggsound", tmp_path)
    assert (violin.caption, violin.phrases, violin.source) == ("playing violin", ("playing violin",), "youtube:abc")
    assert (siren.caption, siren.split) == ("police car siren", "test")


def test_music_duets_have_two_phrases(tmp_path: Path) -> None:
    found = {recording.id: recording for recording in prepared("music", tmp_path)}
    assert set(found) == {"music/-s1", "music/s2", "music/d1"}
    assert found["music/d1"].phrases == ("saxophone", "acoustic guitar")
    assert found["music/d1"].caption == "saxophone and acoustic guitar"
    assert found["music/-s1"].phrases == ("acoustic guitar",)


def test_fsd50k_names_each_sound_once(tmp_path: Path) -> None:
    found = {recording.id: recording for recording in prepared("fsd50k", tmp_path)}
    assert found["fsd50k/1"].phrases == ("electric guitar",)
    assert found["fsd50k/2"].phrases == ("guitar",)
    assert found["fsd50k/3"].phrases == ("bark",)  # it never comes without dog and rain in this tree
    assert (found["fsd50k/1"].licence, found["fsd50k/1"].source) == ("CC0", "freesound:1")
    assert [found[f"fsd50k/{n}"].split for n in (1, 2, 7)] == ["train", "val", "test"]


def test_ancestors_are_what_a_label_never_comes_without() -> None:
    ancestors = find_ancestors([["a", "b", "c"], ["b", "c"], ["c", "d", "e"], ["c"]])
    assert ancestors == {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c", "e"}, "e": {"c", "d"}}
    assert most_exact(["a", "b", "c"], ancestors) == ["a"]
    assert most_exact(["e", "c", "d"], ancestors) == ["e"]  # of two that never part, the first


def test_esc50_has_folds_and_licences(tmp_path: Path) -> None:
    baby, hen = prepared("esc50", tmp_path)
    assert (baby.caption, baby.source, baby.split, baby.licence) == ("crying baby", "freesound:1", "fold1", "CC BY 3.0")
    assert (hen.split, hen.licence) == ("fold5", "CC BY-NC 3.0")
