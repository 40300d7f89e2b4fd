"""Everything that differs between detectors: the content of ``config/detectors/<name>.yaml``."""

import itertools
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from particleforge.config.base import Block, Name, is_empty
from particleforge.config.collections import CollectionsConfig
from particleforge.config.cuts import DetectorCutsConfig
from particleforge.config.delphes import DelphesConfig
from particleforge.config.geometry import (
    CalorimeterConfig,
    ClusteringConfig,
    ParticleFlowConfig,
    TrackerConfig,
)
from particleforge.errors import UserError, did_you_mean
from particleforge.tables import schema

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")


def _is_none(value: object) -> bool:
    return value is None


class BeamConfig(Block):
    """Colliding beams and luminous region."""

    type: Literal["ee", "pp"] = Field(description="ee or pp")
    com_energy_gev: float = Field(gt=0, description="centre-of-mass energy")
    spot_sigma_mm: tuple[float, float, float] = Field(
        description="RMS of the primary vertex in x, y, z"
    )


class PileUpConfig(Block):
    """Additional inelastic pp interactions in the same bunch crossing."""

    mean_interactions: float = Field(
        0.0, ge=0, description="mean of the Poisson number of interactions; 0 switches pile-up off"
    )
    pool_events: int = Field(
        500,
        ge=1,
        description="minimum-bias events generated per shard, from which interactions are drawn",
    )
    abs_eta_max: float = Field(5.0, gt=0, description="particles beyond are not overlaid")
    processes: tuple[str, ...] = Field(
        ("SoftQCD:inelastic = on",), description="Pythia8 settings of the minimum-bias sample"
    )


class SampleConfig(Block):
    """One process, simulated or read from files."""

    label: str = Field(description="text for plots")
    pythia: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "Pythia8 settings that define the process; needed with simulation.backend parametric"
        ),
    )
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="events of this sample as a fraction of simulation.events_per_sample",
    )
    files: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "with simulation.backend files: paths, globs, folders (their *.root), http(s)://,"
            " root://, zenodo://record/<id>/<glob>"
        ),
    )
    checksums: dict[str, str] = Field(
        {},
        exclude_if=is_empty,
        description="by name of a file, sha256:<hex> or md5:<hex> that it must have",
    )
    events_per_file_max: int | None = Field(
        None,
        ge=1,
        exclude_if=_is_none,
        description="events that are read of each file, from its first on; none: all",
    )

    @field_validator("files", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, files: object) -> object:
        return (files,) if isinstance(files, str) else files

    @field_validator("checksums")
    @classmethod
    def _checksums_are_known(cls, checksums: dict[str, str]) -> dict[str, str]:
        for name, checksum in checksums.items():
            if not _CHECKSUM.fullmatch(checksum):
                raise ValueError(
                    f"checksum {checksum!r} of {name}: must read sha256:<64 hex digits> or md5:<32"
                    " hex digits>"
                )
        return checksums

    def without_files(self) -> Self:
        """Return what a stage may know of the sample: not where its data lie."""
        return self.model_copy(update={"files": (), "checksums": {}, "events_per_file_max": None})


class FeatureConfig(Block):
    """One input feature of the model."""

    name: Name = Field(
        description=(
            "member of tracks, clusters or hits, or one of sin_phi, cos_phi, sin_phi_calo,"
            " cos_phi_calo"
        )
    )
    transform: Literal["none", "log", "log1p", "asinh"] = Field(
        "none", description="applied before standardisation"
    )


