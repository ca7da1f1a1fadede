"""Presence over HTTP and on the command line, of a real bundle that is calibrated."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from model.bundle import calibrate
from model.calibration import Calibration
from service import cli
from service.loading import load_engine
from service.settings import Settings
from tests.service.conftest import Running
from tests.service.sounds import decode, encode, noise

# Everything passes for likely, so that there are spans to look at.
LIKELY = Calibration(
    {"intercept": 1.0, "cosine": 3.0}, {"intercept": 2.0, "cosine": 1.0, "stem_cosine": 2.0, "energy_db": 0.02}, -0.2
)


@pytest.fixture
def calibrated(bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    shutil.copytree(bundle, path)
    calibrate(path, LIKELY)
    return path


@pytest.fixture
def real(start: Callable[..., Running], calibrated: Path) -> Iterator[Running]:
    settings = {"model": calibrated, "device": "cpu", "threads": 1}
    engine = load_engine(Settings(**settings))
    yield start(engine, **settings)
    engine.close()


def bursts(duration_s: float, rate: int = 16_000) -> np.ndarray:
    """Noise that comes and goes each second. Shape: [2, T]."""
    sound = noise(round(duration_s * rate), 2)
    sound[:, np.arange(sound.shape[1]) % rate > rate // 2] *= 1e-3
    return sound


def test_header_and_manifest_agree_and_spans_lie_inside(real: Running) -> None:
    assert real.client.get("/v1/info").json()["presence"] == "calibrated"
    sound = bursts(7.3)
    response = real.separate(encode(sound), ["dog barking", "rain on a roof"], output="both")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        stems = json.loads(archive.read("manifest.json"))["stems"]
    assert response.headers["x-presence"] == ", ".join(f"{stem['presence']:.3f}" for stem in stems)
    assert any(stem["spans"] for stem in stems)
    for stem in stems:
        edges = [edge for span in stem["spans"] for edge in span]
        assert edges == sorted(edges) and all(0 <= edge <= 7.3 for edge in edges)


def test_presence_does_not_change_with_what_else_is_asked_or_unwanted(real: Running) -> None:
    sound = encode(bursts(6.0))
    alone = real.separate(sound, "dog barking")
    beside = real.client.post(
        "/separate",
        files={"audio": ("mix.wav", sound)},
        data={"prompt": ["violin", "dog barking"], "negative": "rain on a roof"},
    )
    assert beside.headers["x-presence"].split(", ")[1] == alone.headers["x-presence"]


def test_a_negative_counts_as_far_as_it_is_likely(real: Running) -> None:
    sound = encode(bursts(3.0), subtype="FLOAT")
    plain, _ = decode(real.separate(sound, "dog barking", subtype="float32").content)
    less, _ = decode(real.separate(sound, "dog barking", negative="rain on a roof", subtype="float32").content)
    assert 0 < np.linalg.norm(less) < np.linalg.norm(plain)


def test_where_every_sound_is_named_shares_are_as_likely(real: Running) -> None:
    """The same with phrases as prompts and as negatives, and one that is unlikely takes less than its mask would."""
    sound = encode(bursts(3.0), subtype="FLOAT")
    both = real.separate(
        sound, ["dog barking", "rain on a roof"], exhaustive="true", subtype="float32", output="both"
    ).content
    with zipfile.ZipFile(io.BytesIO(both)) as archive:
        dog, rain, residual = (decode(archive.read(name))[0] for name in archive.namelist()[1:])
    data = {"negative": "rain on a roof", "exhaustive": "true", "subtype": "float32"}
    alone, _ = decode(real.separate(sound, "dog barking", **data).content)
    np.testing.assert_array_equal(alone, dog)
    assert np.linalg.norm(residual) < 0.05 * np.linalg.norm(dog + rain + residual)


def test_suggestions_of_a_real_bundle(real: Running) -> None:
    body = {"vocabulary": ["dog barking", "rain on a roof", "violin"], "limit": "3"}
    files = {"audio": ("mix.wav", encode(bursts(11.0)))}
    first = real.client.post("/v1/suggest", files=files, data=body).json()
    said = [item["probability"] for item in first["suggestions"]]
    assert len(said) == 3 and said == sorted(said, reverse=True) and all(0 < value < 1 for value in said)
    assert first["presence"] == "calibrated"
    assert real.client.post("/v1/suggest", files=files, data=body).json() == first


def test_the_command_line_suggests_and_takes_negatives(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINNOW_MODEL", str(calibrated))
    monkeypatch.setenv("WINNOW_THREADS", "1")
    mix, out = tmp_path / "mix.wav", tmp_path / "dog.wav"
    mix.write_bytes(encode(bursts(2.0)))
    assert cli.main(["suggest", str(mix), "--vocabulary", "violin", "--vocabulary", "dog barking", "--limit", "1"]) == 0
    line = capsys.readouterr().out.strip()
    assert line[:2] == "0." and line.partition("  ")[2] in ("violin", "dog barking")
    assert cli.main(["separate", str(mix), "dog barking", "--negative", "violin", "-o", str(out)]) == 0
    assert "dog barking: presence 0." in capsys.readouterr().out and out.is_file()
    assert (
        cli.main(["separate", str(mix), "dog barking", "violin", "--exhaustive", "-o", str(tmp_path / "all.zip")]) == 0
    )
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert json.loads(archive.read("manifest.json"))["exhaustive"] is True
    assert cli.main(["separate", str(mix), "dog barking", "--exhaustive", "-o", str(out)]) == 2
    assert "name the others too" in capsys.readouterr().err
    assert cli.main(["suggest", str(mix), "--limit", "0"]) == 2
