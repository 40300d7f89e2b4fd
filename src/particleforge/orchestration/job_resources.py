"""What every job asks of machine or cluster: cores, memory, run time, nodes, GPUs, partition.

Inputs -> outputs: the configuration's block ``resources`` and the ranks of the trainings -> threads
and Snakemake resources of a rule. Memory and run time grow with each attempt; where trainings of a
search take more ranks rung by rung, all grows with the rung.
"""

from collections.abc import Callable
from typing import Any

from particleforge.config.resources import ResourcesConfig, RuleResources
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.hpo import dag

Resource = int | str | Callable[..., Any]
_RANKS_KEYS = {
    "run_hpo_slot": "hpo.ranks",
    "confirm_trial": "hpo.ranks",
    "train_model": "training.ranks",
    "run_scan_training": "scans.ranks",
}
RULES = [
    name
    for name, field in ResourcesConfig.model_fields.items()
    if field.annotation is RuleResources
]


class JobResources:
    """The resources of the jobs of one run."""

    def __init__(self, run: RunConfig) -> None:
        """Refuse jobs on several nodes that cannot be."""
        self.run = run
        self._check_nodes()

    def threads(self, rule: str) -> int | Callable[..., int]:
        """Return the cores of a rule's jobs: at least one per DDP process."""
        found = [self._threads(rule, growth) for growth in self._growths(rule)]
        return found[0] if len(set(found)) == 1 else lambda wildcards: found[int(wildcards.rung)]

    def _threads(self, rule: str, growth: int) -> int:
        return max(self._asked(rule, growth).threads, self._ranks.get(rule, 1) * growth)

    def _asked(self, rule: str, growth: int = 1) -> RuleResources:
        """Return the resources of a rule's jobs that have ``growth`` times the configured ranks.

        Nodes are added where there would be more ranks on one than ``hpo.ranks_per_node_max``.
        """
        asked: RuleResources = getattr(self.run.resources, rule)
        most, on_a_node = self.run.hpo.ranks_per_node_max, self._ranks.get(rule, 1) // asked.nodes
        fits = (
            n
            for n in range(1, growth + 1)
            if growth % n == 0 and (most is None or on_a_node * growth // n <= most)
        )
        nodes = next(fits, growth)
        own = growth // nodes
        grown = {
            "nodes": asked.nodes * nodes,
            "threads": asked.threads * growth,
            "gpus": asked.gpus * own,
            "mem_mb": asked.mem_mb * own,
        }
        return asked.model_copy(update=grown)

    def _growths(self, rule: str) -> list[int]:
        """Return how many times the configured ranks a rule's jobs have, by rung if there are."""
        hpo = self.run.hpo
        growths = [dag.growth(hpo, rung) for rung in range(dag.n_rungs(hpo))]
        return {"run_hpo_slot": growths, "confirm_trial": growths[-1:]}.get(rule, [1])

    @property
    def _ranks(self) -> dict[str, int]:
        """DDP processes of the rules that train."""
        return {
            "run_hpo_slot": self.run.hpo.ranks,
            "confirm_trial": self.run.hpo.ranks,
            "train_model": self.run.training.ranks,
            "run_scan_training": self.run.scans.ranks,
        }

    def _check_nodes(self) -> None:
        """Raise a UserError for jobs on several nodes that cannot be."""
        for rule in RULES:
            nodes, ranks = self._asked(rule).nodes, self._ranks.get(rule, 1)
            if ranks % nodes:
                key = _RANKS_KEYS.get(rule)
                remedy = (
                    f"make {key} (now {ranks}) a multiple of it"
                    if key
                    else "only trainings run on more than one"
                )
                raise UserError(f"resources.{rule}.nodes: {nodes}; {remedy}")

    def resources(self, rule: str) -> dict[str, Resource]:
        """Return Snakemake resources of a rule.

        Memory and run time grow with each attempt, workers with the rung if the search says so.
        """
        by_rung = [self._resources(rule, growth) for growth in self._growths(rule)]
        if len(by_rung) == 1 or dag.growth(self.run.hpo, 1) == 1:
            return by_rung[0]
        names = dict.fromkeys(name for found in by_rung for name in found)
        return {name: _per_rung([found.get(name) for found in by_rung]) for name in names}

    def _resources(self, rule: str, growth: int) -> dict[str, Resource]:
        asked = self._asked(rule, growth)
        found: dict[str, Resource] = {
            "mem_mb": _per_attempt(asked.mem_mb),
            "runtime": _per_attempt(asked.runtime_min),
        }
        if rule in self._ranks:
            found["stop_before_limit_s"] = self.run.resources.stop_before_limit_s
        if asked.nodes > 1:
            ranks = self._ranks[rule] * growth
            found |= {
                "mpi": "srun",
                "nodes": asked.nodes,
                "tasks": ranks,
                "cpus_per_task": -(-self._threads(rule, growth) // ranks),
            }
        # tasks_per_gpu: 0 keeps the plugin from multiplying tasks by GPUs
        if asked.gpus and asked.nodes > 1:
            found |= {"gres": f"gpu:{asked.gpus}", "tasks_per_gpu": 0}
        elif asked.gpus:
            found["gpu"] = asked.gpus
        if asked.partition:
            found["slurm_partition"] = asked.partition
        return found


def _per_rung(values: list[Any]) -> Callable[..., Any]:
    """Return a Snakemake resource function that asks for the value of a job's rung.

    None is not asked for.
    """

    def asked(wildcards: Any, attempt: int) -> Any:
        value = values[int(wildcards.rung)]
        return value(wildcards, attempt) if callable(value) else value

    return asked


def _per_attempt(amount: int) -> Callable[..., int]:
    """Return a Snakemake resource function that asks for ``amount`` more with every attempt."""

    # Snakemake passes arguments by these names
    def asked(wildcards: Any, attempt: int) -> int:  # noqa: ARG001
        return amount * attempt

    return asked
