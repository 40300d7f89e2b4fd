"""Families of learning curves that no part of a search was chosen on.

For ``hpo_quality --family hpo_further_families:NAME``.

They have what the families of :mod:`hpo_families` lack: functions drawn at random, losses below
zero and over decades, many parameters without effect, choices that decide where the best numbers
lie, noise of 8 %, losses that rise late, and trainings that diverge late.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from hpo_families import unit_value

Space = dict[str, dict[str, Any]]


class RandomFunctions:
    """Curves whose parts are smooth random functions of the configuration.

    The parts are final loss, amplitude and speed; the functions are sums of random cosines.
    """

    seed, noise = 3, 0.02
    max_budget = 50.0
    kinds = "abcd"
    space: ClassVar[Space] = {
        **{f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(5)},
        "n": {"type": "int", "low": 1, "high": 12},
        "kind": {"type": "categorical", "choices": list(kinds)},
    }

    def __init__(self) -> None:
        """Draw the functions."""
        rng = np.random.default_rng(self.seed)
        self._frequencies = rng.normal(0, 2.0, (3, 60, 10))
        self._phases = rng.uniform(0, 6.28, (3, 60))
        self._weights = rng.normal(0, 1, (3, 60)) / math.sqrt(30)
        self._relevance = rng.exponential(1, (3, 10))
        self._relevance /= self._relevance.max(axis=1, keepdims=True)

    def _values(self, config: Mapping[str, Any]) -> list[float]:
        """Return the three functions at a configuration, each of about unit variance."""
        numbers = [unit_value(self.space, config, name) for name in self.space if name != "kind"]
        x = np.array([*numbers, *(float(config["kind"] == kind) for kind in self.kinds)])
        waves = np.cos(
            np.einsum("fwd,fd->fw", self._frequencies, self._relevance * x) + self._phases
        )
        return [float(value) for value in (waves * self._weights).sum(axis=1)]

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        share = budget / self.max_budget
        final, amplitude, speed = self._values(config)
        end = 0.5 + 0.15 * final
        curve = math.exp(-2.1 * math.exp(0.5 * speed) * share) + 0.2 * (share**-0.3 - 1)
        return float(
            end + 0.3 * math.exp(0.5 * amplitude) * curve + self.noise * end * rng.standard_normal()
        )


class OtherRandomFunctions(RandomFunctions):
    """Others, with little noise."""

    seed, noise = 8, 0.005


class Noisy(RandomFunctions):
    """Others, with noise of 8 %."""

    seed, noise = 5, 0.08


class Hartmann:
    """Hartmann's function of six variables, with a bias at low budgets; losses are negative."""

    max_budget = 200.0
    space: ClassVar[Space] = {
        f"h{i}": {"type": "float", "low": 1e-3, "high": 1.0, "log": i % 2 == 0} for i in range(6)
    }
    _steepness = np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    )
    _centres = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        x = np.array([unit_value(self.space, config, name) for name in self.space])
        heights = np.array([1.0, 1.2, 3.0, 3.2]) - 0.3 * (1 - budget / self.max_budget) * np.array(
            [1, -1, 2, 2]
        )
        return (
            -float(heights @ np.exp(-(self._steepness * (x - self._centres) ** 2).sum(1)))
            + 0.02 * rng.standard_normal()
        )


class Overfitting:
    """Losses fall and then rise late where regularisation is weak."""

    max_budget = 81.0
    space: ClassVar[Space] = {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"type": "float", "low": 1e-5, "high": 1, "log": True},
        "dropout": {"type": "float", "low": 0, "high": 0.5},
        "width": {"type": "categorical", "choices": [32, 64, 128, 256]},
    }

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        rate, decay, dropout = (
            unit_value(self.space, config, name)
            for name in ("learning_rate", "weight_decay", "dropout")
        )
        width, share = (math.log2(config["width"]) - 5) / 3, budget / self.max_budget
        learnt = (
            0.4
            + 0.6 * (rate - 0.6) ** 2
            + 0.15 * (1 - width)
            + 0.1 * (dropout - 0.3) ** 2
            + 0.05 * (1.5 - rate) * share**-0.5
        )
        overfit = (
            0.5
            * max(0.0, 0.5 + 0.5 * width + 0.3 * rate - 0.8 * decay - 0.6 * dropout)
            * share**1.5
        )
        return float((learnt + overfit) * math.exp(0.01 * rng.standard_normal()))


class ManyParameters:
    """Twelve numbers and a choice, of which four numbers and the choice matter."""

    max_budget = 27.0
    space: ClassVar[Space] = {
        **{f"p{i:02}": {"type": "float", "low": 0, "high": 1} for i in range(12)},
        "optimiser": {"type": "categorical", "choices": ["sgd", "adam", "lamb"]},
    }

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        a, b, c, d = (config[name] for name in ("p00", "p03", "p07", "p09"))
        end = (
            0.3
            + 0.8 * (a - 0.7) ** 2
            + 0.6 * (b - 0.2) ** 2
            + 0.4 * abs(c - 0.5)
            + 0.3 * (a - d) ** 2
        )
        end += {"sgd": 0.15, "adam": 0.0, "lamb": 0.05}[config["optimiser"]]
        return float(
            (end + 0.08 * (0.5 + b) * (budget / self.max_budget) ** -0.5)
            * math.exp(0.01 * rng.standard_normal())
        )


class LateDivergence(ManyParameters):
    """The same, but large values of one parameter diverge, the larger the earlier.

    Most diverge only after the low budgets.
    """

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value; ArithmeticError if the training diverged."""
        a, share = config["p00"], budget / self.max_budget
        if a > 0.6 and share > 0.2 + 4 * (0.85 - a) + 0.05 * rng.standard_normal():
            raise ArithmeticError("diverged")
        return super().loss(config, budget, rng)


class Interactions:
    """Choices decide where the best learning rate lies.

    Curves cross, fast trainings diverge, and losses span decades.
    """

    max_budget = 100.0
    space: ClassVar[Space] = {
        "optimiser": {"type": "categorical", "choices": ["sgd", "adam", "lion"]},
        "schedule": {"type": "categorical", "choices": ["cosine", "linear", "constant"]},
        "activation": {"type": "categorical", "choices": ["relu", "gelu"]},
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "n_layers": {"type": "int", "low": 1, "high": 10},
        "n_heads": {"type": "categorical", "choices": [1, 2, 4, 8]},
    }

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value, infinite if the training diverged."""
        rate, layers = (
            unit_value(self.space, config, name) for name in ("learning_rate", "n_layers")
        )
        share, optimiser = budget / self.max_budget, config["optimiser"]
        best = {"sgd": 0.75, "adam": 0.45, "lion": 0.3}[optimiser] - 0.15 * layers
        if rate > best + 0.35:
            return math.inf
        exponent = (
            6 * (rate - best) ** 2
            + (layers - 0.6) ** 2
            + 0.1 * abs(math.log2(config["n_heads"]) - 2)
        )
        exponent += 0.1 * (config["schedule"] == "constant") * share + 0.05 * (
            config["activation"] == "relu"
        )
        exponent += {"sgd": 0.15, "adam": 0.0, "lion": 0.03}[optimiser] + 0.5 * (1.2 - rate) * (
            1 + layers
        ) * (share**-0.35 - 1)
        return 0.02 * math.exp(exponent + 0.02 * rng.standard_normal())
