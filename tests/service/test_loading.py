from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.errors import StartError
from service.loading import check_builds, installed_builds, redis_tier, usable_threads
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def test_one_build_is_installed_here() -> None:
    check_builds(installed_builds())


def test_both_builds_are_refused_with_the_line_that_mends_it() -> None:
    with pytest.raises(StartError, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        check_builds(["onnxruntime", "onnxruntime-gpu"])


def test_no_build_is_refused_with_the_line_that_mends_it() -> None:
    with pytest.raises(StartError, match=r"pip install -e '\.\[cpu\]'"):
        check_builds([])


def test_redis_needs_an_address_of_its_own_kind() -> None:
    with pytest.raises(StartError, match="WINNOW_REDIS_URL"):
        redis_tier(Settings(redis_url=SecretStr("http://secret-password@host")))


def test_the_address_of_redis_is_not_shown() -> None:
    assert "secret" not in repr(Settings(redis_url=SecretStr("redis://:secret@host")))


def test_threads() -> None:
    assert usable_threads() >= 1


def test_the_runtime_does_not_report_home(bundle: Path, tmp_path: Path) -> None:
    """In a process of its own, for here it may be imported already: with telemetry on, a file appears at once."""
    code = (
        "import os; from service.loading import load_engine; from service.settings import Settings; "
        f"load_engine(Settings(model={str(bundle)!r}, threads=1)); print(os.listdir(os.environ['TMPDIR']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    (tmp_path / "empty").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
