"""Train the separator: ``python -m training.train training/configs/base.toml``. Run it again to go on after a kill."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from model.layers import BandAnalysis
from model.network import build
from training.config import TrainConfig, read_config
from training.dataset import Pack
from training.loop import Loop
from training.manifest import read_mixtures, read_phrases
from training.mixing import SingleSourceSampler
from training.modes import Parts
from training.prompts import PromptTable
from training.validation import Validation


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for a configuration that cannot run."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="TOML file of a TrainConfig; defaults where it is silent")
    parser.add_argument("--sounds", help="the sound pack's folder")
    parser.add_argument("--embedder", help="the embedder's folder, from python -m training.embed")
    parser.add_argument("--out", help="folder of checkpoints and log; an existing one is resumed")
    parser.add_argument("--steps", type=int, help="total steps; the learning rate falls over the last of them")
    parser.add_argument("--seed", type=int, help="seed of weights and mixtures")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    try:
        overrides = {key: value for key, value in vars(options).items() if key != "config"}
        train(read_config(TrainConfig, options.config, overrides))
    except ValueError as error:
        print(f"training.train: {error}", file=sys.stderr)
        return 2
    return 0


def train(config: TrainConfig) -> None:
    """Train to the config's last step, resuming from its checkpoint.

    Raises:
        ValueError: the pack, the embedder or a checkpoint does not fit the config.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # subnormal numbers are a hundred times slower on a CPU
    torch.manual_seed(config.seed)
    device = torch.device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    sounds = Path(config.sounds)
    pack = Pack.open(sounds, Path(config.cache))
    phrases = read_phrases(sounds)
    validation_list = sounds / config.validation_list
    asked = [source.prompt for mixture in read_mixtures(validation_list) for source in mixture.sources]
    prompts = PromptTable.build(Path(config.embedder), [*asked, *(p for group in phrases.values() for p in group)])
    separator = build(config.network, config.signal).to(device)
    separator = separator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = Parts(separator, BandAnalysis(config.signal, pack.sample_rate).to(device), prompts, device, config.bf16)
    parts.prompt_noise = config.prompt_noise
    sampler = SingleSourceSampler(pack, phrases, config.mixing, seed=config.seed)
    Loop(config, parts, sampler, Validation(pack, validation_list, config.validation_limit)).run()


if __name__ == "__main__":
    sys.exit(main())
