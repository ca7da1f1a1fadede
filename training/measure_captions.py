"""Measure the caption splitter: ``python -m training.measure_captions --sounds DIR``.

Precision is the share of the phrases given back that are true, recall the share of the true ones that are given back;
each true phrase is found once at most. *Exact* compares words without case and articles; *soft* calls two phrases the
same when the F1 of their words is at least 0.8. Intervals are percentile bootstraps over captions, 95 %.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.captions import Parser, hearing, keep_heard, phrases
from training.manifest import Mixture, read_mixtures

BENCHMARK = Path(__file__).parent / "benchmarks" / "captions.jsonl"
SOFT_F1 = 0.8
RESAMPLES = 1000
ARTICLES = frozenset({"a", "an", "the"})
# A splitter of the release's kind: substrings replaced in turn, wherever they stand.
PLAIN = (
    ", ", ". ", "; ", " followed by ", " along with ", " accompanied by ", " and ", " while ", " as ", " then ",
    " with ", " before ", " after ", " during ", " over ", " nearby ", " among ", " amid ", " which ",
    " in the background",
)  # fmt: skip
Match = Callable[[str, str], bool]


@dataclass(frozen=True)
class Captioned:
    """A caption and the phrases that are true of it."""

    caption: str
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """A share of one, with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def plain_split(caption: str) -> tuple[str, ...]:
    """Cut a caption at each of twenty substrings, in turn, as the public release of the paper does."""
    for connective in PLAIN:
        caption = caption.replace(connective, "\n")
    parts = [part.strip(" .,;") for part in caption.split("\n")]
    return tuple(dict.fromkeys(part for part in parts if part))


def normal(phrase: str) -> tuple[str, ...]:
    """Words of a phrase without case, articles and marks."""
    return tuple(word for word in re.findall(r"[\w'’-]+", phrase.casefold()) if word not in ARTICLES)


def exact(one: str, other: str) -> bool:
    """Whether two phrases have the same words in the same order."""
    return normal(one) == normal(other)


def soft(one: str, other: str) -> bool:
    """Whether the F1 of two phrases' words is at least 0.8."""
    left, right = Counter(normal(one)), Counter(normal(other))
    total = left.total() + right.total()
    return total > 0 and 2 * (left & right).total() / total >= SOFT_F1


def hits(found: Sequence[str], true: Sequence[str], match: Match) -> int:
    """Count the true phrases that are found; a found phrase answers for one of them."""
    left = list(found)
    count = 0
    for phrase in true:
        at = next((index for index, other in enumerate(left) if match(other, phrase)), None)
        if at is not None:
            left.pop(at)
            count += 1
    return count


