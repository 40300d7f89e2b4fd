"""Everything that differs between detectors: the content of ``config/detectors/<name>.yaml``."""

import itertools
import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from particleforge.config.base import AddressText, Block, Name, is_empty
from particleforge.config.cluster_shape import ClusterShapeConfig
from particleforge.config.collections import CollectionsConfig
from particleforge.config.cuts import DetectorCutsConfig
from particleforge.config.delphes import DelphesConfig
from particleforge.config.geometry import (
    CalorimeterConfig,
    ClusteringConfig,
    ParticleFlowConfig,
    TrackerConfig,
)
from particleforge.config.quantities import (
    PDG_MAX,
    Energy,
    EnergyCut,
    Pseudorapidity,
    Spread,
    at_most,
    below,
    is_charged,
)
from particleforge.errors import UserError, did_you_mean
from particleforge.tables import schema

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")


def _is_none(value: object) -> bool:
    return value is None


class BeamConfig(Block):
    """Colliding beams and luminous region."""

    type: Literal["ee", "pp"] = Field(description="ee or pp")
    com_energy_gev: Energy = Field(description="centre-of-mass energy")
    spot_sigma_mm: tuple[Spread, Spread, Spread] = Field(
        description="RMS of the primary vertex in x, y, z"
    )


class PileUpConfig(Block):
    """Additional inelastic pp interactions in the same bunch crossing, new ones in each event."""

    mean_interactions: float = Field(
        0.0,
        ge=0,
        le=1e4,
        description="mean of the Poisson number of interactions; 0 switches pile-up off",
    )
    abs_eta_max: Pseudorapidity = Field(5.0, description="particles beyond are not overlaid")
    processes: tuple[str, ...] = Field(
        ("SoftQCD:inelastic = on",), description="Pythia8 settings of the minimum-bias sample"
    )


def _known(checksums: dict[str, str]) -> dict[str, str]:
    for name, checksum in checksums.items():
        if not _CHECKSUM.fullmatch(checksum):
            raise ValueError(
                f"checksum {checksum!r} of {name}: must read sha256:<64 hex digits> or md5:<32 hex"
                " digits>"
            )
    return checksums


