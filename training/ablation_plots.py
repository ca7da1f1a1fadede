"""Pictures of an ablation: arms with their intervals, and the three figures that tell what goes wrong with an arm."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from training.ablation_page import Results

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2")


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what the results have into ``folder``; returns the files, the same bytes for the same results."""
    made = []
    for name in results.lists():
        stem = Path(name).stem.removeprefix("mixtures-")
        made.append(_save(_bars(results, name), folder / f"sdri-{stem}.svg"))
        made.append(_save(_leakage(results, name), folder / f"sir-sar-{stem}.svg"))
    for figure, file in ((_combinations(results), "combinations.svg"), (_shares(results), "gradient-shares.svg")):
        if figure is not None:
            made.append(_save(figure, folder / file))
    return made


def _bars(results: Results, name: str) -> Figure:
    arms = results.arms(name)
    found = [results.sounds(arm.name, name, "sdri").interval() for arm in arms]
    means = [float("nan") if interval is None else interval.mean for interval in found]
    half = [0.0 if i is None or i.high is None else i.high - i.mean for i in found]
    figure = Figure(figsize=(7.5, 1.0 + 0.28 * len(arms)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(arms)), means, xerr=half, color=_COLOURS[0], ecolor="#555555", capsize=2)
    axes.set_yticks(range(len(arms)), [f"{arm.name} ({arm.number})" if arm.number else arm.name for arm in arms])
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel(f"SDRi in dB on {name}, mean and 95 % interval over mixtures")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _leakage(results: Results, name: str) -> Figure:
    """SIR against SAR: to the lower right the mask removes too much, to the upper left it leaks."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for arm in results.arms(name):
        sir, sar = (float(np.nanmean(results.sounds(arm.name, name, key).values)) for key in ("sir", "sar"))
        axes.scatter([sir], [sar], s=18, color=_COLOURS[0])
        axes.annotate(arm.name, (sir, sar), fontsize=7, xytext=(4, 2), textcoords="offset points")
    axes.set_xlabel("SIR in dB (higher: less of the other sounds)")
    axes.set_ylabel("SAR in dB (higher: less damage)")
    axes.grid(alpha=0.3)
    return figure


def _combinations(results: Results) -> Figure | None:
    """URL on recordings that training knows (solid) and does not (dashed), over the steps of the first seed."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    drawn = 0
    for arm, log in _logs(results):
        known, held = (_curve(log, key) for key in ("url_known", "url_held"))
        if known and held:
            colour = _COLOURS[drawn % len(_COLOURS)]
            axes.plot(*zip(*known, strict=True), color=colour, marker=".", label=arm)
            axes.plot(*zip(*held, strict=True), color=colour, marker=".", linestyle="--")
            drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("steps")
    axes.set_ylabel("URL in dB, lower is better; dashed: held out")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def _shares(results: Results) -> Figure | None:
    """Each loss's share of the gradient at the masks, for arms with more than one loss."""
    found = []
    for arm, log in _logs(results):
        names = sorted({key for row in log for key in row if key.startswith("gradient_share_")})
        if len(names) > 1:
            found.append((arm, log, names))
    if not found:
        return None
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 1.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    colours = {
        name: _COLOURS[row % len(_COLOURS)] for row, name in enumerate(sorted({n for *_, ns in found for n in ns}))
    }
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for axes, (arm, log, names) in zip(grid.flat, found, strict=False):
        for name in names:
            points = _curve(log, name)
            axes.plot(*zip(*points, strict=True), color=colours[name], label=name.removeprefix("gradient_share_"))
        axes.set_title(arm, fontsize=8)
        axes.set_ylim(0.0, 1.0)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6)
    return figure


def _logs(results: Results) -> list[tuple[str, list[dict[str, float]]]]:
    """Logs of the first seed of every arm that was scored."""
    logs = []
    for arm in dict.fromkeys(arm for arm, _ in results.rows):
        path = results.folder(arm, results.seeds[0]) / "log.jsonl"
        if path.is_file():
            logs.append((arm, [json.loads(line) for line in path.read_text().splitlines()]))
    return logs


def _curve(log: list[dict[str, float]], key: str) -> list[tuple[float, float]]:
    return sorted({row["step"]: row[key] for row in log if key in row}.items())


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "winnow"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
