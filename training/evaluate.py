"""Score a bundle or a checkpoint: ``python -m training.evaluate --model model/default``. Run it again after a kill."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training import fingerprint
from training.cases import Case, asked_by, cases_of_folder, cases_of_list, with_absent
from training.checkpoint import git_commit, plain
from training.config import read_config
from training.journal import Journal
from training.manifest import read_manifest, read_phrases
from training.report import DEFINITIONS, summarise, table
from training.score import score
from training.separators import open_separator


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation.

    ``model`` is a bundle's folder or a checkpoint file, which needs ``embedder``; ``mixture_list`` a file, there or in
    ``sounds``; ``folder``, if given, replaces it. ``asked_by`` is a JSON file, label -> the phrase to ask for it by,
    instead of the list's own. ``absent`` prompts a mixture; ``exhaustive`` says to the model that these are all its
    sounds; ``rate`` in hertz to render at; ``limit`` mixtures, all with 0; ``bss`` mixtures are scored by BSS-eval,
    none with 0 and all with -1; ``workers`` mixtures at once on ``threads`` threads each. Empty ``json`` and ``plots``
    write to ``runs/evaluation`` and nowhere.
    """

    model: str = "model/default"
    embedder: str = ""
    mixture_list: str = "mixtures-valid-2.jsonl"
    sounds: str = "../shared/sounds"
    folder: str = ""
    asked_by: str = ""
    absent: int = 1
    exhaustive: bool = False
    rate: int = 48_000
    limit: int = 0
    bss: int = 0
    workers: int = 1
    threads: int = 2
    json: str = ""
    plots: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for an evaluation that cannot run."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="TOML file of an EvaluateConfig; options win over it")
    parser.add_argument("--model", help="a bundle's folder or a checkpoint file")
    parser.add_argument("--embedder", help="the embedder's folder, for a checkpoint")
    parser.add_argument("--list", dest="mixture_list", help="mixture list: a path, or a name in the sound pack")
    parser.add_argument("--sounds", help="the sound pack's folder")
    parser.add_argument("--folder", help="instead of a list: a sub-folder a mixture, with mixture.wav and <prompt>.wav")
    parser.add_argument("--asked-by", help="JSON file, label -> phrase: ask by these instead of the list's prompts")
    parser.add_argument("--absent", type=int, help="prompts a mixture for sounds that are not in it")
    parser.add_argument(
        "--exhaustive", action="store_true", default=None,
        help="share each mixture out among its prompts, the absent ones too (--absent 0 for none)",
    )  # fmt: skip
    parser.add_argument("--rate", type=int, help="sample rate in Hz to render a list at")
    parser.add_argument("--limit", type=int, help="the first so many mixtures; 0 for all")
    parser.add_argument(
        "--bss", type=int, nargs="?", const=-1,
        help="BSS-eval too (seconds a mixture), on the first so many mixtures; without a number on all",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="mixtures at once")
    parser.add_argument("--threads", type=int, help="threads of the network")
    parser.add_argument("--json", help="file of the result; rows are kept beside it, so that a killed run goes on")
    parser.add_argument("--plots", help="folder of the pictures")
    parser.add_argument("--labels", action="store_true", help="show a line a label as well")
    options = vars(parser.parse_args(arguments))
    path, labels = options.pop("config"), options.pop("labels")
    try:
        result = evaluate(read_config(EvaluateConfig, path, options))
    except ValueError as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
        return 2
    print(table(result, labels=labels))
    return 0


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, going on from the rows of an earlier run with the same settings; write and return the result.

    Raises:
        ValueError: the settings do not fit together, or model, pack or folder cannot be read.
    """
    _check(config)
    question = _question(config)
    cases = _cases(config)[: config.limit or None]
    with_bss = {case.id for case in (cases if config.bss < 0 else cases[: config.bss])}
    out = _out(config)
    journal = Journal(out.with_suffix(".rows.jsonl"), hashlib.sha256(question.encode()).hexdigest())
    try:
        for row in _scored(config, cases, with_bss, journal):
            journal.append(row)
    finally:
        journal.close()
    rows = [_shown(journal.rows[case.id], bss=case.id in with_bss) for case in cases]
    result = {"config": plain(config), "git_commit": git_commit(), "definitions": DEFINITIONS, **summarise(rows)}
    _write(out, json.dumps(result, indent=1) + "\n")
    if config.plots:
        from training.plots import gain_by_input, sdri_per_label

        sdri_per_label(result["present"]["by_label"], Path(config.plots) / "sdri-per-label.png")
        gain_by_input(rows, Path(config.plots) / "input-snr-sdri.png")
    return result


def _check(config: EvaluateConfig) -> None:
    for name, least in (("absent", 0), ("limit", 0), ("bss", -1), ("workers", 1), ("threads", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if Path(config.model).is_dir() and config.embedder:
        raise ValueError(f"{config.model} is a bundle and has its own embedder; leave --embedder {config.embedder} out")


def _list_path(config: EvaluateConfig) -> Path:
    path = Path(config.mixture_list)
    return path if path.is_file() else Path(config.sounds) / path


def _question(config: EvaluateConfig) -> str:
    """What decides a row: neither how many rows there are, nor how fast they come."""
    parts = [fingerprint.of_code(), fingerprint.of_model(Path(config.model)), str(config.absent)]
    parts.append(fingerprint.of_model(Path(config.embedder)) if config.embedder else "")
    parts.append(fingerprint.of_model(Path(config.asked_by)) if config.asked_by else "")
    parts += ["exhaustive"] if config.exhaustive else []
    sounds = Path(config.sounds)
    parts += [
        fingerprint.of_files(path for path in [sounds / "manifest.csv", sounds / "phrases.json"] if path.is_file())
    ]
    if config.folder:
        return "\n".join([*parts, fingerprint.of_folder(Path(config.folder))])
    path = _list_path(config)
    return "\n".join([*parts, str(config.rate), fingerprint.of_model(path)])


def _cases(config: EvaluateConfig) -> list[Case]:
    sounds = Path(config.sounds)
    if not config.folder:
        cases = cases_of_list(_list_path(config), sounds, config.rate)
    else:
        cases = cases_of_folder(Path(config.folder))
    if (sounds / "manifest.csv").is_file():
        source_of = {clip.label: clip.source for clip in read_manifest(sounds)}
        phrases = read_phrases(sounds)
    else:  # a folder without a pack: what the other mixtures have
        source_of = {}
        phrases = {prompt.label: (prompt.prompt,) for case in cases for prompt in case.present}
    if config.asked_by:
        cases = asked_by(cases, json.loads(Path(config.asked_by).read_text()))
    return with_absent(cases, phrases, config.absent, source_of)


def _out(config: EvaluateConfig) -> Path:
    if config.json:
        return Path(config.json)
    model = Path(config.model)
    name = model.parent.name if model.is_file() else model.name
    return Path("runs/evaluation") / f"{name}-{Path(config.folder or config.mixture_list).stem}.json"


def _scored(
    config: EvaluateConfig, cases: list[Case], with_bss: set[str], journal: Journal
) -> Iterator[dict[str, Any]]:
    """Rows that the journal lacks, as they are done, under a progress bar; nothing is loaded when it lacks none."""
    left = [case for case in cases if _lacks(journal.rows.get(case.id), bss=case.id in with_bss)]
    if not left:
        return
    phrases = [prompt.prompt for case in cases for prompt in (*case.present, *case.absent)]
    embedder = Path(config.embedder) if config.embedder else None
    separator, signal = open_separator(Path(config.model), embedder, phrases, threads=config.threads)
    # Threads and not processes: decoding, transforms and the network all let go of Python's lock, and share the model.
    pool = ThreadPoolExecutor(config.workers)
    try:
        done = pool.map(
            lambda case: score(case, separator, signal, bss=case.id in with_bss, exhaustive=config.exhaustive), left
        )
        yield from tqdm(done, desc="evaluating", unit="mixture", total=len(cases), initial=len(cases) - len(left))
    finally:
        pool.shutdown(cancel_futures=True)


def _lacks(row: dict[str, Any] | None, *, bss: bool) -> bool:
    return row is None or (bss and not any("bss_sdr" in figures for figures in row["present"]))


def _shown(row: dict[str, Any], *, bss: bool) -> dict[str, Any]:
    """A row as it would be had BSS-eval been asked for, or not, this time."""
    if bss:
        return row
    present = [
        {name: value for name, value in sound.items() if not name.startswith("bss_")} for sound in row["present"]
    ]
    return {**row, "present": present}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