Checksums = Annotated[dict[str, str], AfterValidator(_known)]
"""Checksums by name of a file."""


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
    files: tuple[AddressText, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "with simulation.backend files: paths, globs, folders (their *.root), http(s)://,"
            " root://, zenodo://record/<id>/<glob>"
        ),
    )
    checksums: Checksums = Field(
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

    held_out: bool = Field(
        False,
        exclude_if=lambda held_out: not held_out,
        description=(
            "keep the sample out of search and training: all of its events are test events, and"
            " figures over all samples leave it out"
        ),
    )

    @field_validator("files", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, files: object) -> object:
        return (files,) if isinstance(files, str) else files

    def without_files(self) -> Self:
        """Return what a stage may know of the sample: not where its data lie."""
        return self.model_copy(update={"files": (), "checksums": {}, "events_per_file_max": None})


def _some_trained_on(samples: dict[str, SampleConfig]) -> dict[str, SampleConfig]:
    if samples and all(sample.held_out for sample in samples.values()):
        raise ValueError(f"all are held_out ({', '.join(samples)}); leave one to train on")
    return samples


Samples = Annotated[dict[Name, SampleConfig], AfterValidator(_some_trained_on)]


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


class ParticleClass(Block):
    """What data stages may know of a class that the model predicts: not how plots call it."""

    name: Name
    pdg: int = Field(
        gt=0,
        le=PDG_MAX,
        description=(
            "PDG code of the class's particle; candidates of the other charge get its negative"
        ),
    )
    charged: bool
    mass_gev: EnergyCut
    truth_pdgs: tuple[Annotated[int, Field(gt=0, le=PDG_MAX)], ...] = Field(
        (), description="absolute PDG codes of the class; empty: all others of that charge"
    )
    abs_eta_min: float = Field(
        0.0, ge=0, le=20, description="only particles at larger |eta| (forward calorimeter classes)"
    )

    @model_validator(mode="after")
    def _charge_fits(self) -> Self:
        charged = is_charged(self.pdg)
        if charged is not None and charged is not self.charged:
            raise ValueError(
                f"charged: must be {str(charged).lower()} for pdg {self.pdg} (got"
                f" {str(self.charged).lower()})"
            )
        return self


class ParticleClassConfig(ParticleClass):
    """One class that the model predicts; class 0, "none", is implied."""

    label: str = Field(description="text for plots")

    def without_label(self) -> ParticleClass:
        """Return what a data stage may know of the class."""
        return ParticleClass(**self.model_dump(exclude={"label"}))


class JetConfig(Block):
    """Jet clustering for validation."""

    algorithm: Literal["anti_kt", "ee_genkt"] = "anti_kt"
    radius: float = Field(0.4, gt=0, le=math.pi)
    power: float = Field(-1.0, ge=-10, le=10, description="exponent p of ee_genkt")
    pt_min_gev: Energy = 5.0
    abs_eta_max: Pseudorapidity = 2.5
    match_radius: float = Field(
        0.1,
        gt=0,
        le=math.pi,
        description="largest distance between matched truth and reconstructed jets",
    )


class DijetMassConfig(Block):
    """Events with two bosons of one mass, each of which can decay to two jets."""

    samples: tuple[Name, ...] = Field(
        min_length=1, description="samples that have such events, where they are among the samples"
    )
    mass_gev: Energy = Field(description="mass of the boson")
    window_gev: Energy = Field(
        20.0, description="largest distance of the two true dijet masses from it"
    )


class PlotConfig(Block):
    """Ranges of validation plots."""

    jet_pt_edges_gev: tuple[Energy, ...] = Field(min_length=2)
    particle_pt_edges_gev: tuple[Energy, ...] = Field(min_length=2)
    eta_edges: tuple[Annotated[float, Field(ge=-20, le=20)], ...] = Field(min_length=2)
    met_max_gev: Energy
    dijet_mass: DijetMassConfig | None = Field(
        None,
        exclude_if=_is_none,
        description="where to look for the mass of two jets; none: nowhere",
    )

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
    b_field_tesla: float = Field(gt=0, le=20)
    beams: BeamConfig
    pile_up: PileUpConfig = PileUpConfig()
    tracker: TrackerConfig
    calorimeter: CalorimeterConfig
    clustering: ClusteringConfig
    particle_flow: ParticleFlowConfig
    collections: CollectionsConfig = CollectionsConfig()
    delphes: DelphesConfig = DelphesConfig()
    cluster_shape: ClusterShapeConfig = ClusterShapeConfig()
    elements: ElementsConfig
    particle_classes: tuple[ParticleClassConfig, ...] = Field(min_length=1)
    samples: Samples = Field(min_length=1)
    cuts: DetectorCutsConfig = DetectorCutsConfig()
    jets: JetConfig
    plots: PlotConfig

    @field_validator("pile_up")
    @classmethod
    def _pile_up_is_of_protons(cls, pile_up: PileUpConfig, info: ValidationInfo) -> PileUpConfig:
        beams = info.data.get("beams")
        soft = [line for line in pile_up.processes if line.startswith("SoftQCD")]
        if beams and beams.type == "ee" and pile_up.mean_interactions and soft:
            raise ValueError(
                f"processes '{soft[0]}' needs beams.type pp (got ee); set mean_interactions: 0 or"
                " name processes of e+e-"
            )
        return pile_up

    @field_validator("tracker")
    @classmethod
    def _tracker_fits_beams(cls, tracker: TrackerConfig, info: ValidationInfo) -> TrackerConfig:
        if beams := info.data.get("beams"):
            limits = (tracker.radius_mm, tracker.radius_mm, tracker.half_length_mm)
            for axis, spread, limit in zip("xyz", beams.spot_sigma_mm, limits, strict=True):
                name = "half_length_mm" if axis == "z" else "radius_mm"
                below((f"beams.spot_sigma_mm in {axis}", spread), (name, limit))
            below(("pt_min_gev", tracker.pt_min_gev), _beam_energy(beams))
        return tracker

    @field_validator("calorimeter")
    @classmethod
    def _calorimeter_is_outside(
        cls, calorimeter: CalorimeterConfig, info: ValidationInfo
    ) -> CalorimeterConfig:
        if tracker := info.data.get("tracker"):
            ecal = calorimeter.ecal
            at_most(
                ("tracker.radius_mm", tracker.radius_mm),
                ("ecal.barrel_inner_radius_mm", ecal.barrel_inner_radius_mm),
            )
            at_most(
                ("tracker.half_length_mm", tracker.half_length_mm),
                ("ecal.endcap_z_min_mm", ecal.endcap_z_min_mm),
            )
        return calorimeter

    @field_validator("particle_flow")
    @classmethod
    def _muons_can_be_found(
        cls, rules: ParticleFlowConfig, info: ValidationInfo
    ) -> ParticleFlowConfig:
        if calorimeter := info.data.get("calorimeter"):
            at_most(
                ("muon_hits_min", rules.muon_hits_min),
                ("calorimeter.muon.n_layers", calorimeter.muon.n_layers),
            )
        return rules

    @field_validator("jets")
    @classmethod
    def _jets_fit_beams(cls, jets: JetConfig, info: ValidationInfo) -> JetConfig:
        if beams := info.data.get("beams"):
            below(("pt_min_gev", jets.pt_min_gev), _beam_energy(beams))
        return jets

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


def _beam_energy(beams: BeamConfig) -> tuple[str, float]:
    return "half of beams.com_energy_gev,", beams.com_energy_gev / 2
