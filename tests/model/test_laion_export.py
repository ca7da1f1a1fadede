"""A bundle with LAION-CLAP's towers: exported, loaded without torch's help, and the same numbers come out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import Bundle, BundleError
from model.embedder.laion import LaionEmbedder
from model.export import Towers
from model.runtime import Runtime
from model.spec import EmbedderSpec
from tests.toy import toy_signal
from tests.toy_laion import TEXTS, some_sound, toy_bundle, toy_folder, toy_laion, toy_network, toy_separator
from training import checkpoint, export


@pytest.fixture(scope="module")
def laion() -> LaionEmbedder:
    return toy_laion()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(toy_bundle())


@pytest.fixture(scope="module")
def runtime(bundle: Bundle) -> Runtime:
    return Runtime(bundle, threads=1, device="cpu")


def test_the_manifest_says_what_the_audio_tower_takes(bundle: Bundle) -> None:
    assert bundle.embedder.kind == "laion"
    assert bundle.manifest["embedder"]["audio_input"] == "waveform"
    assert bundle.manifest["embedder"]["audio_sample_rate"] == 48_000
    assert bundle.manifest["tensors"]["audio.onnx"]["inputs"] == {"waveform": ["B", 480_000]}
    assert bundle.manifest["tensors"]["text.onnx"]["outputs"] == {"tokens": ["B", "L", 768], "pooled": ["B", 512]}


def test_phrases_are_embedded_as_by_torch(runtime: Runtime, laion: LaionEmbedder) -> None:
    texts = [*TEXTS, "violin " * 100, "Příliš žluťoučký kůň"]
    tokens, padding, pooled = runtime.embed(texts)
    wanted_tokens, wanted_padding, wanted = laion.text(texts)
    np.testing.assert_array_equal(padding, wanted_padding.numpy())
    np.testing.assert_allclose(pooled, wanted.numpy(), atol=1e-4)
    np.testing.assert_allclose(tokens[~padding], wanted_tokens.numpy()[~padding], atol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 30_000, 480_000, 700_001])
def test_sounds_of_any_length_are_heard_as_by_torch(runtime: Runtime, laion: LaionEmbedder, n_samples: int) -> None:
    sound = some_sound(n_samples, batch=1)
    pooled = runtime.embed(TEXTS)[2]
    with torch.no_grad():
        wanted = pooled @ laion.audio(sound, 48_000)[0].numpy()
    np.testing.assert_allclose(runtime.similarity(sound[0].numpy(), pooled), wanted, atol=1e-4)
    presence = runtime.presence(sound[0].numpy(), runtime.embed(TEXTS))
    np.testing.assert_allclose(presence, 1 / (1 + np.exp(-wanted / 0.07)), atol=1e-3)


def test_bands_are_not_what_it_hears(runtime: Runtime) -> None:
    assert (runtime.audio_rate, runtime.audio_samples) == (48_000, 480_000)
    with pytest.raises(ValueError, match=r"takes a waveform \[T\] at 48000 Hz, got an array of \[64, 128\]"):
        runtime.similarity(np.ones((64, 128), np.float32), runtime.embed(["rain"])[2])
    with pytest.raises(ValueError, match="at least one sample"):
        runtime.similarity(np.zeros(0, np.float32), runtime.embed(["rain"])[2])


def test_the_separator_attends_to_its_tokens(runtime: Runtime) -> None:
    bands, embedding = np.ones((64, 96), np.float32), runtime.embed(["violin", "dog barking"])
    with torch.inference_mode():
        tokens, padding, pooled = (torch.from_numpy(part)[None] for part in embedding)
        wanted = toy_separator()(torch.from_numpy(bands)[None], pooled, tokens, padding)[0]
    np.testing.assert_allclose(runtime.mask(bands, embedding), wanted.numpy(), atol=1e-4)
    stems = runtime.separate(some_sound(20_000, rate=16_000).numpy(), 16_000, ["violin", "rain"])
    assert stems.shape == (2, 2, 20_000) and np.isfinite(stems).all()


def test_a_network_for_other_tokens_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["network"]["token_features"] = 384
    for file in manifest["files"]:
        (tmp_path / file).write_bytes(bundle.file(file).read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="attends to tokens of 384 features, the embedder gives 768"):
        Bundle.open(tmp_path)


def test_a_manifest_that_contradicts_the_graph_is_refused(bundle: Bundle) -> None:
    bands = EmbedderSpec(kind="laion", token_features=768, embedding_features=512)
    other = Bundle(bundle.path, bundle.manifest, bundle.signal, bundle.network, bands, bundle.version)
    with pytest.raises(ValueError, match=r"its input must be bands, got \['waveform'\]"):
        Runtime(other, threads=1, device="cpu")


def test_manifests_of_before_waveforms_are_read() -> None:
    said = EmbedderSpec().to_json()
    older = {key: value for key, value in said.items() if key not in EmbedderSpec.LATER}
    assert EmbedderSpec.from_json(older) == EmbedderSpec() == EmbedderSpec.from_json(said)
    with pytest.raises(ValueError, match=r"missing keys \['max_tokens'\]"):
        EmbedderSpec.from_json({key: value for key, value in older.items() if key != "max_tokens"})
    with pytest.raises(ValueError, match="audio_sample_rate must be above 0 for a waveform"):
        EmbedderSpec(audio_input="waveform")
    with pytest.raises(ValueError, match="audio_input must be 'bands' or 'waveform', got 'mel'"):
        EmbedderSpec(audio_input="mel")


def test_the_command_takes_laions_towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it hands to the exporter; that the exporter can do it is seen above."""
    state = toy_separator().state_dict()
    specs = {"network": toy_network().to_json(), "signal": toy_signal().to_json()}
    checkpoint.save(tmp_path / "separator.pt", {"step": 7, "model": state, "ema": state, **specs})
    handed: list[object] = []
    monkeypatch.setattr(export, "export_bundle", lambda *arguments, **_: handed.extend(arguments))
    monkeypatch.setattr(export, "training_data", lambda _: [])
    given = ("--separator", str(tmp_path / "separator.pt"), "--embedder", str(toy_folder()), "--out", str(tmp_path))
    assert export.main(list(given)) == 0
    towers = next(part for part in handed if isinstance(part, Towers))
    assert (towers.spec.kind, towers.vocabulary) == ("laion", 290)
    assert '"<mask>"' in towers.tokenizer
