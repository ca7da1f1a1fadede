"""Two processes learn what one learns from the same global batch: every step's losses, and the weights at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.embedder.audio import AudioConfig
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.spec import SignalSpec
from tests.training.conftest import LABELS
from training import checkpoint, loop
from training.config import TrainConfig, read_config
from training.dataset import Pack
from training.manifest import read_phrases
from training.mixing import MixingConfig, SingleSourceSampler
from training.parallel import Ranks
from training.prompts import PromptTable
from training.train import known_prompts, main, open_recordings, recipe

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4
CONFIG = """
sounds = "{sounds}"
cache = "{sounds}/../parallel-cache"
embedder = "{folder}/embedder"
recordings = "{folder}/recordings"
device = "cpu"
threads = 1
bf16 = false
steps = 4
checkpoint_every = 1
validate_every = 4
validation_limit = 1
prompt_noise = 0.3

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
seconds = 0.63
batch = 4
absent = 0.3

[weak_losses]
url = 1.0
crl = 0.5
cnt = 0.5
whole = 0.1
silence = 0.03

[weak]
warmup = -1.0
ramp = 0.0
bank = 5
gain = true
colour_db = 3.0

[weak_mixing]
seconds = 0.63
batch = 4
absent = 1
alike = 2.0
held = 2

[optimiser]
warmup_steps = 2
learning_rate = 0.0003
"""


def write_recordings(folder: Path) -> None:
    """Eight noises of a second, of one to three phrases, in the layout that ``training.rendered`` writes."""
    labels = list(LABELS)
    named = [[f"the {labels[(number + place) % 6]}" for place in range(1 + number % 3)] for number in range(8)]
    samples = np.random.default_rng(1).normal(scale=2000.0, size=8 * 32_000) * np.repeat(1 + np.arange(8) % 3, 32_000)
    folder.mkdir()
    samples.astype("<i2").tofile(folder / "mixtures.pcm")
    offsets = [32_000 * number for number in range(9)]
    captions = [" and ".join(phrases) for phrases in named]
    index = {"sample_rate": 32_000, "offsets": offsets, "captions": captions, "phrases": named}
    (folder / "mixtures.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def config(toy_sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    write_recordings(folder / "recordings")
    tokenizer = TextTokenizer.train([f"the {label}" for label in LABELS], vocabulary=60, max_tokens=48)
    text = TextConfig(vocabulary=60, table_features=8, features=8, layers=1, heads=2, embedding_features=8)
    audio = AudioConfig(channels=(4, 4, 6, 6, 6), hidden=8, pooling_heads=2, embedding_features=8)
    torch.manual_seed(0)
    CompactEmbedder(tokenizer, text, audio, SignalSpec()).save(folder / "embedder")
    path = folder / "config.toml"
    path.write_text(CONFIG.format(sounds=toy_sounds, folder=folder))
    return path


FAILS_IN_THE_SECOND = """
import os, sys
from training import loop, train

step = loop.Loop._step

def stepped(self, batch):
    if self.step == 2 and os.environ["RANK"] == "1":
        raise RuntimeError("a disk of the second process is gone")
    return step(self, batch)

