"""Families of learning curves on which searches are compared.

A curve is what a training of a configuration reaches after a budget.

A family is an object with

* ``space``: name -> {type: float | int | categorical, low, high, log, choices};
* ``max_budget``: the full budget, in any unit (budgets down to 1/81 of it are asked for);
* ``loss(config, budget, rng)``: one noisy value; not finite, or an exception, is a failed training.

The synthetic ones are bowls in the unit cube, turned into curves of the shapes that trainings have.
``recorded`` is a surrogate (a random forest, as in Eggensperger et al., arXiv:1503.06239) of real
trainings of this project, see ``record_curves``.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor

RECORDED = Path(__file__).parent / "data" / "recorded_curves.parquet"
_SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "weight_decay": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "n_layers": {"type": "int", "low": 1, "high": 8},
    "activation": {"type": "categorical", "choices": ["relu", "gelu", "silu"]},
}
RECORDED_SPACE: dict[str, dict[str, Any]] = {
    "model.width": {"type": "categorical", "choices": [16, 32, 48, 64]},
    "model.n_layers": {"type": "int", "low": 1, "high": 3},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.3},
    "training.learning_rate": {"type": "float", "low": 2e-4, "high": 5e-2, "log": True},
    "training.weight_decay": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "training.warmup_steps": {"type": "int", "low": 1, "high": 100, "log": True},
    "training.beta2": {"type": "categorical", "choices": [0.9, 0.98, 0.999]},
    "training.loss.momentum": {"type": "float", "low": 0.2, "high": 20.0, "log": True},
}
_ACTIVATION = {"relu": 0.08, "gelu": 0.0, "silu": 0.03}


def unit_value(
    space: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], name: str
) -> float:
    """Return where a number lies within its range, 0 to 1."""
    parameter = space[name]
    low, high, value = (float(v) for v in (parameter["low"], parameter["high"], config[name]))
    if parameter.get("log"):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


_unit = partial(unit_value, _SPACE)


class PowerLaw:
    """Loss falls as a power of the budget, with exponents that differ and noise."""

    space = _SPACE
    max_budget = 81.0
    noise = 0.01

    def final(self, config: Mapping[str, Any]) -> float:
        """Return the loss of an endless training."""
        rate, decay, dropout, layers = (
            _unit(config, name) for name in ("learning_rate", "weight_decay", "dropout", "n_layers")
        )
        ridge = rate - 0.65 + 0.35 * (layers - 0.5)  # deeper networks want smaller learning rates
        bowl = (
            1.5 * ridge**2
            + 0.25 * (decay - 0.4) ** 2
            + 0.3 * (dropout - 0.2) ** 2
            + 0.35 * (layers - 0.7) ** 2
        )
        return 0.3 + bowl + _ACTIVATION[config["activation"]]

    def curve(self, config: Mapping[str, Any], share: float) -> float:
        """Return the loss after a share of the full budget, without noise."""
        rate, layers = _unit(config, "learning_rate"), _unit(config, "n_layers")
        exponent = 0.3 + 0.5 * rate
        return self.final(config) + (0.03 + 0.05 * layers) * float(share**-exponent)

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        return self.curve(config, budget / self.max_budget) * math.exp(
            self.noise * rng.standard_normal()
        )


class Crossing(PowerLaw):
    """Fast learners end worse.

    High learning rates and shallow networks fall at once and then stay where they are.
    """

    def final(self, config: Mapping[str, Any]) -> float:
        """Return the loss of an endless training."""
        rate, decay, dropout, layers = (
            _unit(config, name) for name in ("learning_rate", "weight_decay", "dropout", "n_layers")
        )
        bowl = (
            1.2 * (rate - 0.3) ** 2
            + 0.5 * (layers - 0.8) ** 2
            + 0.4 * (decay - 0.6) ** 2
            + 0.3 * (dropout - 0.4) ** 2
        )
        return 0.25 + bowl + _ACTIVATION[config["activation"]]

    def curve(self, config: Mapping[str, Any], share: float) -> float:
        """Return the loss after a share of the full budget, without noise."""
        rate = _unit(config, "learning_rate")
        dropout = _unit(config, "dropout")
        layers = _unit(config, "n_layers")
        slowness = (1.0 - 0.8 * rate) * (0.4 + 0.6 * layers) * (0.7 + 0.6 * dropout)
        return self.final(config) + 0.3 * slowness * float(share**-0.6 - 1)


class Plateau(PowerLaw):
    """Nothing is learnt for a while, whose length depends on the configuration.

    Then the loss drops.
    """

    def curve(self, config: Mapping[str, Any], share: float) -> float:
        """Return the loss after a share of the full budget, without noise."""
        rate = _unit(config, "learning_rate")
        decay = _unit(config, "weight_decay")
        layers = _unit(config, "n_layers")
        # as a share of the full budget
        start: float = 0.01 * 60 ** (0.3 + 0.35 * layers + 0.35 * decay - 0.4 * rate)
        learnt = 1 / (1 + (start / share) ** 4)
        return 1.6 - (1.6 - self.final(config) - 0.03 * float(share**-0.3)) * learnt


class Diverging(PowerLaw):
    """Large learning rates are the fastest until they diverge, deep networks earlier.

    One training in twenty is lost by chance.
    """

    noise = 0.02

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value, NaN if the training failed."""
        rate, layers = _unit(config, "learning_rate"), _unit(config, "n_layers")
        edge = 0.85 - 0.3 * layers
        if rate > edge + 0.02 * rng.standard_normal() or rng.random() < 0.05:
            return math.nan
        return super().loss(config, budget, rng) * (1.0 if rate < edge - 0.05 else 1.3)


