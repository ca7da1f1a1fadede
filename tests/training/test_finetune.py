from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model.bundle import Bundle
from model.restore import restore
from model.runtime import Runtime
from tests.toy import PHRASES, toy_bundle
from training.finetune import FinetuneConfig, between, check_recordings, finetune, main, training_config
from training.recording_set import open_recordings


def write_folder(folder: Path, *, n_recordings: int = 10, rate: int = 16_000) -> Path:
    """Tones of different pitches, two to a recording, with captions and phrases."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    time = np.arange(rate) / rate
    with (folder / "captions.jsonl").open("w") as file:
        for number in range(n_recordings):
            kinds = rng.choice(len(PHRASES), 2, replace=False)
            sound = sum(0.2 * np.sin(2 * np.pi * 200 * 1.7**kind * time + rng.uniform(0, 6)) for kind in kinds)
            soundfile.write(folder / f"{number}.wav", sound, rate)
            phrases = [PHRASES[kind] for kind in kinds]
            line = {"file": f"{number}.wav", "caption": " and ".join(phrases), "phrases": phrases}
            file.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle"))


def test_one_command_gives_a_bundle_that_serves(
    toy: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "mine")
    flags = ["--bundle", str(toy.path), "--steps", "12", "--batch", "2", "--seconds", "0.64", "--hold", "2"]
    flags += ["--learning-rate", "5e-3", "--threads", "1", "--device", "cpu"]
    assert main([str(folder), "--out", str(tmp_path / "run"), *flags]) == 0
    fresh = Bundle.open(tmp_path / "run" / "bundle")
    assert fresh.manifest["name"] == "toy-finetuned"
    assert fresh.manifest["training_data"][-1] == {"name": "mine", "licence": "not stated", "clips": 10}
    assert fresh.file("text.onnx").read_bytes() == toy.file("text.onnx").read_bytes()
    mixture = 0.1 * np.random.default_rng(0).normal(size=(1, 16_000)).astype(np.float32)
    old, new = (Runtime(b, threads=1, device="cpu").separate(mixture, 16_000, PHRASES[:2]) for b in (toy, fresh))
    assert np.abs(old - new).max() > 1e-4
    assert np.isfinite(new).all()
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("crl" in line for line in logged)
    assert any(math.isfinite(line.get("url_held", math.nan)) for line in logged)


def test_it_learns_what_the_shipped_bundle_does_not_know(tmp_path: Path) -> None:
    """Two whistles by names that are not theirs; the run is interrupted and goes on."""
    (tmp_path / "mine").mkdir()
    time = np.arange(16_000) / 16_000
    for number in range(8):
        pitch, name = ((300, "dog barking"), (2500, "violin"))[number % 2]
        soundfile.write(tmp_path / "mine" / f"{number}.wav", 0.3 * np.sin(2 * np.pi * pitch * time + number), 16_000)
        (tmp_path / "mine" / f"{number}.txt").write_text(name)
    for steps in (8, 16):
        fresh = finetune(
            FinetuneConfig(
                str(tmp_path / "mine"),
                str(tmp_path / "run"),
                steps=steps,
                batch=1,
                seconds=0.64,
                hold=2,
                learning_rate=1e-4,
                crl=0.0,
                share=1.0,
                threads=1,
                device="cpu",
            ),
            splitter=lambda caption: [caption],
        )
    logged = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged == sorted(logged)
    assert logged[-1] == 16
    figures = fresh.manifest["evaluation"]["finetuning"]
    assert figures["before"]["url_held"] > -3.0  # it hears little of either by such names
    assert figures["after"]["url_held"] < -8.0


def test_statistics_stay_as_they_were_folded(toy: Bundle, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", n_recordings=3)
    config = FinetuneConfig(
        str(folder), str(tmp_path / "run"), str(toy.path), steps=2, batch=2, seconds=0.64, threads=1
    )
    finetune(config)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    before = restore(toy).state_dict()
    buffers = [name for name in before if "running" in name]
    assert buffers
    assert all(torch.equal(before[name], state["model"][name]) for name in buffers)
    assert not torch.equal(before["maps.weight"], state["model"]["maps.weight"])


def test_a_sound_pack_is_rehearsed(
    toy: Bundle, toy_sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the pack is decoded to
    flags = ["--bundle", str(toy.path), "--steps", "2", "--batch", "2", "--seconds", "0.64", "--threads", "1"]
    flags += ["--sounds", str(toy_sounds), "--out", "run"]
    assert main([str(write_folder(tmp_path / "mine", n_recordings=3)), *flags]) == 0
    logged = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert {"negative_sdr", "url"} <= set(logged[0])


def test_the_share_is_of_the_way_from_old_to_new() -> None:
    old, new = ({"w": torch.full((2,), value), "n": torch.tensor(3)} for value in (1.0, 5.0))
    assert [between(old, new, share)["w"][0].item() for share in (0.25, 1.0)] == [2.0, 5.0]
    assert between(old, new, 0.5)["n"].item() == 3


def test_few_recordings_are_all_learned_from(toy: Bundle) -> None:
    config = FinetuneConfig("x", "y", hold=8)
    assert [training_config(config, toy, count).weak_mixing.held for count in (2, 31, 32, 100)] == [0, 0, 4, 12]


def test_recordings_that_cannot_teach_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "mine", n_recordings=3)
    (folder / "1.wav").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot read .*1\.wav"):
        check_recordings(open_recordings(str(folder), 32_000))
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "captions.jsonl").write_text(lines[0])
    assert main([str(folder), "--out", str(tmp_path / "run")]) == 2
    assert main([str(folder), "--out", str(tmp_path / "run"), "--steps", "0"]) == 2
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    one, steps, none = capsys.readouterr().err.splitlines()
    assert "at least 2 recordings that differ in their captions" in one
    assert "steps must be above 0, got 0" in steps
    assert "must be a manifest" in none
