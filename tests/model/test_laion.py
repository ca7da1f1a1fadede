"""LAION-CLAP's embedder on a toy: front end, both forms of weights, determinism, freezing, gradients."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from model.embedder import Embedder, load_embedder
from model.embedder.laion import LaionEmbedder
from model.embedder.laion_keys import read_checkpoint, rename
from model.embedder.mel import LogMel, MelConfig
from model.embedder.resample import Resampler
from model.windows import repeats, window_starts
from tests.toy_laion import SIZES, TEXTS, original_state, some_sound, toy_folder, toy_laion, write_tokenizer


@pytest.fixture(scope="module")
def laion() -> LaionEmbedder:
    return toy_laion()


def test_the_mel_is_the_one_of_the_feature_extractor() -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    sound = some_sound(480_000)
    wanted = extractor(sound.double().numpy(), sampling_rate=48_000, return_tensors="pt")["input_features"][:, 0]
    got = LogMel(MelConfig())(sound)
    assert got.shape == (2, 1001, 64)
    # Decibels; single precision shows where a band is 90 dB below the loudest.
    torch.testing.assert_close(got.double(), wanted.double(), atol=2e-3, rtol=0)
    exact = LogMel(MelConfig()).double()(sound.double())
    torch.testing.assert_close(exact, wanted.double(), atol=2e-4, rtol=0)


def test_short_sounds_are_padded_as_the_feature_extractor_pads(laion: LaionEmbedder) -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    sound = some_sound(130_001, batch=1)
    features = extractor(sound.numpy(), sampling_rate=48_000, return_tensors="pt")["input_features"].float()
    tower = laion.audio_tower
    wanted = functional.normalize(tower.audio_projection(tower.audio_model(features).pooler_output), dim=-1)
    torch.testing.assert_close(laion.audio(sound, 48_000), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("old", "new"), [(32_000, 48_000), (44_100, 48_000), (16_000, 48_000), (96_000, 48_000)])
def test_resampling_keeps_what_both_rates_can_hold(old: int, new: int) -> None:
    length = old // 4
    tone = torch.sin(2 * torch.pi * 997.0 * torch.arange(length, dtype=torch.float64) / old)[None]
    got = Resampler(old, new)(tone)
    wanted = torch.sin(2 * torch.pi * 997.0 * torch.arange(got.shape[1], dtype=torch.float64) / new)[None]
    assert got.shape == (1, -(-length * new // old))
    torch.testing.assert_close(got[:, 500:-500], wanted[:, 500:-500], atol=1e-4, rtol=0)


def test_resampling_down_silences_what_the_lower_rate_cannot_hold() -> None:
    tone = torch.sin(2 * torch.pi * 30_000.0 * torch.arange(24_000, dtype=torch.float64) / 96_000)[None]
    assert Resampler(96_000, 48_000)(tone)[:, 500:-500].abs().max() < 1e-4
    same = some_sound(100)
    assert Resampler(48_000, 48_000)(same) is same
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Resampler(0, 48_000)


@pytest.mark.parametrize("n_samples", [1, 7, 10, 11, 25, 30, 31])
def test_windows_cover_every_sample(n_samples: int) -> None:
    starts = window_starts(n_samples, 10)
    assert starts[0] == 0 and len(starts) == max(1, -(-n_samples // 10))
    covered = {sample for start in starts for sample in range(start, start + 10)}
    assert covered >= set(range(n_samples))
    assert starts[-1] == max(0, n_samples - 10)
    assert repeats(n_samples, 10) * n_samples <= max(10, n_samples)


def test_text_is_unit_vectors_that_padding_does_not_change(laion: LaionEmbedder) -> None:
    tokens, padding, pooled = laion.text(list(TEXTS))
    assert tokens.shape == (len(TEXTS), padding.shape[1], 768) and pooled.shape == (len(TEXTS), 512)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(len(TEXTS)))
    assert padding.any() and not padding[:, 0].any()
    for row, text in enumerate(TEXTS):
        alone_tokens, _, alone = laion.text([text])
        torch.testing.assert_close(alone[0], pooled[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone_tokens[0], tokens[row][~padding[row]], atol=1e-4, rtol=0)
    assert laion.text(["violin " * 200])[0].shape[1] == 77
    with pytest.raises(ValueError, match="got none"):
        laion.text([])


def test_it_is_an_embedder_whose_scale_is_the_audios(laion: LaionEmbedder) -> None:
    assert isinstance(laion, Embedder)
    assert float(laion.logit_scale) == pytest.approx(1 / 0.07, rel=1e-5)
    assert (laion.spec.audio_input, laion.spec.audio_samples) == ("waveform", 480_000)


def test_a_long_sound_has_one_embedding_the_mean_of_its_windows(laion: LaionEmbedder) -> None:
    sound = some_sound(600_000, batch=1)
    parts = torch.cat([laion.audio(sound[:, :480_000], 48_000), laion.audio(sound[:, 120_000:], 48_000)])
    wanted = functional.normalize(parts.mean(dim=0, keepdim=True), dim=-1)
    torch.testing.assert_close(laion.audio(sound, 48_000), wanted, atol=1e-6, rtol=0)
    assert torch.equal(laion.audio(sound, 48_000), laion.audio(sound, 48_000))
    with pytest.raises(ValueError, match="at least one sample"):
        laion.audio(torch.zeros(1, 0), 48_000)


def test_it_stays_frozen_whatever_its_parent_does(laion: LaionEmbedder) -> None:
    parent = torch.nn.ModuleList([laion]).train()
    assert parent.training and not any(module.training for module in laion.modules())
    assert not any(parameter.requires_grad for parameter in laion.parameters())


def test_the_gradient_reaches_the_waveform_and_no_weight(laion: LaionEmbedder) -> None:
    sound = some_sound(64_000, rate=32_000).requires_grad_()
    laion.audio(sound, 32_000)[:, 0].sum().backward()
    assert sound.grad is not None and torch.isfinite(sound.grad).all()
    assert (sound.grad != 0).float().mean() > 0.999
    silence = torch.zeros(1, 32_000, requires_grad=True)
    laion.audio(silence, 32_000).sum().backward()
    assert silence.grad is not None and torch.isfinite(silence.grad).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    laion = toy_laion().double()
    sound = some_sound(48_000, rate=32_000, batch=1).double()
    target = torch.randn(512, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def score(waveform: Tensor) -> Tensor:
        return laion.audio(waveform, 32_000)[0] @ target

    leaf = sound.clone().requires_grad_()
    score(leaf).backward()
    assert leaf.grad is not None
    step = 1e-6
    for at in (0, 1_111, 30_000):
        nudge = torch.zeros_like(sound)
        nudge[0, at] = step
        with torch.no_grad():
            difference = (score(sound + nudge) - score(sound - nudge)) / (2 * step)
        assert float(leaf.grad[0, at]) == pytest.approx(float(difference), rel=1e-3, abs=1e-7)


def test_the_original_names_give_the_same_embedder(laion: LaionEmbedder, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    state = {f"module.{key}": value for key, value in original_state(laion).items()}
    torch.save({"epoch": 3, "best": np.float64(0.5), "state_dict": state}, tmp_path / "model.pt")
    other = load_embedder(tmp_path / "model.pt")
    assert isinstance(other, LaionEmbedder)
    ours, theirs = laion.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, atol=0, rtol=0)
    torch.save(original_state(laion), tmp_path / "bare.pt")
    torch.testing.assert_close(load_embedder(tmp_path / "bare.pt").text(["rain"])[2], laion.text(["rain"])[2])


def test_keys_that_are_not_understood_are_named(laion: LaionEmbedder, tmp_path: Path) -> None:
    state = original_state(laion)
    with pytest.raises(ValueError, match=r"1 keys are not LAION-CLAP's .* 'audio_branch.conv_block1.weight'"):
        rename({**state, "audio_branch.conv_block1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="fused checkpoints are not supported"):
        rename({**state, "audio_branch.patch_embed.mel_conv2d.weight": torch.zeros(1)})
    write_tokenizer(tmp_path / "tokenizer")
    lacking = {key: value for key, value in state.items() if key != "audio_branch.norm.bias"}
    torch.save(lacking, tmp_path / "lacking.pt")
    with pytest.raises(ValueError, match=r"the first is audio_model.audio_encoder.norm.bias"):
        load_embedder(tmp_path / "lacking.pt")
    torch.save({"audio_branch.norm.bias": state["audio_branch.norm.bias"]}, tmp_path / "scrap.pt")
    with pytest.raises(ValueError, match=r"lacks text_model.embeddings"):
        load_embedder(tmp_path / "scrap.pt")


class Bomb:
    """What an unpickler that trusts would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("boom",))


