"""What a mode makes of a batch: the loss, its terms, and figures for the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """The scalar to minimise, its weighted terms each with the masks it came from, and figures for the log."""

    loss: Tensor
    terms: dict[str, tuple[Tensor, Tensor]]
    figures: dict[str, Tensor]

    @classmethod
    def of(
        cls, terms: dict[str, Tensor], weights: dict[str, float], mask: Tensor, figures: dict[str, Tensor] | None = None
    ) -> Outcome:
        """Weigh terms that all came from ``mask [B, P, K, N]`` and add them up."""
        weighted = {name: (weights[name] * value, mask) for name, value in terms.items()}
        loss = sum((value for value, _ in weighted.values()), mask.new_zeros(()))
        return cls(loss, weighted, {**(figures or {}), **{name: value.detach() for name, value in terms.items()}})

    def beside(self, other: Outcome, *, prefix: str) -> Outcome:
        """Add another outcome; its terms and figures get the prefix where this one has the name."""

        def name(known: dict[str, object], key: str) -> str:
            return prefix + key if key in known else key

        return Outcome(
            self.loss + other.loss,
            {**self.terms, **{name({**self.terms}, key): value for key, value in other.terms.items()}},
            {**self.figures, **{name({**self.figures}, key): value for key, value in other.figures.items()}},
        )

    def gradient_shares(self) -> dict[str, Tensor]:
        """Each term's share of the gradients' norms at the masks; near 0 or 1 the weights are unbalanced."""
        norms = {}
        for name, (value, mask) in self.terms.items():
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, mask, retain_graph=True, allow_unused=True)
                norms[name] = torch.zeros(()) if gradient is None else gradient.norm()
        total = sum(norms.values(), torch.zeros(())) + 1e-12
        return {f"gradient_share_{name}": norm / total for name, norm in norms.items()}
