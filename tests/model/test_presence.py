"""Calibrated presence: what a manifest may say, what a bundle answers with it and without."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle, BundleError, calibrate
from model.calibration import Calibration
from model.presence import FLOOR_DB, PresenceMeter, energy_db, logistic, logit, over_windows, probabilities
from model.runtime import Runtime
from model.spec import SignalSpec

WEIGHTS = Calibration(
    {"intercept": -2.0, "cosine": 10.0},
    {"intercept": -3.0, "cosine": 5.0, "stem_cosine": 16.0, "energy_db": 0.1},
    -0.3,
    {"mixtures": 300},
)


def test_round_trip_through_json() -> None:
    assert Calibration.from_json(json.loads(json.dumps(WEIGHTS.to_json()))) == WEIGHTS


@pytest.mark.parametrize(
    "changes",
    [
        {"heard": {"intercept": 1.0}},
        {"heard": {}},
        {"separated": {"intercept": 1.0, "cosine": 1.0}},
        {"heard": {"intercept": math.nan, "cosine": 1.0}},
        {"windows": "1"},
        {"more": 1},
        {"fitted": None},
    ],
)
def test_a_calibration_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="presence"):
        Calibration.from_json({**WEIGHTS.to_json(), **changes})


def test_the_logistic_function_and_its_inverse() -> None:
    values = np.array([-800.0, -3.0, 0.0, 1.5, 800.0])
    expected = [0.0, 1 / (1 + math.exp(3)), 0.5, 1 / (1 + math.exp(-1.5)), 1.0]
    np.testing.assert_allclose(logistic(values), expected, atol=1e-12)
    np.testing.assert_allclose(logit(logistic(values[1:4])), values[1:4], atol=1e-9)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_energy_is_that_of_the_masked_bands() -> None:
    bands = np.random.default_rng(0).uniform(size=(8, 20))
    masks = np.stack([np.full_like(bands, gain) for gain in (1.0, 0.1, 0.0)])
    np.testing.assert_allclose(energy_db(bands, masks), [0.0, -20.0, FLOOR_DB], atol=1e-9)
    assert energy_db(np.zeros((8, 20)), masks).tolist() == [FLOOR_DB] * 3


def test_each_measure_raises_the_probability() -> None:
    base = np.array([0.2]), np.array([0.3]), np.array([-10.0])
    for index in range(3):
        more = list(base)
        more[index] = more[index] + 0.1
        assert probabilities(WEIGHTS, *more) > probabilities(WEIGHTS, *base)
    assert probabilities(WEIGHTS, np.array([0.2])).tolist() == [0.5]


def test_the_surest_window_counts_less_the_more_there_were() -> None:
    surest = np.array([0.0, 0.5, 0.9])
    assert over_windows(surest, 1, WEIGHTS).tolist() == surest.tolist() == over_windows(surest, 9, None).tolist()
    many = over_windows(surest, 8, WEIGHTS)
    assert many[0] == 0.0 and (many[1:] < surest[1:]).all()
    assert logit(many)[1] == pytest.approx(-0.9)


def test_a_meter_keeps_the_surest_and_silence_says_nothing() -> None:
    signal = SignalSpec()
    meter = PresenceMeter(signal, 2, None)
    window, masks = np.ones((signal.n_bands, 64), np.float32), np.ones((2, signal.n_bands, 64), np.float32)
    meter.add(window, masks, np.array([0.2, 0.7]))
    meter.add(window, masks, np.array([0.6, 0.1]))
    assert [item.probability for item in meter.finish()] == [0.6, 0.7]
    silent = PresenceMeter(signal, 2, WEIGHTS)
    silent.add(np.zeros_like(window), masks, np.zeros(2))
    assert [(item.probability, item.spans) for item in silent.finish()] == [(0.0, ()), (0.0, ())]


def toy(path: Path) -> Bundle:
    toys: Any = pytest.importorskip("tests.toy", reason="making a bundle needs the training extra")
    bundle: Bundle = toys.toy_bundle(path)
    return bundle


def test_a_bundle_is_calibrated_in_place_and_nothing_but_the_manifest_changes(tmp_path: Path) -> None:
    before = toy(tmp_path)
    assert before.calibration is None
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "manifest.json"}
    after = calibrate(tmp_path, WEIGHTS)
    assert after.calibration == WEIGHTS and after.version != before.version
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "manifest.json"}
    assert calibrate(tmp_path, None).version == before.version


def test_a_manifest_with_a_broken_calibration_is_told_why(tmp_path: Path) -> None:
    toy(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "presence": {"heard": {}}}))
    with pytest.raises(BundleError, match=r"manifest\.json: presence"):
        Bundle.open(tmp_path)


def test_a_bundle_answers_as_it_is_calibrated(tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    signal = bundle.signal
    window = np.random.default_rng(0).uniform(size=(signal.n_bands, 64)).astype(np.float32)
    raw = Runtime(bundle, threads=1, device="cpu")
    embedding = raw.embed(["dog barking", "rain on a roof"])
    masks = raw.mask(window, embedding)
    cosine = raw.similarity(window, embedding[2])
    scale = bundle.embedder.logit_scale
    np.testing.assert_allclose(
        raw.presence(window, embedding, masks), 1 / (1 + np.exp(-scale * cosine)), rtol=1e-4, atol=1e-6
    )

    calibrated = Runtime(calibrate(tmp_path, WEIGHTS), threads=1, device="cpu")
    np.testing.assert_allclose(
        calibrated.presence(window, embedding), probabilities(WEIGHTS, cosine), rtol=1e-4, atol=1e-6
    )
    stems = np.array([raw.similarity(mask * window, embedding[2])[row] for row, mask in enumerate(masks)])
    expected = probabilities(WEIGHTS, cosine, stems, energy_db(window, masks))
    np.testing.assert_allclose(calibrated.presence(window, embedding, masks), expected, rtol=1e-4, atol=1e-6)
    assert calibrated.stem_similarity(window, np.zeros_like(masks), embedding[2]).tolist() == [0.0, 0.0]

    heard_only = Runtime(calibrate(tmp_path, dataclasses.replace(WEIGHTS, separated={})), threads=1, device="cpu")
    np.testing.assert_allclose(
        heard_only.presence(window, embedding, masks), probabilities(WEIGHTS, cosine), rtol=1e-4, atol=1e-6
    )
