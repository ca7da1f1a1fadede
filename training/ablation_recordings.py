"""The mixtures that arms hear: lists made where the pack has none, rendered once, and re-read by their captions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from training import captions
from training.ablation_record import claim
from training.arms import RecordingPlan
from training.checkpoint import plain
from training.dataset import Pack
from training.lists import make_list, write_list
from training.manifest import read_phrases
from training.rendered import render_list


def prepare(plan: RecordingPlan, sounds: Path, cache: Path) -> None:
    """Render a plan's folder, unless it is there.

    Raises:
        ValueError: the list cannot be made or rendered, or the folder was rendered from another plan.
    """
    folder = Path(plan.folder)
    if (folder / "mixtures.json").is_file() and not (folder / "record.json").is_file():
        return  # rendered by hand: taken as it is
    path = Path(plan.list) if plan.sources or Path(plan.list).is_file() else sounds / plan.list
    pack = Pack.open(sounds, cache)
    if plan.sources and not path.is_file():
        made = make_list(
            pack.clips, read_phrases(sounds), sources=plan.sources, count=plan.count, split="train", part=plan.part,
            seed=plan.seed,
        )  # fmt: skip
        write_list(path, made)
    if not path.is_file():
        raise ValueError(f"no mixture list {path} to render into {folder}")
    claim(folder, {**plain(plan), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}, {}, redo=False)
    if not (folder / "mixtures.json").is_file():
        render_list(path, pack, folder)
    if plan.phrases == "caption":
        _reread(folder / "mixtures.json")


def _reread(index: Path) -> None:
    """Put what the splitter makes of the captions in place of the true phrases; again changes nothing."""
    data = json.loads(index.read_text())
    data["phrases"] = [list(captions.phrases(caption)) for caption in data["captions"]]
    partial = index.with_suffix(".partial")
    partial.write_text(json.dumps(data))
    partial.replace(index)
