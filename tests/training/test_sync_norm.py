"""Global batch statistics: torch's own normalisation in one process; in two, tests/training/test_parallel.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.parallel import ALONE, Ranks
from training.sync_norm import GlobalBatchNorm2d, synchronise


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_a_global_normalisation_of_one_process_is_torchs(offset: float) -> None:
    torch.manual_seed(0)
    torchs = nn.BatchNorm2d(3)
    nn.init.normal_(torchs.weight)
    nn.init.normal_(torchs.bias)
    ours = GlobalBatchNorm2d(torchs, ALONE)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for number in range(3):
        x = torch.randn(4, 3, 5, 6, dtype=torch.float32) * (1 + number) + offset
        first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
        wanted, got = torchs(first), ours(second)
        assert torch.allclose(got, wanted, atol=1e-3 if offset else 1e-5)
        for output in (wanted, got):
            output.sin().sum().backward()
        assert first.grad is not None and second.grad is not None
        assert torch.allclose(second.grad, first.grad, atol=1e-3 if offset else 1e-5)
    for name, value in torchs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5), name
    assert torch.allclose(ours.eval()(x), torchs.eval()(x), atol=1e-3)


def test_one_process_keeps_its_normalisations() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    cpu = torch.device("cpu")
    assert type(synchronise(module, ALONE, cpu)[1][0]) is nn.BatchNorm2d  # type: ignore[index]
    assert type(synchronise(module, Ranks(0, 2), cpu)[1][0]) is GlobalBatchNorm2d  # type: ignore[index]
