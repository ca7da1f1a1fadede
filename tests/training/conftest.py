"""A toy sound pack: a few tones and noises, written as real files in the pack's layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from training.dataset import Pack


@pytest.fixture(autouse=True)
def ordinary_floats() -> Iterator[None]:
    """The training commands flush subnormal numbers to zero; the tests after them have them back."""
    yield
    torch.set_flush_denormal(False)


LABELS = {"low tone": 220.0, "high tone": 3000.0, "hiss": None, "middle tone": 880.0, "beep": 5000.0, "hum": 110.0}


def write_pack(folder: Path, *, rate: int = 48_000, clips: int = 3) -> Path:
    """Write ``clips`` clips a label, the last of each in split valid, phrases and a two-source mixture list."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    rows = []
    for label, pitch in LABELS.items():
        for number in range(clips):
            time = np.arange(int(rate * (0.4 + 0.5 * number))) / rate
            sound = rng.normal(size=len(time)) * 0.1 if pitch is None else 0.3 * np.sin(2 * np.pi * pitch * time)
            path = f"audio/{label.replace(' ', '_')}-{number}.wav"
            soundfile.write(folder / path, sound, rate)
            split = "valid" if number == clips - 1 else "train"
            rows.append([path, label, "toys", split, f"{len(time) / rate:.2f}", f"{label}-{number}", "separator"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "source", "split", "seconds", "recording", "part"])
        writer.writerows(rows)
    (folder / "phrases.json").write_text(json.dumps({label: [label, f"the {label}", f"a {label}"] for label in LABELS}))
    pairs = [("low tone", "hiss"), ("high tone", "low tone"), ("beep", "hum")]
    with (folder / "mixtures-valid-2.jsonl").open("w") as file:
        for number, pair in enumerate(pairs):
            sources = [
                {
                    "path": f"audio/{label.replace(' ', '_')}-{clips - 1}.wav",
                    "start": 0.05,
                    "at": 0.1 * place,
                    "level_db": 3.0 * place,
                    "label": label,
                    "prompt": f"the {label}",
                }
                for place, label in enumerate(pair)
            ]
            line = {"id": f"toy-{number}", "seconds": 1.0, "caption": " and ".join(pair), "sources": sources}
            file.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture(scope="session")
def toy_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack") / "sounds")


@pytest.fixture(scope="session")
def toy_pack(toy_sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack.open(toy_sounds, tmp_path_factory.mktemp("cache"), sample_rate=32_000)
