"""From torch modules to a bundle; a graph that does not give the numbers its module gives is never written.

Convolutions take their batch normalisation in, weights are rounded to half precision and stored so (ONNX Runtime
computes in float32: a cast at loading), the graphs are run at lengths and batches other than the exporter's, and only
then does the directory appear.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.bundle import Bundle, write_bundle
from model.embedder.compact import CompactEmbedder
from model.embedder.laion import LaionEmbedder
from model.graph import store_halves, tidy
from model.runtime import separator_inputs
from model.spec import EmbedderSpec, NetworkSpec, SignalSpec

TOLERANCE = 1e-4
_MIN_HALVED = 1024  # numbers; smaller tensors (biases, norms) are not worth a cast


@dataclass(frozen=True)
class Towers:
    """An embedder's parts as the exporter takes them.

    Attributes:
        spec: what the manifest says.
        text: ids ``[B, L]``, padding ``[B, L]`` -> tokens ``[B, L, D]``, pooled ``[B, E]``.
        audio: bands ``[B, K, N]``, or waveforms ``[B, T]`` of the spec's one length -> ``[B, E]``.
        tokenizer: the text of ``tokenizer.json``.
        vocabulary: number of token ids.
    """

    spec: EmbedderSpec
    text: nn.Module
    audio: nn.Module
    tokenizer: str
    vocabulary: int


def towers_of(embedder: CompactEmbedder | LaionEmbedder) -> Towers:
    """The parts of an embedder as the exporter takes them."""
    tokenizer = embedder.tokenizer.tokenizer
    return Towers(
        embedder.spec, embedder.text_tower, embedder.audio_tower, tokenizer.to_str(), int(tokenizer.get_vocab_size())
    )


@dataclass(frozen=True)
class Card:
    """What a bundle says of itself beside its numbers; see :func:`model.bundle.write_bundle`."""

    name: str
    created: str
    git_commit: str
    training_data: list[dict[str, Any]]
    evaluation: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class _Graph:
    """A module, how its inputs are made at some size, and the names of what goes in and out with their axes.

    A trial may give the level of its bands in percent: at 0, silence, the guards against dividing by zero must hold.
    """

    module: nn.Module
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    make: Callable[[torch.Generator, Mapping[str, int]], tuple[Tensor, ...]]
    example: dict[str, int]
    trials: tuple[dict[str, int], ...]


def export_bundle(
    path: Path,
    separator: nn.Module,
    network: NetworkSpec,
    signal: SignalSpec,
    towers: Towers,
    card: Card,
    *,
    half: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Export, check and write a bundle.

    Args:
        path: the bundle's directory; a bundle that is there is replaced.
        separator: as built by :func:`model.network.build`.
        network: its spec.
        signal: its signal.
        towers: the embedder.
        card: name, dates, data, figures and the model card.
        half: store weights in half precision.
        progress: takes a line of text as each part is done.

    Raises:
        ValueError: a graph differs from its module by more than ``TOLERANCE``; the message has the figure.
    """
    graphs = {
        "separator.onnx": _separator_graph(separator, network, signal),
        "text.onnx": _text_graph(towers),
        "audio.onnx": _waveform_graph(towers) if towers.spec.audio_samples else _audio_graph(towers, signal),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        for name, graph in graphs.items():
            difference = _export(graph, files / name, half=half)
            progress(f"{name}: {(files / name).stat().st_size / 1e6:.2f} MB, torch and ONNX differ by {difference:.1e}")
        (files / "tokenizer.json").write_text(towers.tokenizer, encoding="utf-8")
        (files / "README.md").write_text(card.text, encoding="utf-8")
        bundle = write_bundle(
            path,
            files,
            name=card.name,
            created=card.created,
            git_commit=card.git_commit,
            signal=signal,
            network=network,
            embedder=towers.spec,
            tensors={name: {"inputs": graph.inputs, "outputs": graph.outputs} for name, graph in graphs.items()},
            training_data=card.training_data,
            evaluation=card.evaluation,
        )
    progress(f"{path}: version {bundle.version}")
    return bundle


def prepare(module: nn.Module, *, half: bool) -> nn.Module:
    """A copy for inference: batch normalisations inside their convolutions, weights that half precision can hold.

    Folding comes first, so that what is rounded is what is stored.
    """
    module = copy.deepcopy(module).float().eval().cpu()
    for parent in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for index in range(len(parent) - 1):
            convolution, norm = parent[index], parent[index + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                parent[index], parent[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.contiguous()  # training may have left convolutions channels last
        if half and parameter.numel() >= _MIN_HALVED:
            rounded = parameter.half().float()
            if torch.isfinite(rounded).all():
                parameter.copy_(rounded)
    return module


def _separator_graph(separator: nn.Module, network: NetworkSpec, signal: SignalSpec) -> _Graph:
    n_bands, features, tokens = signal.n_bands, network.embedding_features, network.token_features

    def make(generator: torch.Generator, size: Mapping[str, int]) -> tuple[Tensor, ...]:
        batch, prompts, length = size["B"], size["P"], size["L"]
        # Levels apart by 40 dB, as recordings are.
        level = 10.0 ** (-2.0 * torch.rand(batch, 1, 1, generator=generator))
        bands = level * torch.rand(batch, n_bands, size["N"], generator=generator).square()
        bands = bands * size.get("percent", 100) / 100
        pooled = nn.functional.normalize(torch.randn(batch, prompts, features, generator=generator), dim=-1)
        words = torch.randn(batch, prompts, length, tokens, generator=generator)
        made = {
            "bands": bands,
            "pooled": pooled,
            "tokens": words,
            "padding": _padding(generator, batch, prompts, length),
        }
        return tuple(made[name] for name in names)

    names = separator_inputs(network.conditioning)
    axes: dict[str, list[int | str]] = {
        "bands": ["B", n_bands, "N"],
        "pooled": ["B", "P", features],
        "tokens": ["B", "P", "L", tokens],
        "padding": ["B", "P", "L"],
    }
    step = signal.frame_multiple
    return _Graph(
        separator,
        {name: axes[name] for name in names},
        {"mask": ["B", "P", n_bands, "N"]},
        make,
        # Nothing may be 1 in the example, or the exporter takes it for a constant.
        {"B": 2, "P": 3, "N": 4 * step, "L": 7},
        (
            {"B": 1, "P": 1, "N": signal.window_frames, "L": 3},
            {"B": 1, "P": 1, "N": step, "L": 2},
            {"B": 1, "P": 4, "N": 3 * step, "L": 12},
            {"B": 3, "P": 2, "N": 5 * step, "L": 9},
            {"B": 1, "P": 1, "N": step, "L": 3, "percent": 0},
        ),
    )


def _text_graph(towers: Towers) -> _Graph:
    def make(generator: torch.Generator, size: Mapping[str, int]) -> tuple[Tensor, ...]:
        ids = torch.randint(0, towers.vocabulary, (size["B"], size["L"]), generator=generator)
        return ids, _padding(generator, size["B"], size["L"])

    spec = towers.spec
    return _Graph(
        towers.text,
        {"ids": ["B", "L"], "padding": ["B", "L"]},
        {"tokens": ["B", "L", spec.token_features], "pooled": ["B", spec.embedding_features]},
        make,
        {"B": 3, "L": 7},
        ({"B": 1, "L": 2}, {"B": 1, "L": 5}, {"B": 2, "L": spec.max_tokens}, {"B": 8, "L": 12}),
    )


def _audio_graph(towers: Towers, signal: SignalSpec) -> _Graph:
    def make(generator: torch.Generator, size: Mapping[str, int]) -> tuple[Tensor, ...]:
        bands = torch.rand(size["B"], signal.n_bands, size["N"], generator=generator).square()
        return (bands * 0.1 * size.get("percent", 100) / 100,)

    return _Graph(
        towers.audio,
        {"bands": ["B", signal.n_bands, "N"]},
        {"embedding": ["B", towers.spec.embedding_features]},
        make,
        {"B": 2, "N": 100},
        (
            {"B": 1, "N": signal.window_frames},
            {"B": 1, "N": 16},
            {"B": 3, "N": 33},
            {"B": 2, "N": 1001},
            {"B": 1, "N": 100, "percent": 0},
        ),
    )


def _waveform_graph(towers: Towers) -> _Graph:
    spec = towers.spec

    def make(generator: torch.Generator, size: Mapping[str, int]) -> tuple[Tensor, ...]:
        # Decibels of single bins of white noise reach far down, and there two transforms differ most.
        waveform = torch.randn(size["B"], spec.audio_samples, generator=generator)
        return (waveform * 0.1 * size.get("percent", 100) / 100,)

    return _Graph(
        towers.audio,
        {"waveform": ["B", spec.audio_samples]},
        {"embedding": ["B", spec.embedding_features]},
        make,
        {"B": 2},
        ({"B": 1}, {"B": 3}, {"B": 1, "percent": 0}),
    )


def _padding(generator: torch.Generator, *shape: int) -> Tensor:
    """Rows of padding flags; each leaves at least one token."""
    lengths = torch.randint(1, shape[-1] + 1, shape[:-1], generator=generator)
    return torch.arange(shape[-1]) >= lengths[..., None]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecations and of a package that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _export(graph: _Graph, path: Path, *, half: bool) -> float:
    """Write one graph and return by how much it differs from its module; raises ValueError if by too much."""
    module = prepare(graph.module, half=half)
    example = graph.make(torch.Generator().manual_seed(0), graph.example)
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(sizes) if isinstance(size, str)}
        for sizes in graph.inputs.values()
    )
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            external_data=False,
            dynamic_shapes=shapes,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # Its optimiser takes a small addend for zero and drops it: sqrt(x + 1e-10) lost its guard, and silence
            # became NaN. ONNX Runtime optimises at loading, exactly.
            optimize=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    tidy(proto, {**graph.inputs, **graph.outputs})
    if half:
        store_halves(proto, _MIN_HALVED)
    path.write_bytes(proto.SerializeToString())
    difference = float(np.max(list(_differences(graph, module, path))))  # max() would pass over a NaN
    if not difference <= TOLERANCE:  # NaN too
        raise ValueError(f"{path.name}: torch and ONNX Runtime differ by {difference:.2e}, more than {TOLERANCE:.0e}")
    return difference


def _differences(graph: _Graph, module: nn.Module, path: Path) -> Iterator[float]:
    """Largest difference at each trial's size, relative to the largest number where that is above 1."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for size in (graph.example, *graph.trials):
        inputs = graph.make(generator, size)
        with torch.inference_mode():
            result = module(*inputs)
        expected = result if isinstance(result, tuple) else (result,)
        feed = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        for reference, got in zip(expected, session.run(list(graph.outputs), feed), strict=True):
            wanted = reference.numpy()
            if wanted.shape != got.shape:
                raise ValueError(f"{path.name}: at {size} torch gives {wanted.shape}, ONNX Runtime {got.shape}")
            yield float(np.abs(wanted - got).max() / max(1.0, np.abs(wanted).max()))
