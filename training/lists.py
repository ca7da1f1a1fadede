"""Make a mixture list: ``python -m training.lists --sources 4 --part separator --out .cache/mixtures-train-4.jsonl``.

The pack brings lists of two and three sources; these are of the same form with any number: clips of different labels,
levels within 5 dB, each somewhere in five seconds, and a caption that joins their phrases.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from training.manifest import Clip, Mixture, MixtureSource, read_manifest, read_phrases

SECONDS = 5.0
LEVEL_DB = 5.0
JOINS = (" and ", " with ", " as ", ", then ", " while there is ", " followed by ")
ENDS = ("", "", "", " in the background")


def make_list(
    clips: list[Clip],
    phrases: dict[str, tuple[str, ...]],
    *,
    sources: int,
    count: int,
    split: str,
    part: str,
    seed: int,
) -> list[Mixture]:
    """Draw ``count`` mixtures of ``sources`` clips of a split and, if given, a part; labels by the root of their clips.

    Raises:
        ValueError: fewer labels than sources.
    """
    by_label: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.split == split and part in ("", clip.part):
            by_label.setdefault(clip.label, []).append(clip)
    labels = sorted(by_label)
    if not 1 <= sources <= len(labels):
        raise ValueError(f"sources must be in 1..{len(labels)}, the labels of {split} {part!r}, got {sources}")
    odds = np.sqrt([len(by_label[label]) for label in labels])
    rng = np.random.default_rng(seed)
    mixtures = []
    for number in range(count):
        chosen = [labels[row] for row in rng.choice(len(labels), size=sources, replace=False, p=odds / odds.sum())]
        placed = tuple(_place(by_label[label], phrases[label], rng) for label in chosen)
        mixtures.append(Mixture(f"{seed}-{sources}-{number:05d}", SECONDS, _caption(placed, rng), placed))
    return mixtures


def write_list(path: Path, mixtures: list[Mixture]) -> None:
    """Write the list, one JSON object a line; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(dataclasses.asdict(mixture)) + "\n" for mixture in mixtures))
    partial.replace(path)


def _place(clips: list[Clip], phrases: tuple[str, ...], rng: np.random.Generator) -> MixtureSource:
    """A clip cut to the mixture's length; a shorter one begins anywhere that leaves it whole."""
    clip = clips[int(rng.integers(len(clips)))]
    spare = clip.seconds - SECONDS
    start = rng.uniform(0.0, spare) if spare > 0 else 0.0
    at = rng.uniform(0.0, -spare) if spare < 0 else 0.0
    return MixtureSource(
        clip.path, round(start, 2), round(at, 2), round(float(rng.uniform(-LEVEL_DB, LEVEL_DB)), 1), clip.label,
        phrases[int(rng.integers(len(phrases)))],
    )  # fmt: skip


def _caption(sources: tuple[MixtureSource, ...], rng: np.random.Generator) -> str:
    caption = sources[0].prompt
    for source in sources[1:]:
        caption += JOINS[int(rng.integers(len(JOINS)))] + source.prompt
    return caption + (ENDS[int(rng.integers(len(ENDS)))] if len(sources) > 1 else "")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for a list that cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m training.lists", description=__doc__)
    parser.add_argument("--sources", type=int, required=True, help="clips in a mixture")
    parser.add_argument("--count", type=int, default=6000, help="mixtures in the list")
    parser.add_argument("--split", default="train", help="split of the pack")
    parser.add_argument("--part", default="", help="part of the split; all of it by default")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draws")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    try:
        clips, phrases = read_manifest(options.sounds), read_phrases(options.sounds)
        made = make_list(
            clips, phrases, sources=options.sources, count=options.count, split=options.split, part=options.part,
            seed=options.seed,
        )  # fmt: skip
        write_list(options.out, made)
    except (ValueError, FileNotFoundError) as error:
        print(f"training.lists: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
