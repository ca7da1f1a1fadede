"""Calibrate a bundle's presence: ``python -m training.calibrate --model model/default``. In place, unless ``--out``.

Fitted on mixtures made of the train split's clips, asked for by the pack's phrases and by others that no training has
met; tested on the valid lists, singly and six joined to half a minute, beside the embedder's raw score.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from model.bundle import Bundle, calibrate
from model.calibration import Calibration
from model.presence import logistic, logit, probabilities
from model.runtime import Runtime
from training.checkpoint import git_commit
from training.dataset import Pack
from training.lists import make_list
from training.logistic import fit
from training.manifest import read_manifest, read_mixtures, read_phrases
from training.questions import Question, measure, questions
from training.reliability import figures, reliability

BENCHMARKS = Path(__file__).parent / "benchmarks"
SEED = 3_000
JOINED = 6  # mixtures of 5 s
_WEIGHT_LIMIT = 2.0  # logits for a doubling of the windows


@dataclass(frozen=True)
class Measured:
    """Prompts of several recordings: what was measured of each, window by window [W, M], and whether it was there."""

    windows: list[np.ndarray]
    present: np.ndarray

    @classmethod
    def of(cls, runtime: Runtime, asked: Iterable[Question]) -> Measured:
        """Measure questions."""
        windows, present = [], []
        for question in asked:
            windows += list(measure(runtime, question).transpose(1, 0, 2))
            present.append(question.present)
        return cls(windows, np.concatenate(present) if present else np.zeros(0, bool))

    def probability(self, calibration: Calibration) -> np.ndarray:
        """As the service gives it: of the surest window, less what more windows make likely. Shape: [n]."""
        surest = np.array([window_probability(calibration, rows).max() for rows in self.windows])
        return logistic(logit(surest) + calibration.windows * np.log2([len(rows) for rows in self.windows]))

    def raw_score(self, logit_scale: float) -> np.ndarray:
        """The score of a bundle without calibration. Shape: [n]."""
        return logistic(logit_scale * np.array([rows[:, 0].max() for rows in self.windows]))


def window_probability(calibration: Calibration, rows: np.ndarray) -> np.ndarray:
    """Probabilities of windows measured as ``[W, M]``. Shape: [W]."""
    return probabilities(calibration, *rows.T) if calibration.separated else probabilities(calibration, rows[:, 0])


def fitted(single: Measured, joined: Measured) -> Calibration:
    """Fit the weights on recordings of one window, then what further windows weigh on those of several."""
    rows = np.stack([windows.max(axis=0) for windows in single.windows])
    heard = dict(zip(Calibration.HEARD, fit(rows[:, :1], single.present).tolist(), strict=True))
    separated = {}
    if rows.shape[1] > 1:
        separated = dict(zip(Calibration.SEPARATED, fit(rows, single.present).tolist(), strict=True))
    plain = Calibration(heard, separated)

    def loss(weight: float) -> float:
        said = joined.probability(Calibration(heard, separated, weight)).clip(1e-6, 1 - 1e-6)
        return float(-np.where(joined.present, np.log(said), np.log1p(-said)).mean())

    if not joined.windows:
        return plain
    found = minimize_scalar(loss, bounds=(-_WEIGHT_LIMIT, _WEIGHT_LIMIT), method="bounded")
    return Calibration(heard, separated, float(found.x))


def table(name: str, measured: Measured, calibration: Calibration, logit_scale: float) -> tuple[str, dict[str, object]]:
    """A set's figures beside the raw score's, with its reliability table; and the same as JSON values."""
    said = measured.probability(calibration)
    heard_only = measured.probability(Calibration(calibration.heard, {}, calibration.windows))
    scores = {"calibrated": said, "recording alone": heard_only, "raw score": measured.raw_score(logit_scale)}
    result = {key: figures(value, measured.present) for key, value in scores.items()}
    lines = [f"## {name}: {len(said)} prompts, {int(measured.present.sum())} of them there"]
    lines += ["", "| | AUC | Brier score | expected calibration error |", "| --- | --- | --- | --- |"]
    lines += [f"| {key} | {row['auc']:.3f} | {row['brier']:.3f} | {row['ece']:.3f} |" for key, row in result.items()]
    lines += ["", "| said | prompts | mean said | really there |", "| --- | --- | --- | --- |"]
    for item in reliability(probability=said, present=measured.present):
        lines.append(f"| {item.low:.1f} to {item.low + 0.1:.1f} | {item.count} | {item.said:.2f} | {item.true:.2f} |")
    return "\n".join(lines), {"prompts": len(said), **result}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 where nothing can be calibrated."""
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("model/default"), help="the bundle's folder")
    parser.add_argument("--out", type=Path, help="write a calibrated copy here instead; must not be there")
    parser.add_argument("--dry-run", action="store_true", help="print the figures and write nothing")
    parser.add_argument("--list", dest="lists", action="append", help="lists to test on (default: the valid ones)")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--count", type=int, default=300, help="mixtures to fit on, of one, two and three sources")
    parser.add_argument("--limit", type=int, default=0, help="mixtures of each list to test on; 0 for all")
    parser.add_argument("--rate", type=int, default=32_000, help="sample rate in Hz to render at")
    parser.add_argument("--json", type=Path, help="write weights and figures to this file as well")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"training.calibrate: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Fit, test, print, write."""
    if options.out and options.out.exists():
        raise ValueError(f"{options.out} exists")
    bundle = Bundle.open(options.model)
    runtime = Runtime(bundle, threads=1)
    single = Measured.of(runtime, tqdm(_fit_questions(options, 1), desc="fit", unit="recording"))
    joined = Measured.of(runtime, tqdm(_fit_questions(options, JOINED), desc="fit, joined", unit="recording"))
    calibration = fitted(single, joined)
    tests = {}
    for name, asked in _tests(options):
        measured = Measured.of(runtime, tqdm(asked, desc=name, unit="recording"))
        if not measured.windows:
            continue  # too short a list to join
        text, tests[name] = table(name, measured, calibration, bundle.embedder.logit_scale)
        print(f"\n{text}", flush=True)
    about = {"mixtures": options.count, "prompts": len(single.present), "git_commit": git_commit(), "tests": tests}
    calibration = Calibration(calibration.heard, calibration.separated, calibration.windows, about)
    print(json.dumps(calibration.to_json(), indent=1))
    if options.json:
        options.json.write_text(json.dumps(calibration.to_json(), indent=1) + "\n")
    if not options.dry_run:
        if options.out:
            shutil.copytree(options.model, options.out)
        print(f"{options.out or options.model}: version {calibrate(options.out or options.model, calibration).version}")