def test_a_checkpoint_is_data_and_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "bomb": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match="cannot be read as tensors and plain values alone"):
        read_checkpoint(tmp_path / "bomb.pt")
    assert "boom" not in capsys.readouterr().out
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_checkpoint(tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="no checkpoint"):
        read_checkpoint(tmp_path / "missing.pt")


def test_numpy_scalars_of_before_numpy_2_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.ones(1)}, "best": np.float64(0.5)}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in (tmp_path / "old.pt").read_bytes()
    assert torch.equal(read_checkpoint(tmp_path / "old.pt")["x"], torch.ones(1))


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no embedder at .*nowhere"):
        load_embedder(tmp_path / "nowhere")
    folder = Path(shutil.copytree(toy_folder(), tmp_path / "clap"))
    for key, value in (("truncation", "fusion"), ("padding", "pad")):
        (folder / "preprocessor_config.json").write_text(json.dumps({key: value}))
        with pytest.raises(ValueError, match=f"{key} must be .* got '{value}'"):
            load_embedder(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"frequency_min": 0, "truncation": "rand_trunc"}))
    assert LaionEmbedder.load(folder).audio_tower.mel.config.min_hz == 0
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match="model_type must be 'clap', got 'bert'"):
        load_embedder(folder)
    config["audio_config"]["enable_fusion"] = True
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="fused models are not supported"):
        load_embedder(folder)


