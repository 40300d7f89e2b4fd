"""The whole configuration of a run: its file, a preset, ``--config``, and the chosen detectors."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from particleforge.config.apply import ApplyConfig
from particleforge.config.base import Block, Name, PathText
from particleforge.config.checks import ChecksConfig
from particleforge.config.dataset import DatasetConfig
from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.parallelism import parallelism_conflict
from particleforge.config.preprocessing import PreprocessingConfig
from particleforge.config.reconstruction import ExportConfig, ReconstructionConfig
from particleforge.config.report import ReportConfig
from particleforge.config.resources import ResourcesConfig
from particleforge.config.scans import ScansConfig
from particleforge.config.selection import SelectionConfig
from particleforge.config.simulation import SimulationConfig
from particleforge.config.space_checks import check_grid, check_space
from particleforge.config.training import TrainingConfig
from particleforge.config.validation import ValidationConfig


class RunConfig(Block):
    """What to run: detectors, sizes and the stages' settings."""

    preset: str = Field(
        "demo", description="file of config/presets that is merged over config.yaml"
    )
    detector: tuple[Name, ...] = Field(
        min_length=1, description="one or more files of config/detectors"
    )
    results_dir: PathText = Field(
        "results", min_length=1, description="folder of all results; ~ is expanded"
    )
    seed: int = Field(
        20260401, ge=0, description="every random number of every stage derives from it"
    )
    simulation: SimulationConfig = SimulationConfig()
    dataset: DatasetConfig = DatasetConfig()
    checks: ChecksConfig = ChecksConfig()
    selection: SelectionConfig = SelectionConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    hpo: HpoConfig = HpoConfig()
    export: ExportConfig = ExportConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    validation: ValidationConfig = ValidationConfig()
    report: ReportConfig = ReportConfig()
    apply: ApplyConfig = ApplyConfig()
    scans: ScansConfig = ScansConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @field_validator("detector")
    @classmethod
    def _each_detector_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _space_fits(self) -> Self:
        check_space(self.hpo.space, self.model, self.training)
        if self.hpo.sampler == "grid":
            check_grid(
                self.hpo.space,
                self.hpo.grid_points,
                self.hpo.first_rung_slots,
                self.model,
                self.training,
            )
        return self

    @model_validator(mode="after")
    def _units_fit(self) -> Self:
        hpo, training = self.hpo, self.training
        if hpo.min_steps is not None and not training.in_steps:
            name = "warmup_events" if training.events_seen is None else "events_seen"
            raise ValueError(
                f"hpo.min_steps = {hpo.min_steps}, but training.{name} ="
                f" {getattr(training, name)}; give hpo.min_events, and null for hpo.min_steps"
            )
        return self

    @model_validator(mode="after")
    def _parallelism_fits(self) -> Self:
        conflict = parallelism_conflict(self.model, self.training, self.training.ranks)
        if conflict:
            raise ValueError(conflict)
        return self
