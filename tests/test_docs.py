"""The documents keep up with the code: every setting, every problem, no figure left to fill in."""

from __future__ import annotations

from pathlib import Path

from service.problems import PROBLEMS
from service.settings import Settings

ROOT = Path(__file__).parents[1]
SERVICE = (ROOT / "docs" / "service.md").read_text()


def test_every_setting_and_every_problem_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `WINNOW_{name.upper()}` |" in SERVICE and str(field.description) in SERVICE, name
    for problem in PROBLEMS.values():
        assert f"| {problem.status} | `{problem.kind}` |" in SERVICE, problem.kind


def test_no_document_has_a_gap() -> None:
    for path in [ROOT / "README.md", ROOT / "model" / "default" / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        assert "TODO" not in text and not any(
            line.strip().startswith("@") and line.strip().endswith("@") for line in text.splitlines()
        ), path