loop.Loop._step = stepped
sys.exit(train.main())
"""


def two_processes(config: Path, out: Path, *program: str) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, *(program or ("-m", "training.train")), str(config), "--out", str(out)]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment = {**alone, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=out.parent, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def in_mode(config: Path, folder: Path, mode: str, more: str = "") -> Path:
    path = folder / f"{mode}.toml"
    path.write_text(f'mode = "{mode}"\n{more}\n{config.read_text()}')
    return path


def rows(out: Path, figure: str) -> list[dict[str, float]]:
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in logged if figure in row]


def assert_the_same_run(one: Path, two: Path, names: set[str]) -> None:
    first, second = rows(one, "gradient_norm"), rows(two, "gradient_norm")
    assert [row["step"] for row in second] == [row["step"] for row in first] == list(range(1, STEPS + 1))
    for mine, theirs in zip(first, second, strict=True):
        assert names <= set(mine)
        for name in names | {"gradient_norm"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-6), (mine["step"], name)
    ends = [checkpoint.load(out / "checkpoint.pt") for out in (one, two)]
    for kind in ("model", "ema"):
        assert list(ends[0][kind]) == list(ends[1][kind])
        for name, value in ends[0][kind].items():
            difference = float((value - ends[1][kind][name]).abs().max())
            assert difference < 1e-4, (kind, name, difference)
    (known,), (validated,) = rows(one, "sdri"), rows(two, "sdri")
    assert validated["sdri"] == pytest.approx(known["sdri"], abs=1e-3)


def test_supervised_losses_and_weights_are_those_of_one_process(config: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    supervised = in_mode(config, tmp_path, "supervised")
    assert main([str(supervised), "--out", str(one)]) == 0
    done = two_processes(supervised, two)
    assert done.returncode == 0, done.stderr
    assert_the_same_run(one, two, {"negative_sdr", "silence"})


def test_weak_losses_and_negatives_are_those_of_one_process(config: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    weak = in_mode(config, tmp_path, "weak")
    assert main([str(weak), "--out", str(one)]) == 0
    done = two_processes(weak, two)
    assert done.returncode == 0, done.stderr
    # Each rank has 4 of the 8 recordings of a step: a matrix of its own predictions alone would give another CNT.
    assert_the_same_run(one, two, {"url", "crl", "cnt", "cnt_accuracy", "whole", "silence"})


def test_two_processes_go_on_where_one_was_killed(config: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    semi = in_mode(config, tmp_path, "semi")
    assert main([str(semi), "--out", str(one)]) == 0

    class Killed(Exception):
        pass

    step = loop.Loop._step

    def die_in_the_third(self: loop.Loop, batch: object) -> object:
        if self.step == 2:
            raise Killed
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Loop, "_step", die_in_the_third)
        main([str(semi), "--out", str(two)])
    done = two_processes(semi, two)
    assert done.returncode == 0, done.stderr
    assert_the_same_run(one, two, {"negative_sdr", "silence", "url", "crl", "cnt", "whole", "weak_silence"})


def test_a_process_that_fails_ends_the_other(config: Path, tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILS_IN_THE_SECOND)
    done = two_processes(in_mode(config, tmp_path, "supervised"), tmp_path / "out", str(program))
    assert done.returncode != 0
    assert "a disk of the second process is gone" in done.stderr
    assert checkpoint.load(tmp_path / "out" / "checkpoint.pt")["step"] == 2


def test_shares_of_a_batch_are_its_rows(toy_pack: Pack, toy_sounds: Path) -> None:
    mixing = MixingConfig(seconds=0.5, batch=6)
    shares = [Ranks(rank, 3).share(6, "mixing.batch") for rank in range(3)]
    phrases = read_phrases(toy_sounds)
    whole = SingleSourceSampler(toy_pack, phrases, mixing, seed=2).sample(5)
    parts = [SingleSourceSampler(toy_pack, phrases, mixing, seed=2, share=share).sample(5) for share in shares]
    assert np.array_equal(np.concatenate([part.mixture for part in parts]), whole.mixture)
    assert [row for part in parts for row in part.prompts] == whole.prompts


def test_a_batch_that_cannot_be_shared_is_refused_with_its_key(config: Path, tmp_path: Path, toy_pack: Pack) -> None:
    for mode, key in (("supervised", "mixing.batch"), ("weak", "weak_mixing.batch"), ("semi", "weak_mixing.batch")):
        run = read_config(TrainConfig, in_mode(config, tmp_path, mode))
        recordings = open_recordings(run, 32_000)
        prompts = PromptTable.build(Path(run.embedder), known_prompts(run, recordings))
        with pytest.raises(ValueError, match=f"^{key} must be a multiple of the 3 processes, got 4"):
            recipe(run, toy_pack, recordings, prompts, Ranks(1, 3))


def test_ranks_draw_the_rows_of_one_draw() -> None:
    def draw(rank: int, world: int) -> torch.Tensor:
        torch.manual_seed(7)
        return Ranks(rank, world).draw(torch.randn, 4 // world, 3, device=torch.device("cpu"))

    assert torch.equal(torch.cat([draw(0, 2), draw(1, 2)]), draw(0, 1))
