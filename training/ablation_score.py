"""Scores an arm's averaged weights on a mixture list, a row a mixture: tables can be made again from rows alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fast_bss_eval
import torch
from torch import Tensor
from tqdm import tqdm

from model.layers import BandAnalysis
from training import checkpoint, fingerprint
from training.config import TrainConfig
from training.dataset import Pack
from training.journal import Journal
from training.manifest import Mixture, read_mixtures
from training.metrics import bss_eval, sdr, si_sdr
from training.mixing import render
from training.parts import Parts
from training.prompts import PromptTable

_CODE = ("ablation_score.py", "metrics.py", "mixing.py")


def rows_path(folder: Path, name: str) -> Path:
    """Where the rows of a list lie in an arm's folder."""
    return folder / f"rows-{Path(name).stem}.jsonl"


def score_arm(folder: Path, config: TrainConfig, name: str, *, bss: int, limit: int) -> None:
    """Score ``folder/checkpoint.pt`` on a list at the pack's working rate, going on from the rows that are there.

    The first ``bss`` mixtures (-1: all) get BSS-eval's figures too; ``limit`` scores only the first so many, 0 all.

    Raises:
        ValueError: the checkpoint or the list cannot be read.
    """
    path, list_path = folder / "checkpoint.pt", Path(config.sounds) / name
    if not list_path.is_file():
        raise ValueError(f"no mixture list {list_path}")
    code = fingerprint.of_files(Path(__file__).with_name(file) for file in _CODE)
    question = f"{code} {fingerprint.of_files([path, list_path])}"
    lines = read_mixtures(list_path)[: limit or None]
    journal = Journal(rows_path(folder, name), hashlib.sha256(question.encode()).hexdigest())
    try:
        with_bss = {line.id for line in (lines if bss < 0 else lines[:bss])}
        left = [line for line in lines if _lacks(journal.rows.get(line.id), bss=line.id in with_bss)]
        if not left:
            return
        torch.set_num_threads(config.threads)
        pack = Pack.open(Path(config.sounds), Path(config.cache))
        parts = load_parts(path, config, pack.sample_rate, left)
        source_of = {clip.path: clip.source for clip in pack.clips}
        for line in tqdm(left, desc=f"scoring {folder} on {name}", unit="mixture", mininterval=5):
            journal.append(_row(line, pack, source_of, parts, bss=line.id in with_bss))
    finally:
        journal.close()


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of an arm on a list, in the order of their mixtures' names; none where it was not scored."""
    path = rows_path(folder, name)
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[1:-1]
    rows = {row["id"]: row for row in map(json.loads, lines)}
    return [rows[key] for key in sorted(rows)]


def load_parts(path: Path, config: TrainConfig, sample_rate: int, lines: Sequence[Mixture]) -> Parts:
    """The averaged weights of a checkpoint, ready to separate what ``lines`` ask for."""
    separator, _, signal = checkpoint.load_separator(path)
    device = torch.device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    separator = separator.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prompts = PromptTable.build(Path(config.embedder), (source.prompt for line in lines for source in line.sources))
    return Parts(separator, BandAnalysis(signal, sample_rate).to(device), prompts, device, config.bf16)


@torch.no_grad()
def figures_of(target: Tensor, estimate: Tensor, mixture: Tensor, *, bss: bool) -> dict[str, Tensor]:
    """Figures in dB of ``target`` and ``estimate [S, T]`` in ``mixture [T]``, each ``[S]``.

    ``sir`` and ``sar`` are scale-invariant (no filter is forgiven); ``bss_`` are BSS-eval's, version 3.
    """
    heard = mixture.expand_as(target)
    before, after = sdr(target=target, estimate=heard), sdr(target=target, estimate=estimate)
    figures = {"input_sdr": before, "sdr": after, "sdri": after - before}
    figures["si_sdr"] = si_sdr(target=target, estimate=estimate)
    # The library divides by norms; the noise is 120 dB below anything heard and makes them positive.
    floor = 1e-6 * torch.randn(estimate.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, figures["sir"], figures["sar"] = fast_bss_eval.si_bss_eval_sources(
        target.double(), estimate.double() + floor, compute_permutation=False, clamp_db=60.0
    )
    if bss:
        scores = bss_eval(targets=target, estimates=estimate)
        figures.update({f"bss_{name}": value for name, value in scores._asdict().items()})
    return figures


def _row(line: Mixture, pack: Pack, source_of: dict[str, str], parts: Parts, *, bss: bool) -> dict[str, Any]:
    mixture, target = (torch.from_numpy(part) for part in render(line, pack, pack.sample_rate))
    with torch.no_grad():
        prompts = [[source.prompt for source in line.sources]]
        estimate = parts.separate(mixture[None].to(parts.device), prompts)[0].cpu()
    columns = {name: values.tolist() for name, values in figures_of(target, estimate, mixture, bss=bss).items()}
    present = [
        {
            "prompt": source.prompt,
            "label": source.label,
            "source": source_of[source.path],
            **{name: None if math.isnan(values[place]) else values[place] for name, values in columns.items()},
        }
        for place, source in enumerate(line.sources)
    ]
    return {"id": line.id, "present": present}


def _lacks(row: dict[str, Any] | None, *, bss: bool) -> bool:
    return row is None or (bss and "bss_sdr" not in row["present"][0])
