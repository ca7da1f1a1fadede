from __future__ import annotations

import importlib.metadata
import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.bundle import Bundle
from model.runtime import Runtime
from tests.toy import FEATURES, PHRASES, toy_separator

RATE = 16_000
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def some_bands(runtime: Runtime, n_frames: int = 128) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.1, (runtime.bundle.signal.n_bands, n_frames)).astype(np.float32)


def some_noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal((2, round(seconds * RATE)))).astype(np.float32)


def test_phrases_become_unit_vectors(runtime: Runtime) -> None:
    tokens, padding, pooled = runtime.embed(list(PHRASES))
    assert tokens.shape == (*padding.shape, FEATURES)
    assert padding.dtype == bool
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1.0, atol=1e-5)
    assert np.linalg.norm(pooled[0] - pooled[2]) > 0.01


def test_a_phrase_means_the_same_alone_and_among_others(runtime: Runtime) -> None:
    _, padding, together = runtime.embed(["violin", "a person speaking in a sink of water"])
    _, _, alone = runtime.embed(["violin"])
    assert padding[0].any()
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)


def test_a_phrase_longer_than_the_tower_is_cut(runtime: Runtime) -> None:
    tokens, _, _ = runtime.embed(["dog " * 300])
    assert tokens.shape[1] == runtime.bundle.embedder.max_tokens


@pytest.mark.parametrize("phrase", ["", "   ", "犬", "\u200b", "🐕" * 50])
def test_any_phrase_has_an_embedding(runtime: Runtime, phrase: str) -> None:
    assert np.isfinite(runtime.embed([phrase])[2]).all()


def test_no_phrase_is_refused(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        runtime.embed([])
    with pytest.raises(ValueError, match="at least one prompt"):
        runtime.separate(some_noise(0.1), RATE, [])


def test_masks_are_those_of_the_torch_network(runtime: Runtime) -> None:
    bands, embedding = some_bands(runtime), runtime.embed(PHRASES[:3])
    with torch.inference_mode():
        expected = toy_separator()(torch.from_numpy(bands)[None], torch.from_numpy(embedding[2])[None])[0]
    mask = runtime.mask(bands, embedding)
    assert mask.shape == (3, *bands.shape)
    np.testing.assert_allclose(mask, expected.numpy(), atol=5e-3)  # the bundle's weights are in half precision
    assert np.abs(mask[0] - mask[1]).max() > 1e-3


def test_prompts_do_not_change_each_other(runtime: Runtime) -> None:
    bands = some_bands(runtime)
    together = runtime.mask(bands, runtime.embed(["violin", "dog barking"]))
    alone = runtime.mask(bands, runtime.embed(["dog barking"]))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_padding_does_not_change_an_attended_prompt(attention_bundle: Bundle) -> None:
    runtime = Runtime(attention_bundle, threads=1, device="cpu")
    bands = some_bands(runtime)
    together = runtime.mask(bands, runtime.embed(["violin", "a person speaking in a sink of water"]))
    alone = runtime.mask(bands, runtime.embed(["violin"]))
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.3, 1.28, 3.0])
def test_streamed_equals_whole(runtime: Runtime, seconds: float) -> None:
    waveform = some_noise(seconds)
    whole = runtime.separate(waveform, RATE, ["violin", "dog barking"])
    stream = runtime.stream(RATE, 2, runtime.embed(["violin", "dog barking"]))
    streamed = [stream.push(block) for block in np.array_split(waveform, 7, axis=1)]
    np.testing.assert_array_equal(np.concatenate([*streamed, stream.finish()], axis=2), whole)
    assert whole.shape == (2, *waveform.shape)


def test_silence_stays_silent_and_level_is_no_matter(runtime: Runtime) -> None:
    assert np.all(runtime.separate(np.zeros((1, RATE), np.float32), RATE, ["violin"]) == 0)
    waveform = some_noise(1.0)
    loud, soft = (runtime.separate(level * waveform, RATE, ["violin"]) for level in (1.0, 0.01))
    np.testing.assert_allclose(0.01 * loud, soft, atol=1e-5)


def test_prompts_that_name_every_sound_share_the_recording(runtime: Runtime) -> None:
    waveform = some_noise(1.0)
    shared = runtime.separate(waveform, RATE, ["violin", "dog barking"], exhaustive=True)
    np.testing.assert_allclose(shared.sum(axis=0), waveform, atol=0.02 * np.abs(waveform).max())
    assert np.all(runtime.separate(np.zeros((1, RATE), np.float32), RATE, ["violin", "dog"], exhaustive=True) == 0)


def test_presence_is_between_0_and_1_at_any_length(runtime: Runtime) -> None:
    for n_frames in (1, 16, 128):
        presence = runtime.presence(some_bands(runtime, n_frames), runtime.embed(PHRASES[:3]))
        assert presence.shape == (3,)
        assert np.all((presence > 0) & (presence < 1))