def score(rows: Sequence[Captioned], parser: Parser, match: Match, seed: int = 0) -> tuple[Share, Share]:
    """Precision and recall of a splitter over captions.

    Raises:
        ValueError: no caption.
    """
    if not rows:
        raise ValueError("precision and recall need a caption, got 0")
    counts = []
    for row in rows:
        found = parser(row.caption)
        counts.append((hits(found, row.phrases, match), len(found), len(row.phrases)))
    table = np.array(counts, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = np.stack([table[rng.integers(len(table), size=len(table))].sum(axis=0) for _ in range(RESAMPLES)])
    totals = table.sum(axis=0)
    shares = []
    for column in (1, 2):
        low, high = np.percentile(drawn[:, 0] / drawn[:, column], [2.5, 97.5])
        shares.append(Share(float(totals[0] / totals[column]), float(low), float(high)))
    return shares[0], shares[1]


def read_benchmark(path: Path = BENCHMARK, split: str | None = None) -> list[Captioned]:
    """Read the captions of our own writing: ``dev``, on which rules were tuned, ``test``, or both."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Captioned(row["caption"], tuple(row["phrases"])) for row in rows if split in (None, row["split"])]


def captioned(mixtures: Sequence[Mixture]) -> list[Captioned]:
    """Captions of mixtures with their sources' prompts as the truth."""
    return [Captioned(mixture.caption, tuple(source.prompt for source in mixture.sources)) for mixture in mixtures]


def table(sets: dict[str, list[Captioned]], parsers: dict[str, Parser]) -> list[str]:
    """Rows of a Markdown table: each set by each splitter."""
    lines = [
        "| captions | splitter | precision | recall | soft precision | soft recall |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in sets.items():
        for parser_name, parser in parsers.items():
            cells = [*score(rows, parser, exact), *score(rows, parser, soft)]
            lines.append(f"| {name} ({len(rows)}) | {parser_name} | " + " | ".join(map(str, cells)) + " |")
    return lines


def intruders(sounds: Path, embedder: Path, count: int, thresholds: Sequence[float], seed: int = 0) -> list[str]:
    """Put one wrong phrase into each of ``count`` captions and count what each threshold drops.

    The wrong phrase is a prompt of another mixture whose label this one lacks.
    """
    import torch

    from model.embedder import load_embedder
    from training.dataset import Pack
    from training.manifest import read_manifest
    from training.mixing import render

    torch.set_num_threads(1)
    ear = load_embedder(embedder)
    mixtures = read_mixtures(sounds / "mixtures-train-2.jsonl")
    rng = np.random.default_rng(seed)
    chosen = [mixtures[index] for index in rng.choice(len(mixtures), size=count, replace=False)]
    pack = Pack(sounds, read_manifest(sounds), 32000, np.zeros(0, np.int16), np.zeros(1, np.int64))
    judged: list[tuple[tuple[str, ...], list[float], str]] = []
    for mixture in chosen:
        labels = {source.label for source in mixture.sources}
        others = [source for other in mixtures for source in other.sources if source.label not in labels]
        wrong = others[int(rng.integers(len(others)))].prompt
        said = (*phrases(mixture.caption), wrong)
        audio, _ = render(mixture, pack, pack.sample_rate)
        with torch.inference_mode():
            judged.append((said, hearing(said, torch.from_numpy(audio), pack.sample_rate, ear), wrong))
    return dropped(judged, thresholds)


def dropped(judged: Sequence[tuple[tuple[str, ...], list[float], str]], thresholds: Sequence[float]) -> list[str]:
    """Rows of a Markdown table: of wrong and right phrases, the share that each threshold drops."""
    lines = ["| threshold | wrong dropped | right dropped |", "| --- | --- | --- |"]
    right = sum(len(said) - 1 for said, _, _ in judged)
    for threshold in thresholds:
        kept = [keep_heard(said, similarity, threshold) for said, similarity, _ in judged]
        wrong_kept = sum(wrong in stay for stay, (_, _, wrong) in zip(kept, judged, strict=True))
        right_kept = sum(map(len, kept)) - wrong_kept
        lines.append(f"| {threshold:.2f} | {1 - wrong_kept / len(judged):.0%} | {1 - right_kept / right:.0%} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Precision and recall of the caption splitter.")
    parser.add_argument("--sounds", type=Path, required=True, help="the sound pack")
    parser.add_argument("--limit", type=int, help="only the first captions of each mixture list")
    parser.add_argument("--embedder", type=Path, help="also drop phrases that this embedder does not hear")
    parser.add_argument("--mixtures", type=int, default=200, help="mixtures for --embedder")
    chosen = parser.parse_args(arguments)
    sets = {
        name: captioned(read_mixtures(chosen.sounds / f"mixtures-{name}.jsonl")[: chosen.limit])
        for name in ("train-2", "train-3")
    }
    sets |= {"ours, tuned on": read_benchmark(split="dev"), "ours, held out": read_benchmark(split="test")}
    print("\n".join(table(sets, {"plain": plain_split, "rules": phrases})))
    if chosen.embedder is not None:
        thresholds = (-0.2, -0.1, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
        print("\n" + "\n".join(intruders(chosen.sounds, chosen.embedder, chosen.mixtures, thresholds)))


if __name__ == "__main__":
    main()