def _fit_questions(options: argparse.Namespace, joined: int) -> Iterator[Question]:
    """Mixtures of the train split: one in two asked for by the pack's phrases, one in two by others."""
    clips, phrases = read_manifest(options.sounds), read_phrases(options.sounds)
    others: Mapping[str, str] = json.loads((BENCHMARKS / "other-phrases.json").read_text())
    pack = _pack(options)
    for sources in (1, 2, 3):
        count = max(2 * joined, options.count // 3)
        made = make_list(clips, phrases, sources=sources, count=count, split="train", part="", seed=SEED + joined)
        half = count // 2
        yield from questions(made[:half], pack, phrases, joined=joined)
        yield from questions(made[half:], pack, phrases, joined=joined, asked_by=others)


def _tests(options: argparse.Namespace) -> Iterator[tuple[str, Iterator[Question]]]:
    phrases, pack = read_phrases(options.sounds), _pack(options)
    unseen: Mapping[str, str] = json.loads((BENCHMARKS / "unseen-phrases.json").read_text())
    for name in options.lists or ["mixtures-valid-2.jsonl", "mixtures-valid-3.jsonl"]:
        path = Path(name) if Path(name).is_file() else options.sounds / name
        lines = read_mixtures(path)[: options.limit or None]
        yield path.stem, questions(lines, pack, phrases)
        yield f"{path.stem}, phrases never trained", questions(lines, pack, phrases, asked_by=unseen)
        yield f"{path.stem}, {JOINED} joined", questions(lines, pack, phrases, joined=JOINED)


def _pack(options: argparse.Namespace) -> Pack:
    """The pack without its decoded copy: rendering reads the files themselves."""
    return Pack(
        options.sounds, read_manifest(options.sounds), options.rate, np.zeros(0, np.int16), np.zeros(1, np.int64)
    )


if __name__ == "__main__":
    sys.exit(main())
