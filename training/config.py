"""Training configurations: frozen dataclasses read from TOML, strict about every key."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from model.spec import NetworkSpec, SignalSpec
from training.mixing import MixingConfig
from training.weak import WeakConfig
from training.weak_mixing import WeakMixingConfig

Config = TypeVar("Config")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW on a trapezoid: linear warm-up, constant, a linear fall to zero over the last ``cooldown`` of the steps.

    The fall can be moved by resuming with another number of steps.
    """

    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    cooldown: float = 0.35
    clip_norm: float = 2.0
    ema: float = 0.998


@dataclass(frozen=True)
class TrainConfig:
    """One run of the separator: where the data is, what is trained on it and for how long.

    ``losses`` weighs the terms of single sources, ``weak_losses`` those of mixtures of mixtures. ``recordings`` is what
    the modes ``unsupervised``, ``weak`` and ``semi`` hear: rendered mixtures, a folder, a manifest or shards
    (docs/data.md). ``ear`` is the embedder whose audio tower the contrastive loss asks, by default ``embedder``.
    ``initial`` is a checkpoint whose averaged weights the run begins with. ``prompt_noise`` is the length of a random
    vector added to each prompt's unit vector in training, so that a phrase near a known one is answered like it.
    """

    sounds: str = "../shared/sounds"
    cache: str = ".cache"
    embedder: str = "runs/embedder"
    out: str = "runs/separator"
    mode: str = "supervised"
    recordings: str = ""
    ear: str = ""
    initial: str = ""
    losses: dict[str, float] = field(default_factory=lambda: {"negative_sdr": 1.0, "silence": 0.03})
    weak_losses: dict[str, float] = field(default_factory=lambda: {"url": 1.0})
    prompt_noise: float = 0.0
    steps: int = 6000
    seed: int = 1
    device: str = "auto"
    bf16: bool = True
    threads: int = 2
    checkpoint_every: int = 200
    validate_every: int = 1000
    validation_list: str = "mixtures-valid-2.jsonl"
    validation_limit: int = 100
    signal: SignalSpec = field(default_factory=SignalSpec)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    weak: WeakConfig = field(default_factory=WeakConfig)
    weak_mixing: WeakMixingConfig = field(default_factory=WeakMixingConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


def read_config(cls: type[Config], path: Path | None, overrides: dict[str, Any] | None = None) -> Config:
    """Read a TOML file into a config dataclass; ``overrides`` (values of ``None`` left out) win over the file.

    Raises:
        ValueError: the file is missing or a key or type is wrong; the message names the key.
    """
    data: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ValueError(f"no config file {path}")
        data = tomllib.loads(path.read_text())
    data.update({key: value for key, value in (overrides or {}).items() if value is not None})
    return _build(cls, data, cls.__name__)


def _build(cls: type[Config], data: dict[str, Any], where: str) -> Config:
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    values: dict[str, Any] = {}
    for key, value in data.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            values[key] = _build(typing.cast(type, hint), value, f"{where}.{key}")
        else:
            values[key] = _convert(value, hint, f"{where}.{key}")
    return cls(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return tuple(value)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return value
    expected = origin or hint
    if isinstance(expected, type) and not isinstance(value, expected):
        raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, got {value!r}")
    return value
