"""The evaluation from the command line to its files, with toy sounds and an untrained toy network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from model.network import build
from model.spec import NetworkSpec, SignalSpec
from training import checkpoint, separators
from training import evaluate as program
from training.cases import cases_of_folder, cases_of_list, with_absent
from training.evaluate import EvaluateConfig, evaluate, main
from training.manifest import read_phrases
from training.score import score

SIGNAL = SignalSpec()


class MixtureBack:
    """Hands the mixture back for every prompt; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def separate(
        self, waveform: np.ndarray, sample_rate: int, prompts: list[str], *, exhaustive: bool = False
    ) -> np.ndarray:
        self.asked.append(prompts)
        return np.stack([waveform] * len(prompts))


class Knowing:
    """Gives each present sound exactly, and a hundredth of the mixture for what is absent."""

    def __init__(self, answers: dict[str, np.ndarray]) -> None:
        self.answers = answers

    def separate(
        self, waveform: np.ndarray, sample_rate: int, prompts: list[str], *, exhaustive: bool = False
    ) -> np.ndarray:
        return np.stack([self.answers.get(prompt, 0.01 * waveform) for prompt in prompts])


@pytest.fixture
def model(tmp_path: Path, toy_sounds: Path) -> tuple[Path, Path]:
    """An untrained checkpoint and an embedder of random vectors for every phrase of the toys."""
    network = NetworkSpec(
        channels=(4, 6, 8), head_levels=1, decoder_channels=(4, 6), mask_maps=2, attention_heads=2,
        token_features=8, embedding_features=8,
    )  # fmt: skip
    torch.manual_seed(0)
    weights = build(network, SIGNAL).state_dict()
    path = tmp_path / "toy" / "checkpoint.pt"
    checkpoint.save(path, {"network": network.to_json(), "signal": SIGNAL.to_json(), "model": weights, "ema": weights})
    phrases = sorted({phrase for group in read_phrases(toy_sounds).values() for phrase in group})
    vectors = np.random.default_rng(0).normal(size=(len(phrases), 8)).astype(np.float32)
    np.savez(tmp_path / "embedder.npz", phrases=np.array(phrases), pooled=vectors)
    return path, tmp_path / "embedder.npz"


def config_of(model: tuple[Path, Path], sounds: Path, out: Path, **changes: Any) -> EvaluateConfig:
    settings: dict[str, Any] = {
        "model": str(model[0]), "embedder": str(model[1]), "sounds": str(sounds), "json": str(out), "rate": 32_000,
        "threads": 1,
    }  # fmt: skip
    return EvaluateConfig(**{**settings, **changes})


def test_the_mixture_handed_back_scores_what_the_definitions_say(toy_sounds: Path) -> None:
    cases = cases_of_list(toy_sounds / "mixtures-valid-2.jsonl", toy_sounds, 32_000)
    (case,) = with_absent(cases[:1], read_phrases(toy_sounds), 2, {})
    row = score(case, MixtureBack(), SIGNAL, bss=False)
    assert [sound["label"] for sound in row["present"]] == ["low tone", "hiss"]
    for sound in row["present"]:
        assert sound["sdri"] == 0.0 and sound["si_sdri"] == 0.0
        assert sound["sdr"] == sound["input_sdr"]
        assert sound["oracle_phase_sensitive_sdri"] > 3.0
    assert [sound["energy_left"] for sound in row["absent"]] == [0.0, 0.0]


def test_perfect_answers_and_faint_leaks_score_what_the_definitions_say(toy_sounds: Path) -> None:
    cases = cases_of_list(toy_sounds / "mixtures-valid-2.jsonl", toy_sounds, 32_000)
    (case,) = with_absent(cases[:1], read_phrases(toy_sounds), 1, {"beep": "toys"})
    scene = case.load()
    np.testing.assert_allclose(scene.sources.sum(0), scene.mixture, atol=1e-6)
    answers = {prompt.prompt: source for prompt, source in zip(case.present, scene.sources, strict=True)}
    row = score(case, Knowing(answers), SIGNAL, bss=True)
    for sound in row["present"]:
        assert sound["sdr"] > 80.0
        assert sound["bss_sdr"] > 60.0 and sound["bss_sir"] > 60.0
    assert row["absent"][0]["energy_left"] == pytest.approx(-40.0, abs=1e-4)


