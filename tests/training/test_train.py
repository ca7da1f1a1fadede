"""The composition: each mode end to end, resumed as if it had not been killed, and weak ones without a pack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.embedder.audio import AudioConfig
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.spec import SignalSpec
from training import checkpoint, loop
from training.config import TrainConfig, read_config
from training.dataset import Pack
from training.modes import Semi, SemiSampler
from training.prompts import PromptTable
from training.rendered import RenderedMixtures, render_list
from training.train import known_prompts, main, open_recordings, recipe
from training.weak import Weak
from training.weak_mixing import WeakSampler

CONFIG = """
sounds = "{sounds}"
cache = "{folder}/cache"
embedder = "{folder}/table.npz"
ear = "{folder}/ear"
recordings = "{folder}/mixtures"
mode = "{mode}"
steps = 4
checkpoint_every = 2
validate_every = 4
validation_limit = 1
threads = 1
bf16 = false
prompt_noise = 0.1

[weak_losses]
url = 1.0
crl = 1.0
cnt = 0.1
silence = 0.03

[weak]
warmup = 0.25
ramp = 0.25
colour_db = 3.0
bank = 2

[weak_mixing]
seconds = 0.3
batch = 2
absent = 1
held = 2

[network]
channels = [4, 6, 8]
head_levels = 2
decoder_channels = [4, 6]
mask_maps = 2
attention_heads = 2
embedding_features = 8

[signal]
frame_multiple = 8

[mixing]
seconds = 0.3
batch = 2
prompts = 1
source_counts = [0, 1]
absent = 0.5

[optimiser]
warmup_steps = 2
"""


@pytest.fixture(scope="module")
def folder(toy_sounds: Path, toy_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run reads: rendered mixtures, vectors of every prompt, and an embedder to listen with."""
    made = tmp_path_factory.mktemp("run")
    lines = (toy_sounds / "mixtures-valid-2.jsonl").read_text().splitlines()
    twice = made / "mixtures.jsonl"
    twice.write_text("\n".join(lines * 2) + "\n")
    render_list(twice, toy_pack, made / "mixtures")
    recordings = RenderedMixtures(made / "mixtures")
    phrases = [p for group in json.loads((toy_sounds / "phrases.json").read_text()).values() for p in group]
    phrases = sorted({*phrases, *(recordings.caption(index) for index in range(len(recordings)))})
    vectors = np.random.default_rng(0).normal(size=(len(phrases), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(made / "table.npz", phrases=np.array(phrases), pooled=vectors)
    tokenizer = TextTokenizer.train(phrases, vocabulary=60, max_tokens=12)
    text = TextConfig(
        vocabulary=len(tokenizer), table_features=8, features=8, layers=1, heads=2, max_tokens=12, embedding_features=8
    )
    audio = AudioConfig(channels=(4, 4, 6, 6, 6), hidden=8, pooling_heads=2, embedding_features=8)
    torch.manual_seed(0)
    CompactEmbedder(tokenizer, text, audio, SignalSpec()).save(made / "ear")
    return made


def configure(folder: Path, sounds: Path, mode: str) -> Path:
    path = folder / f"{mode}.toml"
    path.write_text(CONFIG.format(sounds=sounds, folder=folder, mode=mode))
    return path


FIGURES = {
    "supervised": {"negative_sdr", "silence"},
    "unsupervised": {"url", "silence", "url_known", "url_held"},
    "weak": {"url", "crl", "cnt", "cnt_accuracy", "silence", "url_known", "url_held"},
    "semi": {"negative_sdr", "silence", "weak_silence", "url", "crl", "cnt", "url_known", "url_held"},
}


@pytest.mark.parametrize("mode", FIGURES)
def test_each_mode_trains_and_logs_what_would_show_its_failures(
    folder: Path, toy_sounds: Path, tmp_path: Path, mode: str
) -> None:
    assert main([str(configure(folder, toy_sounds, mode)), "--out", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = {name: value for row in rows for name, value in row.items()}
    assert FIGURES[mode] <= set(logged) and np.isfinite(list(logged.values())).all()
    assert {"sdri", "sir", "sar", "gradient_norm"} <= set(logged)
    assert ("cnt" in logged) == (mode in ("weak", "semi"))
    last = [row for row in rows if any(name.startswith("gradient_share_") for name in row)][-1]
    shares = {name: value for name, value in last.items() if name.startswith("gradient_share_")}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4) and min(shares.values()) > 0


def test_a_killed_weak_run_goes_on_as_if_nothing_had_been(
    folder: Path, toy_sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(configure(folder, toy_sounds, "weak"))
    assert main([config, "--out", str(tmp_path / "whole")]) == 0
    step = loop.Loop._step

    def stepped(self: loop.Loop, batch: object) -> object:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop.Loop, "_step", stepped)
    with pytest.raises(KeyboardInterrupt):
        main([config, "--out", str(tmp_path / "cut")])
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    assert main([config, "--out", str(tmp_path / "cut")]) == 0
    whole, cut = (checkpoint.load(tmp_path / run / "checkpoint.pt")["model"] for run in ("whole", "cut"))
    for name, value in whole.items():
        assert torch.allclose(value, cut[name], atol=1e-6), name


class Untouchable:
    """A pack that cannot be touched."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"a weak mode reached for the pack's {name}")


@pytest.mark.parametrize("mode", ["weak", "unsupervised"])
def test_the_weak_modes_do_not_touch_the_pack(
    folder: Path, toy_sounds: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(TrainConfig, configure(folder, toy_sounds, mode))
    recordings = open_recordings(config, 32_000)
    prompts = PromptTable.build(Path(config.embedder), known_prompts(config, recordings))
    monkeypatch.setattr("training.train.read_phrases", lambda _: pytest.fail("labels are not for a weak mode"))
    made, sampler = recipe(config, Untouchable(), recordings, prompts)  # type: ignore[arg-type]
    assert isinstance(made, Weak) and isinstance(sampler, WeakSampler)
    assert set(made.weights) == ({"url", "silence"} if mode == "unsupervised" else set(config.weak_losses))
    assert sampler.sample(0).mixture.shape == (2, 9600)
    assert not any(isinstance(value, Pack | Untouchable) for value in vars(sampler).values())


def test_semi_takes_the_share_of_singles_that_is_asked_for(folder: Path, toy_sounds: Path, toy_pack: Pack) -> None:
    path = configure(folder, toy_sounds, "semi")
    path.write_text(path.read_text().replace("[mixing]", "[mixing]\nknown = 0.75"))
    config = read_config(TrainConfig, path)
    recordings = open_recordings(config, 32_000)
    prompts = PromptTable.build(Path(config.embedder), known_prompts(config, recordings))
    made, sampler = recipe(config, toy_pack, recordings, prompts)
    assert isinstance(made, Semi) and isinstance(sampler, SemiSampler)
    singles = getattr(sampler.singles, "by_label")  # noqa: B009
    assert sum(len(group) for group in singles.values()) == 9 == round(0.75 * 12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("mode = ", "mode = 'blind' #"), "mode must be one of"),
        (("recordings = ", "recordings = '' #"), "needs recordings"),
        (("recordings = ", "recordings = '/nowhere' #"), "got '/nowhere'"),
        (("url = 1.0", "uurl = 1.0"), "uurl"),
        (("held = 2", "mixtures = 9"), "mixture of 9 needs as many recordings"),
    ],
)
def test_what_cannot_run_is_said(
    folder: Path, toy_sounds: Path, change: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(folder, toy_sounds, "weak")
    path.write_text(path.read_text().replace(*change))
    assert main([str(path), "--out", str(folder / "none")]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "none").exists()