class ElementsConfig(Block):
    """Model inputs per element type, in order.

    Clusters or hits are used as ``dataset.calorimeter_elements`` says.
    """

    track: tuple[FeatureConfig, ...] = Field(
        min_length=1, description="pt, p, eta, sin_phi and cos_phi must be among them"
    )
    cluster: tuple[FeatureConfig, ...] = Field(
        (),
        exclude_if=is_empty,
        description="et, energy, eta, sin_phi and cos_phi must be among them",
    )
    hit: tuple[FeatureConfig, ...] = Field(
        (),
        exclude_if=is_empty,
        description="et, energy, eta, sin_phi and cos_phi must be among them; needed for hits only",
    )

    @property
    def types(self) -> tuple[str, str]:
        """The element types in the order of their ids."""
        return schema.element_types(
            [name for name in type(self).model_fields if getattr(self, name)]
        )

    def chosen(self, calorimeter_elements: str) -> Self:
        """Return the features of tracks and of ``clusters`` or ``hits`` alone.

        UserError where there are none.
        """
        kind = calorimeter_elements.removesuffix("s")
        if not getattr(self, kind):
            raise UserError(
                f"dataset.calorimeter_elements: {calorimeter_elements} needs elements.{kind} in the"
                " detector's file; add it"
            )
        return type(self).model_validate({"track": self.track, kind: getattr(self, kind)})

    @model_validator(mode="after")
    def _features_exist(self) -> Self:
        if not self.cluster and not self.hit:
            raise ValueError(
                "elements: cluster (or hit) is missing; add the features of what the calorimeters"
                " give"
            )
        for element_type, collection in (
            ("track", schema.TRACKS),
            ("cluster", schema.CLUSTERS),
            ("hit", schema.HITS),
        ):
            allowed = (*collection.names, *schema.DERIVED_FEATURES)
            names = [feature.name for feature in getattr(self, element_type)]
            if not names:
                continue
            for name in names:
                if name not in allowed:
                    known = f"allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}"
                    raise ValueError(f"elements.{element_type}: feature '{name}' unknown; {known}")
                if names.count(name) > 1:
                    raise ValueError(
                        f"elements.{element_type}: feature '{name}' repeats; name it once"
                    )
            if missing := [
                name for name in schema.REQUIRED_FEATURES[element_type] if name not in names
            ]:
                raise ValueError(
                    f"elements.{element_type}: {', '.join(missing)} missing; momenta and distances"
                    " start from them"
                )
        return self


class ParticleClassConfig(Block):
    """One class that the model predicts; class 0, "none", is implied."""

    name: Name
    label: str = Field(description="text for plots")
    pdg: int = Field(
        description=(
            "PDG code of the class's particle; candidates of the other charge get its negative"
        )
    )
    charged: bool
    mass_gev: float = Field(ge=0)
    truth_pdgs: tuple[int, ...] = Field(
        (), description="absolute PDG codes of the class; empty: all others of that charge"
    )
    abs_eta_min: float = Field(
        0.0, ge=0, description="only particles at larger |eta| (forward calorimeter classes)"
    )


class JetConfig(Block):
    """Jet clustering for validation."""

    algorithm: Literal["anti_kt", "ee_genkt"] = "anti_kt"
    radius: float = Field(0.4, gt=0)
    power: float = Field(-1.0, description="exponent p of ee_genkt")
    pt_min_gev: float = Field(5.0, gt=0)
    abs_eta_max: float = Field(2.5, gt=0)
    match_radius: float = Field(
        0.1, gt=0, description="largest distance between matched truth and reconstructed jets"
    )


class PlotConfig(Block):
    """Ranges of validation plots."""

    jet_pt_edges_gev: tuple[float, ...] = Field(min_length=2)
    particle_pt_edges_gev: tuple[float, ...] = Field(min_length=2)
    eta_edges: tuple[float, ...] = Field(min_length=2)
    met_max_gev: float = Field(gt=0)

    @model_validator(mode="after")
    def _edges_rise(self) -> Self:
        for name in ("jet_pt_edges_gev", "particle_pt_edges_gev", "eta_edges"):
            edges = getattr(self, name)
            if any(b <= a for a, b in itertools.pairwise(edges)):
                raise ValueError(f"plots.{name}: edges must rise, got {list(edges)}")
        return self


class DetectorConfig(Block):
    """One detector, its collisions, and how its data are read, selected and plotted."""

    title: str
    b_field_tesla: float = Field(gt=0)
    beams: BeamConfig
    pile_up: PileUpConfig = PileUpConfig()
    tracker: TrackerConfig
    calorimeter: CalorimeterConfig
    clustering: ClusteringConfig
    particle_flow: ParticleFlowConfig
    collections: CollectionsConfig = CollectionsConfig()
    delphes: DelphesConfig = DelphesConfig()
    elements: ElementsConfig
    particle_classes: tuple[ParticleClassConfig, ...] = Field(min_length=1)
    samples: dict[Name, SampleConfig] = Field(min_length=1)
    cuts: DetectorCutsConfig = DetectorCutsConfig()
    jets: JetConfig
    plots: PlotConfig

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [c.name for c in self.particle_classes]
        if len(set(names)) != len(names):
            raise ValueError(f"particle_classes: names repeat in {names}")
        for charged in (True, False):
            if not any(
                c.charged is charged and not c.truth_pdgs and not c.abs_eta_min
                for c in self.particle_classes
            ):
                kind = "charged" if charged else "neutral"
                raise ValueError(
                    f"particle_classes: one {kind} class must have empty truth_pdgs to take all"
                    " other particles"
                )
        return self
