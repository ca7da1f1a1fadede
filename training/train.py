"""Train the separator: ``python -m training.train training/configs/base.toml``. Run it again to go on after a kill.

Data-parallel: ``torchrun --nproc-per-node 8 -m training.train ...``, see ``docs/parallel.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from model.embedder import load_embedder
from model.layers import BandAnalysis
from model.network import build
from training import checkpoint
from training.config import TrainConfig, read_config
from training.dataset import Pack
from training.ear import Ear
from training.loop import Loop
from training.manifest import read_mixtures, read_phrases
from training.mixing import Sampler, SingleSourceSampler
from training.modes import MODES, Mode, Semi, SemiSampler, Supervised
from training.parallel import ALONE, Ranks, open_ranks
from training.parts import Parts
from training.prompts import PromptTable
from training.recording_set import open_recordings as open_set
from training.recordings import Recordings
from training.sync_norm import synchronise
from training.validation import CombinationsValidation, ListValidation, Validation
from training.weak import Weak
from training.weak_mixing import WeakSampler


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
    """Train to the config's last step, resuming from its checkpoint, with the processes that ``torchrun`` started.

    Raises:
        ValueError: the pack, the embedder, a checkpoint or the number of processes does not fit the config.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # subnormal numbers are a hundred times slower on a CPU
    with open_ranks(config.device) as (ranks, device):
        _train(config, ranks, device)


def _train(config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    torch.manual_seed(config.seed)
    sounds = Path(config.sounds)
    with ranks.one_first():
        pack = Pack.open(sounds, Path(config.cache))
    recordings = open_recordings(config, pack.sample_rate)
    prompts = PromptTable.build(Path(config.embedder), known_prompts(config, recordings))
    separator = build(config.network, config.signal)
    if config.initial:
        separator.load_state_dict(checkpoint.load(Path(config.initial))["ema"])
    separator = separator.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    separator = synchronise(separator, ranks, device)
    analysis = BandAnalysis(config.signal, pack.sample_rate).to(device)
    parts = Parts(separator, analysis, prompts, device, config.bf16, config.prompt_noise, ranks=ranks)
    if config.mode in ("weak", "semi") and config.weak_losses.get("cnt"):
        embedder = load_embedder(Path(config.ear or config.embedder)).to(device)
        parts.ear = Ear(embedder, analysis, bf16=config.bf16, colour_db=config.weak.colour_db, ranks=ranks)
    mode, sampler = recipe(config, pack, recordings, prompts, ranks)
    validations: list[Validation] = [ListValidation(pack, sounds / config.validation_list, config.validation_limit)]
    if recordings is not None and config.weak_mixing.held >= config.weak_mixing.mixtures:
        known, held = (
            WeakSampler(recordings, prompts, config.weak_mixing, seed=config.seed, held=kept) for kept in (False, True)
        )
        validations.append(CombinationsValidation(known, held, batches=8))
    Loop(config, parts, mode, sampler, validations).run()


def open_recordings(config: TrainConfig, sample_rate: int) -> Recordings | None:
    """Open what the config's mode hears beside single sources.

    Raises:
        ValueError: the mode is unknown, needs recordings and has none, or they have another sample rate.
    """
    if config.mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {config.mode!r}")
    if config.mode == "supervised":
        return None
    if not config.recordings:
        raise ValueError(f"mode {config.mode!r} needs recordings: set it to a folder, a manifest or shards")
    return open_set(config.recordings, sample_rate)


def known_prompts(config: TrainConfig, recordings: Recordings | None) -> Iterable[str]:
    """Every phrase that the run can ask for: of the validation list, of the pack's labels, of the recordings."""
    sounds = Path(config.sounds)
    for mixture in read_mixtures(sounds / config.validation_list):
        yield from (source.prompt for source in mixture.sources)
    if config.mode in ("supervised", "semi"):
        for group in read_phrases(sounds).values():
            yield from group
    for index in range(len(recordings) if recordings is not None else 0):
        assert recordings is not None
        yield recordings.caption(index)
        yield from recordings.phrases(index)


def recipe(
    config: TrainConfig, pack: Pack, recordings: Recordings | None, prompts: PromptTable, ranks: Ranks = ALONE
) -> tuple[Mode, Sampler[Any]]:
    """The config's mode and the sampler that feeds it; the weak ones get no pack, so they cannot reach a source.

    Raises:
        ValueError: a batch cannot be shared evenly among the processes.
    """
    phrases = read_phrases(Path(config.sounds)) if config.mode in ("supervised", "semi") else {}
    supervised = Supervised(config.losses)
    if recordings is None:
        return supervised, _singles(config, pack, phrases, ranks)
    only_url = {name: value for name, value in config.weak_losses.items() if name in ("url", "silence")}
    share = ranks.share(config.weak_mixing.batch, "weak_mixing.batch")
    mixtures = WeakSampler(recordings, prompts, config.weak_mixing, seed=config.seed, share=share)
    losses = only_url if config.mode == "unsupervised" else config.weak_losses
    weak = Weak(config.weak, losses, mixtures.bank)
    if config.mode == "semi":
        return Semi(supervised, weak), SemiSampler(_singles(config, pack, phrases, ranks), mixtures)
    return weak, mixtures


def _singles(config: TrainConfig, pack: Pack, phrases: dict[str, tuple[str, ...]], ranks: Ranks) -> SingleSourceSampler:
    share = ranks.share(config.mixing.batch, "mixing.batch")
    return SingleSourceSampler(pack, phrases, config.mixing, seed=config.seed, share=share)


if __name__ == "__main__":
    sys.exit(main())
