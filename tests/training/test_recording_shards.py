from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.training.recorded import write_noise
from training.recording_files import ManifestRecordings
from training.recording_manifest import Recording, write_recordings
from training.recording_shards import ShardRecordings, expand_braces, read_index
from training.shards import main


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def whole(caption: str) -> list[str]:
    return [caption]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    recordings = [
        Recording(
            f"set/{number}.x",
            write_noise(tmp_path / f"{number}.{kind}", seed=number, seconds=1.0 + number / 10),
            f"sound {number}",
            f"x:{number}",
            (f"phrase {number}",) if number % 2 else (),
            start=0.2 if number == 3 else 0.0,
            seconds=0.5 if number == 3 else None,
            split="train",
            licence="CC0",
        )
        for number, kind in enumerate(("wav", "flac", "ogg", "flac", "mp3", "aiff"))
    ]
    write_recordings(tmp_path / "m.jsonl", recordings)
    return tmp_path / "m.jsonl"


def test_shards_hold_what_the_manifest_holds(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "shards"
    assert main([str(manifest), "--out", str(out), "--megabytes", "0.3"]) == 0
    assert "6 recordings in" in capsys.readouterr().out
    shards = sorted(out.glob("*.tar"))
    assert len(shards) > 1
    assert not list(out.glob("*.partial"))
    plain = ManifestRecordings(manifest, 32_000, whole)
    packed = ShardRecordings(f"{out}/shard-{{000000..{len(shards) - 1:06d}}}.tar", 32_000, whole)
    assert len(packed) == len(plain) == 6
    for index in range(6):
        assert (packed.caption(index), packed.phrases(index)) == (plain.caption(index), plain.phrases(index))
        assert packed.source(index) == plain.source(index)
        assert packed.n_samples(index) == plain.n_samples(index)
        # 24 bits are kept of what had to be encoded again.
        np.testing.assert_allclose(packed.audio(index, 1_000, 9_000), plain.audio(index, 1_000, 9_000), atol=1e-5)
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.audio(5, 10, 50), packed.audio(5, 10, 50))


def test_the_same_manifest_gives_the_same_bytes(manifest: Path) -> None:
    for name in ("one", "two"):
        assert main([str(manifest), "--out", str(manifest.parent / name)]) == 0
    one, two = (next((manifest.parent / name).glob("*.tar")).read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_writer_refuses_to_mix_with_old_shards(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "shards"
    assert main([str(manifest), "--out", str(out)]) == 0
    assert main([str(manifest), "--out", str(out)]) == 2
    assert main([str(manifest), "--out", str(out), "--megabytes", "0"]) == 2
    errors = capsys.readouterr().err
    assert "has shards already" in errors
    assert "--megabytes must be above 0, got 0.0" in errors


def test_a_stranger_s_shard(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "a.wav").read_bytes()
    said = json.dumps({"caption": "a dog", "phrases": ["dog"], "clipid": 5}).encode()
    shard = write_tar(
        tmp_path / "s.tar",
        {"x/1.json": said, "x/1.wav": sound, "x/2.WAV": sound, "x/2.txt": b" rain \n", "x/3.jpg": b"", "__key": b""},
    )
    recordings = ShardRecordings([shard], 44_100, lambda caption: [f"the {caption}"])
    assert [(recordings.recordings[i].id, *recordings.phrases(i)) for i in range(2)] == [
        ("x/1", "dog"),
        ("x/2", "the rain"),
    ]
    assert len({recordings.source(i) for i in range(2)}) == 2


def test_an_index_is_made_once_and_again_when_the_shard_changes(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "a.wav").read_bytes()
    shard = write_tar(tmp_path / "s.tar", {"1.wav": sound, "1.txt": b"one"})
    index = tmp_path / "s.tar.index.json"
    first = read_index(shard)
    kept = json.loads(index.read_text())
    kept["members"][0]["caption"] = "from the index"
    index.write_text(json.dumps(kept))
    assert read_index(shard)[0]["caption"] == "from the index"
    write_tar(shard, {"1.wav": sound, "1.txt": b"two"})
    os.utime(shard, ns=(1, 1))
    assert [m["caption"] for m in (*first, *read_index(shard))] == ["one", "two"]
    index.write_text("[]")
    assert read_index(shard)[0]["caption"] == "two"


def test_an_index_that_cannot_be_kept_is_done_without(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.wav": write_noise(tmp_path / "a.wav").read_bytes(), "1.txt": b"one"})
    (tmp_path / "s.tar.index.json").mkdir()
    assert read_index(shard)[0]["caption"] == "one"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{a,b}-{1,2}", ["a-1", "a-2", "b-1", "b-2"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["a{1..2", "a}", "{3..1}"])
def test_wrong_braces(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"brace|backwards"):
        expand_braces(pattern)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.wav": b""}, r"1\.wav has no caption: neither 1\.json nor 1\.txt tells"),
        ({"1.wav": b"", "1.json": b"{}"}, r"1\.wav has no caption"),
        ({"1.wav": b"", "1.json": b"[]"}, r"1\.json: must be an object"),
        ({"1.wav": b"", "1.json": b'{"caption": "a", "phrases": [""]}'}, r"1\.json: phrases must be a list of texts"),
        ({"1.wav": b"", "1.txt": b""}, r"1\.txt: caption must be a text, got ''"),
        ({"readme.txt": b"nothing"}, "no recording in shards"),
    ],
)
def test_what_is_wrong_in_a_shard_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardRecordings([write_tar(tmp_path / "s.tar", members)], 32_000)


def test_no_shard_and_no_tar(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(ValueError, match="not a plain tar file"):
        ShardRecordings(str(tmp_path / "s.tar"), 32_000)
    with pytest.raises(ValueError, match="no shard"):
        ShardRecordings(str(tmp_path / "t.tar"), 32_000)
