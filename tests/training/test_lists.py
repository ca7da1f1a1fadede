"""Mixture lists of any number of sources, in the pack's own form."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from training.ablation_recordings import prepare
from training.arms import RecordingPlan
from training.captions import phrases
from training.dataset import Pack
from training.lists import SECONDS, main, make_list
from training.manifest import read_manifest, read_mixtures, read_phrases
from training.mixing import render
from training.rendered import RenderedMixtures
from training.rendered import main as render_main


def test_a_list_has_what_was_asked_for_and_can_be_rendered(toy_sounds: Path, toy_pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "four.jsonl"
    call = ["--sources", "4", "--count", "8", "--part", "separator", "--seed", "4", "--sounds", str(toy_sounds)]
    assert main([*call, "--out", str(path)]) == 0
    mixtures = read_mixtures(path)
    clips = {clip.path: clip for clip in read_manifest(toy_sounds)}
    known = read_phrases(toy_sounds)
    assert len({mixture.id for mixture in mixtures}) == 8
    for mixture in mixtures:
        assert len({source.label for source in mixture.sources}) == len(mixture.sources) == 4
        for source in mixture.sources:
            clip = clips[source.path]
            assert (clip.label, clip.split) == (source.label, "train") and source.prompt in known[source.label]
            assert abs(source.level_db) <= 5.0 and source.prompt in mixture.caption
            assert source.at + clip.seconds - source.start <= SECONDS + 0.01 or source.start + SECONDS <= clip.seconds
    heard, sources = render(mixtures[0], toy_pack, 32_000)
    assert np.allclose(heard, sources.sum(axis=0), atol=1e-6) and (np.abs(sources).max(axis=1) > 0).all()
    out = tmp_path / "rendered"
    options = ["--sounds", str(toy_sounds), "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert render_main([str(path), *options]) == 0
    rendered = RenderedMixtures(out)
    assert len(rendered) == 8 and np.abs(rendered.audio(0) - heard).max() < 2e-4


def test_the_same_seed_is_the_same_list_and_another_is_not(toy_sounds: Path) -> None:
    clips, known = read_manifest(toy_sounds), read_phrases(toy_sounds)
    made = [make_list(clips, known, sources=3, count=5, split="train", part="", seed=seed) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_labels_come_as_often_as_the_root_of_their_clips(toy_sounds: Path) -> None:
    clips = read_manifest(toy_sounds)
    many = [clip for clip in clips if clip.label == "hum" and clip.split == "train"] * 7  # 16 clips against 2
    made = make_list(clips + many, read_phrases(toy_sounds), sources=1, count=4000, split="train", part="", seed=0)
    labels = [mixture.sources[0].label for mixture in made]
    assert labels.count("hum") / 4000 == pytest.approx(np.sqrt(8) / (np.sqrt(8) + 5), abs=0.03)


def test_more_sources_than_labels_are_refused(toy_sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sources", "7", "--sounds", str(toy_sounds), "--out", "unwritten.jsonl"]) == 2
    assert "1..6" in capsys.readouterr().err and not Path("unwritten.jsonl").exists()


def test_an_ablations_recordings_are_listed_rendered_and_read_by_caption(toy_sounds: Path, tmp_path: Path) -> None:
    listed = RecordingPlan(str(tmp_path / "listed"), str(tmp_path / "list.jsonl"), sources=3, count=4)
    captioned = RecordingPlan(str(tmp_path / "captioned"), str(tmp_path / "list.jsonl"), phrases="caption")
    for plan, _ in itertools.product((listed, captioned), range(2)):
        prepare(plan, toy_sounds, tmp_path / "cache")
    one, other = RenderedMixtures(tmp_path / "listed"), RenderedMixtures(tmp_path / "captioned")
    mixtures = read_mixtures(tmp_path / "list.jsonl")
    for row, mixture in enumerate(mixtures):
        assert list(one.phrases(row)) == [source.prompt for source in mixture.sources]
        assert tuple(other.phrases(row)) == phrases(mixture.caption) and other.caption(row) == mixture.caption
        assert np.array_equal(one.audio(row), other.audio(row))
    with pytest.raises(ValueError, match="another config"):
        prepare(RecordingPlan(listed.folder, str(tmp_path / "list.jsonl"), count=9), toy_sounds, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"no mixture list .*absent.jsonl"):
        prepare(RecordingPlan(str(tmp_path / "x"), "absent.jsonl"), toy_sounds, tmp_path / "cache")
