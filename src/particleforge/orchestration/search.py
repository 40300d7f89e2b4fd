"""What the rules ask of the hyperparameter search: its slots, what each waits for, its results."""

from functools import cached_property
from pathlib import Path
from typing import Any

from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.pin import check_pin_of
from particleforge.paths import HPO_PLOTS, Paths


class Search:
    """The search of one run, as a static graph of jobs (docs/hpo.md)."""

    def __init__(self, run: RunConfig, paths: Paths) -> None:
        self._run, self._paths = run, paths
        # files of hpo.warm_start, with the detector whose search in this results folder writes each
        self._others = {file: self._searched(file) for file in run.hpo.warm_start}
        check_pin_of(run, paths)

    @property
    def detectors(self) -> list[str]:
        """The detectors whose searches this one begins with."""
        return [name for name in self._others.values() if name]

    @property
    def plots(self) -> tuple[str, ...]:
        """Names of the plots of the search: loss against cost if both are objectives."""
        return HPO_PLOTS + (("pareto",) if len(self._run.hpo.objectives) > 1 else ())

    def slot_parents(self, wildcards: Any) -> list[str]:
        """Input function: results of the slots that a slot of the search waits for."""
        slot = int(wildcards.rung), int(wildcards.slot)
        parents = dag.parents_of(self._run.hpo, *slot)
        return [self._slot_file(wildcards.detector, parent) for parent in parents]

    def all_slots(self, wildcards: Any) -> list[str]:
        """Input function: results of all slots of the search."""
        slots = dag.all_slots(self._run.hpo)
        return [self._slot_file(wildcards.detector, slot) for slot in slots]

    def warm_start(self, wildcards: Any) -> list[str]:
        """Input function: results of other searches that a new configuration may begin with.

        Those of this results folder are made first. A detector among them does not itself begin
        with them: nothing may wait for itself.
        """
        if wildcards.rung != "0":
            return []
        circular = wildcards.detector in self._others.values()
        files = []
        for file, detector in self._others.items():
            if detector is None:
                files.append(file)
            elif not circular:
                is_best = file.endswith(".yaml")
                pattern = self._paths.hpo_best if is_best else self._paths.hpo_trials
                files.append(pattern.format(detector=detector))
        return files

    def confirmations(self, wildcards: Any) -> list[str]:
        """Input function: results of the trainings from further seeds.

        There are none unless ``hpo.confirm_seeds`` asks for them.
        """
        hpo, pattern = self._run.hpo, self._paths.hpo_confirmation
        return [
            pattern.format(detector=wildcards.detector, place=place, seed=seed)
            for place in range(hpo.confirm_trials)
            for seed in range(1, hpo.confirm_seeds)
        ]

    def priority(self, wildcards: Any) -> int:
        """Return the priority of a slot.

        Slots that may start do so in :func:`particleforge.hpo.dag.starting_order`.
        """
        return self._priorities[int(wildcards.rung), int(wildcards.slot)]

    @cached_property
    def _priorities(self) -> dict[dag.Slot, int]:
        slots = dag.starting_order(self._run.hpo)
        return {slot: len(slots) - i for i, slot in enumerate(slots)}

    def _slot_file(self, detector: str, slot: dag.Slot) -> str:
        rung, number = slot
        pattern = self._paths.hpo_slot
        return pattern.format(detector=detector, rung=rung, slot=number)

    def _searched(self, file: str) -> str | None:
        """Return the detector whose search in this results folder writes a file to begin with.

        UserError if nothing does and it is not there.
        """
        path, results = Path(file).resolve(), Path(self._run.results_dir).resolve()
        if path.is_relative_to(results):
            detector, *rest = path.relative_to(results).parts or ("",)
            if rest in (["hpo", "trials.csv"], ["hpo", "best.yaml"]):
                return detector
        if not path.is_file():
            raise UserError(
                f"hpo.warm_start: {file}: no such file; give the trials.csv or best.yaml of a"
                " search"
            )
        return None
