"""docs/reliability.md names programs and tests that there are, and all of the programs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reliability.__main__ import programs, run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_every_program_is_in_the_document_and_the_other_way_round() -> None:
    assert set(re.findall(r"python -m tests\.reliability\.(\w+)", TEXT)) == set(programs())


def test_every_test_named_is_there() -> None:
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", TEXT)
    assert len(named) >= 10
    for path, name in named:
        source = (ROOT / path).read_text()
        assert not name or f"def {name}(" in source, (path, name)


def test_nothing_to_run_is_nothing_missed() -> None:
    assert run([]) == 0
