"""A toy of everything: random small networks and a tokenizer of a few words, exported as a real bundle is."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from model.bundle import Bundle
from model.embedder.audio import AudioConfig, AudioTower
from model.embedder.text import TextConfig, TextTokenizer, TextTower
from model.export import Card, Towers, export_bundle
from model.network import build
from model.spec import EmbedderSpec, NetworkSpec, SignalSpec

FEATURES = 16
PHRASES = ("dog barking", "a person speaking", "rain on a roof", "violin", "church bells", "water running in a sink")


def toy_signal() -> SignalSpec:
    """Windows of 1.28 s, so that a test of a few seconds crosses several."""
    return SignalSpec(n_bands=64, window_frames=128, overlap_frames=32)


def toy_network(conditioning: str = "film") -> NetworkSpec:
    return NetworkSpec(
        channels=(4, 6, 8, 8, 8),
        decoder_channels=(4, 6, 8, 8),
        mask_maps=4,
        attention_heads=2,
        conditioning=conditioning,
        token_features=FEATURES,
        embedding_features=FEATURES,
    )


def toy_separator(conditioning: str = "film", seed: int = 0) -> nn.Module:
    """A random network whose masks differ by prompt: zero-initialised parts and running statistics are stirred."""
    torch.manual_seed(seed)
    separator = build(toy_network(conditioning), toy_signal())
    with torch.no_grad():
        for module in separator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0.0, module.in_features**-0.5)
    return separator.eval()


def toy_towers(seed: int = 0) -> Towers:
    torch.manual_seed(seed)
    max_tokens = 12
    tokenizer = TextTokenizer.train(PHRASES, vocabulary=120, max_tokens=max_tokens)
    text = TextConfig(
        vocabulary=len(tokenizer),
        table_features=8,
        features=16,
        layers=1,
        heads=2,
        max_tokens=max_tokens,
        embedding_features=FEATURES,
    )
    audio = AudioConfig(n_bands=64, channels=(4, 4, 8, 8, 8), hidden=16, pooling_heads=2, embedding_features=FEATURES)
    spec = EmbedderSpec(max_tokens=max_tokens, token_features=FEATURES, embedding_features=FEATURES)
    return Towers(spec, TextTower(text), AudioTower(audio), tokenizer.tokenizer.to_str(), len(tokenizer))


def toy_card() -> Card:
    return Card(
        name="toy",
        created="2026-01-01T00:00:00+00:00",
        git_commit="unknown",
        training_data=[{"name": "none", "licence": "CC0", "clips": 0}],
        evaluation={},
        text="# toy\n",
    )


@functools.cache
def _exported(conditioning: str) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    folder = tempfile.TemporaryDirectory(prefix="winnow-toy-")
    path = Path(folder.name) / conditioning
    export_bundle(path, toy_separator(conditioning), toy_network(conditioning), toy_signal(), toy_towers(), toy_card())
    return folder, path


def toy_bundle(path: Path, conditioning: str = "film") -> Bundle:
    """Write a tiny real bundle at ``path``, which may exist if empty; seconds the first time, then a copy."""
    shutil.copytree(_exported(conditioning)[1], path, dirs_exist_ok=True)
    return Bundle.open(path)