def test_nothing_is_undefined_in_silence(runtime: Runtime) -> None:
    bands, embedding = np.zeros_like(some_bands(runtime)), runtime.embed(["violin"])
    assert np.isfinite(runtime.mask(bands, embedding)).all()
    assert np.isfinite(runtime.presence(bands, embedding)).all()


def test_a_mask_that_is_not_finite_is_caught(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "mask", lambda bands, _: np.full((1, *bands.shape), np.nan, np.float32))
    with pytest.raises(FloatingPointError, match="not finite"):
        runtime.separate(some_noise(0.1), RATE, ["violin"])


def test_arguments_out_of_range_are_named(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match=r"device must be one of .* got 'tpu'"):
        Runtime(bundle, device="tpu")
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Runtime(bundle, threads=0)


def test_a_file_that_is_no_graph_is_named(bundle: Bundle, tmp_path: Any) -> None:
    (tmp_path / "separator.onnx").write_text("no graph")
    (tmp_path / "tokenizer.json").write_bytes(bundle.file("tokenizer.json").read_bytes())
    broken = Bundle(tmp_path, bundle.manifest, bundle.signal, bundle.network, bundle.embedder, bundle.version)
    with pytest.raises(ValueError, match=r"separator\.onnx: ONNX Runtime cannot load it"):
        Runtime(broken)


def test_a_network_that_does_not_take_what_the_manifest_says_is_refused(
    bundle: Bundle, attention_bundle: Bundle
) -> None:
    mixed = Bundle(
        bundle.path, bundle.manifest, bundle.signal, attention_bundle.network, bundle.embedder, bundle.version
    )
    with pytest.raises(ValueError, match="inputs must be"):
        Runtime(mixed, device="cpu")


class Pretended:
    """ONNX Runtime as it behaves on a machine with or without a GPU: it falls back without a word."""

    def __init__(self, real: Any, offers: list[str], works: bool) -> None:
        self._real, self._offers, self._works = real, offers, works
        self.asked: list[Any] = []
        self.SessionOptions = real.SessionOptions

    def get_available_providers(self) -> list[str]:
        return self._offers

    def InferenceSession(self, path: str, options: Any, providers: list[Any]) -> Any:
        self.asked = providers
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        session = self._real.InferenceSession(path, options, providers=[CPU])
        if self._works:
            return SimpleNamespace(get_providers=lambda: names, get_inputs=session.get_inputs, run=session.run)
        return session


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    import onnxruntime

    def install(offers: list[str], works: bool) -> Pretended:
        pretended = Pretended(onnxruntime, offers, works)
        monkeypatch.setitem(sys.modules, "onnxruntime", pretended)  # type: ignore[arg-type]
        return pretended

    return install


def test_cuda_on_the_cpu_build_fails_with_the_line_that_mends_it(bundle: Bundle, pretend: Any) -> None:
    pretend([CPU], works=False)
    with pytest.raises(RuntimeError, match=r"pip install 'winnow\[gpu\]'"):
        Runtime(bundle, device="cuda")


def test_cuda_that_falls_back_fails(bundle: Bundle, pretend: Any) -> None:
    pretend([CUDA, CPU], works=False)
    with pytest.raises(RuntimeError, match="CUDA cannot be used"):
        Runtime(bundle, device="cuda")


def test_auto_that_falls_back_warns_once(bundle: Bundle, pretend: Any, caplog: pytest.LogCaptureFixture) -> None:
    pretend([CUDA, CPU], works=False)
    with caplog.at_level(logging.WARNING):
        assert Runtime(bundle, device="auto").provider == CPU
    assert [record.message for record in caplog.records if "CUDA cannot be used" in record.message] == [
        "the GPU build of ONNX Runtime is installed and CUDA cannot be used; running on the CPU"
    ]


@pytest.mark.parametrize(("device", "provider"), [("auto", CUDA), ("cuda", CUDA), ("cpu", CPU)])
def test_a_gpu_is_used_where_it_is_meant(bundle: Bundle, pretend: Any, device: str, provider: str) -> None:
    pretend([CUDA, CPU], works=True)
    assert Runtime(bundle, device=device).provider == provider


def test_auto_on_the_cpu_build_says_nothing(bundle: Bundle, pretend: Any, caplog: pytest.LogCaptureFixture) -> None:
    pretended = pretend([CPU], works=True)
    assert Runtime(bundle, device="auto").provider == CPU
    assert pretended.asked == [CPU]
    assert not caplog.records


def test_two_builds_are_refused_with_the_line_that_mends_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: None)
    with pytest.raises(RuntimeError, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        Runtime(bundle)


def test_no_build_is_told_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"pip install winnow\[cpu\]"):
        Runtime(bundle)
