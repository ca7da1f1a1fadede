"""Rendered mixtures: what they hold, and that training on them opens no source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.dataset import Pack
from training.manifest import read_mixtures
from training.mixing import render
from training.recordings import Recordings
from training.rendered import RenderedMixtures, main, render_list

# Training as the weak mode does it, in a process that notes every file opened after its imports.
SESSION = """
import sys
import torch
from tests.training import toy_parts as toy
from training.ear import Ear
from training.rendered import RenderedMixtures
from training.weak import Weak, WeakConfig
from training.weak_mixing import WeakMixingConfig, WeakSampler
from pathlib import Path

from model.layers import BandAnalysis
from training.parts import Parts
from training.prompts import PromptTable

torch.set_num_threads(1)
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
recordings = RenderedMixtures(Path(sys.argv[1]))
named = [recordings.phrases(i) for i in range(len(recordings))]
phrases = sorted({p for row in named for p in row} | {recordings.caption(i) for i in range(len(recordings))})
vectors = torch.eye(toy.FEATURES)[: len(phrases)]
analysis = BandAnalysis(toy.SIGNAL, recordings.sample_rate)
separator = toy.TableSeparator(torch.rand(toy.FEATURES, toy.SIGNAL.n_bands))
parts = Parts(separator, analysis, PromptTable(phrases, vectors), torch.device("cpu"), False)
parts.ear = Ear(toy.ToneEar(), analysis, bf16=False)
sampler = WeakSampler(recordings, parts.prompts, WeakMixingConfig(seconds=0.4, batch=2, absent=1), seed=0)
mode = Weak(WeakConfig(warmup=0.0, ramp=0.0), {"url": 1.0, "crl": 1.0, "cnt": 0.1, "silence": 0.1})
optimiser = torch.optim.SGD(separator.parameters(), lr=1e-3)
for step in range(3):
    outcome = mode(parts, sampler.sample(step), 1.0)
    outcome.loss.backward()
    optimiser.step()
print("\\n".join(["OPENED", *opened]))
"""


@pytest.fixture(scope="session")
def rendered(toy_sounds: Path, toy_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered")
    render_list(toy_sounds / "mixtures-valid-2.jsonl", toy_pack, out)
    return out


def test_a_rendered_mixture_is_the_sum_of_its_lines_sources(toy_sounds: Path, toy_pack: Pack, rendered: Path) -> None:
    mixtures = RenderedMixtures(rendered)
    lines = read_mixtures(toy_sounds / "mixtures-valid-2.jsonl")
    assert len(mixtures) == len(lines) and isinstance(mixtures, Recordings)
    for index, line in enumerate(lines):
        mixture, _ = render(line, toy_pack, toy_pack.sample_rate)
        # Sources were rounded to 16 bits in the decoded pack, scaled, and their sum was rounded again.
        assert np.abs(mixtures.audio(index) - mixture).max() < 4e-4
        assert mixtures.n_samples(index) == len(mixture)
        assert mixtures.caption(index) == line.caption
        assert list(mixtures.phrases(index)) == [source.prompt for source in line.sources]


def test_a_cut_is_a_part_of_the_whole_and_ends_with_it(rendered: Path) -> None:
    mixtures = RenderedMixtures(rendered)
    whole = mixtures.audio(1)
    assert np.array_equal(mixtures.audio(1, 100, 50), whole[100:150])
    assert np.array_equal(mixtures.audio(1, len(whole) - 10, 50), whole[-10:])


def test_training_on_rendered_mixtures_opens_nothing_else(toy_sounds: Path, rendered: Path) -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", SESSION, str(rendered)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    opened = {Path(name) for name in run.stdout.split("OPENED\n")[1].splitlines()}
    data = {path.name for path in opened if path.is_relative_to(rendered)}
    assert data == {"mixtures.json", "mixtures.pcm"}
    assert not [path for path in opened if path.is_relative_to(toy_sounds)]
    heard = {".wav", ".flac", ".ogg", ".mp3", ".pcm", ".bands", ".npy", ".npz", ".jsonl", ".csv"}
    assert [path for path in opened if path.suffix in heard] == [rendered / "mixtures.pcm"]


def test_a_folder_without_an_index_or_with_half_the_samples_is_refused(rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no mixtures\.json"):
        RenderedMixtures(tmp_path)
    (tmp_path / "mixtures.json").write_bytes((rendered / "mixtures.json").read_bytes())
    samples = (rendered / "mixtures.pcm").read_bytes()
    (tmp_path / "mixtures.pcm").write_bytes(samples[: len(samples) // 4 * 2])
    with pytest.raises(ValueError, match=f"must have {len(samples) // 2} samples, got {len(samples) // 4}"):
        RenderedMixtures(tmp_path)


def test_the_command_renders_and_says_what_is_wrong(
    toy_sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--sounds", str(toy_sounds), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert main(["mixtures-valid-2.jsonl", *where]) == 0
    assert len(RenderedMixtures(tmp_path / "out")) == 3
    assert main(["mixtures-none.jsonl", *where]) == 2
    assert "mixtures-none.jsonl" in capsys.readouterr().err


def test_a_list_of_unknown_clips_is_refused_and_leaves_no_folder_to_open(
    toy_sounds: Path, toy_pack: Pack, tmp_path: Path
) -> None:
    line = json.loads((toy_sounds / "mixtures-valid-2.jsonl").read_text().splitlines()[0])
    line["sources"][1]["path"] = "audio/nowhere.wav"
    stray = tmp_path / "stray.jsonl"
    stray.write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r"toy-0 names audio/nowhere\.wav"):
        render_list(stray, toy_pack, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no mixtures\.json"):
        RenderedMixtures(tmp_path / "out")
