"""What the Snakemake rules ask: settings of a job as plain params, lists of files, resources.

Imported while the Snakefile is parsed, also in every job: nothing here may import torch, awkward,
uproot, pyarrow or optuna.
"""

import fcntl
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.scans import ScanName
from particleforge.config.settings import (
    FetchSettings,
    StageSettings,
    dataset_settings,
    n_dataset_shards,
    n_shards,
    simulate_settings,
)
from particleforge.config.skim import check_skim
from particleforge.errors import UserError, explained
from particleforge.hpo import dag
from particleforge.inputs.given import GivenFiles
from particleforge.orchestration.job_resources import JobResources, Resource
from particleforge.paths import HPO_PLOTS, SHARD_FORMAT, Paths
from particleforge.scans.points import ScanPoint, points_of

_LOCK = ".workflow.lock"


class Workflow:
    """The validated configuration of one run, and the questions that rules ask of it."""

    def __init__(self, config_dirs: list[Path], overrides: Mapping[str, Any]) -> None:
        """Read the configuration from the first of ``config_dirs`` that exists, with Snakemake's
        ``--config`` on top.
        """
        config_dir = next(path for path in config_dirs if (path / "config.yaml").is_file())
        self.run = load_run(config_dir, overrides)
        source = self.run.scans.fine_tuning.from_detector
        self.paths = Paths(self.run.results_dir)
        self._other_searches = {file: self._searched(file) for file in self.run.hpo.warm_start}
        names = dict.fromkeys(
            [
                *self.run.detector,
                *([source] if source else []),
                *filter(None, self._other_searches.values()),
            ]
        )
        published = self.run.simulation.published
        self.detectors: dict[str, DetectorConfig] = {
            name: load_detector(config_dir, name, published) for name in names
        }
        self._points = cache(partial(points_of, self.run))
        self._jobs = JobResources(self.run)
        self._check_initial_weights()
        calorimeter_elements = self.run.dataset.calorimeter_elements
        for name, detector in self.detectors.items():
            detector.elements.chosen(
                calorimeter_elements
            )  # UserError where it has no features for them
            file = str(config_dir / "detectors" / f"{name}.yaml")
            detector.cuts.check(calorimeter_elements, file)
            check_skim(
                self.run.selection.drop_columns, detector.elements, calorimeter_elements, file
            )
        self._given = (
            GivenFiles(self.run, self.detectors, self.paths)
            if self.run.simulation.backend == "files"
            else None
        )
        self._check_processes()

    def hold_results(self) -> None:
        """Lock the results folder for this process's life and keep the numbers of given files'
        shards.

        UserError if a workflow of another working folder holds the lock. Snakemake's own lock lies
        in the working folder. Two workflows on one results folder would delete each other's
        outputs.
        """
        path = Path(self.run.results_dir) / _LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.run.results_dir}: another workflow works in this results folder; wait for"
                " it or end it"
            ) from None
        except OSError as error:
            problem = explained(error, path)
            if problem is not None:
                raise problem from None
            # else a file system without locks
        else:
            self._held = handle
        if self._given:
            self._given.keep_numbers()

    def settings(self, stage: type[StageSettings]) -> Callable[..., dict[str, Any]]:
        """Return a params function: the stage's settings for a job's detector, and sample where the
        stage has one.
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
            checksums = (
                self._given.checksums(wildcards.detector, wildcards.sample, int(wildcards.shard))
                if self._given
                else []
            )
            return (
                {**found, "files": {**found["files"], "checksums": checksums}}
                if checksums
                else found
            )

        return with_checksums

    def fetch_settings(self, wildcards: Any) -> dict[str, Any]:
        """Params function: a file to fetch."""
        if self._given is None:
            raise UserError(
                "simulation.backend: is parametric, so nothing is fetched; set it to files"
            )
        source = self._given.source(wildcards.detector, wildcards.sample, wildcards.source)
        return FetchSettings(url=source.url, checksum=source.checksum).plain()

    def fetch_resources(self) -> dict[str, Resource]:
        """Return the resources of a fetch.

        With them, what is no setting, as changing it fetches nothing anew.
        """
        fetch = self.run.simulation.fetch
        return self.resources("fetch_file") | {
            "fetch_attempts": fetch.attempts,
            "fetch_wait_ms": round(fetch.wait_s * 1000),
            "fetch_timeout_ms": round(fetch.timeout_s * 1000),
            "on_bad_file": self.run.dataset.on_bad_file,
        }

    def fetched_files(self) -> list[str]:
        """Return all files that are fetched for the chosen detectors."""
        return [
            file
            for detector in self.run.detector
            for file in (self._given.fetched(detector) if self._given else [])
        ]

    def shards(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every shard of every sample of a job's
        detector, in order.
        """
        return lambda wildcards: self.shard_files(pattern, wildcards.detector)

    def shard_files(self, pattern: str, detector: str) -> list[str]:
        """Return ``pattern`` filled for every shard of every sample of ``detector``."""
        return [
            file
            for name in self.detectors[detector].samples
            for file in _numbered(pattern, detector, name, self._shards(pattern, detector, name))
        ]

    def _shards(self, pattern: str, detector: str, sample: str) -> Iterable[int]:
        """Return the numbers of a sample's shards, simulated ones or those of the dataset and what
        follows.
        """
        if self._given:
            return () if pattern == self.paths.simulated else self._given.shards(detector, sample)
        count = n_shards if pattern == self.paths.simulated else n_dataset_shards
        return range(count(self.run.simulation, self.detectors[detector].samples[sample]))

    def dataset_inputs(self, wildcards: Any) -> list[str]:
        """Input function: the files of one shard of the dataset, simulated or given."""
        if self._given:
            return self._given.files(wildcards.detector, wildcards.sample, int(wildcards.shard))
        per_shard = self.run.simulation.files_per_dataset_shard
        first = int(wildcards.shard) * per_shard
        return _numbered(
            self.paths.simulated,
            wildcards.detector,
            wildcards.sample,
            range(first, first + per_shard),
        )

    def shards_of_sample(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every shard of a job's sample, in order."""

        def files(wildcards: Any) -> list[str]:
            start = pattern.partition("{shard}")[0].format(
                detector=wildcards.detector, sample=wildcards.sample
            )
            return [
                file
                for file in self.shard_files(pattern, wildcards.detector)
                if file.startswith(start)
            ]

        return files

    def samples(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every sample of a job's detector."""
        return lambda wildcards: [
            pattern.format(detector=wildcards.detector, sample=name)
            for name in self.detectors[wildcards.detector].samples
        ]

    def every(self, *patterns: str) -> list[str]:
        """Return the patterns, which have no other wildcard, filled for every chosen detector."""
        return [
            pattern.format(detector=detector)
            for detector in self.run.detector
            for pattern in patterns
        ]

    def every_shard(self, *patterns: str) -> list[str]:
        """Return the patterns filled for every shard of every chosen detector.

        Rules ask only when they are targets, as it may be many.
        """
        return [
            file
            for detector in self.run.detector
            for pattern in patterns
            for file in self.shard_files(pattern, detector)
        ]

    def training_data(self, *splits: str) -> dict[str, str]:
        """Return named patterns of what a training reads: manifest, normalisation, a folder of
        shards per split.
        """
        files = {"manifest": self.paths.manifest, "normalisation": self.paths.normalisation}
        return files | {split: self.paths.shards(split) for split in splits}

    def initial_weights(self) -> dict[str, str]:
        """Return, as a named input, the file whose weights trainings start from, if one is
        configured.
        """
        source = self.run.training.init_from
        return {"init_from": source} if source else {}

    def slot_parents(self, wildcards: Any) -> list[str]:
        """Input function: results of the slots that a slot of the search waits for."""
        parents = dag.parents_of(
            self.run.hpo, int(wildcards.bracket), int(wildcards.rung), int(wildcards.slot)
        )
        return [self.slot_file(wildcards.detector, parent) for parent in parents]

    def all_slots(self, wildcards: Any) -> list[str]:
        """Input function: results of all slots of the search."""
        return [self.slot_file(wildcards.detector, slot) for slot in dag.all_slots(self.run.hpo)]

    def slot_warm_start(self, wildcards: Any) -> list[str]:
        """Input function: results of other searches that a slot with a new configuration may begin
        with.

        Those of this results folder are made first. A detector among them does not itself begin
        with them: nothing may wait for itself.
        """
        if (wildcards.bracket, wildcards.rung) != ("0", "0"):
            return []
        circular = wildcards.detector in self._other_searches.values()
        files = []
        for file, detector in self._other_searches.items():
            if detector is None:
                files.append(file)
            elif not circular:
                files.append(
                    (
                        self.paths.hpo_best if file.endswith(".yaml") else self.paths.hpo_trials
                    ).format(detector=detector)
                )
        return files

    def confirmations(self, wildcards: Any) -> list[str]:
        """Input function: results of the trainings from further seeds.

        None unless ``hpo.confirm_seeds`` asks for them.
        """
        hpo = self.run.hpo
        further = [
            (place, seed)
            for place in range(hpo.confirm_trials)
            for seed in range(1, hpo.confirm_seeds)
        ]
        return [
            self.paths.hpo_confirmation.format(detector=wildcards.detector, place=place, seed=seed)
            for place, seed in further
        ]

    @property
    def hpo_plots(self) -> tuple[str, ...]:
        """Names of the plots of the search: loss against cost if both are objectives."""
        return HPO_PLOTS + (("pareto",) if len(self.run.hpo.objectives) > 1 else ())

    def slot_file(self, detector: str, place: dag.Slot) -> str:
        """Return the result file of one slot."""
        bracket, rung, slot = place
        return self.paths.hpo_slot.format(detector=detector, bracket=bracket, rung=rung, slot=slot)

    def scan_results(self, scan: ScanName) -> Callable[..., list[str]]:
        """Return an input function: all that a scan writes, for every chosen detector that it is
        about.
        """

        def files(_wildcards: Any) -> list[str]:
            detectors = [name for name in self.run.detector if self._scan_is_about(scan, name)]
            if not detectors:
                raise UserError(
                    f"scans.{scan}.from_detector: {', '.join(self.run.detector)} is the only"
                    " detector; choose another, too"
                )
            return [file for name in detectors for file in self._scan_files(scan, name)]

        return files

    def report_scans(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for each scan that the report of a detector shows."""
        return lambda wildcards: [
            pattern.format(detector=wildcards.detector, scan=scan)
            for scan in self.run.report.scans
            if self._scan_is_about(scan, wildcards.detector)
        ]

    def scan_points(self, wildcards: Any) -> list[str]:
        """Input function: results of all trainings of a scan."""
        return [
            self.paths.scan_point.format(detector=wildcards.detector, scan=wildcards.scan, point=p)
            for p in self._points(wildcards.scan)
        ]

    def scan_source(self, wildcards: Any) -> list[str]:
        """Input function: the model that a scan of fine-tuning starts from.

        Of other scans nothing.
        """
        source = self._source() if wildcards.scan == "fine_tuning" else None
        return [self.paths.model.format(detector=source)] if source else []

    def scan_point(self, wildcards: Any) -> dict[str, Any]:
        """Params function: one training of a scan."""
        points: dict[str, ScanPoint] = self._points(wildcards.scan)
        if wildcards.point not in points:
            raise UserError(
                f"scans.{wildcards.scan}: has no training {wildcards.point}; there are:"
                f" {', '.join(points)}"
            )
        return points[wildcards.point].plain()

    def _scan_is_about(self, scan: ScanName, detector: str) -> bool:
        return scan != "fine_tuning" or self._source() != detector

    def _source(self) -> str:
        source = self.run.scans.fine_tuning.from_detector
        if source is None:
            raise UserError(
                "scans.fine_tuning.from_detector: is not set; name the detector whose trained"
                " model to start from"
            )
        return source

    def _scan_files(self, scan: str, detector: str) -> list[str]:
        return [
            pattern.format(detector=detector, scan=scan)
            for pattern in (self.paths.scan, self.paths.scan_table, self.paths.scan_plots)
        ]

    def threads(self, rule: str) -> int | Callable[..., int]:
        """Return the cores of a rule's jobs."""
        return self._jobs.threads(rule)

    def resources(self, rule: str) -> dict[str, Resource]:
        """Return Snakemake resources of a rule."""
        return self._jobs.resources(rule)

    def priority(self, wildcards: Any) -> int:
        """Return the priority of a slot of the search: slots that may start do so in
        :func:`particleforge.hpo.dag.starting_order`.
        """
        return self._priorities[int(wildcards.bracket), int(wildcards.rung), int(wildcards.slot)]

    @cached_property
    def _priorities(self) -> dict[dag.Slot, int]:
        slots = dag.starting_order(self.run.hpo)
        return {slot: len(slots) - place for place, slot in enumerate(slots)}

    def _check_processes(self) -> None:
        """Raise a UserError for samples that should be simulated, but of no process or with a
        detector that is only read.
        """
        if self._given is not None:
            return
        for name, detector in self.detectors.items():
            for sample, content in detector.samples.items():
                simulate_settings(self.run, detector, sample)
                if not content.pythia:
                    raise UserError(
                        f"{name}: samples.{sample}.pythia: missing; name the process, or set"
                        " simulation.backend: files"
                    )

    def _check_initial_weights(self) -> None:
        """Raise a UserError for a file to start from that is missing, which Snakemake forgives
        where outputs exist, or in the results.
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

    def _searched(self, file: str) -> str | None:
        """Return the detector whose search in this results folder writes a file of
        ``hpo.warm_start``; UserError if nothing does.
        """
        path, results = Path(file).resolve(), Path(self.run.results_dir).resolve()
        if path.is_relative_to(results) and path.parts[len(results.parts) + 1 :] in (
            ("hpo", "trials.csv"),
            ("hpo", "best.yaml"),
        ):
            return path.parts[len(results.parts)]
        if not path.is_file():
            raise UserError(
                f"hpo.warm_start: {file}: no such file; give the trials.csv or best.yaml of a"
                " search"
            )
        return None


def _numbered(pattern: str, detector: str, sample: str, numbers: Iterable[int]) -> list[str]:
    """Return ``pattern`` filled for the numbered shards of one sample."""
    return [
        pattern.format(detector=detector, sample=sample, shard=SHARD_FORMAT.format(number))
        for number in numbers
    ]
