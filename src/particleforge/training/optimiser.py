"""Optimisers and the learning-rate schedule.

AdamW is Loshchilov and Hutter (arXiv:1711.05101), LAMB is You et al. (arXiv:1904.00962, algorithm
2). Biases, norms and other vectors are not decayed. The learning rate is a pure function of the
step, so nothing of it needs saving: linear warm-up (Goyal et al., arXiv:1706.02677), then constant
or cosine to zero at the schedule's end, whenever a run is stopped.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from particleforge.config.training import TrainingConfig

_BETA1 = 0.9
_EPSILON = 1e-8
_SCALING_POWER = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Return the learning rate of the optimiser's ``step``-th step, counted from 0."""
    growth = training.elements_per_batch / training.reference_elements_per_batch
    peak: float = training.learning_rate * growth ** _SCALING_POWER[training.learning_rate_scaling]
    if step < training.warmup:
        return peak * (step + 1) / (training.warmup + 1)
    if training.schedule_length is None:
        return peak
    progress = (step - training.warmup) / max(1, training.schedule_length - training.warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimiser(training: TrainingConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Return the configured optimiser over the network's parameters."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (_BETA1, training.beta2)
    if training.optimiser == "lamb":
        return Lamb(groups, betas)
    return torch.optim.AdamW(
        groups, lr=training.learning_rate, betas=betas, eps=_EPSILON, fused=True
    )


class Lamb(torch.optim.Optimizer):
    """Layer-wise adaptive moments: Adam's step, rescaled per tensor to the norm of its weights."""

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "LAMB takes no closure"
        for group in self.param_groups:
            self._update(
                [parameter for parameter in group["params"] if parameter.grad is not None], group
            )

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update one group, all of its tensors at once."""
        if not parameters:
            return
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = (torch.zeros_like(parameter) for _ in range(2))
                self.state[parameter] |= {
                    "step": torch.zeros(()),
                    **dict(zip(("exp_avg", "exp_avg_sq"), zeros, strict=True)),
                }
        step, first, second = (
            [self.state[parameter][name] for parameter in parameters]
            for name in ("step", "exp_avg", "exp_avg_sq")
        )
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        beta1, beta2 = group["betas"]
        torch._foreach_add_(step, 1)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        made = [int(count) for count in step]
        update = torch._foreach_div(first, [1 - beta1**count for count in made])
        scale = torch._foreach_div(second, [1 - beta2**count for count in made])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, _EPSILON)
        torch._foreach_div_(update, scale)
        torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
        trust = [
            torch.where((weight > 0) & (change > 0), weight / change.clamp(min=1e-30), 1.0)
            for weight, change in zip(
                torch._foreach_norm(parameters), torch._foreach_norm(update), strict=True
            )
        ]
        torch._foreach_mul_(update, trust)
        torch._foreach_add_(parameters, update, alpha=-group["lr"])
