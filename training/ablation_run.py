"""Runs an ablation's arms, each in a process: what is finished is not done again, what was killed goes on."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.embedder.compact import CompactEmbedder
from training import checkpoint
from training.ablation_record import claim, write_toml
from training.ablation_recordings import prepare
from training.arms import Arm, EarPlan, Plan, fill, merge
from training.config import TrainConfig, read_config
from training.embed import EmbedConfig

Runner = Callable[[Sequence[str]], None]


def in_a_process(command: Sequence[str]) -> None:
    """Run ``python -m ...`` with this interpreter.

    Raises:
        ValueError: it ended with another status than 0.
    """
    status = subprocess.run(
        [sys.executable, *command[1:]] if command[0] == "python" else command, check=False
    ).returncode
    if status:
        raise ValueError(f"{shlex.join(command)} ended with status {status}")


class Ablation:
    """A plan in a folder: ``out/ears/NAME`` and ``out/ARM/seed-N``.

    ``shared`` are values that win over every arm's (``steps`` of a smoke run); ``redo`` begins anew what was made with
    another config.
    """

    def __init__(
        self, plan: Plan, out: Path, *, shared: dict[str, Any] | None = None, redo: bool = False,
        run: Runner = in_a_process,
    ) -> None:  # fmt: skip
        self.plan, self.out, self.redo, self.run = plan, out, redo, run
        self.shared = shared or {}
        self.base = read_config(TrainConfig, None, plan.base)

    def folder(self, arm: Arm, seed: int) -> Path:
        """Where an arm's run lies."""
        return self.out / arm.name / f"seed-{seed}"

    def config(self, arm: Arm, seed: int) -> TrainConfig:
        """The config of an arm's run."""
        return read_config(TrainConfig, None, self._values(arm, seed))

    def train(self, arm: Arm, seed: int) -> None:
        """Bring an arm to its last step.

        Raises:
            ValueError: what it needs cannot be made, its folder belongs to another config, or its training failed.
        """
        folder, config = self.folder(arm, seed), self.config(arm, seed)
        ears, arms = self.plan.needs(arm)
        for name in ears:
            self._ear(self.plan.ears[name])
        unfinished = [name for name in arms if not self.finished(self.plan.arms[name], seed)]
        if unfinished:
            raise ValueError(f"arm {arm.name} needs {unfinished}, which are not finished")
        claim(folder, self._record(arm, seed), {"config": checkpoint.plain(TrainConfig())}, redo=self.redo)
        if self.finished(arm, seed):
            return
        self._prepare(arm, seed)
        if config.mode != "supervised":
            self._recordings(config.recordings)
        path = folder / "config.toml"
        path.write_text(write_toml(self._values(arm, seed)))
        self.run(["python", "-m", "training.train", str(path), "--out", str(folder)])

    def finished(self, arm: Arm, seed: int) -> bool:
        """Whether an arm's checkpoint is of its last step."""
        path = self.folder(arm, seed) / "checkpoint.pt"
        return path.is_file() and checkpoint.load(path)["step"] >= self.config(arm, seed).steps

    def _values(self, arm: Arm, seed: int) -> dict[str, Any]:
        values = merge(merge(self.plan.values(arm), self.shared), {"seed": seed})
        filled: dict[str, Any] = fill(values, self._folders(seed))
        return filled

    def _folders(self, seed: int) -> dict[tuple[str, str], Path]:
        folders = {("ear", name): self.out / "ears" / name for name in self.plan.ears}
        folders.update({("arm", arm.name): self.folder(arm, seed) for arm in self.plan.arms.values()})
        return {**folders, ("out", ""): self.out}

    def _record(self, arm: Arm, seed: int) -> dict[str, Any]:
        """All that decides what an arm becomes, the arms and ears it stands on included."""
        ears, arms = self.plan.needs(arm)
        return {
            "config": checkpoint.plain(self.config(arm, seed)),
            "prepare": list(fill(arm.prepare, self._folders(seed))),
            "ears": {name: self._ear_record(self.plan.ears[name]) for name in ears},
            "arms": {name: self._record(self.plan.arms[name], seed) for name in arms},
        }

    def _ear_values(self, ear: EarPlan) -> dict[str, Any]:
        common = {"sounds": self.base.sounds, "cache": self.base.cache, "threads": self.base.threads}
        return {**merge({**common, "stage": "audio"}, ear.overrides), "out": str(self.out / "ears" / ear.name)}

    def _ear_record(self, ear: EarPlan) -> dict[str, Any]:
        config = read_config(EmbedConfig, None, self._ear_values(ear))
        return {"config": checkpoint.plain(config), "random": ear.random, "text": self.plan.text}

    def _ear(self, ear: EarPlan) -> None:
        values, folder = self._ear_values(ear), self.out / "ears" / ear.name
        claim(folder, self._ear_record(ear), {"config": checkpoint.plain(EmbedConfig())}, redo=self.redo)
        done = folder / "done"
        if done.is_file():
            return
        if not (folder / "weights.pt").is_file():
            for name in ("tokenizer.json", "embedder.json", "weights.pt"):
                source = Path(self.plan.text) / name
                if not source.is_file():
                    raise ValueError(f"no {source}: the embedders share the text tower of python -m training.embed")
                shutil.copyfile(source, folder / f"{name}.partial")
                (folder / f"{name}.partial").replace(folder / name)
        if ear.random:
            config = read_config(EmbedConfig, None, values)
            CompactEmbedder.load(folder).fresh_audio(config.audio, seed=config.seed).save(folder)
        else:
            path = folder / "config.toml"
            path.write_text(write_toml(values))
            self.run(["python", "-m", "training.embed", str(path)])
        done.touch()

    def _recordings(self, folder: str) -> None:
        planned = [source for source in self.plan.recordings if source.folder == folder]
        for source in planned:
            prepare(source, Path(self.base.sounds), Path(self.base.cache))
        if not planned and not Path(folder).exists():
            raise ValueError(f"no recordings {folder!r}, and no [[recordings]] of the plan makes them")

    def _prepare(self, arm: Arm, seed: int) -> None:
        """Run an arm's commands in turn, those that have ended well not again."""
        for number, command in enumerate(fill(arm.prepare, self._folders(seed))):
            done = self.folder(arm, seed) / f"prepared-{number}"
            if not done.is_file():
                self.run(shlex.split(command))
                done.touch()
