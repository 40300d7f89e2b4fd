"""Optimisers and the learning-rate schedule.

AdamW is Loshchilov and Hutter (arXiv:1711.05101), LAMB is You et al. (arXiv:1904.00962, algorithm 2). Biases, norms and
other vectors are not decayed. The learning rate is a pure function of the step, so nothing of it needs saving: linear
warm-up (Goyal et al., arXiv:1706.02677), then constant or cosine to zero at the schedule's end, whenever a run is stopped.
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
    if step < training.warmup_steps:
        return peak * (step + 1) / (training.warmup_steps + 1)
    if training.schedule_length is None:
        return peak
    progress = (step - training.warmup_steps) / max(1, training.schedule_length - training.warmup_steps)
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
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, eps=_EPSILON, fused=True)


class Lamb(torch.optim.Optimizer):
    """Layer-wise adaptive moments: Adam's step, rescaled per tensor to the norm of its weights."""

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "LAMB takes no closure"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self.state[parameter], group)

    @staticmethod
    def _update(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = int(state["step"])
        first = state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        update = (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + _EPSILON)
        update = update.add(parameter, alpha=group["weight_decay"])
        weight_norm, update_norm = parameter.norm(), update.norm()
        trust = torch.where((weight_norm > 0) & (update_norm > 0), weight_norm / update_norm.clamp(min=1e-30), 1.0)
        parameter.sub_(update * trust, alpha=group["lr"])
