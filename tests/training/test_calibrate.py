"""Calibration, spans and negatives from the command line on toy sounds and a toy bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.calibration import Calibration
from model.presence import logit
from tests.toy import toy_bundle
from training import calibrate, negatives, spans
from training.calibrate import Measured, fitted
from training.dataset import Pack
from training.manifest import read_mixtures, read_phrases
from training.questions import questions

SHARED = Path(__file__).parents[3] / "shared" / "sounds"
SHIPPED = Path(__file__).parents[2] / "model" / "default"


def made_up(n: int, n_windows: int, seed: int) -> Measured:
    """Prompts whose present ones have one window with a higher cosine, among windows without."""
    rng = np.random.default_rng(seed)
    present = np.arange(n) % 2 == 0
    windows = [rng.normal([0.0, 0.0, -20.0], [0.1, 0.1, 5.0], (n_windows, 3)) for _ in range(n)]
    for row in windows[::2]:
        row[0] += [0.15, 0.2, 10.0]
    return Measured(windows, present)


def test_a_fit_is_calibrated_on_one_window_and_on_many() -> None:
    single, many = made_up(2_000, 1, 0), made_up(600, 12, 1)
    calibration = fitted(single, many)
    assert calibration.windows < 0
    for measured, n_windows in ((made_up(2_000, 1, 2), 1), (made_up(600, 12, 3), 12)):
        said = measured.probability(calibration)
        assert said.mean() == pytest.approx(measured.present.mean(), abs=0.05), n_windows
    naive = Calibration(calibration.heard, calibration.separated)
    assert many.probability(naive).mean() > 0.6


def test_an_ear_of_one_measure_is_calibrated_by_it() -> None:
    single = made_up(500, 1, 0)
    alone = Measured([rows[:, :1] for rows in single.windows], single.present)
    calibration = fitted(alone, Measured([], np.zeros(0, bool)))
    assert calibration.separated == {} and calibration.heard["cosine"] > 0
    assert np.isfinite(logit(alone.probability(calibration))).all()


def test_half_of_what_is_asked_is_there(toy_sounds: Path, toy_pack: Pack) -> None:
    lines, phrases = read_mixtures(toy_sounds / "mixtures-valid-2.jsonl"), read_phrases(toy_sounds)
    asked = list(questions(lines, toy_pack, phrases))
    assert len(asked) == len(lines)
    for question, line in zip(asked, lines, strict=True):
        names = {phrase for source in line.sources for phrase in (*phrases[source.label], source.prompt)}
        assert [prompt in names for prompt in question.prompts] == question.present.tolist()
        assert question.present.mean() == 0.5
    joined = list(questions(lines, toy_pack, phrases, joined=3))
    assert len(joined) == 1 and len(joined[0].waveform) == sum(len(question.waveform) for question in asked)
    other = next(questions(lines, toy_pack, phrases, asked_by=dict.fromkeys(phrases, "so and so")))
    assert set(other.prompts) == {"so and so"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    toy_bundle(path)
    return path


def test_one_command_calibrates_a_bundle(bundle: Path, toy_sounds: Path, tmp_path: Path, capsys) -> None:
    call = ["--model", str(bundle), "--sounds", str(toy_sounds), "--count", "12", "--list", "mixtures-valid-2.jsonl"]
    before = Bundle.open(bundle).version
    assert calibrate.main([*call, "--dry-run", "--json", str(tmp_path / "weights.json")]) == 0
    assert Bundle.open(bundle).version == before
    said = capsys.readouterr().out
    assert "raw score" in said and "really there" in said
    weights = Calibration.from_json(json.loads((tmp_path / "weights.json").read_text()))
    assert calibrate.main([*call, "--out", str(tmp_path / "copy")]) == 0
    copy = Bundle.open(tmp_path / "copy")
    assert copy.calibration is not None and Bundle.open(bundle).calibration is None
    assert (copy.calibration.heard, copy.calibration.separated) == (weights.heard, weights.separated)
    assert calibrate.main([*call, "--out", str(tmp_path / "copy")]) == 2
    assert "exists" in capsys.readouterr().err


def test_negatives_and_spans_are_measured(bundle: Path, toy_sounds: Path, tmp_path: Path, capsys) -> None:
    call = ["--model", str(bundle), "--sounds", str(toy_sounds), "--rate", "16000"]
    assert negatives.main([*call, "--json", str(tmp_path / "rows.jsonl")]) == 0
    assert "| compete |" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(np.isfinite(list(row.values())[1:]).all() for row in rows)
    assert spans.main(call) == 0
    assert "intersection over union" in capsys.readouterr().out
    for program in (negatives, spans):
        assert program.main(["--model", str(bundle), "--sounds", str(tmp_path / "nowhere")]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "manifest.csv").is_file(), reason="needs the sound pack")
def test_the_shipped_bundle_says_when_real_sounds_begin() -> None:
    from model.runtime import Runtime
    from training.manifest import read_manifest

    runtime = Runtime(Bundle.open(SHIPPED), threads=1)
    pack = Pack(SHARED, read_manifest(SHARED), 32_000, np.zeros(0, np.int16), np.zeros(1, np.int64))
    lines = read_mixtures(SHARED / "mixtures-valid-2.jsonl")[:40]
    rows = [row for line in lines for row in spans.placed(runtime, line, pack)]
    found = [row for row in rows if row.presence.spans]
    errors = [error for row in found if (error := row.onset_error) is not None]
    assert np.mean([row.overlap for row in found]) > 0.6 and np.median(errors) < 0.25
