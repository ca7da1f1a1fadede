"""The plan of an ablation: a base config, arms that differ from it, the embedders and mixtures that they need.

One TOML file (``training/configs/ablate.toml``). Everything in it is checked when it is read: a typo in the last arm is
found before the first one is trained.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from training.config import TrainConfig, read_config
from training.embed import EmbedConfig

_PLACE = re.compile(r"\{(out|arm|ear)(?::([\w.-]+))?\}")
_PHRASES = ("list", "caption")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Arm:
    """One training run a seed: ``overrides`` are merged into the base, table by table.

    ``number`` is the comparison it belongs to, ``lists`` the mixture lists it is scored on. ``after`` names an arm
    whose averaged weights this one begins with; ``prepare`` are commands run before it.
    """

    name: str
    title: str
    overrides: dict[str, Any]
    number: str = ""
    lists: tuple[str, ...] = ()
    after: str = ""
    prepare: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarPlan:
    """An embedder: the plan's text tower with an audio tower trained as ``overrides`` say, or left ``random``."""

    name: str
    overrides: dict[str, Any]
    random: bool = False


@dataclass(frozen=True)
class RecordingPlan:
    """A folder of rendered mixtures and what is rendered there.

    ``list`` is a mixture list, a path or a name in the pack; with ``sources`` it is first made, ``count`` mixtures of
    so many clips of ``part``. ``phrases`` says where the sounds' names come from: the ``list``, or its
    ``caption`` alone.
    """

    folder: str
    list: str
    sources: int = 0
    count: int = 6000
    seed: int = 1
    part: str = "separator"
    phrases: str = "list"


@dataclass(frozen=True)
class Comparison:
    """The difference ``of`` less ``to``, over the same mixtures of ``list`` (the plan's first by default)."""

    name: str
    of: str
    to: str
    list: str = ""


@dataclass(frozen=True)
class Gap:
    """The share of the way from ``unsupervised`` to ``supervised`` that ``weak`` goes."""

    name: str
    supervised: str
    unsupervised: str
    weak: str
    list: str = ""


