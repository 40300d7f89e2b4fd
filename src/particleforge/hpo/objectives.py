"""What a search is to find: a low validation loss, or a low loss at a low cost of the network.

Inputs -> outputs: a network's settings and the manifest -> its cost ``inference_gflop``;
contenders, each with loss and cost -> their Pareto front, and the order in which the configured
rule prefers them.

``inference_gflop`` counts the floating-point operations, in 10^9, of all matrix products of a
forward pass over one event with the train split's mean number of elements (torch's
``FlopCounterMode``; a multiplication and an addition are two). It is no time: what is not a matrix
product is free. But it is the same on every machine and in every run, while measured times of one
network differ by more than those of neighbouring configurations do (benchmarks/LOG.md).

Samplers and promotions see the loss alone, whatever the objectives: cost chooses among those that
got to the top.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import ValidationError

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.space import apply_parameters
from particleforge.hpo.trials import SearchTrial, succeeded
from particleforge.model.inputs import ModelInputs, read_manifest

INFERENCE_GFLOP = "inference_gflop"


def inference_gflop(model: ModelConfig, manifest: Path) -> float:
    """Return the cost of a network on an event of mean length; see the module's docstring."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    from particleforge.model.network import ParticleFlowNetwork

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]

    inputs, split = ModelInputs.from_manifest(manifest), read_manifest(manifest)["splits"]["train"]
    n = max(1, round(split["n_elements"] / max(1, split["n_events"])))
    # the one kernel that torch has no formula for
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={fused: attention})
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), counter:
        ParticleFlowNetwork(model, inputs).eval()(
            torch.zeros(1, n, inputs.n_features), torch.ones(1, n, dtype=torch.int64)
        )
    return counter.get_total_flops() / 1e9


@dataclass(frozen=True)
class Contender:
    """A trial that may win.

    ``losses``: its own value, then those from further seeds; ``failures``: how many further seeds
    failed. ``gflop`` is None unless cost is an objective.
    """

    trial: SearchTrial
    gflop: float | None = None
    losses: tuple[float, ...] = ()
    failures: int = 0

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return fmean(self.losses or (self.trial.loss,))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of a single one."""
        return stdev(self.losses) if len(self.losses) > 1 else None

    @property
    def order_key(self) -> tuple[int, float, str]:
        """Order by loss: what failed from some seed behind what did not, ties by name."""
        return (self.failures, self.loss, self.trial.config)


def with_costs(
    trials: Sequence[SearchTrial], settings: HpoSettings, manifest: Path
) -> list[SearchTrial]:
    """Return the trials with the cost of their networks, if that is an objective.

    Trials made before it was one have it, too.
    """
    if INFERENCE_GFLOP not in settings.hpo.objectives:
        return list(trials)
    known: dict[ModelConfig, float] = {}
    found = []
    for trial in trials:
        try:
            model, _ = apply_parameters(trial.params, settings.model, settings.training)
        except ValidationError:  # a failed trial, whose settings were refused
            found.append(trial)
            continue
        if model not in known:
            known[model] = trial.objectives.get(INFERENCE_GFLOP) or inference_gflop(model, manifest)
        found.append(replace(trial, objectives={INFERENCE_GFLOP: known[model]}))
    return found


def top_contenders(trials: Sequence[SearchTrial]) -> list[Contender]:
    """Return the trials that ended well in the highest rung where one did, lowest loss first."""
    rungs = [t.rung for t in trials if t.status == "complete"]
    if not rungs:
        return []
    return [Contender(t, t.objectives.get(INFERENCE_GFLOP)) for t in succeeded(trials, max(rungs))]


def pareto_front(contenders: Iterable[Contender]) -> list[Contender]:
    """Return the contenders that none beats in loss or cost without being worse in the other.

    They come by loss, the lowest first. Of contenders equal in both, the first by name. Without
    costs that is the one of the lowest loss.
    """
    front: list[Contender] = []
    for contender in sorted(contenders, key=lambda c: (c.loss, _cost(c), c.trial.config)):
        if not front or _cost(contender) < _cost(front[-1]):
            front.append(contender)
    return front


def preferred(contenders: Sequence[Contender], hpo: HpoConfig) -> list[Contender]:
    """Return the contenders in the order in which ``hpo.pick`` prefers them: the first wins."""
    by_loss = sorted(contenders, key=lambda c: c.order_key)
    if hpo.pick == "lowest_loss" or not by_loss:
        return by_loss
    lowest = by_loss[0]
    limit = lowest.loss + hpo.pick_loss_tolerance * abs(lowest.loss)
    within = [c for c in by_loss if c.loss <= limit and c.failures == lowest.failures]
    return [
        *sorted(within, key=lambda c: (_cost(c), *c.order_key)),
        *(c for c in by_loss if c not in within),
    ]


def _cost(contender: Contender) -> float:
    return contender.gflop or 0.0