def test_a_tokenizer_that_is_empty_missing_or_anothers_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder(), tmp_path / "clap"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    few = dict(list(tokenizer["model"]["vocab"].items())[:5])
    (folder / "tokenizer.json").write_text(
        json.dumps({**tokenizer, "model": {**tokenizer["model"], "vocab": few, "merges": []}})
    )
    vocabulary = SIZES["text_config"]["vocab_size"]
    with pytest.raises(ValueError, match=rf"the tokenizer has \d entries, the text tower {vocabulary}"):
        load_embedder(folder)
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    with pytest.raises(ValueError, match=r"an empty text must be \[0, 2\]"):
        load_embedder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_embedder(folder)


def test_the_older_tokenizer_files_mean_the_same(laion: LaionEmbedder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder(), tmp_path / "clap"))
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "<mask>": len(vocabulary)}))
    (folder / "tokenizer.json").unlink()
    older = LaionEmbedder.load(folder).tokenizer
    texts = ["A dog's bark, twice.", " rain", "Žluťoučký kůň", ""]
    for got, wanted in zip(older.encode(texts), laion.tokenizer.encode(texts), strict=True):
        assert torch.equal(got, wanted)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(toy_folder(), tmp_path / "clap"))
    weights = load_file(folder / "model.safetensors")
    del weights["audio_projection.linear2.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack or do not fit \['audio_projection.linear2.weight'\]"):
        load_embedder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="clap"):
        load_embedder(folder)
