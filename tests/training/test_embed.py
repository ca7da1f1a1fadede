"""The audio tower's training: its loss, its crops, its figures, and a kill that costs nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextTokenizer
from model.spec import SignalSpec
from tests.training.conftest import LABELS
from training.config import read_config
from training.contrast import AudioTraining, multi_positive_infonce
from training.crops import BandPack, CropConfig, CropSampler
from training.dataset import Pack
from training.embed import EmbedConfig, judge_text, main
from training.manifest import read_phrases
from training.mixing import known_clips
from training.naming import cosine, retrieval, zero_shot

CONFIG = """
sounds = "{sounds}"
cache = "{cache}"
out = "{out}"
threads = 1
bf16 = false

[text]
vocabulary = 60
table_features = 8
features = 8
layers = 1
heads = 2
embedding_features = 8

[audio]
channels = [4, 4, 6, 6, 6]
hidden = 8
pooling_heads = 2
embedding_features = 8

[crops]
batch = 6
seconds = [0.3, 0.5]
speeds = [1.0]

[contrast]
steps = 8
checkpoint_every = 3
validate_every = 5
crops = 2
seconds = 0.5
"""


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def config_file(toy_sounds: Path, tmp_path: Path) -> Path:
    path = tmp_path / "embed.toml"
    cache = toy_sounds.parent / "cache"
    path.write_text(CONFIG.format(sounds=toy_sounds, cache=cache, out=tmp_path / "out"))
    config = read_config(EmbedConfig, path)
    phrases = [phrase for group in read_phrases(toy_sounds).values() for phrase in group]
    tokenizer = TextTokenizer.train(phrases, vocabulary=60, max_tokens=48)
    torch.manual_seed(0)
    CompactEmbedder(tokenizer, config.text, config.audio, config.signal).save(tmp_path / "out")
    return path


def test_infonce_of_one_positive_each_is_the_closed_form() -> None:
    # Two sounds, two texts at right angles, each on its own: both directions log(1 + exp(-scale)).
    axes = torch.eye(2)
    loss = multi_positive_infonce(axes, axes, torch.eye(2, dtype=torch.bool), 3.0)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-3.0)), rel=1e-6)


def test_infonce_of_many_positives_is_the_mean_over_them() -> None:
    audio, text = unit(4, 8, seed=1), unit(3, 8, seed=2)
    positive = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0]], dtype=torch.bool)
    logits = (7.0 * audio @ text.t()).double()

    def direction(scores: torch.Tensor, mask: torch.Tensor) -> float:
        rows = []
        for score, row in zip(scores, mask, strict=True):
            terms = [float(torch.logsumexp(score, 0) - score[column]) for column in range(len(row)) if row[column]]
            rows.append(sum(terms) / len(terms))
        return sum(rows) / len(rows)

    want = 0.5 * (direction(logits, positive) + direction(logits.t(), positive.t()))
    assert float(multi_positive_infonce(audio, text, positive, 7.0)) == pytest.approx(want, rel=1e-5)


def test_a_text_of_no_sound_is_a_negative_and_not_a_row() -> None:
    audio, text = torch.eye(2), torch.eye(3)[:, :2]
    positive = torch.eye(2, 3, dtype=torch.bool)
    loss = float(multi_positive_infonce(audio, text, positive, 2.0))
    to_text = math.log(math.exp(2) + 2) - 2  # its own, another, and the text of no sound at cosine 0
    to_audio = math.log(math.exp(2) + 1) - 2
    assert loss == pytest.approx(0.5 * (to_text + to_audio), rel=1e-6)


def test_zero_shot_and_retrieval_of_known_vectors() -> None:
    text = torch.eye(3)
    audio = functional.normalize(torch.tensor([[1.0, 0.2, 0], [0.1, 1, 0], [0.9, 0, 0.5]]), dim=1)
    figures = zero_shot(audio=audio, labels=torch.tensor([0, 1, 2]), text=text, groups=["a", "a", "b"])
    assert figures == {"all": pytest.approx(2 / 3), "a": 1.0, "b": 0.0}
    assert retrieval(queries=text, labels=torch.tensor([0, 1, 0]), candidates=text) == pytest.approx(2 / 3)
    assert cosine(one=text, other=-text) == -1.0


def test_crops_are_the_same_for_the_same_step_and_made_of_their_labels(toy_sounds: Path) -> None:
    cache = toy_sounds.parent / "cache"
    bands = BandPack.open(Pack.open(toy_sounds, cache), SignalSpec(), cache, (1.0,))
    labels = sorted(LABELS)
    plain = CropConfig(batch=8, seconds=(0.4, 0.4), speeds=(1.0,), mixed=0, noisy=0, masked=0, colour_db=0)
    sampler = CropSampler(bands, plain, labels, seed=1)
    crops, rows = sampler.sample(5)
    again, _ = CropSampler(bands, plain, labels, seed=1).sample(5)
    assert torch.equal(crops, again) and not torch.equal(crops, sampler.sample(6)[0])
    assert crops.shape == (8, 128, 40) and torch.isfinite(crops).all()
    peak = {label: int(bands.energy(clip, 0, 0, 999).sum(0).argmax()) for clip, label in _first_clips(bands).items()}
    assert rows.shape == (8, 1), "one sound a crop"
    for crop, row in zip(crops, rows[:, 0].tolist(), strict=True):
        if labels[row] != "hiss":
            assert abs(int(crop.square().sum(1).argmax()) - peak[labels[row]]) <= 1


def _first_clips(bands: BandPack) -> dict[int, str]:
    first = {clip.label: index for index, clip in reversed(list(enumerate(bands.pack.clips)))}
    return {index: label for label, index in first.items()}


def test_a_pair_has_both_labels_and_both_sound(toy_sounds: Path) -> None:
    cache = toy_sounds.parent / "cache"
    bands = BandPack.open(Pack.open(toy_sounds, cache), SignalSpec(), cache, (1.0,))
    labels = sorted(LABELS)
    plain = CropConfig(
        batch=12, seconds=(0.4, 0.4), speeds=(1.0,), mixed=0, noisy=0, masked=0, colour_db=0, paired=True
    )
    crops, rows = CropSampler(bands, plain, labels, seed=1).sample(0)
    assert rows.shape == (12, 2)
    peak = {label: int(bands.energy(clip, 0, 0, 999).sum(0).argmax()) for clip, label in _first_clips(bands).items()}
    for crop, row in zip(crops, rows.tolist(), strict=True):
        energy = crop.square().sum(dim=1)
        for label in {labels[place] for place in row} - {"hiss"}:
            place = peak[label]
            # Within 5 dB of each other over the crop, so each holds a share of the energy around its pitch.
            assert float(energy[max(0, place - 3) : place + 4].sum() / energy.sum()) > 0.1


def test_leaky_crops_hold_their_sound_and_some_of_the_others(toy_sounds: Path) -> None:
    cache = toy_sounds.parent / "cache"
    bands = BandPack.open(Pack.open(toy_sounds, cache), SignalSpec(), cache, (1.0,))
    labels = sorted(LABELS)
    peak = {label: int(bands.energy(clip, 0, 0, 999).sum(0).argmax()) for clip, label in _first_clips(bands).items()}

    def own_share(**changes: float) -> float:
        settings = {"mixed": 0.0, "noisy": 0.0, "masked": 0.0, "colour_db": 0.0, **changes}
        config = CropConfig(batch=60, seconds=(0.4, 0.4), speeds=(1.0,), **settings)  # type: ignore[arg-type]
        crops, rows = CropSampler(bands, config, labels, seed=1).sample(0)
        assert torch.isfinite(crops).all() and (crops >= 0).all()
        shares = []
        for crop, row in zip(crops, rows[:, 0].tolist(), strict=True):
            if labels[row] != "hiss":
                energy, place = crop.square().sum(dim=1), peak[labels[row]]
                shares.append(float(energy[max(0, place - 3) : place + 4].sum() / energy.sum()))
        return float(np.mean(shares))

    alone, masked, leaky = own_share(), own_share(leaky=1.0, leak=0.0), own_share(leaky=1.0, leak=0.6)
    assert alone > 0.95, "a tone has its energy around its pitch"
    assert alone > masked > leaky > 0.3, "an ideal mask leaves little of the others, an unsure one more"


def test_known_leaves_a_share_of_the_clips(toy_sounds: Path) -> None:
    cache = toy_sounds.parent / "cache"
    pack = Pack.open(toy_sounds, cache)
    bands = BandPack.open(pack, SignalSpec(), cache, (1.0,))
    made = CropSampler(bands, CropConfig(speeds=(1.0,), known=0.5), sorted(LABELS), seed=1)
    assert sorted(clip for group in made.by_label.values() for clip in group) == known_clips(pack, "", 0.5)


def test_augmented_crops_are_finite_and_no_clip_is_an_error(toy_sounds: Path) -> None:
    cache = toy_sounds.parent / "cache"
    bands = BandPack.open(Pack.open(toy_sounds, cache), SignalSpec(), cache, (1.0,))
    sampler = CropSampler(bands, CropConfig(batch=16, mixed=1, noisy=1, masked=1), sorted(LABELS), seed=1)
    assert torch.isfinite(sampler.sample(0)[0]).all()
    with pytest.raises(ValueError, match="no training clip of part 'nowhere'"):
        CropSampler(bands, CropConfig(part="nowhere"), sorted(LABELS), seed=1)


def test_a_killed_run_goes_on_as_if_it_had_not_been(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = config_file.parent / "out"
    saved = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([str(config_file), "--stage", "audio"]) == 0
    whole = torch.load(out / "audio-checkpoint.pt", weights_only=True)
    figures = json.loads((out / "figures.json").read_text())
    assert {"zero-shot by name, all", "zero-shot by mean of phrases, toys"} <= set(figures)
    trained = CompactEmbedder.load(out)

    for path in out.iterdir():
        path.unlink()
    for name, data in saved.items():
        (out / name).write_bytes(data)
    step = AudioTraining._step

    def dies(self: AudioTraining, *batch: torch.Tensor) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(AudioTraining, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        main([str(config_file), "--stage", "audio"])
    monkeypatch.undo()
    assert main([str(config_file), "--stage", "audio"]) == 0
    resumed = torch.load(out / "audio-checkpoint.pt", weights_only=True)
    np.testing.assert_array_equal(resumed["curve"], whole["curve"])
    again = CompactEmbedder.load(out)
    for one, other in zip(again.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_unseen_phrases_are_judged_apart_from_those_that_hold_the_name(config_file: Path) -> None:
    embedder = CompactEmbedder.load(config_file.parent / "out")
    figures = judge_text(embedder, {"hum": ("hum", "a hum"), "beep": ("beep",)}, {"hum": ("the hum", "low drone")})
    assert figures["unseen phrases, count"] == 2 and figures["unseen phrases in other words, count"] == 1


def test_mistakes_are_said_and_not_thrown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.toml")]) == 2
    assert "no config file" in capsys.readouterr().err
    (tmp_path / "bad.toml").write_text('stage = "both"')
    assert main([str(tmp_path / "bad.toml")]) == 2
    assert "stage must be one of" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "--teacher" in capsys.readouterr().out


def test_the_shipped_config_reads() -> None:
    path = Path(__file__).parents[2] / "training" / "configs" / "embed.toml"
    assert read_config(EmbedConfig, path).stage == "all"
