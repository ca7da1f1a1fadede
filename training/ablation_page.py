"""An ablation's rows as Markdown tables, and the page that they are put into."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from training.ablation_figures import Rows, Share, Sounds, share_closed, spread
from training.ablation_score import read_rows
from training.arms import Arm, Plan
from training.interval import Interval

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_FIRST = ("esc10", "kitchen20", "moodist", "philharmonia")


class Results:
    """Rows of every arm that was scored whole on a list, by seed: what tables and pictures are made from.

    ``sizes`` says how many mixtures each list has; an arm with fewer rows is not finished and left out.
    """

    def __init__(self, plan: Plan, out: Path, seeds: Sequence[int], sizes: dict[str, int]) -> None:
        self.plan, self.out, self.seeds = plan, out, tuple(seeds)
        self.rows: dict[tuple[str, str], list[Rows]] = {}
        for arm in plan.arms.values():
            for name in plan.lists_of(arm):
                found = [read_rows(self.folder(arm.name, seed), name) for seed in seeds]
                whole = [rows for rows in found if len(rows) == sizes[name]]
                if whole:
                    self.rows[arm.name, name] = whole

    def folder(self, arm: str, seed: int) -> Path:
        """Where an arm's run lies."""
        return self.out / arm / f"seed-{seed}"

    def arms(self, name: str) -> list[Arm]:
        """Arms scored on a list, in the plan's order."""
        return [arm for arm in self.plan.arms.values() if (arm.name, name) in self.rows]

    def lists(self) -> list[str]:
        """Lists that some arm was scored on."""
        return [*dict.fromkeys(name for _, name in self.rows)]

    def sounds(self, arm: str, name: str, figure: str) -> Sounds:
        """A figure of all sounds of a list."""
        return Sounds.of(self.rows[arm, name], figure)

    def has(self, name: str, *arms: str) -> bool:
        """Whether all of these arms were scored on a list."""
        return all((arm, name) in self.rows for arm in arms)


def tables(results: Results) -> str:
    """All tables of an ablation as Markdown: arms on each list, differences, shares of gaps."""
    parts = []
    for name in results.lists():
        n_mixtures = len(results.rows[results.arms(name)[0].name, name][0])
        parts += [f"**{name}**, {n_mixtures} mixtures, dB, mean ± 95 % over mixtures", "", _arms(results, name), ""]
    for title, made in (("Differences in SDRi", _differences(results)), ("Gaps in SDRi", _gaps(results))):
        if made:
            parts += [f"**{title}**, dB, paired over mixtures", "", made, ""]
    return "\n".join(parts).rstrip() or "No arm is finished yet."


def write_page(path: Path, body: str) -> None:
    """Put ``body`` between the page's markers.

    Raises:
        ValueError: the page is missing or lacks a marker.
    """
    text = path.read_text() if path.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path} must have the lines {BEGIN!r} and {END!r}, once each and in this order")
    before, rest = text.split(BEGIN)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{before}{BEGIN}\n{body}\n{END}{rest.split(END)[1]}")
    os.replace(partial, path)


def _arms(results: Results, name: str) -> str:
    arms = results.arms(name)
    present = {source for arm in arms for source in results.sounds(arm.name, name, "sdri").sources}
    sources = [source for source in _FIRST if source in present] or sorted(present)
    with_bss = any("bss_sdr" in results.rows[arm.name, name][0][0]["present"][0] for arm in arms)
    head = [
        "",
        "arm",
        "what it is",
        "seeds",
        "steps",
        "SDRi",
        *sources,
        "SIR",
        "SAR",
        *(["BSS SDR"] if with_bss else []),
    ]
    lines = [head]
    for arm in arms:
        seeds = results.rows[arm.name, name]
        deviation = spread(seeds, "sdri")
        gain = results.sounds(arm.name, name, "sdri")
        lines.append([
            arm.number,
            f"`{arm.name}`",
            arm.title,
            f"{len(seeds)}" + ("" if deviation is None else f", sd {deviation:.2f}"),
            _steps(results, arm),
            f"**{_show(gain.interval())}**",
            *(_mean(gain.interval(source)) for source in sources),
            *(_mean(results.sounds(arm.name, name, figure).interval()) for figure in ("sir", "sar")),
            *([_mean(results.sounds(arm.name, name, "bss_sdr").interval())] if with_bss else []),
        ])  # fmt: skip
    return _markdown(lines)


def _differences(results: Results) -> str:
    lines = [["difference", "arms", "list", "dB", "clear of zero"]]
    for pair in results.plan.compare:
        name = pair.list or results.plan.lists[0]
        if results.has(name, pair.of, pair.to):
            one, other = (results.sounds(arm, name, "sdri") for arm in (pair.of, pair.to))
            found = one.less(other).interval()
            lines.append(
                [pair.name, f"`{pair.of}` - `{pair.to}`", _short(name), _show(found, sign=True), _clear(found)]
            )
    return _markdown(lines) if len(lines) > 1 else ""


def _gaps(results: Results) -> str:
    head = ["", "list", "supervised", "mix-and-separate", "weak", "gap", "closed by weak (95 %)"]
    lines = [[*head, "weak over mix-and-separate", "weak of supervised"]]
    for gap in results.plan.gap:
        name = gap.list or results.plan.lists[0]
        if results.has(name, gap.supervised, gap.unsupervised, gap.weak):
            sounds = [results.sounds(arm, name, "sdri") for arm in (gap.supervised, gap.unsupervised, gap.weak)]
            closed: Share = share_closed(supervised=sounds[0], unsupervised=sounds[1], weak=sounds[2])
            means = [interval.mean if (interval := one.interval()) else float("nan") for one in sounds]
            ratios = [_ratio(means[2] - means[1], means[1], "+"), _ratio(means[2], means[0], "")]
            shown = [f"{mean:.2f}" for mean in means]
            apart = _show(sounds[0].less(sounds[1]).interval(), sign=True)
            lines.append([gap.name, _short(name), *shown, apart, str(closed), *ratios])
    return _markdown(lines) if len(lines) > 1 else ""


def _ratio(above: float, below: float, sign: str) -> str:
    return f"{100 * above / below:{sign}.0f} %" if below > 0 else "-"


def _steps(results: Results, arm: Arm) -> str:
    """Steps that the arm's seeds were trained for, as their records say."""
    found = set()
    for seed in results.seeds:
        path = results.folder(arm.name, seed) / "record.json"
        if path.is_file():
            found.add(int(json.loads(path.read_text())["config"]["steps"]))
    return ", ".join(f"{steps:,}" for steps in sorted(found)) or "-"


def _short(name: str) -> str:
    return Path(name).stem.removeprefix("mixtures-")


def _mean(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:.2f}"


def _show(interval: Interval | None, *, sign: bool = False) -> str:
    if interval is None:
        return "-"
    half = "" if interval.high is None else f" ± {interval.high - interval.mean:.2f}"
    return f"{interval.mean:{'+' if sign else ''}.2f}{half}"


def _clear(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    return "yes" if interval.low > 0 or interval.high < 0 else "no"


def _markdown(lines: list[list[str]]) -> str:
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
