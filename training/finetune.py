"""Fine-tune a bundle on captioned recordings of one's own: ``python -m training.finetune FOLDER --out runs/mine``.

The separator comes back from the bundle's graph (:mod:`model.restore`), learns from mixtures of mixtures of the
recordings as in :mod:`training.weak`, and goes into a new bundle with the old one's text and audio towers. The prompts'
vectors come from the bundle's own text tower, so they are what the service will ask with.

CNT is left out: it needs the gradient of the audio tower, which a bundle has as a graph only.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from model.bundle import Bundle, write_bundle
from model.export import TOLERANCE, prepare
from model.layers import BandAnalysis
from model.restore import restore, store
from model.runtime import Runtime
from training import checkpoint
from training.bundle_prompts import embed_prompts
from training.card import model_card
from training.config import OptimiserConfig, TrainConfig
from training.loop import Loop
from training.parts import Parts
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
    ``crl`` weighs the recordings' phrases against the captions; 0 is plain mix-and-separate.
    """

    recordings: str
    out: str
    bundle: str = str(_DEFAULT)
    steps: int = 500
    batch: int = 4
    seconds: float = 5.11
    learning_rate: float = 2e-4
    crl: float = 0.5
    hold: int = 8
    seed: int = 1
    device: str = "auto"
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "seconds", "learning_rate", "hold", "threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
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
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # subnormal numbers are a hundred times slower on a CPU
    torch.manual_seed(config.seed)
    bundle = Bundle.open(config.bundle)
    runtime = Runtime(bundle, threads=config.threads, device="cpu")
    recordings = ShuffledRecordings(open_recordings(config.recordings, SAMPLE_RATE, splitter), config.seed)
    phrases = check_recordings(recordings)
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
    before = score(validations, parts)
    loop = Loop(run, parts, Weak(run.weak, run.weak_losses), sampler, validations)
    loop.run()
    parts.separator = copy.deepcopy(separator).eval()
    parts.separator.load_state_dict(loop.average.state)
    after = score(validations, parts)
    for name in before:
        tqdm.write(f"{name}: {before[name]:.2f} dB before, {after[name]:.2f} dB after (lower is better)")
    figures = {"finetuning": {"before": before, "after": after}} if before else {}
    fresh = export(config, bundle, parts.separator, len(recordings), figures)
    difference = compare(fresh, parts.separator, sorted(phrases)[:3])
    if not difference <= TOLERANCE:  # NaN too
        raise ValueError(f"{fresh.path}: torch and ONNX Runtime differ by {difference:.2e}, more than {TOLERANCE:.0e}")
    tqdm.write(f"{fresh.path}: version {fresh.version}, torch and ONNX differ by {difference:.1e}")
    return fresh


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
        mode="weak",
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
        weak_mixing=WeakMixingConfig(seconds=config.seconds, batch=config.batch, held=held),
        optimiser=OptimiserConfig(
            learning_rate=config.learning_rate, warmup_steps=max(1, min(50, config.steps // 10)), cooldown=0.5, ema=0.99
        ),
    )


def export(
    config: FinetuneConfig, bundle: Bundle, separator: nn.Module, n_recordings: int, figures: Mapping[str, Any]
) -> Bundle:
    """Write ``out/bundle``: the separator's weights in the old bundle's graph, the old towers, a card of its own."""
    name = bundle.manifest["name"].removesuffix("-finetuned") + "-finetuned"
    own = {"name": Path(config.recordings).name, "licence": "not stated", "clips": n_recordings}
    data = [*bundle.manifest["training_data"], own]
    about = {
        "begun with": f"{bundle.manifest['name']}, version {bundle.version}",
        "fine-tuned on": f"{n_recordings} captioned recordings, mixed by two; no single source",
        "steps": f"{config.steps} of {config.batch} mixtures",
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        store(separator, bundle, files / "separator.onnx")
        for file in ("text.onnx", "audio.onnx", "tokenizer.json"):
            shutil.copyfile(bundle.file(file), files / file)
        (files / "README.md").write_text(model_card(name, about, data, figures), encoding="utf-8")
        return write_bundle(
            Path(config.out) / "bundle",
            files,
            name=name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            git_commit=checkpoint.git_commit(),
            signal=bundle.signal,
            network=bundle.network,
            embedder=bundle.embedder,
            tensors=bundle.manifest["tensors"],
            training_data=data,
            evaluation=figures,
        )


def compare(bundle: Bundle, separator: nn.Module, phrases: list[str]) -> float:
    """Largest difference between the bundle's masks and the module's, rounded as it was stored, on random bands."""
    runtime = Runtime(bundle, threads=1, device="cpu")
    rng = np.random.default_rng(0)
    bands = (0.1 * rng.uniform(size=(bundle.signal.n_bands, bundle.signal.window_frames)) ** 2).astype(np.float32)
    embedding = runtime.embed(phrases)
    tokens, padding, pooled = (torch.from_numpy(value)[None] for value in embedding)
    inputs = (pooled, tokens, padding) if bundle.network.conditioning == "attention" else (pooled,)
    with torch.inference_mode():
        mask = prepare(separator, half=True)(torch.from_numpy(bands)[None], *inputs)[0].numpy()
    return float(np.abs(mask - runtime.mask(bands, embedding)).max())


if __name__ == "__main__":
    sys.exit(main())
