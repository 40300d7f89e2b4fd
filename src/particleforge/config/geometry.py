"""Geometry and response of a detector, for parametric simulation and rule-based particle flow."""

from pydantic import Field

from particleforge.config.base import Block


class EfficiencyRegion(Block):
    """Tracking efficiency up to ``abs_eta_max``, above ``pt_min_gev``.

    The first region that holds the particle counts.
    """

    abs_eta_max: float = Field(gt=0)
    pt_min_gev: float = Field(ge=0)
    efficiency: float = Field(ge=0, le=1)


class ResolutionRegion(Block):
    """sigma(pT)/pT = sqrt((curvature_per_gev pT)^2 + constant^2) up to ``abs_eta_max``."""

    abs_eta_max: float = Field(gt=0)
    curvature_per_gev: float = Field(ge=0)
    constant: float = Field(ge=0)


class BarrelLayerConfig(Block):
    """One cylindrical measuring layer."""

    radius_mm: float = Field(gt=0)
    half_length_mm: float = Field(gt=0)


class DiskConfig(Block):
    """One measuring disk, at both ends of the detector."""

    z_mm: float = Field(gt=0)
    inner_radius_mm: float = Field(gt=0)
    outer_radius_mm: float = Field(gt=0)


class TrackerConfig(Block):
    """Tracking volume, material and response."""

    radius_mm: float = Field(
        gt=0, description="radius of the tracking volume: particles enter the calorimeters here"
    )
    half_length_mm: float = Field(gt=0, description="half-length of the tracking volume")
    barrel_layers: tuple[BarrelLayerConfig, ...] = Field(
        min_length=1, description="measuring layers; the material lies in them"
    )
    disks: tuple[DiskConfig, ...] = ()
    hits_min: int = Field(4, ge=3, description="layers that a particle must cross to be found")
    pt_min_gev: float = Field(gt=0)
    abs_eta_max: float = Field(gt=0)
    efficiency: tuple[EfficiencyRegion, ...] = Field(min_length=1)
    momentum_resolution: tuple[ResolutionRegion, ...] = Field(min_length=1)
    angle_resolution_rad: float = Field(
        3e-4, ge=0, description="sigma of phi and of theta at the interaction point"
    )
    impact_resolution_mm: float = Field(
        0.005, ge=0, description="sigma of d0 and z0 at high momentum"
    )
    impact_scattering_mm_gev: float = Field(
        0.015, ge=0, description="adds this / (p sin^(3/2) theta) in quadrature"
    )
    dedx_resolution: float = Field(0.1, ge=0, description="relative sigma of a track's dE/dx")
    shared_hit_probability: float = Field(
        0.02,
        ge=0,
        le=1,
        description="chance that one hit of a track belongs to a neighbouring track",
    )
    material_radiation_lengths: float = Field(
        0.1, ge=0, description="X0 at normal incidence before the calorimeter"
    )
    material_interaction_lengths: float = Field(
        0.03, ge=0, description="nuclear interaction lengths, likewise"
    )


class SamplingConfig(Block):
    """One sampling calorimeter, barrel and two endcaps of the same structure."""

    barrel_inner_radius_mm: float = Field(gt=0)
    barrel_outer_radius_mm: float = Field(gt=0)
    barrel_half_length_mm: float = Field(gt=0)
    endcap_z_min_mm: float = Field(gt=0)
    endcap_z_max_mm: float = Field(gt=0)
    endcap_inner_radius_mm: float = Field(gt=0)
    endcap_outer_radius_mm: float = Field(gt=0)
    n_layers: int = Field(ge=1)
    radiation_lengths_per_layer: float = Field(gt=0)
    interaction_lengths_per_layer: float = Field(gt=0)
    cell_size_mm: float = Field(gt=0)
    moliere_radius_mm: float = Field(gt=0)
    atomic_number: float = Field(
        gt=0, description="effective Z of the material that showers develop in"
    )
    critical_energy_mev: float = Field(gt=0, description="effective critical energy")
    em_to_mip: float = Field(
        gt=0,
        le=1,
        description="e/mip response ratio of a sampling calorimeter; 1 makes it a homogeneous one",
    )
    spots_per_gev: float = Field(
        gt=0, description="deposits by which an electromagnetic shower is sampled"
    )
    em_stochastic: float = Field(ge=0, description="sqrt(GeV), for electrons and photons")
    em_constant: float = Field(ge=0)
    hadronic_stochastic: float = Field(ge=0, description="sqrt(GeV), for hadrons")
    hadronic_constant: float = Field(ge=0)
    hadronic_response: float = Field(
        0.85,
        gt=0,
        le=1,
        description="h/e: response to the non-electromagnetic part of hadronic showers",
    )
    calibration: float = Field(
        1.0,
        gt=0,
        description=(
            "factor on cell energies that makes up, on average, for what thresholds cut off"
        ),
    )
    noise_mev: float = Field(ge=0, description="RMS of a cell's noise")
    noise_cells_per_event: float = Field(
        0.0, ge=0, description="mean number of cells that noise alone lifts over threshold"
    )
    threshold_mev: float = Field(
        ge=0, description="calibrated cell energy below which a hit is dropped"
    )
    mip_mev: float = Field(
        gt=0, description="calibrated energy that a minimum-ionising particle leaves per layer"
    )


