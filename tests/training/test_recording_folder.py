from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.recorded import write_noise
from training.recording_folder import FolderRecordings, read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("b.wav", "deep/a.flac", "uncaptioned.wav")):
        write_noise(tmp_path / name, seed=seed)
    return tmp_path


def test_texts_beside_the_files(folder: Path) -> None:
    (folder / "b.txt").write_text("rain\n and wind\n")
    (folder / "deep" / "a.txt").write_text("a dog")
    recordings = FolderRecordings(folder, 32_000, lambda caption: caption.split(" and "))
    assert [recordings.caption(i) for i in range(2)] == ["rain and wind", "a dog"]
    assert list(recordings.phrases(0)) == ["rain", "wind"]
    assert recordings.n_samples(1) == 32_000 == len(recordings.audio(1))


def test_a_table(folder: Path) -> None:
    (folder / "captions.csv").write_text(
        '\ufefffile,caption\ndeep/a.flac,"a dog, barking"\nb.wav,rain\n', encoding="utf-8"
    )
    assert [(r.id, r.caption) for r in read_folder(folder)] == [("deep/a.flac", "a dog, barking"), ("b.wav", "rain")]


def test_lines_may_have_phrases(folder: Path) -> None:
    (folder / "captions.jsonl").write_text(
        '{"file": "b.wav", "caption": "rain and wind", "phrases": ["heavy rain", "wind"]}\n'
        '\n{"file": "deep/a.flac", "caption": "a dog"}\n'
    )
    assert [r.phrases for r in read_folder(folder)] == [("heavy rain", "wind"), ()]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.csv", "name,text\n", r"captions.csv: the header must have file and caption, got \['name', 'text'\]"),
        ("captions.csv", "file,caption\nb.wav,x\nno.wav,y\n", "captions.csv:3: no file 'no.wav'"),
        ("captions.csv", "file,caption\nb.wav\n", "captions.csv:2: 'b.wav' has no caption"),
        ("captions.jsonl", '{"file": "b.wav"}\n', "captions.jsonl:1: lacks 'caption'"),
        ("captions.jsonl", '{"file": "b.wav", "caption": "x", "phrases": "y"}\n', "captions.jsonl:1: phrases must be"),
        ("captions.jsonl", "nonsense", "captions.jsonl:1: Expecting value"),
        ("b.txt", " ", r"b.txt: 'b.wav' has no caption"),
        ("readme.md", "", "no captioned recording: write captions.csv"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        read_folder(tmp_path / "none")
