"""Train the compact embedder: ``python -m training.embed training/configs/embed.toml``. Run it again after a kill.

First the text tower is distilled, then, with the text tower frozen, the audio tower is trained. Each stage has its own
checkpoint in the out folder; what is finished there is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from model.embedder.audio import AudioConfig
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.spec import SignalSpec
from training.config import read_config
from training.contrast import AudioTraining, ContrastConfig
from training.corpus import CorpusConfig, build_corpus, split_phrases
from training.crops import BandPack, CropConfig
from training.dataset import Pack
from training.distill import Distillation, DistillConfig, SentenceEncoder, teach
from training.manifest import read_phrases
from training.naming import centroids, cosine, retrieval

STAGES = ("all", "text", "audio")


@dataclass(frozen=True)
class EmbedConfig:
    """One embedder: ``teacher`` is a Hugging Face folder or name, needed by the text stage alone."""

    sounds: str = "../shared/sounds"
    cache: str = ".cache"
    out: str = "runs/embedder"
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    stage: str = "all"
    seed: int = 1
    device: str = "auto"
    bf16: bool = True
    threads: int = 2
    signal: SignalSpec = field(default_factory=SignalSpec)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    text: TextConfig = field(default_factory=TextConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage must be one of {STAGES}, got {self.stage!r}")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for a configuration that cannot run."""
    parser = argparse.ArgumentParser(prog="python -m training.embed", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="TOML file of an EmbedConfig; defaults where it is silent")
    parser.add_argument("--sounds", help="the sound pack's folder")
    parser.add_argument("--teacher", help="sentence encoder to distil: a Hugging Face folder or name")
    parser.add_argument("--out", help="folder of the embedder and its checkpoints; an existing one is resumed")
    parser.add_argument("--stage", choices=STAGES, help="stop after the text tower, or go straight to the audio tower")
    parser.add_argument("--seed", type=int, help="seed of weights and batches")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    try:
        overrides = {key: value for key, value in vars(options).items() if key != "config"}
        embed(read_config(EmbedConfig, options.config, overrides))
    except ValueError as error:
        print(f"training.embed: {error}", file=sys.stderr)
        return 2
    return 0


def embed(config: EmbedConfig) -> None:
    """Run the config's stages.

    Raises:
        ValueError: the pack, WordNet, the teacher or a checkpoint is missing or does not fit.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # subnormal numbers are a hundred times slower on a CPU
    device = torch.device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    phrases = read_phrases(Path(config.sounds))
    if config.stage != "audio":
        train_text(config, phrases, device)
    if config.stage != "text":
        train_audio(config, phrases, device)


def train_text(config: EmbedConfig, phrases: dict[str, tuple[str, ...]], device: torch.device) -> CompactEmbedder:
    """Distil the text tower and save an embedder whose audio tower is as initialised."""
    out, cache = Path(config.out), Path(config.cache)
    corpus = build_corpus(config.corpus, phrases)
    tokenizer = _tokenizer(config, corpus.texts)
    encoders: list[SentenceEncoder] = []

    def encoder() -> SentenceEncoder:
        if not encoders:
            encoders.append(SentenceEncoder(config.teacher, device=device.type))
        return encoders[0]

    taught = teach(encoder, config.teacher, corpus.texts, cache)
    torch.manual_seed(config.seed)
    embedder = CompactEmbedder(tokenizer, config.text, config.audio, config.signal, seconds=max(config.crops.seconds))
    Distillation(
        config.distill,
        embedder.text_tower,
        tokenizer,
        corpus.texts,
        corpus.repeats,
        taught,
        out,
        seed=config.seed,
        bf16=config.bf16,
        device=device,
    ).run()
    embedder.eval().cpu()
    kept, held = split_phrases(phrases)
    listed = {
        "kept phrases": sorted({p for group in kept.values() for p in group}),
        "held-out phrases": sorted({p for group in held.values() for p in group}),
        "held-out texts": list(corpus.judge),
    }
    figures = {
        f"cosine to the teacher, {name}": cosine(
            one=pooled(embedder, texts), other=teach(encoder, config.teacher, texts, cache)
        )
        for name, texts in listed.items()
        if texts
    }
    write_figures(out, {**figures, **judge_text(embedder, kept, held), "texts": len(corpus.texts)})
    embedder.save(out)
    return embedder


def train_audio(config: EmbedConfig, phrases: dict[str, tuple[str, ...]], device: torch.device) -> CompactEmbedder:
    """Train the audio tower against the frozen text tower of the out folder, and save both there."""
    out = Path(config.out)
    embedder = CompactEmbedder.load(out).fresh_audio(config.audio, seed=config.seed)
    pack = Pack.open(Path(config.sounds), Path(config.cache))
    bands = BandPack.open(pack, config.signal, Path(config.cache), config.crops.speeds)
    training = AudioTraining(
        config.contrast, config.crops, embedder, bands, phrases, out, seed=config.seed, bf16=config.bf16, device=device
    )
    write_figures(out, training.run())
    embedder.save(out)
    return embedder


@torch.no_grad()
def pooled(embedder: CompactEmbedder, texts: list[str], *, batch: int = 256) -> torch.Tensor:
    """Pooled vectors ``[n, E]`` of texts, on the CPU."""
    parts = [embedder.text(texts[start : start + batch])[2] for start in range(0, len(texts), batch)]
    return torch.cat(parts).cpu()


def judge_text(
    embedder: CompactEmbedder, kept: dict[str, tuple[str, ...]], held: dict[str, tuple[str, ...]]
) -> dict[str, float]:
    """Retrieval of a label, among all, from phrases that training never saw: all of them, and those that do not
    contain the label's name (``the sound of a banjo`` is easy)."""
    labels = list(kept)
    queries = [(labels.index(label), phrase) for label, group in held.items() for phrase in group]
    texts = sorted({p for group in kept.values() for p in group} | set(labels) | {phrase for _, phrase in queries})
    vectors = dict(zip(texts, pooled(embedder, texts), strict=True))
    own = [(row, phrase) for row, phrase in queries if labels[row].lower() not in phrase.lower()]
    figures = {}
    for name, subset in (("unseen phrases", queries), ("unseen phrases in other words", own)):
        if not subset:
            continue
        rows = torch.tensor([row for row, _ in subset])
        asked = torch.stack([vectors[phrase] for _, phrase in subset])
        by_name = torch.stack([vectors[label] for label in labels])
        figures[f"{name}, nearest label name"] = retrieval(queries=asked, labels=rows, candidates=by_name)
        figures[f"{name}, nearest label phrases"] = retrieval(
            queries=asked, labels=rows, candidates=centroids(vectors, kept)
        )
        figures[f"{name}, count"] = len(subset)
    return figures


def write_figures(out: Path, figures: dict[str, float]) -> None:
    """Add figures to ``out/figures.json`` and print them."""
    path = out / "figures.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update({name: round(float(np.float64(value)), 4) for name, value in figures.items()})
    path.write_text(json.dumps(known, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:58s} {value:.3f}")


def _tokenizer(config: EmbedConfig, texts: tuple[str, ...]) -> TextTokenizer:
    """The out folder's tokenizer, learned from the texts the first time."""
    path = Path(config.out) / "tokenizer.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        TextTokenizer.train(texts, vocabulary=config.text.vocabulary, max_tokens=config.text.max_tokens).save(path)
    return TextTokenizer.load(path, config.text.max_tokens)


if __name__ == "__main__":
    sys.exit(main())
