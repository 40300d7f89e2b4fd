"""What each stage may read of the configuration: its settings.

A stage's settings are a model whose fields are exactly the blocks that shape its output, plus the
version of its code. The same object is the ``params:`` of the rule (so that a changed key reruns
the stages that depend on it and no other), the hash in every output's provenance, and the only
configuration the stage's function receives. Raise ``version`` when a stage's code changes what it
writes: Snakemake does not look into the library.

What plots call a detector, a sample or a class is a setting of the stages that draw, of no other.
"""

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field

from particleforge.config.base import Block
from particleforge.config.checks import ChecksConfig
from particleforge.config.cluster_shape import ClusterShapeConfig
from particleforge.config.collections import CollectionsConfig
from particleforge.config.cuts import DetectorCutsConfig
from particleforge.config.dataset import DatasetConfig
from particleforge.config.delphes import DelphesConfig
from particleforge.config.detector import (
    BeamConfig,
    DetectorConfig,
    ElementsConfig,
    JetConfig,
    ParticleClass,
    ParticleClassConfig,
    PileUpConfig,
    PlotConfig,
    SampleConfig,
)
from particleforge.config.geometry import (
    CalorimeterConfig,
    ClusteringConfig,
    ParticleFlowConfig,
    TrackerConfig,
)
from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.preprocessing import PreprocessingConfig
from particleforge.config.reconstruction import ExportConfig, ReconstructionConfig
from particleforge.config.report import ReportConfig
from particleforge.config.run import RunConfig
from particleforge.config.selection import SelectionConfig
from particleforge.config.simulation import SimulationConfig
from particleforge.config.skim import check_skim
from particleforge.config.training import TrainingConfig
from particleforge.config.validation import ValidationConfig
from particleforge.errors import UserError
from particleforge.paths import APPLIED


def _is_none(value: object) -> bool:
    return value is None


class StageSettings(Block):
    """Base of all stages' settings: fields are filled by name, from the run, else the detector."""

    version: int

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; ``own`` gives fields that are neither (a sample, its name)."""
        picked = dict(own)
        for name in cls.model_fields:
            if name in picked or name == "version":
                continue
            picked[name] = (
                getattr(run, name) if name in RunConfig.model_fields else getattr(detector, name)
            )
            if name == "samples":
                picked[name] = {
                    sample: content.without_files() for sample, content in picked[name].items()
                }
            if cls.model_fields[name].annotation == tuple[ParticleClass, ...]:
                picked[name] = tuple(one.without_label() for one in picked[name])
        return cls(**picked)

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain JSON values, for params, hashes and provenance."""
        return self.model_dump(mode="json")


class SimulateSettings(StageSettings):
    """What shapes a simulated shard.

    Neither how many there are of its sample nor how plots call it.
    """

    version: int = 3
    seed: int
    events_per_shard: int
    sample_name: str
    pythia: tuple[str, ...]
    beams: BeamConfig
    pile_up: PileUpConfig
    b_field_tesla: float
    tracker: TrackerConfig
    calorimeter: CalorimeterConfig
    clustering: ClusteringConfig
    particle_flow: ParticleFlowConfig
    collections: CollectionsConfig


class FetchSettings(StageSettings):
    """What shapes a file that is fetched from another machine.

    ``checksum`` is "" if none is known, ``size`` (bytes) None.
    """

    version: int = 1
    url: str
    checksum: str
    size: int | None = Field(None, exclude_if=_is_none)


class FilesSettings(Block):
    """What shapes a shard of given files: how much of each is read, checksums in their order.

    A checksum is "" where none is known; there are none at all where none of the files has one.
    """

    events_per_file_max: int | None = None
    checksums: tuple[str, ...] = ()


