"""Geometry and response of a detector, for parametric simulation and rule-based particle flow.

A detector that cannot be is refused when it is read: what lies inside out, outside of what should
hold it, or where something else is, and numbers that could only be of another unit.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from particleforge.config.base import Block
from particleforge.config.quantities import (
    LENGTH_MAX_MM,
    DepositCutMev,
    DepositMev,
    Energy,
    EnergyCut,
    Length,
    Pseudorapidity,
    RelativeSpread,
    Spread,
    StochasticTerm,
    at_most,
    below,
)

# What the simulation can number: a cell's identifier has 8 bits of layer and 23 bits each way, and
# clustering counts cubes of the link distance with 20 bits.
N_LAYERS_MAX = 256
N_CELLS_IN_A_ROW_MAX = 1 << 23
LINK_MIN_MM = 0.1
N_CELLS_MAX = 10**12  # of a calorimeter; pixels of 50 micrometres in all layers make 5 10^11
SPOTS_MAX = 10_000  # per GeV; a hundred times what showers need


class EfficiencyRegion(Block):
    """Tracking efficiency up to ``abs_eta_max``, above ``pt_min_gev``.

    The first region that holds the particle counts.
    """

    abs_eta_max: Pseudorapidity
    pt_min_gev: EnergyCut
    efficiency: float = Field(ge=0, le=1)


class ResolutionRegion(Block):
    """sigma(pT)/pT = sqrt((curvature_per_gev pT)^2 + constant^2) up to ``abs_eta_max``."""

    abs_eta_max: Pseudorapidity
    curvature_per_gev: RelativeSpread
    constant: RelativeSpread


class BarrelLayerConfig(Block):
    """One cylindrical measuring layer."""

    radius_mm: Length
    half_length_mm: Length


class DiskConfig(Block):
    """One measuring disk, at both ends of the detector."""

    z_mm: Length
    inner_radius_mm: Length
    outer_radius_mm: Length

    @model_validator(mode="after")
    def _is_a_ring(self) -> Self:
        below(("inner_radius_mm", self.inner_radius_mm), ("outer_radius_mm", self.outer_radius_mm))
        return self


class TrackerConfig(Block):
    """Tracking volume, material and response."""

    radius_mm: Length = Field(
        description="radius of the tracking volume: particles enter the calorimeters here"
    )
    half_length_mm: Length = Field(description="half-length of the tracking volume")
    barrel_layers: tuple[BarrelLayerConfig, ...] = Field(
        min_length=1, description="measuring layers; the material lies in them"
    )
    disks: tuple[DiskConfig, ...] = ()
    hits_min: int = Field(4, ge=3, description="layers that a particle must cross to be found")
    pt_min_gev: Energy
    abs_eta_max: Pseudorapidity
    efficiency: tuple[EfficiencyRegion, ...] = Field(min_length=1)
    momentum_resolution: tuple[ResolutionRegion, ...] = Field(min_length=1)
    angle_resolution_rad: float = Field(
        3e-4, ge=0, le=1, description="sigma of phi and of theta at the interaction point"
    )
    impact_resolution_mm: Spread = Field(0.005, description="sigma of d0 and z0 at high momentum")
    impact_scattering_mm_gev: Spread = Field(
        0.015, description="adds this / (p sin^(3/2) theta) in quadrature"
    )
    dedx_resolution: RelativeSpread = Field(0.1, description="relative sigma of a track's dE/dx")
    shared_hit_probability: float = Field(
        0.02,
        ge=0,
        le=1,
        description="chance that one hit of a track belongs to a neighbouring track",
    )
    material_radiation_lengths: float = Field(
        0.1, ge=0, le=100, description="X0 at normal incidence before the calorimeter"
    )
    material_interaction_lengths: float = Field(
        0.03, ge=0, le=100, description="nuclear interaction lengths, likewise"
    )

    @model_validator(mode="after")
    def _layers_are_inside(self) -> Self:
        radius = ("radius_mm", self.radius_mm)
        half_length = ("half_length_mm", self.half_length_mm)
        for number, layer in enumerate(self.barrel_layers):
            at_most((f"barrel_layers.{number}.radius_mm", layer.radius_mm), radius)
            at_most((f"barrel_layers.{number}.half_length_mm", layer.half_length_mm), half_length)
        for number, disk in enumerate(self.disks):
            at_most((f"disks.{number}.outer_radius_mm", disk.outer_radius_mm), radius)
            at_most((f"disks.{number}.z_mm", disk.z_mm), half_length)
        n_layers = len(self.barrel_layers) + len(self.disks)
        at_most(("hits_min", self.hits_min), ("the number of barrel_layers and disks", n_layers))
        return self

    @model_validator(mode="after")
    def _every_region_counts(self) -> Self:
        _none_is_hidden(
            "efficiency", [(region.abs_eta_max, region.pt_min_gev) for region in self.efficiency]
        )
        _none_is_hidden(
            "momentum_resolution", [(region.abs_eta_max, 0) for region in self.momentum_resolution]
        )
        return self


class SamplingConfig(Block):
    """One sampling calorimeter, barrel and two endcaps of the same structure."""

    barrel_inner_radius_mm: Length
    barrel_outer_radius_mm: Length
    barrel_half_length_mm: Length
    endcap_z_min_mm: Length
    endcap_z_max_mm: Length
    endcap_inner_radius_mm: Length
    endcap_outer_radius_mm: Length
    n_layers: int = Field(ge=1, le=N_LAYERS_MAX)
    radiation_lengths_per_layer: float = Field(gt=0, le=1000)
    interaction_lengths_per_layer: float = Field(gt=0, le=100)
    cell_size_mm: Length
    moliere_radius_mm: Length
    atomic_number: float = Field(
        ge=1, le=118, description="effective Z of the material that showers develop in"
    )
    critical_energy_mev: DepositMev = Field(description="effective critical energy")
    em_to_mip: float = Field(
        gt=0,
        le=1,
        description="e/mip response ratio of a sampling calorimeter; 1 makes it a homogeneous one",
    )
    spots_per_gev: float = Field(
        gt=0, le=SPOTS_MAX, description="deposits by which an electromagnetic shower is sampled"
    )
    em_stochastic: StochasticTerm = Field(description="sqrt(GeV), for electrons and photons")
    em_constant: RelativeSpread
    hadronic_stochastic: StochasticTerm = Field(description="sqrt(GeV), for hadrons")
    hadronic_constant: RelativeSpread
    hadronic_response: float = Field(
        0.85,
        gt=0,
        le=1,
        description="h/e: response to the non-electromagnetic part of hadronic showers",
    )
    calibration: float = Field(
        1.0,
        gt=0,
        le=100,
        description=(
            "factor on cell energies that makes up, on average, for what thresholds cut off"
        ),
    )
    noise_mev: DepositCutMev = Field(description="RMS of a cell's noise")
    noise_cells_per_event: float = Field(
        0.0, ge=0, le=1e4, description="mean number of cells that noise alone lifts over threshold"
    )
    dead_cells_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        exclude_if=lambda fraction: fraction == 0,
        description="cells that never answer, the same in all events",
    )
    threshold_mev: DepositCutMev = Field(
        description="calibrated cell energy below which a hit is dropped"
    )
    mip_mev: DepositMev = Field(
        description="calibrated energy that a minimum-ionising particle leaves per layer"
    )

    @model_validator(mode="after")
    def _volumes_are_sound(self) -> Self:
        for low, high in (
            ("barrel_inner_radius_mm", "barrel_outer_radius_mm"),
            ("endcap_z_min_mm", "endcap_z_max_mm"),
            ("endcap_inner_radius_mm", "endcap_outer_radius_mm"),
        ):
            below((low, getattr(self, low)), (high, getattr(self, high)))
        return self

    @model_validator(mode="after")
    def _cells_can_be_numbered(self) -> Self:
        outer = max(self.barrel_outer_radius_mm, self.endcap_outer_radius_mm)
        area = 2 * math.pi * (self.barrel_inner_radius_mm + self.barrel_outer_radius_mm)
        area *= self.barrel_half_length_mm
        area += 2 * math.pi * (self.endcap_outer_radius_mm**2 - self.endcap_inner_radius_mm**2)
        n_cells = self.n_layers * area / self.cell_size_mm**2
        _check_cells(
            self.cell_size_mm,
            self.barrel_inner_radius_mm,
            max(2 * math.pi * outer, self.barrel_half_length_mm),
            n_cells,
        )
        below(
            ("noise_cells_per_event", self.noise_cells_per_event), ("the number of cells", n_cells)
        )
        return self


class MuonSystemConfig(Block):
    """Muon chambers: layers behind the calorimeter."""

    inner_radius_mm: Length
    endcap_z_min_mm: Length
    abs_eta_max: Pseudorapidity
    n_layers: int = Field(ge=1, le=N_LAYERS_MAX)
    layer_spacing_mm: Length
    cell_size_mm: Length
    hit_efficiency: float = Field(0.95, ge=0, le=1)
    hit_energy_mev: DepositMev = Field(description="energy that a muon leaves in a chamber")
    coil_loss_gev: EnergyCut = Field(
        description="energy that a muon loses between the calorimeter and the chambers"
    )

    @model_validator(mode="after")
    def _chambers_can_be_numbered(self) -> Self:
        depth = (self.n_layers - 1) * self.layer_spacing_mm
        radius, plane = self.inner_radius_mm + depth, self.endcap_z_min_mm + depth
        at_most(("layers up to", max(radius, plane)), ("the largest length in mm,", LENGTH_MAX_MM))
        area = 2 * math.pi * radius * (2 * plane + radius)
        _check_cells(
            self.cell_size_mm,
            self.inner_radius_mm,
            max(2 * math.pi * radius, plane),
            self.n_layers * area / self.cell_size_mm**2,
        )
        return self


class CalorimeterConfig(Block):
    """Calorimeters and muon system."""

    ecal: SamplingConfig
    hcal: SamplingConfig
    hadron_spots_per_gev: float = Field(
        gt=0,
        le=SPOTS_MAX,
        description="deposits by which the non-electromagnetic part of a shower is sampled",
    )
    muon: MuonSystemConfig

    @model_validator(mode="after")
    def _one_lies_behind_the_other(self) -> Self:
        ecal, hcal, muon = self.ecal, self.hcal, self.muon
        for end, begin, chambers in (
            ("barrel_outer_radius_mm", "barrel_inner_radius_mm", "inner_radius_mm"),
            ("endcap_z_max_mm", "endcap_z_min_mm", "endcap_z_min_mm"),
        ):
            at_most((f"ecal.{end}", getattr(ecal, end)), (f"hcal.{begin}", getattr(hcal, begin)))
            at_most(
                (f"hcal.{end}", getattr(hcal, end)), (f"muon.{chambers}", getattr(muon, chambers))
            )
        return self

    @model_validator(mode="after")
    def _barrels_end_before_endcaps(self) -> Self:
        parts = (("ecal", self.ecal), ("hcal", self.hcal))
        for (name, barrel), (other, endcap) in itertools.product(parts, parts):
            if (
                barrel.barrel_inner_radius_mm < endcap.endcap_outer_radius_mm
                and barrel.barrel_outer_radius_mm > endcap.endcap_inner_radius_mm
            ):
                at_most(
                    (f"{name}.barrel_half_length_mm", barrel.barrel_half_length_mm),
                    (f"{other}.endcap_z_min_mm", endcap.endcap_z_min_mm),
                )
        return self


class ClusteringConfig(Block):
    """Clustering of calorimeter hits; showers that overlap are merged, as in a real detector."""

    ecal_link_mm: float = Field(
        ge=LINK_MIN_MM,
        le=LENGTH_MAX_MM,
        description="hits of the ECAL this close share density and follow each other to a peak",
    )
    hcal_link_mm: float = Field(
        ge=LINK_MIN_MM, le=LENGTH_MAX_MM, description="likewise in the HCAL"
    )
    ecal_merge_mm: Length = Field(
        description="ECAL fragments whose axes are this close are one cluster"
    )
    ecal_halo_merge_mm: Length = Field(
        description="likewise for fragments of little energy compared with the cluster's core"
    )
    hcal_merge_mm: Length = Field(
        description="HCAL fragments join clusters whose axis is this close"
    )
    hcal_halo_merge_mm: Length = Field(description="likewise for HCAL fragments of little energy")
    halo_energy_fraction: float = Field(
        0.1,
        ge=0,
        le=1,
        description="what little energy means, relative to the cluster's first fragment",
    )
    muon_merge_mm: Length = Field(
        description="muon-system hits join clusters whose axis is this close"
    )
    energy_min_mev: DepositCutMev = Field(description="clusters below are dropped")


class ParticleFlowConfig(Block):
    """Rule-based particle flow: the baseline."""

    match_distance_mm: Length = Field(
        description="hits this close to a track's line (half a cell is added) are its own"
    )
    fragment_distance_mm: Length = Field(
        description=(
            "clusters with a hit this close to a track's line may be fragments of its shower"
        )
    )
    compatibility_sigma: float = Field(
        1.5, gt=0, description="excess over the tracks' momenta that becomes a neutral, in sigma"
    )
    hadron_ecal_share: float = Field(
        0.35, ge=0, le=1, description="mean share of a charged hadron's energy in the ECAL"
    )
    electron_ecal_fraction_min: float = Field(0.9, ge=0, le=1)
    electron_ep_tolerance: float = Field(
        0.15, gt=0, description="|E/p - 1| of an electron, at least 2.5 sigma of the ECAL"
    )
    photon_ecal_fraction_min: float = Field(0.8, ge=0, le=1)
    photon_width_max_mm: Length = Field(
        description="largest mean distance of a photon's ECAL energy from the axis"
    )
    muon_hits_min: int = Field(3, ge=1, description="muon-system hits that make a track a muon")
    muon_match_mm: Length = Field(
        description="muon-system hits this close to a track's line are its own"
    )
    neutral_energy_min_gev: EnergyCut = 0.2
    bad_track_lack_sigma: float = Field(
        2.5,
        gt=0,
        description="energy missing in the calorimeter that makes a track suspect, in sigma",
    )
    bad_track_energy_fraction: float = Field(
        0.1, ge=0, description="suspect tracks with a smaller share of p on their line are dropped"
    )


def _none_is_hidden(name: str, regions: Sequence[tuple[float, float]]) -> None:
    """Raise a ValueError for a region (largest |eta|, smallest pT) that an earlier one holds."""
    for number, (eta, pt) in enumerate(regions):
        for earlier, (other_eta, other_pt) in enumerate(regions[:number]):
            if other_eta >= eta and other_pt <= pt:
                raise ValueError(
                    f"{name}.{number} (abs_eta_max {eta:g}) never counts, as {name}.{earlier}"
                    f" (abs_eta_max {other_eta:g}) holds all of it; put the smaller region first"
                )


def _check_cells(size: float, inner_radius: float, longest: float, n_cells: float) -> None:
    """Raise a ValueError for cells that do not fit into their barrel or are too many to number."""
    below(("cell_size_mm", size), ("the inner circumference", 2 * math.pi * inner_radius))
    if longest / size >= N_CELLS_IN_A_ROW_MAX or n_cells >= N_CELLS_MAX:
        raise ValueError(
            f"cell_size_mm {size:g} makes {n_cells:.2g} cells, {longest / size:.2g} in a row; there"
            f" must be fewer than {N_CELLS_MAX:.0e} and {N_CELLS_IN_A_ROW_MAX}: make cells larger"
        )
