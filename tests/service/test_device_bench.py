"""``winnow bench --device``: what of it runs without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.cli import main
from service.device_bench import MOST_LOSS_DB, compare, si_sdr_db
from service.settings import SHIPPED_BUNDLE

pytestmark = pytest.mark.skipif(
    not (SHIPPED_BUNDLE / "manifest.json").is_file(), reason="no bundle ships with this checkout"
)


def test_every_choice_has_its_row_and_half_precision_its_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="half precision needs the package onnx")
    assert compare("cpu", 0.03, tmp_path / "figures.json", 1, batches=(1, 2)) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = figures["rows"]
    assert {(row["batch"], row["precision"], row["io_binding"]) for row in rows} == {
        (batch, precision, bound) for batch in (1, 2) for precision in ("fp32", "fp16") for bound in (False, True)
    }
    assert all(row["windows_per_s"] > 0 and row["first_run_s"] > 0 for row in rows)
    assert abs(figures["fp16_loss_db"]) < MOST_LOSS_DB
    assert figures["machine"]["provider"] == "CPUExecutionProvider"
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows) + 2


def test_a_gpu_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU build of ONNX Runtime")
    assert main(["bench", "--device", "cuda"]) != 0
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and "cuda" in error


def test_si_sdr_is_blind_to_scale_and_means() -> None:
    rng = np.random.default_rng(0)
    target, noise = rng.standard_normal((2, 50_000))
    assert si_sdr_db(3 * target + 5 + 0.3 * noise, target) == pytest.approx(20, abs=0.1)
