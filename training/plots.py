"""Two pictures of an evaluation, drawn without a screen and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.interval import Interval

_BIN_DB = 5.0


def sdri_per_label(by_label: dict[str, Any], path: Path) -> None:
    """Draw a bar a label, the best on top, with its interval where there are two mixtures or more."""
    labels = sorted(by_label, key=lambda label: by_label[label]["sdri"]["mean"])
    intervals = [Interval(**by_label[label]["sdri"]) for label in labels]
    half = [0.0 if item.high is None else item.high - item.mean for item in intervals]
    figure = Figure(figsize=(8.0, 1.2 + 0.19 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(labels)), [item.mean for item in intervals], xerr=half, color="#4c78a8", ecolor="#555555")
    axes.set_yticks(
        range(len(labels)), [f"{label} ({item.values})" for label, item in zip(labels, intervals, strict=True)]
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    # A label of two mixtures may have an interval of a hundred decibels: it runs off the picture.
    means = [0.0, *(item.mean for item in intervals)]
    axes.set_xlim(min(means) - 5.0, max(means) + 5.0)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("SDRi in dB, mean and 95 % interval over mixtures (number of sounds)")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def gain_by_input(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw input SNR against SDRi: a dot a sound, coloured by source, and the mean of every 5 dB with its interval.

    The input SNR is the mixture's SDR for the sound: everything else in the mixture is the noise.
    """
    sounds = [(row["id"], sound) for row in rows for sound in row["present"]]
    figure = Figure(figsize=(8.0, 5.5), layout="constrained")
    axes = figure.subplots()
    for source in sorted({sound["source"] for _, sound in sounds}):
        points = [(sound["input_sdr"], sound["sdri"]) for _, sound in sounds if sound["source"] == source]
        axes.scatter([at for at, _ in points], [gain for _, gain in points], s=12, alpha=0.55, label=source)
    means: list[tuple[float, Interval]] = []
    bins = sorted({int(np.floor(sound["input_sdr"] / _BIN_DB)) for _, sound in sounds})
    for number in bins:
        inside = [(name, sound) for name, sound in sounds if int(np.floor(sound["input_sdr"] / _BIN_DB)) == number]
        interval = Interval.of([sound["sdri"] for _, sound in inside], [name for name, _ in inside])
        if interval is not None:
            means.append(((number + 0.5) * _BIN_DB, interval))
    half = [0.0 if item.high is None else item.high - item.mean for _, item in means]
    axes.errorbar(
        [at for at, _ in means],
        [item.mean for _, item in means],
        yerr=half,
        color="black",
        marker="o",
        capsize=3,
        label=f"mean of each {_BIN_DB:.0f} dB",
    )
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("input SNR in dB")
    axes.set_ylabel("SDRi in dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
