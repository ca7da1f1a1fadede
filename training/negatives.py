"""What naming the unwanted is worth: ``python -m training.negatives --model model/default``.

Each source of a mixture list is asked for three times: alone, with the other sources named as negatives, and with a
sound named that is not there. The table has, for each rule of :mod:`model.negatives`, what that does to the SDRi. In a
calibrated bundle a negative counts as far as it is likely to be there, window by window, as in the service.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model.bundle import Bundle
from model.negatives import RULES, lower
from model.runtime import Runtime
from model.spectral import separate
from training.cases import Case, cases_of_list, with_absent
from training.interval import Interval
from training.manifest import read_manifest, read_phrases
from training.metrics import sdr_improvement

Row = dict[str, float | str]


def measure(case: Case, runtime: Runtime) -> list[Row]:
    """One row a source: SDRi in dB asked for alone, and by rule with the others, or an absent sound, as negatives."""
    scene = case.load()
    n_present = len(case.present)
    embedding = runtime.embed([prompt.prompt for prompt in (*case.present, *case.absent)])

    def variants(bands: np.ndarray) -> np.ndarray:
        masks = runtime.mask(bands, embedding)
        surely = np.ones(len(masks))
        if runtime.calibration is not None and not runtime.audio_rate:
            surely = runtime.presence(bands, embedding, masks) if bands.any() else np.zeros(len(masks))
        stacked = []
        for row in range(n_present):
            stacked.append(masks[row])
            others = [other for other in range(n_present) if other != row]
            for rule in RULES:
                for unwanted in (others, [n_present]):
                    stacked.append(lower(masks[[row, *unwanted]], 1, surely[unwanted], rule)[0])
        return np.stack(stacked)

    n_variants = 1 + 2 * len(RULES)
    stems = separate(runtime.bundle.signal, scene.sample_rate, scene.mixture, n_present * n_variants, variants)
    estimates = torch.from_numpy(stems).flatten(1).unflatten(0, (n_present, n_variants))
    targets, mixture = torch.from_numpy(scene.sources).flatten(1), torch.from_numpy(scene.mixture).flatten()
    rows: list[Row] = []
    for target, estimate in zip(targets, estimates, strict=True):
        gains = sdr_improvement(target=target, estimate=estimate, mixture=mixture).tolist()
        row: Row = {"id": case.id, "alone": gains[0]}
        for index, rule in enumerate(RULES):
            row |= {f"{rule} others": gains[1 + 2 * index], f"{rule} absent": gains[2 + 2 * index]}
        rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rules in rows: change of SDRi in dB with the others named, and with an absent sound named."""
    ids = [str(row["id"]) for row in rows]

    def cell(name: str) -> str:
        return str(Interval.of([float(row[name]) - float(row["alone"]) for row in rows], ids))

    alone = Interval.of([float(row["alone"]) for row in rows], ids)
    lines = [f"SDRi without negatives: {alone} dB ({len(rows)} sounds of {len(set(ids))} mixtures)", ""]
    lines += ["| rule | other sounds named | an absent sound named |", "| --- | --- | --- |"]
    lines += [f"| {rule} | {cell(f'{rule} others')} | {cell(f'{rule} absent')} |" for rule in RULES]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m training.negatives", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("model/default"), help="a bundle's folder")
    parser.add_argument("--list", dest="mixture_list", default="mixtures-valid-2.jsonl", help="of the pack, or a path")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--rate", type=int, default=48_000, help="sample rate in Hz to render at")
    parser.add_argument("--limit", type=int, default=0, help="the first so many mixtures; 0 for all")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--json", type=Path, help="write a row a sound to this file as well")
    options = parser.parse_args(arguments)
    path = Path(options.mixture_list)
    try:
        cases = cases_of_list(path if path.is_file() else options.sounds / path, options.sounds, options.rate)
        source_of = {clip.label: clip.source for clip in read_manifest(options.sounds)}
        cases = with_absent(cases[: options.limit or None], read_phrases(options.sounds), 1, source_of)
        runtime = Runtime(Bundle.open(options.model), threads=options.threads)
        rows = [row for case in tqdm(cases, desc="negatives", unit="mixture") for row in measure(case, runtime)]
    except ValueError as error:
        print(f"training.negatives: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