def test_absent_prompts_are_absent_and_depend_on_the_id_alone(toy_sounds: Path) -> None:
    cases = cases_of_list(toy_sounds / "mixtures-valid-2.jsonl", toy_sounds, 32_000)
    phrases = read_phrases(toy_sounds)
    drawn = with_absent(cases, phrases, 3, {})
    assert [case.absent for case in drawn] == [
        case.absent for case in reversed(with_absent(cases[::-1], phrases, 3, {}))
    ]
    for case in drawn:
        labels = [prompt.label for prompt in case.absent]
        assert len(set(labels)) == 3 and not set(labels) & {prompt.label for prompt in case.present}
        assert all(prompt.prompt in phrases[prompt.label] for prompt in case.absent)
    with pytest.raises(ValueError, match="5 absent prompts need as many other labels, got 4"):
        with_absent(cases, phrases, 5, {})


def test_a_checkpoint_is_scored_from_the_command_line(
    model: tuple[Path, Path], toy_sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(model[0]), "--embedder", str(model[1]), "--sounds", str(toy_sounds), "--rate", "32000"]
    arguments += [
        "--json",
        str(tmp_path / "out.json"),
        "--plots",
        str(tmp_path / "plots"),
        "--labels",
        "--workers",
        "2",
        "--threads",
        "1",
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "SDRi" in printed and "toys" in printed and "low tone" in printed and "energy left" in printed
    result = json.loads((tmp_path / "out.json").read_text())
    overall = result["present"]["all"]
    assert (overall["sdri"]["values"], overall["sdri"]["mixtures"]) == (6, 3)
    assert overall["sdri"]["low"] < overall["sdri"]["mean"] < overall["sdri"]["high"]
    assert overall["sdri"]["mean"] == pytest.approx(overall["sdr"]["mean"] - overall["input_sdr"]["mean"])
    assert set(result["present"]["by_label"]) == {"low tone", "hiss", "high tone", "beep", "hum"}
    assert result["present"]["by_source"]["toys"] == overall
    assert result["absent"]["all"]["energy_left"]["values"] == 3
    for name in ("sdri-per-label.png", "input-snr-sdri.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_and_ends_alike(
    model: tuple[Path, Path], toy_sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(config_of(model, toy_sounds, tmp_path / "whole.json"))
    config = config_of(model, toy_sounds, tmp_path / "cut.json")
    real, calls = program.score, []

    def dying(case: Any, *rest: Any, **options: Any) -> Any:
        calls.append(case.id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(case, *rest, **options)

    monkeypatch.setattr(program, "score", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    rows = tmp_path / "cut.rows.jsonl"
    with rows.open("a") as file:
        file.write('{"id": "toy-1", "pres')  # what a kill amid a write leaves
    calls.clear()
    monkeypatch.setattr(program, "score", lambda case, *rest, **o: calls.append(case.id) or real(case, *rest, **o))
    resumed = evaluate(config)
    assert calls == ["toy-1", "toy-2"]
    assert resumed["present"] == whole["present"] and resumed["absent"] == whole["absent"]
    calls.clear()
    evaluate(config)
    assert calls == []
    evaluate(config_of(model, toy_sounds, tmp_path / "cut.json", absent=2))  # another question: begun anew
    assert calls == ["toy-0", "toy-1", "toy-2"]


def test_bss_eval_is_added_to_rows_that_lack_it(model: tuple[Path, Path], toy_sounds: Path, tmp_path: Path) -> None:
    evaluate(config_of(model, toy_sounds, tmp_path / "out.json"))
    with_bss = evaluate(config_of(model, toy_sounds, tmp_path / "out.json", bss=1))
    assert with_bss["present"]["all"]["bss_sdr"]["mixtures"] == 1
    without = evaluate(config_of(model, toy_sounds, tmp_path / "out.json", limit=2))
    assert without["mixtures"] == 2 and "bss_sdr" not in without["present"]["all"]


def test_the_mask_is_the_networks_whatever_the_company(model: tuple[Path, Path]) -> None:
    separator, signal = separators.open_separator(model[0], model[1], ["the hiss", "beep"], threads=1)
    assert signal == SIGNAL
    sound = np.random.default_rng(0).normal(size=(2, 20_000)).astype(np.float32)
    both = separator.separate(sound, 44_100, ["the hiss", "beep"])
    assert both.shape == (2, 2, 20_000)
    np.testing.assert_allclose(both[1], separator.separate(sound, 44_100, ["beep"])[0], atol=1e-5)


def test_sounds_that_are_all_named_share_the_mixture(
    model: tuple[Path, Path], toy_sounds: Path, tmp_path: Path
) -> None:
    separator, _ = separators.open_separator(model[0], model[1], ["the hiss", "beep"], threads=1)
    sound = np.random.default_rng(0).normal(size=(2, 20_000)).astype(np.float32)
    shared = separator.separate(sound, 44_100, ["the hiss", "beep"], exhaustive=True)
    assert np.abs(shared.sum(axis=0) - sound).max() < 0.02 * np.abs(sound).max()
    alone = evaluate(config_of(model, toy_sounds, tmp_path / "out.json", absent=0))
    named = evaluate(config_of(model, toy_sounds, tmp_path / "out.json", absent=0, exhaustive=True))  # asked anew
    assert named["present"]["all"]["sdri"]["mean"] != alone["present"]["all"]["sdri"]["mean"]


def write_folder(folder: Path, *, rate: int = 16_000) -> Path:
    rng = np.random.default_rng(0)
    for number in range(2):
        inner = folder / f"take-{number}"
        inner.mkdir(parents=True)
        dog, rest = 0.1 * rng.normal(size=(2, rate // 2, 2))
        soundfile.write(inner / "mixture.wav", dog + rest, rate, subtype="FLOAT")
        soundfile.write(inner / "dog_barking.wav", dog, rate, subtype="FLOAT")
        if number:
            soundfile.write(inner / "rain.flac", np.zeros_like(dog), rate)
    return folder


def test_a_folder_of_mixtures_keeps_rate_and_channels(tmp_path: Path) -> None:
    cases = with_absent(cases_of_folder(write_folder(tmp_path / "takes")), {"cat": ("a cat",)}, 1, {})
    assert [prompt.prompt for prompt in cases[1].present] == ["dog barking", "rain"]
    separator = MixtureBack()
    row = score(cases[0], separator, SIGNAL, bss=True)
    assert separator.asked == [["dog barking", "a cat"]]
    assert row["present"][0]["sdri"] == 0.0
    assert row["present"][0]["input_sdr"] == pytest.approx(0.0, abs=0.3)
    assert abs(row["present"][0]["bss_sir"]) < 1.0  # the unnamed rest is what interferes
    silent = score(cases[1], separator, SIGNAL, bss=True)["present"][1]
    assert silent["bss_sdr"] is None and math.isfinite(silent["sdr"])


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "takes")
    soundfile.write(folder / "take-0" / "cat.wav", np.zeros(10), 16_000)
    with pytest.raises(ValueError, match=r"cat\.wav must have its mixture's 16000 Hz"):
        cases_of_folder(folder)[0].load()
    with pytest.raises(ValueError, match="no sub-folder with a mixture"):
        cases_of_folder(folder / "take-0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere"], "no model nowhere"),
        (["--absent", "-1"], "absent must be at least 0, got -1"),
        (["--list", "none.jsonl"], "none.jsonl"),
        (["--embedder", ""], "needs --embedder"),
    ],
)
def test_what_cannot_run_says_why(
    model: tuple[Path, Path], toy_sounds: Path, tmp_path: Path, options: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = ["--model", str(model[0]), "--embedder", str(model[1]), "--sounds", str(toy_sounds)]
    assert main([*base, "--json", str(tmp_path / "out.json"), *options]) == 2
    assert said in capsys.readouterr().err


def test_the_shipped_config_is_one() -> None:
    from training.config import read_config

    path = Path(program.__file__).with_name("configs") / "evaluate.toml"
    assert read_config(EvaluateConfig, path).model == "model/default"
