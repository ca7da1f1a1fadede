"""A bundle anew with another separator's weights: no exporter, the same towers."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model.bundle import Bundle, write_bundle
from model.export import prepare
from model.restore import store
from model.runtime import Runtime
from training import checkpoint
from training.card import model_card

# Of masks, -60 dB. The exporter's own bound is tighter; here the graph stays and only its weights change, so a wrong
# one would show as tenths, while weights that were driven far amplify rounding.
_TOLERANCE = 1e-3


def rebundle(
    bundle: Bundle,
    separator: nn.Module,
    out: Path,
    *,
    about: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
) -> Bundle:
    """Write a bundle: the separator's weights in the old bundle's graph, the old towers, a card of its own.

    Args:
        bundle: where graph and towers come from.
        separator: a network of its spec.
        out: the new bundle's directory.
        about: lines of its card.
        data: what it was trained on beside the old one's data, as a manifest lists it.
        figures: its evaluation; the old one's are not its own.

    Raises:
        ValueError: the separator is another network's, or the new graph does not give its masks.
    """
    name = bundle.manifest["name"].removesuffix("-finetuned") + "-finetuned"
    everything = [*bundle.manifest["training_data"], *map(dict, data)]
    about = {"begun with": f"{bundle.manifest['name']}, version {bundle.version}", **about}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        store(separator, bundle, files / "separator.onnx")
        for file in ("text.onnx", "audio.onnx", "tokenizer.json"):
            shutil.copyfile(bundle.file(file), files / file)
        (files / "README.md").write_text(model_card(name, about, everything, figures), encoding="utf-8")
        fresh = write_bundle(
            out,
            files,
            name=name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            git_commit=checkpoint.git_commit(),
            signal=bundle.signal,
            network=bundle.network,
            embedder=bundle.embedder,
            tensors=bundle.manifest["tensors"],
            training_data=everything,
            evaluation=figures,
        )
    difference = compare(fresh, separator)
    if not difference <= _TOLERANCE:  # NaN too
        raise ValueError(f"{out}: torch and ONNX Runtime differ by {difference:.2e}, more than {_TOLERANCE:.0e}")
    return fresh


def compare(bundle: Bundle, separator: nn.Module) -> float:
    """Largest difference between the bundle's masks and the module's, rounded as it was stored, on random bands."""
    runtime = Runtime(bundle, threads=1, device="cpu")
    rng = np.random.default_rng(0)
    bands = (0.1 * rng.uniform(size=(bundle.signal.n_bands, bundle.signal.window_frames)) ** 2).astype(np.float32)
    embedding = runtime.embed(["dog barking", "a violin", "rain"])
    tokens, padding, pooled = (torch.from_numpy(value)[None] for value in embedding)
    inputs = (pooled, tokens, padding) if bundle.network.conditioning == "attention" else (pooled,)
    with torch.inference_mode():
        mask = prepare(separator, half=True)(torch.from_numpy(bands)[None], *inputs)[0].numpy()
    return float(np.abs(mask - runtime.mask(bands, embedding)).max())