class DatasetSettings(StageSettings):
    """What shapes a shard of the dataset.

    ``files`` is None where its events were simulated here.
    """

    version: int = 5
    sample_name: str
    files: FilesSettings | None = None
    dataset: DatasetConfig
    b_field_tesla: float
    calorimeter: CalorimeterConfig
    cluster_shape: ClusterShapeConfig = ClusterShapeConfig()
    collections: CollectionsConfig
    delphes: DelphesConfig = DelphesConfig()
    particle_classes: tuple[ParticleClass, ...]

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; without ``files`` among ``own``, those of a simulated shard."""
        return super().of(run, detector, **{"files": None, **own})

    def plain(self) -> dict[str, Any]:
        """Return the settings without what has no effect here.

        Without effect are hits where clusters are elements, clusters' shape where hits are,
        unchanged Delphes branches, and truth where it is read.
        """
        found = super().plain()
        if self.dataset.reads_truth:
            del found["dataset"]["truth"]
        if self.dataset.calorimeter_elements == "clusters":
            del found["dataset"]["calorimeter_elements"], found["dataset"]["hit_energy_min_mev"]
        else:
            del found["cluster_shape"]
        if self.delphes == DelphesConfig():
            del found["delphes"]
        if self.files is None:
            del found["files"]
        return found


class CheckDatasetSettings(StageSettings):
    """What shapes the verdict on a sample of the dataset."""

    version: int = 2
    sample_name: str
    checks: ChecksConfig
    calorimeter_elements: str
    particle_classes: tuple[ParticleClass, ...]

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; of the truth definition, what the elements are."""
        return super().of(
            run, detector, calorimeter_elements=run.dataset.calorimeter_elements, **own
        )


class CompareSamplesSettings(StageSettings):
    """What shapes the verdict on all samples of the dataset."""

    version: int = 2
    checks: ChecksConfig


class CheckShardsSettings(StageSettings):
    """What shapes the verdict on the training shards."""

    version: int = 3
    checks: ChecksConfig


class SelectSettings(StageSettings):
    """What shapes a selected shard."""

    version: int = 3
    seed: int
    sample_name: str
    held_out: bool = Field(False, exclude_if=lambda held_out: not held_out)
    selection: SelectionConfig
    cuts: DetectorCutsConfig

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; UserError if these drop columns that later stages read."""
        check_skim(
            run.selection.drop_columns,
            detector.elements,
            run.dataset.calorimeter_elements,
            "the detector's file",
        )
        # the command line may call a sample as it likes
        sample = detector.samples.get(own["sample_name"])
        held_out = sample is not None and sample.held_out
        return super().of(run, detector, **{"held_out": held_out, **own})


class CutflowSettings(StageSettings):
    """What shapes the gathered cutflow."""

    version: int = 2
    samples: dict[str, SampleConfig]


class ShardSettings(StageSettings):
    """What shapes the training shards."""

    version: int = 7
    seed: int
    preprocessing: PreprocessingConfig
    elements: ElementsConfig
    particle_classes: tuple[ParticleClass, ...]

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; of the elements, the features of those that the dataset has."""
        return super().of(
            run,
            detector,
            elements=detector.elements.chosen(run.dataset.calorimeter_elements),
            **own,
        )


class TrainSettings(StageSettings):
    """What shapes a training, of the search or final."""

    version: int = 3
    seed: int
    model: ModelConfig
    training: TrainingConfig


class HpoSettings(StageSettings):
    """What shapes the search: the settings that it starts from and the search itself.

    Of ``training``, what only the final training sees is set to fixed values: its length is the
    end of the schedule, whose warm-up trials share, or 1 if it has none. Of ``hpo``, what only
    chooses among finished trials.
    """

    version: int = 3
    seed: int
    model: ModelConfig
    training: TrainingConfig
    hpo: HpoConfig

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks.

        A longer final training, one on more ranks, or another choice is the same search.
        """
        hpo = run.hpo.model_copy(
            update={name: HpoConfig.model_fields[name].default for name in _CHOICE}
        )
        return super().of(run, detector, **{"training": _searched(run.training), "hpo": hpo, **own})


class SelectBestSettings(HpoSettings):
    """What shapes the choice among a search's trials, and their confirmation from other seeds."""

    version: int = 4

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick the search's blocks, with all that chooses."""
        return super().of(run, detector, hpo=run.hpo, **own)


# keys of hpo that no slot reads
_CHOICE = (
    "pick",
    "pick_loss_tolerance",
    "pin_trial",
    "confirm_seeds",
    "confirm_trials",
    "warm_start",
)


def _searched(training: TrainingConfig) -> TrainingConfig:
    in_steps = training.events_seen is None
    seen = {
        "max_steps" if in_steps else "events_seen": training.schedule_length or 1,
        "schedule_steps" if in_steps else "schedule_events": None,
        "ranks": 1,
        "early_stopping_patience": 0,
        "tracker": "tensorboard",
    }
    return training.model_copy(update=seen)


