"""Outcomes: weighted sums, and whose gradient is how large."""

from __future__ import annotations

import pytest
import torch

from training.outcome import Outcome


def outcome(**weights: float) -> tuple[Outcome, torch.Tensor]:
    mask = torch.ones(1, 2, 3, 4, requires_grad=True)
    terms = {"one": mask.sum(), "two": (2.0 * mask).sum(), "none": torch.tensor(5.0)}
    return Outcome.of({name: terms[name] for name in weights}, weights, mask), mask


def test_the_loss_is_the_weighted_sum_and_figures_are_unweighted() -> None:
    made, _ = outcome(one=0.5, two=2.0)
    assert float(made.loss.detach()) == pytest.approx(0.5 * 24 + 2.0 * 48)
    assert {name: float(value) for name, value in made.figures.items()} == {"one": 24.0, "two": 48.0}
    assert not any(value.requires_grad for value in made.figures.values())


def test_shares_are_the_ratio_of_weighted_gradients_and_sum_to_one() -> None:
    made, mask = outcome(one=3.0, two=0.5)
    shares = {name: float(value) for name, value in made.gradient_shares().items()}
    assert shares == {"gradient_share_one": pytest.approx(0.75), "gradient_share_two": pytest.approx(0.25)}
    made.loss.backward()
    assert mask.grad is not None, "asking for shares leaves the graph in place"


def test_a_term_without_a_gradient_has_no_share() -> None:
    made, _ = outcome(one=1.0, none=1.0)
    shares = made.gradient_shares()
    assert set(shares) == {"gradient_share_one"} and float(shares["gradient_share_one"]) == pytest.approx(1.0)
    nothing, _ = outcome()
    assert nothing.gradient_shares() == {} and float(nothing.loss) == 0.0


def test_two_outcomes_add_up_and_equal_names_are_told_apart() -> None:
    first, _ = outcome(one=1.0)
    second, _ = outcome(one=2.0, two=1.0)
    both = first.beside(second, prefix="weak_")
    assert float(both.loss.detach()) == float((first.loss + second.loss).detach())
    assert set(both.terms) == set(both.figures) == {"one", "weak_one", "two"}
    shares = both.gradient_shares()
    assert float(sum(shares.values(), torch.zeros(()))) == pytest.approx(1.0)
    assert float(shares["gradient_share_weak_one"]) == pytest.approx(0.4)
