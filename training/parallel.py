"""Data-parallel training: each process works on its rows of the global batch, and learns what one process would.

Three things make that so, and nothing else is told apart by the number of processes:

- every loss is computed, in every process, from the rows of all of them (:meth:`Ranks.gather`), so that a mean over the
  estimates that sound is a mean over all estimates, and a contrastive matrix has all processes' negatives;
- batch statistics are those of the global batch (:mod:`training.sync_norm`);
- random numbers are drawn for the global batch, and each process takes its rows' (:meth:`Ranks.draw`).

:meth:`Ranks.gather` is the exact transpose of itself in the backward pass: a process receives the gradients that *all*
processes have for its rows. With ``N`` processes that hold the same loss they add up to ``N`` times the gradient, and
the mean over processes (:meth:`Ranks.average_gradients`) is the gradient. That mean is one flat all-reduce after the
backward pass in place of ``DistributedDataParallel``: no wrapper changes the names in a checkpoint, and a mode may run
the network twice a step. What it costs is the overlap of communication with the backward pass.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

PATIENCE = datetime.timedelta(hours=1)  # the others wait so long while the first process validates or decodes the pack

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is; the one of a run without ``torchrun`` is rank 0 of 1 and talks to nobody."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that logs, saves and validates."""
        return self.rank == 0

    def share(self, batch: int, name: str) -> range:
        """Rows of the global batch that this process makes.

        Raises:
            ValueError: the batch cannot be divided evenly; the message names its key.
        """
        if batch % self.world:
            raise ValueError(f"{name} must be a multiple of the {self.world} processes, got {batch}")
        rows = batch // self.world
        return range(self.rank * rows, (self.rank + 1) * rows)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes in rank order, differentiable; every process must bring as many.

        Shape:
            ``[B, ...]`` -> ``[N * B, ...]``
        """
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def gather_list(self, items: list[Item]) -> list[Item]:
        """Python values of all processes in rank order."""
        if self.world == 1:
            return items
        parts: list[list[Item]] = [[] for _ in range(self.world)]
        distributed.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def draw(self, make: Callable[..., Tensor], *shape: int, device: torch.device) -> Tensor:
        """Random numbers ``[B, ...]`` by ``torch.rand`` or ``torch.randn``, as one process draws them for its rows.

        All processes must have come to the same state of the generator.
        """
        n_rows = shape[0]
        everyone = make(self.world * n_rows, *shape[1:], device=device)
        return everyone[self.rank * n_rows : (self.rank + 1) * n_rows]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over processes."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let one process of each machine go first, the rest after it: who comes second finds the caches made."""
        leads = self.world == 1 or os.environ.get("LOCAL_RANK") == "0"
        if not leads:
            distributed.barrier()
        yield
        if leads and self.world > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def open_ranks(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other processes where ``torchrun`` started this one; gives the ranks and this process's device.

    ``device`` is ``auto``, ``cpu`` or ``cuda``, and for a single process also one device of several (``cuda:1``).
    Processes meet over NCCL on CUDA, over gloo on the CPU.

    A process that fails leaves the group standing: waiting for the others to agree would hang it, and ``torchrun`` ends
    them all when one is gone.

    Raises:
        ValueError: several processes were given one CUDA device, or there are more of them than devices.
    """
    on_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.world == 1:
        yield ALONE, torch.device(device if device != "auto" else "cuda" if on_cuda else "cpu")
        return
    place = torch.device("cpu")
    if on_cuda:
        place = torch.device("cuda", _own_cuda_device(device))
        torch.cuda.set_device(place)
    backend = "nccl" if on_cuda else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE, device_id=place if on_cuda else None)
    yield ranks, place
    distributed.destroy_process_group()


def _own_cuda_device(device: str) -> int:
    local, n_devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.startswith("cuda:"):
        raise ValueError(f"device must be auto, cpu or cuda for several processes, got {device!r}")
    if local >= n_devices:
        raise ValueError(
            f"every process of a machine needs a CUDA device of its own: {n_devices} devices, rank {local}"
        )
    return local


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass adds up what all processes want of this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(ranks.world)]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient.chunk(ctx.ranks.world)[ctx.ranks.rank], None
