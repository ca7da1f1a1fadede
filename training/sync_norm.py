"""Batch normalisation by the statistics of the global batch; ``torch.nn.SyncBatchNorm`` refuses the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.parallel import Ranks


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose mean and variance are those of all processes' rows; the same keys, one gather a pass.

    Processes' means and variances are joined by ``var = mean(var_r) + mean((mean_r - mean)^2)``, which holds for as
    many values in each. Sums of squares would need no such care, and lose the digits of a small variance on a large
    mean.

    Shape:
        ``[B, C, H, W]`` of the same shape in every process -> the same
    """

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks) -> None:
        if norm.momentum is None or not norm.affine or not norm.track_running_stats:
            raise ValueError(f"only a normalisation with momentum, weights and running statistics, got {norm}")
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.load_state_dict(norm.state_dict())
        self.to(norm.weight.device)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in evaluation by the running statistics, as ever."""
        if not self.training:
            return super().forward(x)
        wide = x.float()
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        everyone = self.ranks.gather(torch.stack([mean, variance])[None])  # [N, 2, C]
        mean = everyone[:, 0].mean(dim=0)
        variance = (everyone[:, 1] + (everyone[:, 0] - mean).square()).mean(dim=0)
        self._remember(mean.detach(), variance.detach(), len(everyone) * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, n_values: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n_values / max(1, n_values - 1)), self.momentum)


def synchronise(module: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """Put global normalisations in place of a module's own; one process keeps what it has.

    On CUDA they are torch's, which are fused.
    """
    if ranks.world == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, GlobalBatchNorm2d(child, ranks))
        else:
            synchronise(child, ranks, device)
    return module
