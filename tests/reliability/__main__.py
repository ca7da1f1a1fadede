"""All programs of this folder, one after another, each with a bound on its time: ``python -m tests.reliability``.

``python -m tests.reliability load overload`` runs those that are named. Exits with the number of programs that missed a
bar, failed or took too long.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What is imported by the programs, and is none.
_PARTS = {"__init__", "__main__", "bare", "driver", "front", "report"}
LIMIT_S = 600.0
# Programs that take longer than the limit above on two cores.
LONGER_S = {"fuzz": 3_600.0, "contract": 1_800.0}


def programs() -> list[str]:
    """Names of all programs here."""
    names = {path.stem for path in HERE.glob("*.py")} - _PARTS
    return sorted(name for name in names if '__name__ == "__main__"' in (HERE / f"{name}.py").read_text())


def run(names: list[str]) -> int:
    """Run them in turn; returns how many did not keep their bars."""
    outcomes: dict[str, str] = {}
    for name in names:
        limit_s = LONGER_S.get(name, LIMIT_S)
        print(f"\n== {name} (at most {limit_s:g} s)", flush=True)
        began_s = time.monotonic()
        with subprocess.Popen([sys.executable, "-m", f"tests.reliability.{name}"], cwd=ROOT) as process:
            try:
                code = process.wait(limit_s)
                outcome = "kept" if code == 0 else f"MISSED (exit code {code})"
            except subprocess.TimeoutExpired:
                process.terminate()
                outcome = "MISSED (out of time)"
        outcomes[name] = f"{outcome}, {time.monotonic() - began_s:.0f} s"
    print("\n== all")
    for name, outcome in outcomes.items():
        print(f"  {name:<24}{outcome}")
    return sum(not outcome.startswith("kept") for outcome in outcomes.values())


if __name__ == "__main__":
    chosen = sys.argv[1:] or programs()
    if unknown := set(chosen) - set(programs()):
        sys.exit(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(programs())}")
    sys.exit(run(chosen))
