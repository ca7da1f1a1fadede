"""The paper's network: its size, its signal, what its mask may and may not depend on, and its ONNX graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.bands import filterbank
from model.layers import BandAnalysis
from model.network import build
from model.paper import PaperUNet, paper_spec
from model.spec import NetworkSpec, SignalSpec
from training.time_network import cost, inputs


@pytest.fixture(scope="module")
def tiny() -> PaperUNet:
    """The paper's topology with a thirty-second of its channels; the gate's weights large enough to matter."""
    torch.manual_seed(0)
    module = PaperUNet(*paper_spec(width=2)).eval()
    nn.init.normal_(module.gate.weight)
    return module


def made(n_batch: int = 1, n_prompts: int = 1, n_frames: int = 128) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return inputs(*paper_spec(width=2), n_batch=n_batch, n_prompts=n_prompts, n_frames=n_frames)


def test_it_has_the_papers_size_and_cost() -> None:
    counted = cost(*paper_spec())
    assert counted.parameters == pytest.approx(87.7e6, rel=0.01)
    assert counted.macs == pytest.approx(230e9, rel=0.03)
    assert counted.window_s == pytest.approx(8.19, abs=0.01)


def test_its_signal_is_the_papers_stft_without_bands() -> None:
    _, signal = paper_spec()
    analysis = BandAnalysis(signal, 16_000)
    assert (analysis.n_fft, analysis.hop) == (1022, 256)
    np.testing.assert_array_equal(filterbank(signal), np.eye(512, dtype=np.float32))
    waveform = torch.randn(1, 131_070, generator=torch.Generator().manual_seed(0))
    spectrum, bands = analysis(waveform)
    assert bands.shape == (1, 512, 512)
    torch.testing.assert_close(bands, spectrum.abs(), atol=2e-6, rtol=1e-4)


def test_its_specs_survive_json() -> None:
    network, signal = paper_spec()
    assert NetworkSpec.from_json(network.to_json()) == network
    assert SignalSpec.from_json(signal.to_json()) == signal
    assert isinstance(build(*paper_spec(width=1)), PaperUNet)


def test_its_input_is_the_logarithm_of_the_unscaled_magnitude(tiny: PaperUNet) -> None:
    seen: list[Tensor] = []
    with tiny.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        arguments = made()
        tiny(*arguments.values())
    window = torch.hann_window(1022)
    torch.testing.assert_close(seen[0][:, 0], torch.log1p(arguments["bands"] * window.sum() / 2.0))


@torch.no_grad()
def test_the_head_runs_once_and_prompts_do_not_see_each_other(tiny: PaperUNet) -> None:
    arguments = made(n_batch=2, n_prompts=3)
    calls: list[int] = []
    with tiny.head[0].register_forward_hook(lambda *_: calls.append(1)):
        together = tiny(*arguments.values())
    assert together.shape == (2, 3, 512, 128)
    assert len(calls) == 1
    bands = arguments.pop("bands")
    for prompt in range(3):
        alone = tiny(bands, *(value[:, prompt : prompt + 1] for value in arguments.values()))
        torch.testing.assert_close(alone[:, 0], together[:, prompt], atol=1e-5, rtol=0)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_a_batch_equals_its_items_and_the_mask_is_a_share(tiny: PaperUNet) -> None:
    arguments = made(n_batch=3)
    together = tiny(*arguments.values())
    assert together.min() >= 0.0 and together.max() <= 1.0
    for item in range(3):
        alone = tiny(*(value[item : item + 1] for value in arguments.values()))
        torch.testing.assert_close(alone[0], together[item], atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_is_not_attended_to_and_tokens_are(tiny: PaperUNet) -> None:
    arguments = made()
    mask = tiny(*arguments.values())
    padding = arguments["padding"]
    other = {**arguments, "tokens": torch.where(padding[..., None], 99.0, arguments["tokens"])}
    torch.testing.assert_close(tiny(*other.values()), mask, atol=1e-6, rtol=0)
    other = {**arguments, "tokens": torch.where(padding[..., None], arguments["tokens"], -arguments["tokens"])}
    assert (tiny(*other.values()) - mask).abs().max() > 1e-5  # three narrow levels deep, at random weights
    other = {**arguments, "pooled": -arguments["pooled"]}
    assert (tiny(*other.values()) - mask).abs().max() > 1e-4


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    module = PaperUNet(*paper_spec(width=2))
    module(*made(n_batch=2).values()).square().mean().backward()
    still = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_what_it_cannot_be_is_refused(tiny: PaperUNet) -> None:
    network, signal = paper_spec(width=2)
    with pytest.raises(ValueError, match="attention"):
        PaperUNet(replace(network, conditioning="film"), signal)
    with pytest.raises(ValueError, match="attention_heads"):
        PaperUNet(replace(network, attention_heads=5), signal)
    with pytest.raises(ValueError, match="multiples of 128"):
        PaperUNet(network, replace(signal, frame_multiple=32))
    with pytest.raises(ValueError, match="width"):
        paper_spec(width=0)
    arguments = made()
    with pytest.raises(ValueError, match="tokens"):
        tiny(arguments["bands"], arguments["pooled"])


@pytest.mark.filterwarnings("ignore::FutureWarning:copyreg")  # the exporter's, seen from where it copies
def test_the_graph_gives_the_modules_mask_at_other_sizes(tmp_path: Path) -> None:
    """Two levels of the Head and two of the Modulator: every kind of block, at half the exporter's time."""
    network, signal = paper_spec(width=2)
    torch.manual_seed(0)
    tiny = PaperUNet(replace(network, channels=(2, 4, 16, 16), head_levels=2), signal).eval()
    nn.init.normal_(tiny.gate.weight)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    example = made(n_batch=2, n_prompts=3, n_frames=256)
    dynamic = torch.export.Dim.DYNAMIC
    free = {"bands": (0, 2), "pooled": (0, 1), "tokens": (0, 1, 2), "padding": (0, 1, 2)}
    program = torch.onnx.export(
        tiny,
        tuple(example.values()),
        dynamo=True,
        input_names=list(example),
        output_names=["mask"],
        dynamic_shapes=tuple(dict.fromkeys(free[name], dynamic) for name in example),
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "paper.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "paper.onnx", providers=["CPUExecutionProvider"])
    for size in ((1, 1, 128), (3, 2, 384)):
        arguments = made(*size)
        with torch.no_grad():
            expected = tiny(*arguments.values())
        (mask,) = session.run(None, {name: value.numpy() for name, value in arguments.items()})
        assert mask.shape == (size[0], size[1], 512, size[2])
        assert np.abs(mask - expected.numpy()).max() < 1e-4
