"""Fine-tune a bundle on captioned recordings of one's own: ``python -m training.finetune FOLDER --out runs/mine``.

The separator comes back from the bundle's graph (:mod:`model.restore`), learns from mixtures of mixtures of the
recordings as in :mod:`training.weak`, and goes into a new bundle with the old one's text and audio towers. The prompts'
vectors come from the bundle's own text tower, so they are what the service will ask with.

CNT is left out: it needs the gradient of the audio tower, which a bundle has as a graph only.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model.bundle import Bundle
from model.layers import BandAnalysis
from model.restore import restore
from model.runtime import Runtime
from training.bundle_prompts import embed_prompts
from training.config import OptimiserConfig, TrainConfig
from training.dataset import Pack
from training.loop import Loop
from training.manifest import read_phrases
from training.mixing import MixingConfig, Sampler, SingleSourceSampler
from training.modes import Mode, Semi, SemiSampler, Supervised
from training.parts import Parts
from training.rebundle import rebundle
from training.recording_files import Splitter, split_caption
from training.recording_order import ShuffledRecordings
from training.recording_set import open_recordings
from training.recordings import Recordings
from training.validation import CombinationsValidation, Validation
from training.weak import Weak, WeakConfig
from training.weak_mixing import WeakMixingConfig, WeakSampler

SAMPLE_RATE = 32_000
_DEFAULT = Path(__file__).resolve().parent.parent / "model" / "default"
_BATCHES = 8  # of a validation


@dataclass(frozen=True)
class FinetuneConfig:
    """What is fine-tuned, on what and for how long.

    ``recordings`` is anything that :func:`training.recording_set.open_recordings` takes. Every ``hold``-th recording is
    kept from training (none of fewer than 4 times that) and says whether the rest taught anything but themselves.
    ``crl`` weighs the recordings' phrases against the captions; 0 is plain mix-and-separate. What comes out lies
    ``share`` of the way from the old weights to the new. ``sounds`` is a sound pack whose single sources are rehearsed
    at every step, so that what the bundle knew stays.
    """

    recordings: str
    out: str
    bundle: str = str(_DEFAULT)
    steps: int = 500
    batch: int = 4
    seconds: float = 5.11
    learning_rate: float = 2e-4
    crl: float = 0.5
    share: float = 0.5
    sounds: str = ""
    hold: int = 8
    seed: int = 1
    device: str = "auto"
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "seconds", "learning_rate", "hold", "threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")
        if self.crl < 0:
            raise ValueError(f"crl must be at least 0, got {self.crl}")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for recordings or a bundle that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description=__doc__.partition("\n")[0])
    parser.add_argument("recordings", help="folder of captioned files, manifest (.jsonl) or shards (.tar)")
    parser.add_argument("--out", required=True, help="folder of checkpoint, log and bundle; an existing one goes on")
    for name, text in (
        ("bundle", "bundle to begin with"),
        ("steps", "total steps"),
        ("batch", "mixtures of two recordings a step"),
        ("seconds", "length of what is mixed"),
        ("learning_rate", "at its highest"),
        ("crl", "weight of the phrases' sum against the recording; 0 asks by captions alone"),
        ("share", "of the way from the old weights to the new"),
        ("sounds", "sound pack to rehearse at every step"),
        ("hold", "keep every so manieth recording from training"),
        ("seed", "of mixtures"),
        ("device", "auto, cpu or cuda"),
        ("threads", "CPU threads"),
    ):
        default = getattr(FinetuneConfig, name)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"{text} (default %(default)s)")
    try:
        finetune(FinetuneConfig(**vars(parser.parse_args(arguments))))
    except ValueError as error:
        print(f"training.finetune: {error}", file=sys.stderr)
        return 2
    return 0


def finetune(config: FinetuneConfig, splitter: Splitter = split_caption) -> Bundle:
    """Fine-tune, export, and return the new bundle, ``out/bundle``; ``splitter`` makes phrases of captions without.

    Raises:
        ValueError: the recordings cannot be read or are too few or all say the same; the bundle cannot be restored.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"fine-tuning runs in one process, got WORLD_SIZE={os.environ['WORLD_SIZE']}")
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # subnormal numbers are a hundred times slower on a CPU
    torch.manual_seed(config.seed)
    bundle = Bundle.open(config.bundle)
    runtime = Runtime(bundle, threads=config.threads, device="cpu")
    recordings = ShuffledRecordings(open_recordings(config.recordings, SAMPLE_RATE, splitter), config.seed)
    phrases = check_recordings(recordings)
    if config.sounds:
        phrases.update(phrase for group in read_phrases(Path(config.sounds)).values() for phrase in group)
    prompts = embed_prompts(runtime, phrases)
    device = torch.device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    # The normalisations of what is restored keep their statistics whatever the loop sets it to: see FixedNorm.
    separator = restore(bundle).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = Parts(separator, BandAnalysis(bundle.signal, SAMPLE_RATE).to(device), prompts, device, bf16=True)
    run = training_config(config, bundle, len(recordings))
    sampler = WeakSampler(recordings, prompts, run.weak_mixing, seed=config.seed)
    validations: list[Validation] = []
    if run.weak_mixing.held:
        held = WeakSampler(recordings, prompts, run.weak_mixing, seed=config.seed, held=True)
        validations.append(CombinationsValidation(sampler, held, batches=_BATCHES))
    before, begun = score(validations, parts), copy.deepcopy(separator.state_dict())
    loop = Loop(run, parts, *recipe(run, sampler), validations)
    loop.run()
    parts.separator = copy.deepcopy(separator).eval()
    parts.separator.load_state_dict(between(begun, loop.average.state, config.share))
    after = score(validations, parts)
    for name in before:
        tqdm.write(f"{name}: {before[name]:.2f} dB before, {after[name]:.2f} dB after (lower is better)")
    fresh = rebundle(
        bundle,
        parts.separator,
        Path(config.out) / "bundle",
        about={
            "fine-tuned on": f"{len(recordings)} captioned recordings, mixed by two",
            "steps": f"{config.steps} of {config.batch} mixtures",
            "share of the new weights": config.share,
        },
        data=[{"name": Path(config.recordings).name, "licence": "not stated", "clips": len(recordings)}],
        figures={"finetuning": {"before": before, "after": after}} if before else {},
    )
    tqdm.write(f"{fresh.path}: version {fresh.version}")
    return fresh


