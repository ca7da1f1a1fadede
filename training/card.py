"""The model card: what a bundle's README.md says when nobody has written a better one."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.manifest import read_manifest

_MAX_FIGURES = 60


def training_data(sounds: Path) -> list[dict[str, Any]]:
    """Sources of a pack with their licences and numbers of training clips, as the manifest lists them.

    Clips are counted in ``manifest.csv``; the licences stand in the table of the pack's README.
    """
    licences = _licences(sounds / "README.md")
    counts = collections.Counter(clip.source for clip in read_manifest(sounds) if clip.split == "train")
    return [
        {"name": source, "licence": licences.get(source, "not stated"), "clips": count}
        for source, count in sorted(counts.items())
    ]


def _licences(path: Path) -> dict[str, str]:
    """Source -> licence, from a Markdown table whose first column is the source and whose last is the licence."""
    if not path.is_file():
        return {}
    found, inside = {}, False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[0].lower() == "source" and cells[-1].lower() == "licence":
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(cells[0]) <= set("-: "):
            found[cells[0]] = cells[-1]
    return found


def model_card(name: str, about: Mapping[str, Any], data: list[dict[str, Any]], evaluation: Mapping[str, Any]) -> str:
    """Markdown of a card.

    Args:
        name: of the model.
        about: facts of how it was made, one line each.
        data: as :func:`training_data` gives it.
        evaluation: figures; nested objects become dotted names.
    """
    lines = [
        f"# {name}",
        "",
        "Separates the sound that a phrase names from a recording. Made by Winnow (`python -m training.export`),",
        "licence Apache-2.0. `WINNOW_MODEL=<this directory> winnow serve` serves it.",
        "",
        "It knows the kinds of sound it was trained on: animals, weather, kitchens, single instruments, English",
        "speech, ambience. Phrases are English. It is not meant for identifying people or for listening in on them.",
        "",
        "| made | |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in about.items()),
        "",
        "## Training data",
        "",
        "| source | clips | licence |",
        "| --- | --- | --- |",
        *(f"| {item['name']} | {item['clips']} | {item['licence']} |" for item in data),
        "",
        "No clip is part of the bundle.",
        "",
        "## Evaluation",
        "",
    ]
    figures = list(_flatten(evaluation))
    if not figures:
        return "\n".join([*lines, "None was given at export.", ""])
    rows = [f"| {key} | {value} |" for key, value in figures[:_MAX_FIGURES]]
    return "\n".join([*lines, "| figure | value |", "| --- | --- |", *rows, "", "All are in `manifest.json`.", ""])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:.2f}"
        elif isinstance(value, int | str):
            yield f"{prefix}{key}", str(value)