class Recorded:
    """Curves of real trainings of the network, on simulated events (see ``record_curves``)."""

    space = RECORDED_SPACE

    def __init__(self, path: Path = RECORDED) -> None:
        """Fit the forest to the curves.

        Trainings that were made twice say how large the noise is.
        """
        table = pd.read_parquet(path)
        table = table[table["status"] == "complete"]
        self.steps = np.array(table["steps"].iloc[0], dtype=float)
        self.max_budget = float(self.steps[-1])
        curves = np.log(np.stack(list(table["valid_loss"])))
        features = self._features(cast("list[dict[str, Any]]", table.to_dict("records")))
        self._forest = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=1).fit(
            features, curves
        )
        pairs = [
            group.index
            for _, group in table.reset_index(drop=True).groupby(list(self.space))
            if len(group) == 2
        ]
        apart = np.abs([curves[a, -1] - curves[b, -1] for a, b in pairs])
        # robust: trainings that go badly scatter far more
        self.noise = float(1.4826 * np.median(apart) / math.sqrt(2))
        self._known: dict[tuple[float, ...], np.ndarray] = {}

    def _features(self, configs: Sequence[Mapping[str, Any]]) -> np.ndarray:
        logs = {name for name, parameter in self.space.items() if parameter.get("log")}
        return np.array(
            [
                [math.log(config[name]) if name in logs else config[name] for name in self.space]
                for config in configs
            ]
        )

    def loss(self, config: Mapping[str, Any], budget: float, rng: np.random.Generator) -> float:
        """Return one noisy value."""
        features = self._features([config])
        key = tuple(features[0])
        if key not in self._known:
            # what trees compare; the forest's own predict takes ten times as long for one row
            row = features.astype(np.float32)
            self._known[key] = np.mean(
                [tree.tree_.predict(row)[0, :, 0] for tree in self._forest.estimators_], axis=0
            )
        curve = self._known[key]
        return float(
            np.exp(
                np.interp(math.log(budget), np.log(self.steps), curve)
                + self.noise * rng.standard_normal()
            )
        )


FAMILIES = {
    "power_law": PowerLaw,
    "crossing": Crossing,
    "plateau": Plateau,
    "diverging": Diverging,
    "recorded": Recorded,
}
