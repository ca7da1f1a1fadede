"""How good a separation is, in decibels: one definition a metric, keyword arguments only.

Higher is better, except for :func:`energy_left`, which says how loud a sound is that should not be there. Everything is
computed in float64, over the last axis; a recording of several channels is passed with its channels laid end to end. No
metric takes the mean off first unless told to: a constant offset is an error like any other.

Two epsilons keep the logarithms finite, and both are tested against closed forms:

* ``POWER_EPSILON``, 120 dB below full scale, is added to both mean powers of a ratio. Silence against silence is 0 dB,
  and a perfect estimate of a sound at -26 dB scores 94 dB.
* ``CORRELATION_EPSILON`` bounds the scale-invariant metric, which knows no level, to -100..100 dB. A silent estimate,
  or a silent target, correlates with nothing and gets -100 dB.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

POWER_EPSILON = 1e-12
CORRELATION_EPSILON = 1e-10
_BSS_LOAD = 1e-9  # of the diagonal: the filters of a pure tone are not unique, and the solver fails without it

_SOLVING = threading.Lock()  # the number of threads belongs to the process


class BssEval(NamedTuple):
    """BSS-eval's three ratios in dB, each ``[S]``."""

    sdr: Tensor
    sir: Tensor
    sar: Tensor


def sdr(*, target: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-distortion ratio ``10 log10(|s|^2 / |s - e|^2)``: no filter, no scaling.

    Shape:
        ``[..., T]``, ``[..., T]`` -> ``[...]``
    """
    return _power_ratio(target.double(), target.double() - estimate.double())


def sdr_improvement(*, target: Tensor, estimate: Tensor, mixture: Tensor) -> Tensor:
    """SDRi: the estimate's :func:`sdr` less the mixture's; 0 dB for who hands the mixture back."""
    return sdr(target=target, estimate=estimate) - sdr(target=target, estimate=mixture)


def si_sdr(*, target: Tensor, estimate: Tensor, zero_mean: bool = False) -> Tensor:
    """Scale-invariant SDR (arXiv 1811.02508): the estimate's part along the target against the rest of it.

    With r the correlation of the two this is ``10 log10(r^2 / (1 - r^2))``, and that is what is computed: dividing by
    norms instead of projecting keeps it invariant down to the epsilon.

    Args:
        target: the sound, ``[..., T]``.
        estimate: of it, ``[..., T]``.
        zero_mean: take the mean off both first, as some libraries do.
    """
    target, estimate = target.double(), estimate.double()
    if zero_mean:
        target = target - target.mean(-1, keepdim=True)
        estimate = estimate - estimate.mean(-1, keepdim=True)
    energies = target.square().sum(-1) * estimate.square().sum(-1)
    correlation = (target * estimate).sum(-1).square() / energies.clamp_min(torch.finfo(torch.float64).tiny)
    # 1 - r^2 cancels for a good estimate, so the rest's energy is taken from what projection leaves over.
    unit = estimate / estimate.norm(dim=-1, keepdim=True).clamp_min(1e-150)
    axis = target / target.norm(dim=-1, keepdim=True).clamp_min(1e-150)
    rest = (unit - (unit * axis).sum(-1, keepdim=True) * axis).square().sum(-1)
    rest = torch.where(energies > 0, rest, torch.ones_like(rest))
    return 10 * torch.log10((correlation + CORRELATION_EPSILON) / (rest + CORRELATION_EPSILON))


def si_sdr_improvement(*, target: Tensor, estimate: Tensor, mixture: Tensor, zero_mean: bool = False) -> Tensor:
    """SI-SDRi: the estimate's :func:`si_sdr` less the mixture's."""
    return si_sdr(target=target, estimate=estimate, zero_mean=zero_mean) - si_sdr(
        target=target, estimate=mixture, zero_mean=zero_mean
    )


def energy_left(*, estimate: Tensor, mixture: Tensor) -> Tensor:
    """Energy of what came out for a sound that is not in the mixture, relative to the mixture's; *lower* is better.

    0 dB hands the whole mixture back, -30 dB leaves a thousandth of its energy.

    Shape:
        ``[..., T]``, ``[..., T]`` -> ``[...]``
    """
    return _power_ratio(estimate.double(), mixture.double())


def bss_eval(*, targets: Tensor, estimates: Tensor, filter_length: int = 512) -> BssEval:
    """BSS-eval version 3 by fast_bss_eval: estimate i belongs to target i, no permutation is tried.

    Its SDR forgives any filter of ``filter_length`` taps (at 48 kHz 512 are 11 ms), a gain among them: it is not below
    :func:`si_sdr` and is never to be called SDR alone. Where target or estimate is silent it is not defined: NaN.

    Shape:
        ``[S, T]``, ``[S, T]`` -> three of ``[S]``

    Raises:
        ValueError: the shapes differ or are not ``[S, T]``.
    """
    from fast_bss_eval import bss_eval_sources

    if targets.ndim != 2 or targets.shape != estimates.shape:
        raise ValueError(f"targets and estimates must be [S, T] alike, got {[*targets.shape]} and {[*estimates.shape]}")
    heard = targets.double().square().mean(-1) > POWER_EPSILON
    answered = estimates.double().square().mean(-1) > POWER_EPSILON
    values = targets.new_full((3, len(targets)), float("nan"), dtype=torch.float64)
    if heard.any():
        # The library divides every estimate by its norm: what is silent is filled, and its figures are dropped below.
        estimates = torch.where(answered[:, None], estimates, torch.ones_like(estimates))
        with _one_thread():
            scores = bss_eval_sources(
                targets.double()[heard],
                estimates.double()[heard],
                filter_length=filter_length,
                compute_permutation=False,
                clamp_db=100.0,
                load_diag=_BSS_LOAD,
            )
        values[:, heard] = torch.stack([*scores[:3]])
    values[:, ~answered] = float("nan")
    return BssEval(*values)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread. With two, the batched solver of torch 2.13 failed in MKL ("Parameter 6 ... DLASWP") where
    the environment held MKL to one; numpy arrays were the other way, but fast_bss_eval 0.1.4 fails on numpy 2."""
    with _SOLVING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _power_ratio(above: Tensor, below: Tensor) -> Tensor:
    powers = above.square().mean(-1) + POWER_EPSILON, below.square().mean(-1) + POWER_EPSILON
    return 10 * torch.log10(powers[0] / powers[1])
