"""What a network costs: parameters, multiply-adds a second of audio, and how fast it runs in torch and ONNX Runtime.

``python -m training.time_network --preset base`` times one prompt on one window; the weights are random, which does not
change the time. ``--export`` also writes the graph to a temporary directory and times it there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.network import build
from model.paper import paper_spec
from model.spec import NetworkSpec, SignalSpec

PRESETS: dict[str, Callable[[], tuple[NetworkSpec, SignalSpec]]] = {
    "base": lambda: (NetworkSpec(), SignalSpec()),
    "paper": paper_spec,
}
_TOKENS = 12  # a prompt's usual length; the release always attends to 77


@dataclass(frozen=True)
class Cost:
    """What one window costs a network, whatever machine it runs on.

    Attributes:
        parameters: numbers that training changes.
        macs: multiply-adds of convolutions, linear layers and attention for one window.
        window_s: seconds of audio that one window advances.
    """

    parameters: int
    macs: int
    window_s: float


def inputs(
    network: NetworkSpec, signal: SignalSpec, *, n_batch: int = 1, n_prompts: int = 1, n_frames: int | None = None
) -> dict[str, Tensor]:
    """Make random inputs by name, of ``signal.window_frames`` frames unless told; the last token is padding.

    Shape:
        bands ``[B, K, N]``, pooled ``[B, P, E]``, and for attention tokens ``[B, P, L, D]``, padding ``[B, P, L]``
    """
    n_frames = signal.window_frames if n_frames is None else n_frames
    pooled = torch.randn(n_batch, n_prompts, network.embedding_features)
    made = {
        "bands": 0.1 * torch.rand(n_batch, signal.n_bands, n_frames),
        "pooled": nn.functional.normalize(pooled, dim=-1),
    }
    if network.conditioning == "attention":
        made["tokens"] = torch.randn(n_batch, n_prompts, _TOKENS, network.token_features)
        made["padding"] = (torch.arange(_TOKENS) == _TOKENS - 1).expand(n_batch, n_prompts, -1).clone()
    return made


def cost(network: NetworkSpec, signal: SignalSpec, *, n_prompts: int = 1) -> Cost:
    """Count parameters and multiply-adds of one window without allocating or computing anything."""
    with torch.device("meta"):
        module = build(network, signal).eval()
        made = inputs(network, signal, n_prompts=n_prompts)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*made.values())
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=counter.get_total_flops() // 2,  # it counts a multiply-add as two
        window_s=signal.window_frames * signal.hop_s,
    )


def export(module: nn.Module, made: dict[str, Tensor], path: Path) -> None:
    """Export to ONNX with the inputs' sizes as they are: for timing, not for serving."""
    with warnings.catch_warnings():
        # The exporter warns about itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            tuple(made.values()),
            dynamo=True,
            input_names=list(made),
            output_names=["mask"],
            verbose=False,
        )
    assert program is not None
    program.save(path)


def seconds(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median wall-clock and processor seconds of ``runs`` calls after one that is not counted.

    With one thread, processor time is what the wall clock would show were the machine otherwise idle.
    """
    call()
    wall, processor = [], []
    for _ in range(runs):
        start, busy = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return statistics.median(wall), statistics.median(processor)


def _onnx_seconds(module: nn.Module, made: dict[str, Tensor], runs: int, threads: int) -> tuple[float, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "separator.onnx"
        export(module, made, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {name: value.numpy() for name, value in made.items()}
        return seconds(lambda: session.run(None, feed), runs)


def main(arguments: list[str] | None = None) -> None:
    """Print one table row a line."""
    parser = argparse.ArgumentParser(prog="training.time_network", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--prompts", type=int, default=1, help="prompts asked together (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs, of which the median counts (default 5)")
    parser.add_argument("--export", action="store_true", help="also export to ONNX and time ONNX Runtime")
    options = parser.parse_args(arguments)
    for name in ("prompts", "threads", "runs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")

    torch.set_num_threads(options.threads)
    network, signal = PRESETS[options.preset]()
    counted = cost(network, signal, n_prompts=options.prompts)
    print(f"preset                 {options.preset}, {network.conditioning}, {options.prompts} prompt(s)")
    print(f"parameters             {counted.parameters / 1e6:.2f} M")
    print(f"window                 {signal.window_frames} frames, {counted.window_s:.2f} s")
    per_second = counted.macs / counted.window_s
    print(f"multiply-adds          {counted.macs / 1e9:.2f} G, {per_second / 1e9:.3f} G a second of audio", flush=True)

    module = build(network, signal).eval().requires_grad_(False)
    made = inputs(network, signal, n_prompts=options.prompts)
    _report("torch", seconds(lambda: module(*made.values()), options.runs), counted)
    if options.export:
        _report("ONNX Runtime", _onnx_seconds(module, made, options.runs, options.threads), counted)


def _report(name: str, taken: tuple[float, float], counted: Cost) -> None:
    for clock, taken_s in zip(("wall", "processor"), taken, strict=True):
        speed = counted.window_s / taken_s
        print(f"{f'{name}, {clock}':<25}{taken_s * 1e3:.1f} ms a window, {speed:.2f} x real time", flush=True)


if __name__ == "__main__":
    main()