def recipe(run: TrainConfig, mixtures: WeakSampler) -> tuple[Mode, Sampler[Any]]:
    """The weak mode, or with a sound pack the semi-supervised one, which rehearses what the bundle knew."""
    weak = Weak(run.weak, run.weak_losses)
    if run.mode == "weak":
        return weak, mixtures
    sounds = Path(run.sounds)
    pack = Pack.open(sounds, Path(run.cache), sample_rate=SAMPLE_RATE)
    singles = SingleSourceSampler(pack, read_phrases(sounds), run.mixing, seed=run.seed)
    return Semi(Supervised(run.losses), weak), SemiSampler(singles, mixtures)


def between(begun: Mapping[str, Tensor], learned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line from the old ones to the new (2109.01903): most of what was learned, less of the loss."""
    return {
        name: value.lerp(learned[name], share) if value.is_floating_point() else value for name, value in begun.items()
    }


def score(validations: Sequence[Validation], parts: Parts) -> dict[str, float]:
    """Figures of all validations; the separator must be in evaluation mode."""
    return {name: value for judge in validations for name, value in judge.score(parts).items()}


def check_recordings(recordings: Recordings) -> set[str]:
    """Read every recording's header, so that a broken file is named now; return every caption and phrase.

    Raises:
        ValueError: a file cannot be read, or there are fewer than two different captions to tell apart.
    """
    captions = {recordings.caption(index) for index in range(len(recordings))}
    if len(captions) < 2:
        raise ValueError(f"at least 2 recordings that differ in their captions are needed, got {sorted(captions)}")
    for index in range(len(recordings)):
        recordings.n_samples(index)
    return captions.union(*(recordings.phrases(index) for index in range(len(recordings))))


def training_config(config: FinetuneConfig, bundle: Bundle, n_recordings: int) -> TrainConfig:
    """The training run that the loop is given, as it is saved in the checkpoint."""
    held = n_recordings // config.hold if n_recordings >= 4 * config.hold else 0
    return TrainConfig(
        embedder=config.bundle,
        out=config.out,
        mode="semi" if config.sounds else "weak",
        sounds=config.sounds,
        recordings=config.recordings,
        initial=config.bundle,
        weak_losses={"url": 1.0, **({"crl": config.crl} if config.crl else {})},
        steps=config.steps,
        seed=config.seed,
        device=config.device,
        threads=config.threads,
        checkpoint_every=min(100, config.steps),
        validate_every=min(250, config.steps),
        signal=bundle.signal,
        network=bundle.network,
        weak=WeakConfig(warmup=0.0, ramp=0.1),  # the network can separate already
        mixing=MixingConfig(seconds=config.seconds, batch=config.batch),
        weak_mixing=WeakMixingConfig(seconds=config.seconds, batch=config.batch, held=held),
        optimiser=OptimiserConfig(
            learning_rate=config.learning_rate, warmup_steps=max(1, min(50, config.steps // 10)), cooldown=0.5, ema=0.99
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