class ScanSettings(StageSettings):
    """What shapes the table, fits and plots of a scan.

    Its trainings have settings of their own (``scans.points``).
    """

    version: int = 1
    title: str


class ExportSettings(StageSettings):
    """What shapes the exported model, and what its card says of the data."""

    version: int = 5
    export: ExportConfig
    origin: str

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks; ``origin`` says in words where the events come from."""
        return super().of(run, detector, origin=run.simulation.origin, **own)


class ReconstructSettings(StageSettings):
    """What shapes a reconstructed file."""

    version: int = 4
    reconstruction: ReconstructionConfig
    particle_classes: tuple[ParticleClass, ...] = ()


class ValidateSettings(StageSettings):
    """What shapes the physics validation."""

    version: int = 7
    seed: int
    title: str
    validation: ValidationConfig
    particle_classes: tuple[ParticleClassConfig, ...]
    jets: JetConfig
    plots: PlotConfig
    samples: dict[str, SampleConfig]


class ReportSettings(StageSettings):
    """What shapes the report."""

    version: int = 7
    title: str
    preset: str
    seed: int
    report: ReportConfig
    particle_classes: tuple[ParticleClassConfig, ...]
    samples: dict[str, SampleConfig]
    calorimeter_face_mm: tuple[float, float]

    @classmethod
    def of(cls, run: RunConfig, detector: DetectorConfig, **own: Any) -> Self:
        """Pick this stage's blocks, and inner radius and half length of the calorimeter."""
        ecal = detector.calorimeter.ecal
        face = (ecal.barrel_inner_radius_mm, ecal.endcap_z_min_mm)
        return super().of(run, detector, calorimeter_face_mm=face, **own)


def simulate_settings(run: RunConfig, detector: DetectorConfig, sample: str) -> SimulateSettings:
    """Return the settings of one sample's shards.

    UserError for a detector that is only read from files.
    """
    for key in (
        "ecal_hits",
        "hcal_hits",
        "other_hits",
        "hit_links",
        "cluster_links",
        "track_links",
    ):
        if not getattr(detector.collections, key):
            raise UserError(
                f"{detector.title}: collections.{key}: is empty, so events cannot be simulated; set"
                " simulation.backend: files"
            )
    return SimulateSettings.of(
        run,
        detector,
        events_per_shard=run.simulation.events_per_shard,
        sample_name=sample,
        pythia=detector.samples[sample].pythia,
    )


def dataset_settings(
    run: RunConfig, detector: DetectorConfig, sample_name: str, checksums: Iterable[str] = ()
) -> DatasetSettings:
    """Return the settings of a shard of the dataset.

    Given files have ``checksums`` as ``FilesSettings`` says.
    """
    given = None
    if run.simulation.backend == "files":
        sample = detector.samples.get(sample_name)  # the command line may call a sample as it likes
        given = FilesSettings(
            events_per_file_max=sample.events_per_file_max if sample else None,
            checksums=tuple(checksums),
        )
    return DatasetSettings.of(run, detector, sample_name=sample_name, files=given)


def applied_dataset_settings(
    run: RunConfig, detector: DetectorConfig, checksums: Iterable[str] = ()
) -> DatasetSettings:
    """Return how one of the files of ``apply.files`` is read: without truth."""
    files = FilesSettings(
        events_per_file_max=run.apply.events_per_file_max, checksums=tuple(checksums)
    )
    dataset = run.dataset.model_copy(update={"truth": "none"})
    return DatasetSettings.of(run, detector, sample_name=APPLIED, files=files, dataset=dataset)


def n_shards(simulation: SimulationConfig, sample: SampleConfig) -> int:
    """Return how many simulated files a sample has, rounded up to full shards of the dataset."""
    return n_dataset_shards(simulation, sample) * simulation.files_per_dataset_shard


def n_dataset_shards(simulation: SimulationConfig, sample: SampleConfig) -> int:
    """Return how many shards a sample has in the dataset and the stages that follow."""
    events_per_dataset_shard = simulation.events_per_shard * simulation.files_per_dataset_shard
    return max(
        1, -(-round(simulation.events_per_sample * sample.fraction) // events_per_dataset_shard)
    )
