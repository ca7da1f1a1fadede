"""The figures of one mixture: every source against its estimate, the mixture and the oracle masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.spec import SignalSpec
from training import oracle
from training.cases import Case, Prompt, Scene
from training.metrics import bss_eval, energy_left, sdr, sdr_improvement, si_sdr, si_sdr_improvement
from training.separators import Separator

_UNNAMED_DB = -60.0  # a rest below this, relative to the mixture, is rounding


def score(
    case: Case, separator: Separator, signal: SignalSpec, *, bss: bool, exhaustive: bool = False
) -> dict[str, Any]:
    """Separate a case's mixture by its present and absent prompts and score what comes out.

    ``exhaustive`` says to the separator that these are all there are, which of the absent ones is not true.

    Returns:
        ``id``, ``present`` (a row of figures a source) and ``absent`` (a row a prompt), JSON values only, dB; figures
        that are not defined are None.

    Raises:
        ValueError: the case cannot be loaded.
    """
    scene = case.load()
    asked = [*case.present, *case.absent]
    stems = separator.separate(
        scene.mixture, scene.sample_rate, [prompt.prompt for prompt in asked], exhaustive=exhaustive
    )
    n_present = len(case.present)
    figures = _present(scene, stems[:n_present], signal)
    if bss:
        figures.update(_bss(scene, stems[:n_present]))
    left = energy_left(estimate=_flat(stems[n_present:]), mixture=_flat(scene.mixture[None]))
    return {
        "id": case.id,
        "present": _rows(case.present, figures),
        "absent": _rows(case.absent, {"energy_left": left}),
    }


def _present(scene: Scene, stems: np.ndarray, signal: SignalSpec) -> dict[str, Tensor]:
    target, estimate = _flat(scene.sources), _flat(stems)
    mixture = _flat(scene.mixture[None]).expand_as(target)
    figures = {
        "input_sdr": sdr(target=target, estimate=mixture),
        "sdr": sdr(target=target, estimate=estimate),
        "sdri": sdr_improvement(target=target, estimate=estimate, mixture=mixture),
        "si_sdr": si_sdr(target=target, estimate=estimate),
        "si_sdri": si_sdr_improvement(target=target, estimate=estimate, mixture=mixture),
    }
    for kind, stem in oracle.separate(signal, scene.mixture, scene.sources, scene.sample_rate).items():
        figures[f"oracle_{kind}_sdr"] = sdr(target=target, estimate=_flat(stem))
        figures[f"oracle_{kind}_sdri"] = sdr_improvement(target=target, estimate=_flat(stem), mixture=mixture)
    return figures


def _bss(scene: Scene, stems: np.ndarray) -> dict[str, Tensor]:
    """BSS-eval of the mid signals; what the sources leave of the mixture counts as one more source."""
    target, estimate = (torch.from_numpy(part.mean(axis=1)) for part in (scene.sources, stems))
    mixture = torch.from_numpy(scene.mixture.mean(axis=0))
    rest = mixture - target.sum(0)
    if float(energy_left(estimate=rest, mixture=mixture)) > _UNNAMED_DB:
        target = torch.cat([target, rest[None]])
        estimate = torch.cat([estimate, (mixture - estimate.sum(0))[None]])
    scores = bss_eval(targets=target, estimates=estimate)
    return {f"bss_{name}": values[: len(stems)] for name, values in scores._asdict().items()}


def _flat(waveforms: np.ndarray) -> Tensor:
    """``[S, C, T] -> [S, C * T]``"""
    return torch.from_numpy(np.ascontiguousarray(waveforms)).flatten(1)


def _rows(prompts: tuple[Prompt, ...], figures: dict[str, Tensor]) -> list[dict[str, Any]]:
    columns = {
        name: [None if math.isnan(value) else value for value in values.tolist()] for name, values in figures.items()
    }
    return [
        {**prompt._asdict(), **{name: values[index] for name, values in columns.items()}}
        for index, prompt in enumerate(prompts)
    ]