@dataclass(frozen=True)
class Plan:
    """An ablation. ``text`` is the folder of the embedder whose text tower all ears share; ``bss`` so many mixtures of
    each list are scored by BSS-eval too; ``limit`` scores only the first so many, 0 all."""

    base: dict[str, Any]
    arms: dict[str, Arm]
    ears: dict[str, EarPlan] = field(default_factory=dict)
    recordings: tuple[RecordingPlan, ...] = ()
    compare: tuple[Comparison, ...] = ()
    gap: tuple[Gap, ...] = ()
    text: str = "runs/embedder"
    lists: tuple[str, ...] = ("mixtures-valid-2.jsonl",)
    seeds: tuple[int, ...] = (1,)
    bss: int = 0
    limit: int = 0

    def lists_of(self, arm: Arm) -> tuple[str, ...]:
        """The lists an arm is scored on."""
        return arm.lists or self.lists

    def values(self, arm: Arm) -> dict[str, Any]:
        """An arm's config as written, with its places still to be filled."""
        merged = merge(self.base, arm.overrides)
        return merge(merged, {"initial": f"{{arm:{arm.after}}}/checkpoint.pt"}) if arm.after else merged

    def needs(self, arm: Arm) -> tuple[list[str], list[str]]:
        """Names of the ears and of the earlier arms that an arm cannot do without."""
        found = list(_places([self.values(arm), *arm.prepare]))
        ears = dict.fromkeys(name for kind, name in found if kind == "ear")
        return [*ears], [*dict.fromkeys(name for kind, name in found if kind == "arm")]

    def chosen(self, names: tuple[str, ...]) -> list[Arm]:
        """The arms of these names, all without any, and those that they need, in the plan's order.

        Raises:
            ValueError: there is no arm of a name.
        """
        wanted = set(names or self.arms)
        unknown = sorted(wanted - set(self.arms))
        if unknown:
            raise ValueError(f"no arms {unknown}; known are {[*self.arms]}")
        for arm in reversed(self.arms.values()):
            if arm.name in wanted:
                wanted.update(self.needs(arm)[1])
        return [arm for arm in self.arms.values() if arm.name in wanted]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``, tables merged key by key; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def fill(value: Any, folders: Mapping[tuple[str, str], Path]) -> Any:
    """``value`` with ``{out}``, ``{arm:NAME}`` and ``{ear:NAME}`` in all its strings replaced by folders."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: str(folders[found[1], found[2] or ""]), value)
    if isinstance(value, dict):
        return {key: fill(item, folders) for key, item in value.items()}
    return [fill(item, folders) for item in value] if isinstance(value, list | tuple) else value


def read_plan(path: Path) -> Plan:
    """Read a plan and check all of it.

    Raises:
        ValueError: the file is missing, a key is unknown, a config does not hold, or a name has nothing behind it.
    """
    if not path.is_file():
        raise ValueError(f"no plan {path}")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    for key, cls in (("recordings", RecordingPlan), ("compare", Comparison), ("gap", Gap)):
        data[key] = tuple(_item(cls, row, f"{path}: [[{key}]]") for row in data.get(key, ()))
    data["arms"] = {name: _arm(name, table, f"{path}: arms.{name}") for name, table in data.get("arms", {}).items()}
    data["ears"] = {
        name: EarPlan(name, {key: value for key, value in table.items() if key != "random"}, table.get("random", False))
        for name, table in data.get("ears", {}).items()
    }
    plan = _item(Plan, {"base": {}, **data}, str(path))
    _check(plan, path)
    return plan


def _arm(name: str, table: dict[str, Any], where: str) -> Arm:
    own = {item.name for item in dataclasses.fields(Arm)} - {"name", "overrides"}
    overrides = {key: value for key, value in table.items() if key not in own}
    rest = {key: str(value) if key == "number" else value for key, value in table.items() if key in own}
    return _item(Arm, {"name": name, "overrides": overrides, **rest}, where)


def _item(cls: type[Item], data: dict[str, Any], where: str) -> Item:
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    lacking = [
        name
        for name, item in known.items()
        if name not in data and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if lacking:
        raise ValueError(f"{where}: lacks {lacking}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def _places(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        for found in _PLACE.finditer(value):
            yield found[1], found[2] or ""
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _places(item)


def _check(plan: Plan, path: Path) -> None:
    if not plan.arms or not plan.lists or not plan.seeds:
        raise ValueError(f"{path}: a plan needs arms, lists and seeds")
    if "ears" in plan.arms:
        raise ValueError(f"{path}: an arm must not be called 'ears', which is the folder of the embedders")
    for ear in plan.ears.values():
        read_config(EmbedConfig, None, ear.overrides)
    earlier: set[str] = set()
    for arm in plan.arms.values():
        try:
            read_config(TrainConfig, None, plan.values(arm))
        except ValueError as error:
            raise ValueError(f"{path}: arms.{arm.name}: {error}") from error
        ears, arms = plan.needs(arm)
        for kind, names, known in (("ears", ears, set(plan.ears)), ("earlier arms", arms, earlier)):
            if set(names) - known:
                raise ValueError(
                    f"{path}: arms.{arm.name} needs {kind} {sorted(set(names) - known)}, which are not there"
                )
        earlier.add(arm.name)
    for source in plan.recordings:
        if source.phrases not in _PHRASES:
            raise ValueError(f"{path}: phrases of {source.folder} must be one of {_PHRASES}, got {source.phrases!r}")
    asked: list[tuple[str, str, tuple[str, ...]]] = [
        (item.name, item.list, (item.of, item.to)) for item in plan.compare
    ]
    asked += [(item.name, item.list, (item.supervised, item.unsupervised, item.weak)) for item in plan.gap]
    for name, of_list, arms_asked in asked:
        for one in arms_asked:
            if one not in plan.arms:
                raise ValueError(f"{path}: {name!r} compares an arm {one!r}, which is not there")
            if (of_list or plan.lists[0]) not in plan.lists_of(plan.arms[one]):
                raise ValueError(f"{path}: {name!r} asks for {of_list or plan.lists[0]}, which {one} is not scored on")
