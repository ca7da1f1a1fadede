from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.recording_manifest import Recording, read_recordings, write_recordings

GOOD = {"id": "a", "path": "a.wav", "caption": "a dog", "source": "x:a"}


def _write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_what_is_written_is_read_from_anywhere(tmp_path: Path) -> None:
    recordings = [
        Recording(
            "a", tmp_path / "sounds" / "ä.wav", "a dog — barks", "youtube:a", ("a dog",), 1.5, 2.0, "train", "CC0"
        ),
        Recording("b", tmp_path / "b.wav", "a cat", "youtube:b"),
    ]
    assert write_recordings(tmp_path / "lists" / "m.jsonl", recordings) == 2
    found = read_recordings(tmp_path / "lists" / "m.jsonl")
    assert [r.path.resolve() for r in found] == [r.path for r in recordings]
    assert [vars(r) | {"path": 0} for r in found] == [vars(r) | {"path": 0} for r in recordings]
    assert "sounds/ä.wav" in (tmp_path / "lists" / "m.jsonl").read_text()


def test_a_split_is_chosen_by_the_path(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", *({**GOOD, "id": s, "split": s} for s in ("train", "valid", "test")))
    assert [r.id for r in read_recordings(Path(f"{path}#train,test"))] == ["train", "test"]
    with pytest.raises(ValueError, match=r"no recording of split 'dev', it has \['test', 'train', 'valid'\]"):
        read_recordings(Path(f"{path}#dev"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "m.jsonl:2: Expecting property"),
        ([1], "m.jsonl:2: must be an object, got list"),
        ({**GOOD, "captoin": "x"}, r"m.jsonl:2: unknown keys \['captoin'\]"),
        ({"id": "b"}, r"m.jsonl:2: .*missing keys \['path', 'caption', 'source'\]"),
        ({**GOOD, "id": "b", "caption": " "}, "m.jsonl:2: caption must be a text, got ' '"),
        ({**GOOD, "id": "b", "start": -1}, "m.jsonl:2: start must be at least 0, got -1"),
        ({**GOOD, "id": "b", "seconds": 0}, "m.jsonl:2: seconds must be above 0, got 0"),
        ({**GOOD, "id": "b", "seconds": "10"}, "m.jsonl:2: seconds must be a number of seconds, got '10'"),
        ({**GOOD, "id": "b", "phrases": "a dog"}, "m.jsonl:2: phrases must be a list of texts, got 'a dog'"),
        (GOOD, "m.jsonl:2: id 'a' is that of line 1 too"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recordings(_write(tmp_path / "m.jsonl", GOOD, line))


def test_no_manifest_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no manifest"):
        read_recordings(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="no recording in it"):
        read_recordings(_write(tmp_path / "m.jsonl", ""))
