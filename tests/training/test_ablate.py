"""Two arms end to end at toy size: trained, scored, put on a page; what is finished or killed is gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.test_loop import configure
from training import checkpoint, embed, train
from training.ablate import main
from training.ablation_page import BEGIN, END
from training.ablation_run import in_a_process
from training.lists import main as make_list

PLAN = """
bss = 1
{extra}
[[recordings]]
folder = "{folder}/rendered"
list = "{folder}/train-2.jsonl"
phrases = "caption"

{base}
[base.weak_mixing]
seconds = 0.63
batch = 1
mixtures = 2
held = 2

[arms.first]
title = "singles"
number = 1
[arms.second]
title = "mixtures"
number = 2
mode = "unsupervised"
recordings = "{folder}/rendered"
after = "first"

[[compare]]
name = "mixtures over singles"
of = "second"
to = "first"
[[gap]]
name = "toy"
supervised = "first"
unsupervised = "second"
weak = "second"
"""


class Runs:
    """Runs trainings in this process and counts them; dies at the one that is told."""

    def __init__(self, die_at: int = 0) -> None:
        self.commands: list[str] = []
        self.die_at = die_at

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(" ".join(command))
        if len(self.commands) == self.die_at:
            raise KeyboardInterrupt
        program = {"training.train": train.main, "training.embed": embed.main}[command[2]]
        if program(list(command[3:])):
            raise ValueError(f"{command} failed")


@pytest.fixture
def plan(toy_sounds: Path, tmp_path: Path) -> Path:
    """The plan's file, beside it the mixture list that its second arm hears and a page."""
    lines = configure(tmp_path, toy_sounds, 2).read_text().strip().splitlines()
    tables = ["[base]", *(line.replace("[", "[base.") if line.startswith("[") else line for line in lines)]
    listed = ["--sources", "2", "--count", "6", "--split", "train", "--sounds", str(toy_sounds)]
    assert make_list([*listed, "--out", str(tmp_path / "train-2.jsonl")]) == 0
    phrases = {*_phrases(toy_sounds), *_captions(tmp_path / "train-2.jsonl")}
    _write_table(tmp_path / "table.npz", sorted(phrases))
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(folder=tmp_path, base="\n".join(tables), extra=""))
    (tmp_path / "page.md").write_text(f"# Results\n{BEGIN}\nold\n{END}\nThe end.\n")
    return path


def _phrases(sounds: Path) -> list[str]:
    return [phrase for group in json.loads((sounds / "phrases.json").read_text()).values() for phrase in group]


def _captions(path: Path) -> list[str]:
    from training.captions import phrases

    captions = [json.loads(line)["caption"] for line in path.read_text().splitlines()]
    return [*captions, *(phrase for caption in captions for phrase in phrases(caption))]