class MuonSystemConfig(Block):
    """Muon chambers: layers behind the calorimeter."""

    inner_radius_mm: float = Field(gt=0)
    endcap_z_min_mm: float = Field(gt=0)
    abs_eta_max: float = Field(gt=0)
    n_layers: int = Field(ge=1)
    layer_spacing_mm: float = Field(gt=0)
    cell_size_mm: float = Field(gt=0)
    hit_efficiency: float = Field(0.95, ge=0, le=1)
    hit_energy_mev: float = Field(gt=0, description="energy that a muon leaves in a chamber")
    coil_loss_gev: float = Field(
        ge=0, description="energy that a muon loses between the calorimeter and the chambers"
    )


class CalorimeterConfig(Block):
    """Calorimeters and muon system."""

    ecal: SamplingConfig
    hcal: SamplingConfig
    hadron_spots_per_gev: float = Field(
        gt=0, description="deposits by which the non-electromagnetic part of a shower is sampled"
    )
    muon: MuonSystemConfig


class ClusteringConfig(Block):
    """Clustering of calorimeter hits; showers that overlap are merged, as in a real detector."""

    ecal_link_mm: float = Field(
        gt=0,
        description="hits of the ECAL this close share density and follow each other to a peak",
    )
    hcal_link_mm: float = Field(gt=0, description="likewise in the HCAL")
    ecal_merge_mm: float = Field(
        gt=0, description="ECAL fragments whose axes are this close are one cluster"
    )
    ecal_halo_merge_mm: float = Field(
        gt=0, description="likewise for fragments of little energy compared with the cluster's core"
    )
    hcal_merge_mm: float = Field(
        gt=0, description="HCAL fragments join clusters whose axis is this close"
    )
    hcal_halo_merge_mm: float = Field(
        gt=0, description="likewise for HCAL fragments of little energy"
    )
    halo_energy_fraction: float = Field(
        0.1,
        ge=0,
        le=1,
        description="what little energy means, relative to the cluster's first fragment",
    )
    muon_merge_mm: float = Field(
        gt=0, description="muon-system hits join clusters whose axis is this close"
    )
    energy_min_mev: float = Field(ge=0, description="clusters below are dropped")


class ParticleFlowConfig(Block):
    """Rule-based particle flow: the baseline."""

    match_distance_mm: float = Field(
        gt=0, description="hits this close to a track's line (half a cell is added) are its own"
    )
    fragment_distance_mm: float = Field(
        gt=0,
        description=(
            "clusters with a hit this close to a track's line may be fragments of its shower"
        ),
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
    photon_width_max_mm: float = Field(
        gt=0, description="largest mean distance of a photon's ECAL energy from the axis"
    )
    muon_hits_min: int = Field(3, ge=1, description="muon-system hits that make a track a muon")
    muon_match_mm: float = Field(
        gt=0, description="muon-system hits this close to a track's line are its own"
    )
    neutral_energy_min_gev: float = Field(0.2, ge=0)
    bad_track_lack_sigma: float = Field(
        2.5,
        gt=0,
        description="energy missing in the calorimeter that makes a track suspect, in sigma",
    )
    bad_track_energy_fraction: float = Field(
        0.1, ge=0, description="suspect tracks with a smaller share of p on their line are dropped"
    )
