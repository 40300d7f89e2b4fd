"""A detector that cannot be is refused when it is read, in one line with key, values and need."""

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run, validate
from particleforge.config.quantities import is_charged
from particleforge.config.settings import SimulateSettings, simulate_settings
from particleforge.errors import UserError
from particleforge.simulation import species
from particleforge.simulation.simulate import simulate_batch

from .simulation_fixtures import CONFIG, gun

SHIPPED = sorted(path.stem for path in (CONFIG / "detectors").glob("*.yaml"))
CLIC = load_detector(CONFIG, "clic").model_dump(mode="json")
CMS = load_detector(CONFIG, "cms_like").model_dump(mode="json")
Path = tuple[str | int, ...]


def parts_of(key: str) -> Path:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def changed(tree: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    """Return a copy of the detector with one value replaced."""
    found = copy.deepcopy(tree)
    at: Any = found
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return found


def numbers(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Yield where the detector has numbers."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            yield from numbers(value, (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)


def test_shipped_detectors_are_possible() -> None:
    for name in SHIPPED:
        load_detector(CONFIG, name)


@pytest.mark.fault("impossible detector")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("b_field_tesla", 21, r"b_field_tesla: .* less than or equal to 20 \(got 21\)"),
        ("b_field_tesla", 0, r"b_field_tesla: .* greater than 0 \(got 0\)"),
        ("beams.com_energy_gev", 0, r"beams\.com_energy_gev: .* greater than 0 \(got 0\)"),
        ("beams.com_energy_gev", 1e7, r"beams\.com_energy_gev: .* less than or equal to 1000000"),
        ("beams.spot_sigma_mm.1", -1, r"beams\.spot_sigma_mm\.1: .* greater than or equal to 0"),
        (
            "beams.spot_sigma_mm.0",
            1500,
            r"tracker: beams\.spot_sigma_mm in x 1500 must be below radius_mm 1500",
        ),
        (
            "beams.spot_sigma_mm.2",
            9000,
            r"tracker: beams\.spot_sigma_mm in z 9000 must be below half_length_mm 2307",
        ),
        ("pile_up.mean_interactions", -1, r"pile_up\.mean_interactions: .* \(got -1\)"),
        ("pile_up.mean_interactions", 1e5, r"pile_up\.mean_interactions: .* equal to 10000"),
        (
            "pile_up.mean_interactions",
            1,
            r"pile_up: processes 'SoftQCD:inelastic = on' needs beams\.type pp \(got ee\)",
        ),
        (
            "tracker.barrel_layers.2.radius_mm",
            1600,
            r"tracker: barrel_layers\.2\.radius_mm 1600 must be at most radius_mm 1500",
        ),
        (
            "tracker.barrel_layers.2.half_length_mm",
            2400,
            r"tracker: barrel_layers\.2\.half_length_mm 2400 must be at most half_length_mm 2307",
        ),
        (
            "tracker.disks.0.inner_radius_mm",
            500,
            r"tracker\.disks\.0: inner_radius_mm 500 must be below outer_radius_mm 102",
        ),
        (
            "tracker.disks.0.outer_radius_mm",
            1501,
            r"tracker: disks\.0\.outer_radius_mm 1501 must be at most radius_mm 1500",
        ),
        (
            "tracker.disks.0.z_mm",
            2308,
            r"tracker: disks\.0\.z_mm 2308 must be at most half_length_mm 2307",
        ),
        (
            "tracker.hits_min",
            30,
            r"tracker: hits_min 30 must be at most the number of barrel_layers and disks 29",
        ),
        (
            "tracker.pt_min_gev",
            190,
            r"tracker: pt_min_gev 190 must be below half of beams\.com_energy_gev, 190",
        ),
        ("tracker.efficiency.0.efficiency", 1.01, r"tracker\.efficiency\.0\.efficiency: .*1\.01"),
        ("tracker.angle_resolution_rad", -1e-3, r"tracker\.angle_resolution_rad: .* or equal to 0"),
        (
            "tracker.momentum_resolution.0.abs_eta_max",
            3,
            r"tracker: momentum_resolution\.1 \(abs_eta_max 2\.54\) never counts, as"
            r" momentum_resolution\.0 \(abs_eta_max 3\) holds all of it; put the smaller region",
        ),
        (
            "calorimeter.ecal.barrel_inner_radius_mm",
            1702,
            r"calorimeter\.ecal: barrel_inner_radius_mm 1702 must be below"
            r" barrel_outer_radius_mm 1702",
        ),
        (
            "calorimeter.hcal.endcap_inner_radius_mm",
            3300,
            r"calorimeter\.hcal: endcap_inner_radius_mm 3300 must be below",
        ),
        (
            "calorimeter.hcal.endcap_z_min_mm",
            4200,
            r"calorimeter\.hcal: endcap_z_min_mm 4200 must be below endcap_z_max_mm 4129",
        ),
        (
            "calorimeter.ecal.barrel_inner_radius_mm",
            1499,
            r"calorimeter: tracker\.radius_mm 1500 must be at most"
            r" ecal\.barrel_inner_radius_mm 1499",
        ),
        (
            "calorimeter.ecal.endcap_z_min_mm",
            2306,
            r"calorimeter: tracker\.half_length_mm 2307 must be at most ecal\.endcap_z_min_mm 2306",
        ),
        (
            "calorimeter.hcal.barrel_inner_radius_mm",
            1701,
            r"calorimeter: ecal\.barrel_outer_radius_mm 1702 must be at most"
            r" hcal\.barrel_inner_radius_mm 1701",
        ),
        (
            "calorimeter.hcal.endcap_z_min_mm",
            2500,
            r"calorimeter: ecal\.endcap_z_max_mm 2509 must be at most hcal\.endcap_z_min_mm 2500",
        ),
        (
            "calorimeter.ecal.barrel_half_length_mm",
            2400,
            r"calorimeter: ecal\.barrel_half_length_mm 2400 must be at most"
            r" ecal\.endcap_z_min_mm 2307",
        ),
        (
            "calorimeter.hcal.barrel_half_length_mm",
            2600,
            r"calorimeter: hcal\.barrel_half_length_mm 2600 must be at most"
            r" hcal\.endcap_z_min_mm 2539",
        ),
        (
            "calorimeter.muon.inner_radius_mm",
            3300,
            r"calorimeter: hcal\.barrel_outer_radius_mm 3330 must be at most"
            r" muon\.inner_radius_mm 3300",
        ),
        (
            "calorimeter.muon.endcap_z_min_mm",
            4000,
            r"calorimeter: hcal\.endcap_z_max_mm 4129 must be at most muon\.endcap_z_min_mm 4000",
        ),
        (
            "calorimeter.muon.layer_spacing_mm",
            1e5,
            r"calorimeter\.muon: layers up to 504900 must be at most the largest length in mm",
        ),
        ("calorimeter.ecal.n_layers", 257, r"calorimeter\.ecal\.n_layers: .* equal to 256"),
        (
            "calorimeter.ecal.cell_size_mm",
            0.04,
            r"calorimeter\.ecal: cell_size_mm 0\.04 makes 1\.\de\+12 cells, \d\.\de\+05 in a row;"
            r" there must be fewer than 1e\+12 and 8388608: make cells larger",
        ),
        (
            "calorimeter.muon.cell_size_mm",
            1e-3,
            r"calorimeter\.muon: cell_size_mm 0\.001 makes .* make cells larger",
        ),
        (
            "calorimeter.hcal.cell_size_mm",
            20_000,
            r"calorimeter\.hcal: cell_size_mm 20000 must be below the inner circumference 10932",
        ),
        ("calorimeter.ecal.noise_mev", -1, r"calorimeter\.ecal\.noise_mev: .* or equal to 0"),
        ("calorimeter.ecal.em_constant", 2, r"calorimeter\.ecal\.em_constant: .* or equal to 1"),
        ("calorimeter.hcal.atomic_number", 0.5, r"hcal\.atomic_number: .* or equal to 1"),
        ("calorimeter.ecal.spots_per_gev", 1e6, r"ecal\.spots_per_gev: .* equal to 10000"),
        ("clustering.ecal_link_mm", 0.01, r"clustering\.ecal_link_mm: .* or equal to 0\.1"),
        ("clustering.hcal_merge_mm", 1e6, r"clustering\.hcal_merge_mm: .* or equal to 100000"),
        (
            "particle_flow.muon_hits_min",
            7,
            r"particle_flow: muon_hits_min 7 must be at most calorimeter\.muon\.n_layers 6",
        ),
        ("particle_classes.0.pdg", 0, r"particle_classes\.0\.pdg: .* greater than 0 \(got 0\)"),
        (
            "particle_classes.0.pdg",
            22,
            r"particle_classes\.0: charged: must be false for pdg 22 \(got true\)",
        ),
        (
            "particle_classes.2.pdg",
            211,
            r"particle_classes\.2: charged: must be true for pdg 211 \(got false\)",
        ),
        ("particle_classes.3.truth_pdgs.0", -11, r"truth_pdgs\.0: .* greater than 0 \(got -11\)"),
        ("particle_classes.1.mass_gev", -0.1, r"particle_classes\.1\.mass_gev: .* or equal to 0"),
        ("jets.radius", 4, r"jets\.radius: .* less than or equal to 3\.14159"),
        ("jets.match_radius", 0, r"jets\.match_radius: .* greater than 0"),
        (
            "jets.pt_min_gev",
            200,
            r"jets: pt_min_gev 200 must be below half of beams\.com_energy_gev, 190",
        ),
        ("plots.jet_pt_edges_gev.0", 0, r"plots\.jet_pt_edges_gev\.0: .* greater than 0"),
        ("plots.eta_edges.0", -21, r"plots\.eta_edges\.0: .* greater than or equal to -20"),
        ("plots.particle_pt_edges_gev.1", 0.1, r"plots: plots\.particle_pt_edges_gev: edges must"),
    ],
)
def test_what_cannot_be_is_one_line(key: str, value: float, message: str) -> None:
    with pytest.raises(UserError, match=f"^clic.yaml: .*{message}") as caught:
        validate(DetectorConfig, changed(CLIC, parts_of(key), value), "clic.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("impossible detector")
def test_a_region_of_efficiency_that_an_earlier_one_holds_is_refused() -> None:
    regions = CMS["tracker"]["efficiency"]
    path = ("tracker", "efficiency")
    with pytest.raises(UserError, match=r"efficiency\.2 \(abs_eta_max 2\.5\) never counts, as eff"):
        swapped = [regions[0], regions[2], regions[1]]
        validate(DetectorConfig, changed(CMS, path, swapped), "cms_like.yaml")


def test_pile_up_on_electrons_needs_a_process_of_theirs() -> None:
    pile_up = {"mean_interactions": 1, "processes": ["PhotonCollision:gmgm2qqbar = on"]}
    validate(DetectorConfig, changed(CLIC, ("pile_up",), pile_up), "clic.yaml")


def test_charges_are_those_of_the_generator() -> None:
    codes = [code for code in range(1, 10_000) if species._table()[0].isParticle(code)]
    told = {code: is_charged(code) for code in codes}
    known = [code for code, charged in told.items() if charged is not None]
    assert len(known) > 100
    assert {11, 12, 22, 24, 130, 211, 310, 2112, 2212, 3122, 3312} <= set(known)
    assert [told[code] for code in known] == (species.charge_of(np.array(known)) != 0).tolist()


def one_of_each() -> list[Path]:
    """Return where the detector has numbers, of each list of blocks the first entry."""
    kinds: dict[Path, Path] = {}
    for path in numbers(CLIC):
        kind = tuple(0 if isinstance(part, int) else part for part in path)
        kinds.setdefault(kind, path)
    return list(kinds.values())


def simulated(settings: SimulateSettings) -> None:
    """Send one particle of each kind through the detector; all results must be finite."""
    codes = np.array([211, 22, 130, 11, 13], np.int32)
    particles = gun(211, np.array([5.0, 10, 20, 10, 10]), np.array([1.2, 0.4, 1.5, 0.5, 1.1]), 5)
    mass = species.mass_of(codes)
    momentum = np.sqrt(particles.px**2 + particles.py**2 + particles.pz**2)
    energy = np.hypot(momentum, mass)
    particles = replace(
        particles, pdg=codes, charge=species.charge_of(codes), mass=mass, energy=energy
    )
    batch = simulate_batch(particles, np.arange(5), settings, np.random.default_rng(1))
    for table in (batch.tracks, batch.hits, batch.clusters, batch.candidates):
        for name in table.__dataclass_fields__:
            assert np.isfinite(getattr(table, name)).all(), name


@pytest.mark.fault("impossible detector")
@pytest.mark.parametrize("value", [-1, 0, math.nan, 1e30])
def test_every_number_is_refused_or_can_be_simulated_with(value: float) -> None:
    run = load_run(CONFIG)
    n_refused = n_accepted = 0
    for path in one_of_each():
        try:
            detector = validate(DetectorConfig, changed(CLIC, path, value), "clic.yaml")
        except UserError as refusal:
            assert str(refusal).startswith("clic.yaml: ")
            assert "\n" not in str(refusal)
            n_refused += 1
            continue
        n_accepted += 1
        settings = simulate_settings(run, detector, "ttbar")
        if path[0] in ("b_field_tesla", "tracker", "calorimeter", "clustering", "particle_flow"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                simulated(settings)
    assert n_refused > 60
    assert n_accepted or math.isnan(value)
