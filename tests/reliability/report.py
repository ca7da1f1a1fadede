"""What a program of this folder prints: its figures, its bars, and whether each was kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not pass (nearest rank); not a number when there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * len(ordered) * 1_000) // 1_000) - 1)]


class Report:
    """Figures of one program, printed as they come."""

    def __init__(self, title: str) -> None:
        """Begin with a line on what they were measured on."""
        self.missed: list[str] = []
        print(f"\n{title}")
        print(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.python_implementation()} "
            f"{platform.python_version()}",
            flush=True,
        )

    def figure(self, name: str, value: float, unit: str = "") -> None:
        """A figure without a bar."""
        print(f"  {name:<58}{value:>12.3f} {unit}", flush=True)

    def at_least(self, name: str, value: float, bar: float, unit: str = "") -> None:
        """A figure that must not be lower."""
        self._bar(name, value, value >= bar, f">= {bar:g} {unit}")

    def at_most(self, name: str, value: float, bar: float, unit: str = "") -> None:
        """A figure that must not be higher."""
        self._bar(name, value, value <= bar, f"<= {bar:g} {unit}")

    def _bar(self, name: str, value: float, kept: bool, bar: str) -> None:
        print(f"  {name:<58}{value:>12.3f} {bar:<16}{'kept' if kept else 'MISSED'}", flush=True)
        if not kept:
            self.missed.append(name)

    @property
    def exit_code(self) -> int:
        """0 when every bar was kept."""
        return 1 if self.missed else 0
