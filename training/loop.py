"""The training loop: steps, averaged weights, checkpoints and validation. What is learned comes in as parts.

With several processes (``parts.ranks``) all do the steps, and the first logs, saves and validates.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training import checkpoint
from training.config import OptimiserConfig, TrainConfig
from training.mixing import Sampler
from training.modes import Mode
from training.parallel import ALONE
from training.parts import Parts
from training.validation import Validation


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Trapezoid: linear warm-up, constant, linear fall to zero at ``steps``."""
    fall = max(1, math.ceil(config.cooldown * steps))
    return config.learning_rate * min(1.0, (step + 1) / config.warmup_steps, max(0.0, (steps - step) / fall))


class Average:
    """Exponential moving average of weights and buffers, warmed up so that early steps do not weigh on it."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's present state."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, weight)
            else:
                self.state[name].copy_(value)


class Loop:
    """Trains ``parts.separator`` on batches of ``sampler``; resumes from ``out/checkpoint.pt`` when it is there."""

    def __init__(
        self, config: TrainConfig, parts: Parts, mode: Mode, sampler: Sampler[Any], validations: Sequence[Validation]
    ) -> None:
        self.config, self.parts, self.mode, self.sampler = config, parts, mode, sampler
        self.validations = validations
        self.out = Path(config.out)
        self.optimiser = torch.optim.AdamW(
            _decay_groups(parts.separator, config.optimiser.weight_decay), lr=config.optimiser.learning_rate
        )
        self.average = Average(parts.separator, config.optimiser.ema)
        self.step = 0
        self.best = -math.inf
        if (self.out / "checkpoint.pt").exists():
            self._resume()
        begins = set(parts.ranks.gather_list([self.step]))
        if len(begins) > 1:
            raise ValueError(f"{self.out} must be one folder that all processes see: they would begin at {begins}")

    def run(self) -> None:
        """Train to ``config.steps``, a checkpoint at the end; the batch of the next step is mixed meanwhile."""
        config = self.config
        with (
            ThreadPoolExecutor(1) as mixer,
            tqdm(
                total=config.steps,
                initial=self.step,
                desc="training",
                unit="step",
                mininterval=5,
                disable=not self.parts.ranks.first,
            ) as bar,
        ):
            pending = mixer.submit(self.sampler.sample, self.step)
            started, recent = time.monotonic(), []
            while self.step < config.steps:
                batch = pending.result()
                pending = mixer.submit(self.sampler.sample, self.step + 1)
                figures = self._step(batch)
                recent.append(figures)
                self.step += 1
                bar.update()
                if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                    mean = _means(recent)
                    self._log({**mean, "seconds": time.monotonic() - started})
                    bar.set_postfix({name: f"{value:.3g}" for name, value in mean.items()})
                    started, recent = time.monotonic(), []
                    self._save("checkpoint.pt")
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self._validate()

    def _step(self, batch: Any) -> dict[str, Tensor | float]:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed run, and every process, draws alike
        rate = learning_rate(self.step, self.config.steps, self.config.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.parts.separator.train()
        outcome = self.mode(self.parts, batch, self.step / self.config.steps)
        loss = outcome.loss
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.step} is {float(loss)}: lower learning_rate or clip_norm")
        shares = outcome.gradient_shares() if (self.step + 1) % self.config.checkpoint_every == 0 else {}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.parts.ranks.average_gradients(self.parts.separator.parameters())
        norm = nn.utils.clip_grad_norm_(self.parts.separator.parameters(), self.config.optimiser.clip_norm)
        self.optimiser.step()
        self.average.update(self.parts.separator, self.step)
        return {**outcome.figures, **shares, "gradient_norm": norm, "learning_rate": rate}

    def _validate(self) -> None:
        if not self.validations or not self.parts.ranks.first:
            return
        judged = copy.copy(self.parts)
        judged.ranks = ALONE  # the others are not here to answer
        judged.separator = copy.deepcopy(self.parts.separator).eval()
        judged.separator.load_state_dict(self.average.state)
        figures = {name: value for judge in self.validations for name, value in judge.score(judged).items()}
        self._log(figures)
        tqdm.write(f"step {self.step}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
        if figures.get("sdri", -math.inf) > self.best:
            self.best = figures["sdri"]
            self._save("best.pt")

    def _log(self, figures: dict[str, float]) -> None:
        if not self.parts.ranks.first:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **figures}) + "\n")

    def _save(self, name: str) -> None:
        if not self.parts.ranks.first:
            return
        checkpoint.save(
            self.out / name,
            {
                "step": self.step,
                "best": self.best,
                "config": checkpoint.plain(self.config),
                "network": self.config.network.to_json(),
                "signal": self.config.signal.to_json(),
                "model": self.parts.separator.state_dict(),
                "ema": self.average.state,
                "optimiser": self.optimiser.state_dict(),
            },
        )

    def _resume(self) -> None:
        state = checkpoint.load(self.out / "checkpoint.pt")
        if state["network"] != self.config.network.to_json() or state["signal"] != self.config.signal.to_json():
            raise ValueError(
                f"{self.out}/checkpoint.pt has another network or signal than the config; give another --out"
            )
        self.parts.separator.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.state = state["ema"]
        self.step, self.best = state["step"], state["best"]


def _means(rows: list[dict[str, Tensor | float]]) -> dict[str, float]:
    """Mean of each figure over the steps that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([float(row[name]) for row in rows if name in row])) for name in names}


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions and linears decay; biases, norms and positions do not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