def _write_table(path: Path, phrases: list[str]) -> None:
    import numpy as np

    vectors = np.random.default_rng(0).normal(size=(len(phrases), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(path, phrases=np.array(phrases), pooled=vectors)


def test_two_arms_make_a_page_and_a_second_call_trains_nothing(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page = plan.parent / "out", plan.parent / "page.md"
    call = [str(plan), "--out", str(folder), "--page", str(page)]
    runs = Runs()
    assert main(call, runs) == 0
    assert [command.split("/")[-2] for command in runs.commands] == ["first", "second"]
    text = page.read_text()
    assert text.startswith("# Results\n") and text.endswith(f"{END}\nThe end.\n") and "old" not in text
    assert "| 1 | `first` | singles | 1 | 2 |" in text and "| 2 | `second` | mixtures | 1 | 2 |" in text
    assert "`second` - `first`" in text and "| toy | valid-2 |" in text
    pictures = {path.name: path.stat().st_size for path in page.with_suffix("").iterdir()}
    assert {*pictures} == {"sdri-valid-2.svg", "sir-sar-valid-2.svg", "combinations.svg", "gradient-shares.svg"}
    assert max(pictures.values()) < 60_000 and all(f"(page/{name})" in text for name in pictures)
    started = checkpoint.load(folder / "second" / "seed-1" / "checkpoint.pt")["config"]["initial"]
    assert started == str(folder / "first" / "seed-1" / "checkpoint.pt")
    capsys.readouterr()
    again = Runs()
    rows = (folder / "first" / "seed-1" / "rows-mixtures-valid-2.jsonl").read_bytes()
    assert main(call, again) == 0 and again.commands == [] and page.read_text() == text
    assert (folder / "first" / "seed-1" / "rows-mixtures-valid-2.jsonl").read_bytes() == rows
    # Tables need rows alone.
    for path in folder.glob("*/seed-1/*.pt"):
        path.unlink()
    assert main([*call, "--tables"], again) == 0 and again.commands == [] and page.read_text() == text
    sounds = [sound for line in rows.split(b"\n")[1:-1] for sound in json.loads(line)["present"]]
    assert len(sounds) == 6 and all(
        sound["sdri"] == pytest.approx(sound["sdr"] - sound["input_sdr"]) for sound in sounds
    )
    assert [sound.get("bss_sdr") is not None for sound in sounds] == [True, True, False, False, False, False]


def test_a_killed_ablation_goes_on(plan: Path) -> None:
    call = [str(plan), "--out", str(plan.parent / "out")]
    with pytest.raises(KeyboardInterrupt):
        main(call, Runs(die_at=2))
    runs = Runs()
    assert main(call, runs) == 0
    assert len(runs.commands) == 1 and "second" in runs.commands[0]


def test_another_config_is_refused_until_told_to_redo(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [str(plan), "--out", str(plan.parent / "out"), "--arms", "first"]
    runs = Runs()
    assert main(call, runs) == 0
    plan.write_text(plan.read_text().replace("learning_rate = 0.02", "learning_rate = 0.01"))
    assert main(call, runs) == 1 and len(runs.commands) == 1
    assert "config.optimiser.learning_rate: 0.02 -> 0.01" in capsys.readouterr().err
    assert main([*call, "--redo"], runs) == 0 and len(runs.commands) == 2


def test_seeds_have_folders_of_their_own_and_a_spread(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = plan.parent / "out"
    assert main([str(plan), "--out", str(out), "--arms", "first", "--seeds", "3,4", "--steps", "1"], Runs()) == 0
    states = [checkpoint.load(out / "first" / f"seed-{n}" / "checkpoint.pt") for n in (3, 4)]
    assert [(state["step"], state["config"]["seed"]) for state in states] == [(1, 3), (1, 4)]
    assert "| 1 | `first` | singles | 2, sd " in capsys.readouterr().out


def test_an_arm_runs_in_a_process_of_its_own(plan: Path) -> None:
    out = plan.parent / "out"
    assert main([str(plan), "--out", str(out), "--arms", "first", "--steps", "1"]) == 0
    assert checkpoint.load(out / "first" / "seed-1" / "checkpoint.pt")["step"] == 1
    with pytest.raises(ValueError, match="status 3"):
        in_a_process(["python", "-c", "raise SystemExit(3)"])


def test_an_arm_that_fails_leaves_the_others_to_go_on(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = '[arms.broken]\ntitle = "none"\nembedder = "nowhere.npz"\n[arms.third]\ntitle = "more"\n\n[[compare]]'
    plan.write_text(plan.read_text().replace("[[compare]]", failing, 1))

    def run(command: Sequence[str]) -> None:
        if "broken" in command[3]:
            raise ValueError("it broke")
        Runs()(command)

    assert main([str(plan), "--out", str(plan.parent / "out"), "--arms", "broken,third"], run) == 1
    streams = capsys.readouterr()
    assert "arm broken, seed 1: it broke" in streams.err and "`third`" in streams.out and "`broken`" not in streams.out


def test_a_plan_or_page_that_cannot_be_is_refused(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(plan), "--arms", "fifth"]) == 2 and "fifth" in capsys.readouterr().err
    page = plan.parent / "bare.md"
    page.write_text("no markers")
    call = [str(plan), "--tables", "--out", str(plan.parent / "out"), "--page", str(page)]
    assert main(call) == 2 and "bare.md must have" in capsys.readouterr().err
