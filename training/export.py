"""Write a bundle from checkpoints: ``python -m training.export --separator FILE --embedder FOLDER --out FOLDER``."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model.bundle import Bundle
from model.embedder import load_embedder
from model.embedder.anchored import AnchoredText
from model.embedder.compact import CompactEmbedder
from model.embedder.laion import LaionEmbedder
from model.export import Card, Towers, export_bundle, towers_of
from model.spec import SignalSpec
from training import checkpoint
from training.card import model_card, training_data
from training.config import read_config

_PARTS = 4  # three graphs and the directory
_AT_ONCE = 64  # phrases in one run of the text tower
_FRONT_END = ("window_s", "hop_s", "n_bins", "n_bands", "linear_hz")


@dataclass(frozen=True)
class ExportConfig:
    """What goes into a bundle and where it is written; paths are relative to the current directory.

    ``anchors`` is a JSON file, label -> phrases: those that the separator was trained on, to which the text tower's
    answers are drawn at ``anchor_temperature`` (:mod:`model.embedder.anchored`); without it they stay as they are.
    ``averaged`` takes the separator's averaged weights; ``half`` stores weights in half precision; ``card`` is a
    Markdown file that becomes the bundle's README, else one is generated; ``evaluation`` lists JSON files of figures.
    """

    separator: str = "runs/separator/best.pt"
    embedder: str = "runs/embedder"
    out: str = "runs/bundle"
    name: str = "winnow-base"
    sounds: str = "../shared/sounds"
    anchors: str = ""
    anchor_temperature: float = 0.05
    card: str = ""
    evaluation: tuple[str, ...] = ()
    averaged: bool = True
    half: bool = True


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 where nothing can be exported."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description="Write a bundle from the checkpoints of separator and embedder."
    )
    parser.add_argument("config", type=Path, nargs="?", help="TOML file of an ExportConfig; flags win over it")
    parser.add_argument("--separator", help="checkpoint file, from python -m training.train")
    parser.add_argument("--embedder", help="folder, from python -m training.embed, or LAION-CLAP's weights")
    parser.add_argument("--out", help="the bundle's directory; a bundle that is there is replaced")
    parser.add_argument("--name", help="of the model")
    parser.add_argument("--sounds", help="the sound pack trained on: its sources and licences go into the bundle")
    parser.add_argument("--anchors", help="JSON file of the phrases trained on (the pack's phrases.json); see the docs")
    parser.add_argument("--anchor-temperature", type=float, help="of the cosines to them (default 0.05)")
    parser.add_argument("--card", help="Markdown file that becomes the bundle's README.md; generated if not given")
    parser.add_argument("--evaluation", action="append", help="JSON file of figures to put in; may be repeated")
    parser.add_argument("--raw", dest="averaged", action="store_const", const=False, help="last weights, not averaged")
    parser.add_argument("--full", dest="half", action="store_const", const=False, help="store weights as float32")
    options = vars(parser.parse_args(arguments))
    try:
        config = read_config(ExportConfig, options.pop("config"), options)
        export(config)
    except ValueError as error:
        print(f"training.export: {error}", file=sys.stderr)
        return 2
    return 0


def export(config: ExportConfig) -> Bundle:
    """Load, export, check and write.

    Raises:
        ValueError: a checkpoint or file is missing or unfit, or a graph does not give its module's numbers.
    """
    path = Path(config.separator)
    separator, network, signal = checkpoint.load_separator(path, ema=config.averaged)
    embedder = load_embedder(config.embedder)
    if isinstance(embedder, CompactEmbedder):  # any other has a front end of its own, inside its graph
        check_front_ends(signal, embedder.signal)
    state = checkpoint.load(path)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    commit = checkpoint.git_commit()
    data, evaluation = training_data(Path(config.sounds)), read_figures(config.evaluation)
    about = {
        "created": created,
        "code": commit,
        "training steps": state.get("step", "unknown"),
        "parameters": f"{sum(parameter.numel() for parameter in separator.parameters()):,}",
        "network": f"{network.kind}, {network.conditioning}",
        "embedder": f"{embedder.spec.kind}, {embedder.spec.embedding_features} features",
    }
    towers = towers_of(embedder)
    if config.anchors:
        towers = anchored(towers, embedder, config)
    text = read_text(config.card) if config.card else model_card(config.name, about, data, evaluation)
    card = Card(config.name, created, commit, data, evaluation, text)
    with tqdm(total=_PARTS, desc="export", unit="part") as bar:

        def progress(line: str) -> None:
            bar.write(line)
            bar.update()

        out = Path(config.out)
        return export_bundle(out, separator, network, signal, towers, card, half=config.half, progress=progress)


def anchored(towers: Towers, embedder: CompactEmbedder | LaionEmbedder, config: ExportConfig) -> Towers:
    """The towers with the text tower drawn to the config's phrases.

    Raises:
        ValueError: the file of phrases cannot be read or has none.
    """
    try:
        groups = json.loads(read_text(config.anchors))
        phrases = sorted({phrase for group in groups.values() for phrase in group})
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{config.anchors}: must be a JSON object, label -> phrases: {error}") from error
    with torch.inference_mode():
        parts = [embedder.text(phrases[start : start + _AT_ONCE])[2] for start in range(0, len(phrases), _AT_ONCE)]
    if not parts:
        raise ValueError(f"{config.anchors}: has no phrase")
    text = AnchoredText(towers.text, torch.cat(parts), config.anchor_temperature)
    spec = replace(towers.spec, anchors=len(phrases), anchor_temperature=config.anchor_temperature)
    return replace(towers, text=text, spec=spec)


def check_front_ends(separator: SignalSpec, embedder: SignalSpec) -> None:
    """Raise ValueError unless both hear the same bands: at work they are computed once."""
    for name in _FRONT_END:
        ours, theirs = getattr(separator, name), getattr(embedder, name)
        if ours != theirs:
            raise ValueError(f"separator and embedder must hear the same bands: {name} is {ours} and {theirs}")


def read_figures(paths: tuple[str, ...]) -> dict[str, Any]:
    """Figures of each JSON file under the file's name; of a single file, as they are.

    Raises:
        ValueError: a file is missing or holds no JSON object.
    """
    figures = {}
    for path in paths:
        try:
            figures[Path(path).stem] = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        if not isinstance(figures[Path(path).stem], dict):
            raise ValueError(f"{path}: must hold a JSON object")
    return next(iter(figures.values())) if len(figures) == 1 else figures


def read_text(path: str) -> str:
    """A file's text; raises ValueError naming it where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main())
