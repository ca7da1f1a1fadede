"""Imports point one way: training -> model <- service, and serving never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"model": {"model"}, "service": {"service", "model"}, "training": {"training", "model"}}
OURS = set(MAY_IMPORT) | {"tests"}
NEVER_SERVED = {"torch", "transformers", "onnx", "onnxscript", "scipy", "matplotlib"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not (imported(path) & OURS) - MAY_IMPORT[package], path


def test_service_names_nothing_of_training_time() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        assert not imported(path) & NEVER_SERVED, path


@pytest.mark.parametrize("module", ["service.app", "service.loading", "service.cli", "service.bench", "service.doctor"])
def test_importing_the_service_imports_no_torch(module: str) -> None:
    unwanted = NEVER_SERVED | {"training"}
    code = f"import {module}, sys; sys.exit(str(found) if (found := {unwanted} & sys.modules.keys()) else 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
