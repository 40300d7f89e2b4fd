"""Optimisers and the learning-rate schedule."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from particleforge.config.training import TrainingConfig
from particleforge.training.optimiser import Lamb, learning_rate, make_optimiser


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = TrainingConfig(max_steps=100, warmup_steps=10, learning_rate=1e-3)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3 / 11)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_a_schedule_with_a_length_of_its_own_does_not_end_with_the_training() -> None:
    fixed = [
        TrainingConfig(max_steps=steps, schedule_steps=100, warmup_steps=10) for steps in (40, 80)
    ]
    for step in range(80):
        assert (
            learning_rate(fixed[0], step)
            == learning_rate(fixed[1], step)
            == learning_rate(TrainingConfig(max_steps=100, warmup_steps=10), step)
        )
    with pytest.raises(
        ValueError,
        match=(
            r"training\.schedule_steps = 30 ends the cosine schedule, .* before training\.max_steps"
            r" = 40"
        ),
    ):
        TrainingConfig(max_steps=40, schedule_steps=30)
    assert (
        TrainingConfig(max_steps=40, schedule="constant", schedule_steps=30).schedule_length is None
    )


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_learning_rate_follows_the_batch(rule: str, factor: float) -> None:
    config = TrainingConfig(
        learning_rate_scaling=rule,
        elements_per_batch=4096,
        reference_elements_per_batch=1024,
        warmup_steps=0,
    )
    assert learning_rate(config, 0) == pytest.approx(config.learning_rate * factor)


def test_lamb_steps_by_the_norm_of_the_weights() -> None:
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimiser = Lamb([{"params": [weight], "weight_decay": 0.0}], (0.9, 0.98))
    optimiser.param_groups[0]["lr"] = 0.1
    weight.grad = torch.tensor([[1e-3, -2.0]])
    optimiser.step()
    # first step: Adam's update is sign(gradient), of norm sqrt(2); LAMB rescales it to the weights'
    # norm, 5
    expected = torch.tensor([[3.0, 4.0]]) - 0.1 * 5 / math.sqrt(2) * torch.tensor([[1.0, -1.0]])
    assert torch.allclose(weight.detach(), expected, rtol=1e-4)


def test_lamb_is_algorithm_2_of_its_paper_and_reproducible() -> None:
    betas, decay, rate = (0.9, 0.98), 0.1, 0.03

    def start() -> list[torch.nn.Parameter]:
        torch.manual_seed(1)
        return [
            torch.nn.Parameter(value)
            for value in (torch.randn(5, 7), torch.zeros(3), torch.randn(6))
        ]

    def optimised() -> list[Tensor]:
        weights = start()
        optimiser = Lamb(
            [
                {"params": weights[:1], "weight_decay": decay},
                {"params": weights[1:], "weight_decay": 0.0},
            ],
            betas,
        )
        for step in range(4):
            for number, (group, weight) in enumerate(zip((0, 1, 1), weights, strict=True)):
                optimiser.param_groups[group]["lr"] = rate
                weight.grad = (
                    None
                    if (number, step) == (2, 1)
                    else torch.cos(torch.arange(weight.numel()) * (step + 2.0)).view_as(weight)
                )
            optimiser.step()
        return [weight.detach() for weight in weights]

    for number, (weight, found) in enumerate(zip(start(), optimised(), strict=True)):
        x, first, second, made = weight.detach().double(), 0.0, 0.0, 0
        for step in range(4):
            if (number, step) == (2, 1):
                continue
            gradient = torch.cos(torch.arange(x.numel()) * (step + 2.0)).view_as(x).double()
            made = made + 1
            first = betas[0] * first + (1 - betas[0]) * gradient
            second = betas[1] * second + (1 - betas[1]) * gradient**2
            change = (
                first / (1 - betas[0] ** made) / ((second / (1 - betas[1] ** made)).sqrt() + 1e-8)
            )
            change = change + (decay if number == 0 else 0.0) * x
            x = x - rate * (x.norm() / change.norm() if x.norm() > 0 else 1.0) * change
        assert torch.allclose(found.double(), x, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(optimised(), optimised(), strict=True))


def test_vectors_are_not_decayed() -> None:
    groups = make_optimiser(TrainingConfig(weight_decay=0.3), torch.nn.Linear(3, 2)).param_groups
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [
        (0.3, [2]),
        (0.0, [1]),
    ]
