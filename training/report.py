"""From rows of figures to means with intervals, and from those to a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from training.interval import Interval

NOT_FIGURES = ("prompt", "label", "source")
COLUMNS = (
    ("mixture SDR", "input_sdr"),
    ("SDR", "sdr"),
    ("SDRi", "sdri"),
    ("SI-SDRi", "si_sdri"),
    ("PSM SDRi", "oracle_phase_sensitive_sdri"),
    ("ratio SDRi", "oracle_ratio_sdri"),
    ("BSS SDR", "bss_sdr"),
    ("BSS SIR", "bss_sir"),
    ("BSS SAR", "bss_sar"),
)
DEFINITIONS = {
    "input_sdr": "the mixture taken as the estimate; its SDRi is 0 by definition",
    "sdr": "10 log10(|s|^2 / |s - e|^2), no filter, no scaling",
    "sdri": "sdr - input_sdr",
    "si_sdr": "scale-invariant, mean not removed",
    "si_sdri": "si_sdr less the mixture's",
    "oracle_phase_sensitive": "best mask of the model's bands with phase, cut to 0..1",
    "oracle_ratio": "band amplitude of the source over its and the rest's",
    "bss": "BSS-eval version 3, 512 taps, fixed permutation, mid signal",
    "energy_left": "energy given for an absent prompt relative to the mixture's; lower is better",
    "interval": "95 %, Student t over mixtures, sources of a mixture counted as one cluster",
}

Figures = dict[str, dict[str, Any]]


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average rows of :func:`training.score.score`, in any order.

    Returns:
        ``mixtures`` (their number), ``present`` and ``absent``: each ``all``, ``by_source`` and ``by_label`` of
        figure -> interval as JSON values.
    """
    rows = sorted(rows, key=lambda row: str(row["id"]))
    return {
        "mixtures": len(rows),
        "present": _groups(rows, "present"),
        "absent": _groups(rows, "absent"),
    }


def _groups(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    flat = [(row["id"], figures) for row in rows for figures in row[kind]]
    groups: dict[str, Any] = {"all": _average(flat)}
    for key in ("source", "label"):
        names = sorted({figures[key] for _, figures in flat if figures[key]})
        groups[f"by_{key}"] = {name: _average([pair for pair in flat if pair[1][key] == name]) for name in names}
    return groups


def _average(rows: Sequence[tuple[str, dict[str, Any]]]) -> Figures:
    figures = dict.fromkeys(name for _, row in rows for name in row if name not in NOT_FIGURES)
    averages = {}
    for name in figures:
        values = [float("nan") if row.get(name) is None else float(row[name]) for _, row in rows]
        interval = Interval.of(values, [mixture for mixture, _ in rows])
        if interval is not None:
            averages[name] = interval.to_json()
    return averages


def table(summary: dict[str, Any], *, labels: bool = False) -> str:
    """Lay a summary out for the screen: a line for everything and each source, and with ``labels`` one a label."""
    present, absent = summary["present"], summary["absent"]
    groups = [("all", present["all"]), *present["by_source"].items()]
    if labels:
        groups += sorted(present["by_label"].items(), key=lambda item: -item[1]["sdri"]["mean"])
    shown = [(title, name) for title, name in COLUMNS if name in present["all"]]
    lines = [["dB, mean ±95 %", "mixtures", "sounds", *(title for title, _ in shown)]]
    for group, figures in groups:
        counts = [str(figures["sdri"]["mixtures"]), str(figures["sdri"]["values"])]
        lines.append([group, *counts, *(_cell(figures.get(name)) for _, name in shown)])
    text = _aligned(lines)
    if "energy_left" in absent["all"]:
        strangers = [("all", absent["all"]), *absent["by_source"].items()]
        left = [["absent prompts, dB", "mixtures", "prompts", "energy left", "median"]]
        for group, figures in strangers:
            value = figures["energy_left"]
            left.append([group, str(value["mixtures"]), str(value["values"]), _cell(value), f"{value['median']:.2f}"])
        text += "\n\n" + _aligned(left)
    return text


def _cell(figures: dict[str, Any] | None) -> str:
    return "-" if figures is None else str(Interval(**figures))


def _aligned(lines: Iterable[Sequence[str]]) -> str:
    rows = list(lines)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
