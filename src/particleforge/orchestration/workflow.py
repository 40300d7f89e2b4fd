"""The configuration of one run and the questions that the Snakemake rules ask of it.

``Workflow`` reads and checks the configuration and answers what concerns every rule: settings as
plain params, cores, memory. The rest it hands on: ``files`` (lists of files and samples), ``given``
(files that were not simulated), ``apply`` (files to reconstruct), ``search`` (slots of the
hyperparameter search), ``scans``.

Imported while the Snakefile is parsed, also in every job: nothing here may import torch, awkward,
uproot, pyarrow or optuna.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.home import find_config_dir
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import StageSettings, dataset_settings, simulate_settings
from particleforge.config.skim import check_skim
from particleforge.errors import UserError
from particleforge.inputs.given import GivenFiles
from particleforge.orchestration.apply import Apply
from particleforge.orchestration.files import Files
from particleforge.orchestration.frozen import freeze, frozen_configuration
from particleforge.orchestration.given import Given
from particleforge.orchestration.job_resources import JobResources, Resource
from particleforge.orchestration.lock import ResultsLock
from particleforge.orchestration.scans import Scans
from particleforge.orchestration.search import Search
from particleforge.paths import Paths
from particleforge.provenance.started import Started
from particleforge.training.mlflow_run import check_tracker


class Workflow:
    """The validated configuration of one run, and what rules ask of it."""

    def __init__(self, config_dirs: list[Path], overrides: Mapping[str, Any]) -> None:
        """Read the configuration and refuse what cannot be run.

        It is that of the first of ``config_dirs`` that has one, with Snakemake's ``--config`` on
        top; in a job that of the head, which has checked it.
        """
        frozen = frozen_configuration(overrides)
        if frozen is None:
            config_dir = find_config_dir(*config_dirs)
            self.run = load_run(config_dir, overrides)
        else:
            self.run, self.detectors = frozen
        self.paths = Paths(self.run.results_dir)
        self.search = Search(self.run, self.paths)
        self.scans = Scans(self.run, self.paths)
        if frozen is None:
            self.detectors = self._read_detectors(config_dir)
            self._check_detectors(config_dir)
            self._check_initial_weights()
            check_tracker(self.run.training)
        files_are_given = self.run.simulation.backend == "files"
        source = GivenFiles(self.run, self.detectors, self.paths) if files_are_given else None
        self.apply = Apply(self.run, self.detectors, self.paths)
        self.given = Given(self.run, source, self.apply.source)
        self.files = Files(self.run, self.detectors, self.paths, source)
        if source is None and frozen is None:
            self._check_processes()
        self._jobs = JobResources(self.run)
        self._lock = ResultsLock(self.run.results_dir)
        self._started: Started | None = None

    def freeze(self, snakemake_workflow: Any) -> None:
        """Take down what the run is started with, for its jobs (``orchestration.frozen``)."""
        self._started = freeze(self.run, self.detectors, snakemake_workflow)

    def hold_results(self) -> None:
        """Lock the results folder for this process's life; keep what the run is started with.

        That is configuration, code and the numbers of given files' shards. UserError if a workflow
        of another working folder holds the lock.
        """
        self._lock.take()
        if self._started is not None:
            self._started.write()
        self.given.keep_numbers()

    def settings(self, stage: type[StageSettings]) -> Callable[..., dict[str, Any]]:
        """Return a params function: the stage's settings for a job's detector.

        Where the stage has a sample, for that of the job.
        """

        @cache  # the jobs of one sample share one object: a plan asks for it once a job
        def plain(detector: str, **own: str) -> dict[str, Any]:
            return stage.of(self.run, self.detectors[detector], **own).plain()

        if "sample_name" in stage.model_fields:
            return lambda wildcards: plain(wildcards.detector, sample_name=wildcards.sample)
        return lambda wildcards: plain(wildcards.detector)

    def simulate_settings(self) -> Callable[..., dict[str, Any]]:
        """Return the params function of a simulated shard."""

        @cache
        def plain(detector: str, sample: str) -> dict[str, Any]:
            return simulate_settings(self.run, self.detectors[detector], sample).plain()

        return lambda wildcards: plain(wildcards.detector, wildcards.sample)

    def dataset_settings(self) -> Callable[..., dict[str, Any]]:
        """Return the params function of a shard of the dataset."""

        @cache
        def plain(detector: str, sample: str) -> dict[str, Any]:
            return dataset_settings(self.run, self.detectors[detector], sample).plain()

        def with_checksums(wildcards: Any) -> dict[str, Any]:
            found = plain(wildcards.detector, wildcards.sample)
            checksums = self.given.checksums(wildcards)
            if not checksums:
                return found
            return {**found, "files": {**found["files"], "checksums": checksums}}

        return with_checksums

    def threads(self, rule: str) -> int | Callable[..., int]:
        """Return the cores of a rule's jobs."""
        return self._jobs.threads(rule)

    def resources(self, rule: str) -> dict[str, Resource]:
        """Return Snakemake resources of a rule."""
        return self._jobs.resources(rule)

    def training_data(self, *splits: str) -> dict[str, str]:
        """Return patterns of what a training reads: manifest, normalisation, splits' shards."""
        files = {"manifest": self.paths.manifest, "normalisation": self.paths.normalisation}
        return files | {split: self.paths.shards(split) for split in splits}

    def initial_weights(self) -> dict[str, str]:
        """Return, as a named input, the file that trainings start from, if there is one."""
        source = self.run.training.init_from
        return {"init_from": source} if source else {}

    def _read_detectors(self, config_dir: Path) -> dict[str, DetectorConfig]:
        """Return the detectors that are chosen and those that scans and search begin with."""
        names = dict.fromkeys([*self.run.detector, *self.scans.detectors, *self.search.detectors])
        published = self.run.simulation.published
        return {name: load_detector(config_dir, name, published) for name in names}

    def _check_detectors(self, config_dir: Path) -> None:
        """Raise a UserError for a detector whose features or cuts do not fit the run's elements."""
        calorimeter_elements = self.run.dataset.calorimeter_elements
        for name, detector in self.detectors.items():
            detector.elements.chosen(calorimeter_elements)  # UserError where it has no features
            file = str(config_dir / "detectors" / f"{name}.yaml")
            detector.cuts.check(calorimeter_elements, file)
            drop_columns = self.run.selection.drop_columns
            check_skim(drop_columns, detector.elements, calorimeter_elements, file)

    def _check_processes(self) -> None:
        """Raise a UserError for a sample without process or of a detector that is only read."""
        for name, detector in self.detectors.items():
            for sample, content in detector.samples.items():
                simulate_settings(self.run, detector, sample)
                if not content.pythia:
                    raise UserError(
                        f"{name}: samples.{sample}.pythia: missing; name the process, or set"
                        " simulation.backend: files"
                    )

    def _check_initial_weights(self) -> None:
        """Raise a UserError for a file to start from that is missing, or lies in the results.

        Snakemake forgives a missing one where outputs exist.
        """
        source = self.run.training.init_from
        if source is None:
            return
        if not Path(source).is_file():
            raise UserError(
                f"training.init_from: {source}: no such file; give the best.pt or a checkpoint of a"
                " training"
            )
        if Path(source).resolve().is_relative_to(Path(self.run.results_dir).resolve()):
            raise UserError(
                f"training.init_from: {source}: lies in results_dir, where a run may make it anew;"
                " copy it to another folder"
            )
