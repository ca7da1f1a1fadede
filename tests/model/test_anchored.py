"""A tower drawn to known phrases: they stay, what lies near becomes them, and the graph does the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.embedder.anchored import AnchoredText


class Given(nn.Module):
    """A tower that answers with its ids as angles on the unit circle, in degrees."""

    def forward(self, ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.deg2rad(ids[:, 0].float())
        return ids[..., None].float(), torch.stack([angle.cos(), angle.sin()], dim=-1)


def circle(*degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def asked(tower: AnchoredText, *degrees: int) -> Tensor:
    ids = torch.tensor(degrees)[:, None]
    return tower(ids, torch.zeros_like(ids, dtype=torch.bool))[1]


def test_known_phrases_stay_and_near_ones_become_them() -> None:
    tower = AnchoredText(Given(), circle(0.0, 90.0, 200.0), 0.05)
    assert torch.allclose(asked(tower, 0, 90, 200), circle(0.0, 90.0, 200.0), atol=1e-3)
    assert torch.allclose(asked(tower, 12, 70, 230), circle(0.0, 90.0, 200.0), atol=0.02)


@settings(deadline=None)
@given(angle=st.integers(0, 359), temperature=st.floats(1e-3, 10.0))
def test_what_comes_out_is_of_unit_norm_and_among_the_anchors(angle: int, temperature: float) -> None:
    drawn = asked(AnchoredText(Given(), circle(10.0, 50.0, 80.0), temperature), angle)
    assert float(drawn.norm()) == pytest.approx(1.0, abs=1e-5)
    assert 9.99 <= float(torch.rad2deg(torch.atan2(drawn[0, 1], drawn[0, 0]))) <= 80.01


def test_tokens_are_left_as_they_are() -> None:
    ids = torch.tensor([[3, 5], [7, 0]])
    padding = torch.tensor([[False, False], [False, True]])
    tokens, _ = AnchoredText(Given(), circle(0.0), 0.05)(ids, padding)
    assert torch.equal(tokens, Given()(ids, padding)[0])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0, got 0"):
        AnchoredText(Given(), circle(0.0), 0.0)
    with pytest.raises(ValueError, match=r"at least 1, got \[0, 2\]"):
        AnchoredText(Given(), torch.zeros(0, 2), 0.05)
