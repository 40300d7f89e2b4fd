"""Energy deposits ("spots") of particles in the calorimeters.

Inputs: particles on straight rays through the volumes (``calorimeter_geometry.Rays``). Output:
``Spots``, in GeV and mm.

* Electromagnetic showers follow Grindhammer & Peters, hep-ex/0001020: gamma profiles in depth with
  correlated lognormal fluctuations of maximum and shape (homogeneous media: sections 3.1.1 and
  3.1.2; sampling calorimeters: 3.2.1 and 3.2.2), two radial components that depend on depth and
  energy (3.1.3 and 3.2.3). Photons first convert, on average after 9/7 X0.
* Hadrons interact after an exponential number of interaction lengths and ionise until then if
  charged. The electromagnetic part of a hadronic shower has the mean 1 - (E/GeV)^(k-1), k = 0.82
  (Groom, NIM A 572 (2007) 633), fluctuates as a beta distribution and develops as an
  electromagnetic shower; the rest has the gamma profile in interaction lengths of Bock et al. (NIM
  186 (1981) 533). It is spread over branches, tilted around the direction of the hadron, each with
  a narrow core and the long radial tail of the electromagnetic ansatz: hadronic showers are lumpy,
  which is what makes particle flow hard.
* Muons and charged hadrons before their interaction leave the energy of a minimum-ionising particle
  in every layer, fluctuating as a Moyal distribution, until their energy is used up.

Invariants: the spots of a shower carry exactly its visible energy, except what leaves the last
volume. The visible energy has the relative resolution of the configuration and the mean of the
particle's energy.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from particleforge.config.geometry import CalorimeterConfig, SamplingConfig
from particleforge.simulation.calorimeter_geometry import (
    Rays,
    depth_at_distance,
    distance_at_depth,
    part_of_volume,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# the parametrisation is not meant for less; its profile is used below, too
_PROFILE_ENERGY_MIN_GEV = 0.05
_GROOM_EXPONENT = 0.82
_MOYAL_MEAN = np.euler_gamma + np.log(2.0)


@dataclass(frozen=True)
class Spots:
    """Point-like deposits: ray, distance along it, slot of its volume, displacement, energy.

    Distance and sideways displacement are in mm, energy in GeV; slot -1 is outside.
    """

    row: Integers
    distance: Floats
    slot: NDArray[np.int8]
    u: Floats
    v: Floats
    energy: Floats

    @classmethod
    def joined(cls, parts: list["Spots"]) -> "Spots":
        """Return the spots of all parts."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )


@dataclass(frozen=True)
class Material:
    """Constants of the calorimeter in which each of n showers starts, as arrays [n]."""

    atomic_number: Floats
    critical_energy_gev: Floats
    moliere_mm: Floats
    # X0 per sampling layer, the inverse sampling frequency of hep-ex/0001020; 0 for homogeneous
    # media
    sampling_step: Floats
    em_to_mip: Floats
    spots_per_gev: Floats
    em_resolution: Floats  # [n, 2]: stochastic, constant
    hadronic_resolution: Floats
    hadronic_response: Floats

    @classmethod
    def of(cls, calorimeter: CalorimeterConfig, volume: Integers) -> "Material":
        """Return the constants at the given volumes."""

        def values(part: SamplingConfig) -> tuple[object, ...]:
            return (
                part.atomic_number,
                part.critical_energy_mev / 1e3,
                part.moliere_radius_mm,
                0.0 if part.em_to_mip == 1 else part.radiation_lengths_per_layer,
                part.em_to_mip,
                part.spots_per_gev,
                (part.em_stochastic, part.em_constant),
                (part.hadronic_stochastic, part.hadronic_constant),
                part.hadronic_response,
            )

        table = [values(part_of_volume(calorimeter, index)) for index in range(4)]
        return cls(*(np.array(column, np.float64)[volume] for column in zip(*table, strict=True)))


def fluctuated(energy: Floats, resolution: Floats, rng: np.random.Generator) -> Floats:
    """Return energies with this relative resolution, gamma distributed: positive and unbiased."""
    shape = 1 / np.maximum(resolution, 1e-6) ** 2
    return rng.standard_gamma(shape) / shape * energy


def relative_resolution(energy: Floats, terms: Floats) -> Floats:
    """Return stochastic/sqrt(E) and constant (columns of ``terms`` [n, 2]) added in quadrature."""
    return np.asarray(np.sqrt(terms[:, 0] ** 2 / energy + terms[:, 1] ** 2))


def electromagnetic_showers(
    row: Integers,
    energy: Floats,
    visible: Floats,
    start: Floats,
    material: Material,
    rays: Rays,
    rng: np.random.Generator,
) -> Spots:
    """Return the spots of electromagnetic showers.

    Args:
        row: ray of each shower [n].
        energy: GeV, sets the profile.
        visible: GeV, shared among the spots.
        start: depth in X0 at which the cascade starts.
        material: where it starts.
        rays: paths of the particles.
        rng: source of randomness.
    """
    profile_energy = np.maximum(energy, _PROFILE_ENERGY_MIN_GEV)
    peak, shape = _longitudinal(profile_energy, material, rng)
    count = np.maximum((material.spots_per_gev * energy).astype(np.int64), 4)
    shower = np.repeat(np.arange(len(row)), count)
    # depth in units of the shower maximum
    tau = rng.standard_gamma(shape[shower]) / (shape - 1)[shower]
    radius = _radius(tau, shower, profile_energy, material, rng) * material.moliere_mm[shower]
    ray = row[shower]
    distance, slot = distance_at_depth(
        ray, start[shower] + tau * peak[shower], rays.x0, rays.start, rays.length
    )
    return Spots(ray, distance, slot, *_around(radius, rng), _shared(visible, shower, rng))


def _longitudinal(
    energy: Floats, material: Material, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the depth of the maximum (X0) and the shape of each shower's gamma profile."""
    log_y = np.log(energy / material.critical_energy_gev)
    step, excess = material.sampling_step, 1 - material.em_to_mip
    sampling = step > 0
    peak = np.maximum(log_y - 0.812 - 0.55 * step - 0.69 * excess, 0.3)
    shape = np.maximum(0.81 + (0.458 + 2.26 / material.atomic_number) * log_y - 0.476 * step, 1.2)

    def width(
        sampling_terms: tuple[float, float], homogeneous_terms: tuple[float, float]
    ) -> Floats:
        offset, slope = (
            np.where(sampling, a, b) for a, b in zip(sampling_terms, homogeneous_terms, strict=True)
        )
        # at most 0.5: the fit diverges at low energy
        return np.asarray(1 / np.maximum(offset + slope * log_y, 2.0))

    peak_width, shape_width = width((-2.5, 1.25), (-1.4, 1.26)), width((-0.82, 0.79), (-0.58, 0.86))
    correlation = np.clip(np.where(sampling, 0.784, 0.705) - 0.023 * log_y, 0.0, 1.0)
    common, opposite = rng.standard_normal((2, len(energy))) * np.sqrt(
        [(1 + correlation) / 2, (1 - correlation) / 2]
    )
    peak = peak * np.exp(peak_width * (common + opposite))
    shape = np.maximum(shape * np.exp(shape_width * (common - opposite)), 1.1)
    return peak, shape


def _radius(
    tau: Floats, shower: Integers, energy: Floats, material: Material, rng: np.random.Generator
) -> Floats:
    """Return the radius of each spot in Moliere radii, from the core or the tail component."""
    z, log_e = material.atomic_number, np.log(energy)
    excess = (1 - material.em_to_mip)[shower]
    step_damped = material.sampling_step[shower] * np.exp(-tau)
    core = (
        (0.0251 + 0.00319 * log_e)[shower]
        + (0.1162 - 0.000381 * z)[shower] * tau
        - 0.0203 * excess
        + 0.0397 * step_damped
    )
    tail = (0.659 - 0.00309 * z)[shower] * (
        np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0421 * log_e)[shower] * (tau - 0.645))
    )
    tail += -0.14 * excess - 0.495 * step_damped
    argument = ((0.401 + 0.00187 * z)[shower] - tau) / (1.313 - 0.0686 * log_e)[shower]
    weight = (2.632 - 0.00094 * z)[shower] * np.exp(argument - np.exp(argument))
    weight += excess * (0.348 - 0.642 * material.sampling_step[shower] * np.exp(-((tau - 1) ** 2)))
    scale = np.where(rng.random(tau.size) < weight, np.maximum(core, 0.02), np.clip(tail, 0.1, 5.0))
    return _ansatz(scale, rng)


def _ansatz(scale: Floats, rng: np.random.Generator) -> Floats:
    """Sample f(r) = 2 r R^2 / (r^2 + R^2)^2, cut at the radius that holds 99 %.

    The tail would reach to infinity.
    """
    u = 0.99 * rng.random(scale.size)
    return scale * np.sqrt(u / (1 - u))


def _around(radius: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return sideways displacements of this size in random directions."""
    angle = rng.random(radius.size) * (2 * np.pi)
    return radius * np.cos(angle), radius * np.sin(angle)


def _shared(total: Floats, shower: Integers, rng: np.random.Generator) -> Floats:
    """Share each shower's energy among its spots, which fluctuate around equal parts."""
    weight = 0.5 + 0.5 * rng.standard_exponential(shower.size)
    return np.asarray(
        weight
        * (total / np.maximum(np.bincount(shower, weight, minlength=len(total)), 1e-12))[shower]
    )


def hadronic_showers(
    row: Integers,
    energy: Floats,
    interaction: Floats,
    material: Material,
    rays: Rays,
    spots_per_gev: float,
    rng: np.random.Generator,
) -> list[Spots]:
    """Return spots of hadrons of ``energy`` that interact ``interaction`` mm along their rays."""
    mean = np.clip(1 - np.maximum(energy, 1.0) ** (_GROOM_EXPONENT - 1), 0.02, 0.95)
    spread = np.minimum(0.2, 0.5 * np.sqrt(mean * (1 - mean)))
    concentration = mean * (1 - mean) / spread**2 - 1
    em_fraction = rng.beta(mean * concentration, (1 - mean) * concentration)
    response, mean_response = (
        f + material.hadronic_response * (1 - f) for f in (em_fraction, mean)
    )
    # What the fluctuation of the electromagnetic part does not make up of the configured resolution
    # is added here.
    from_fraction = (1 - material.hadronic_response) * spread / mean_response
    rest = np.sqrt(
        np.maximum(
            relative_resolution(energy, material.hadronic_resolution) ** 2 - from_fraction**2, 0.0
        )
    )
    visible = fluctuated(energy * response / mean_response, rest, rng)
    em_visible = visible * em_fraction / response
    start = depth_at_distance(rays, row, interaction, rays.x0)
    some = em_fraction * energy > _PROFILE_ENERGY_MIN_GEV  # less is not worth a shower of its own
    em_visible = np.where(some, em_visible, 0.0)
    em_material = Material(*(getattr(material, field.name)[some] for field in fields(Material)))
    em = electromagnetic_showers(
        row[some],
        (em_fraction * energy)[some],
        em_visible[some],
        start[some],
        em_material,
        rays,
        rng,
    )
    return [
        em,
        _hadronic_part(row, energy, visible - em_visible, interaction, rays, spots_per_gev, rng),
    ]


def _hadronic_part(
    row: Integers,
    energy: Floats,
    visible: Floats,
    interaction: Floats,
    rays: Rays,
    spots_per_gev: float,
    rng: np.random.Generator,
) -> Spots:
    """Return the spots of the non-electromagnetic part."""
    log_e = np.log(np.maximum(energy, 0.5))
    shape, rate = 0.6165 + 0.3183 * log_e, 0.9099 - 0.0237 * log_e
    count = np.maximum((spots_per_gev * visible).astype(np.int64), 2)
    shower = np.repeat(np.arange(len(row)), count)
    ray = row[shower]
    first = depth_at_distance(rays, row, interaction, rays.interaction)
    depth = first[shower] + rng.standard_gamma(shape[shower]) / rate[shower]
    distance, slot = distance_at_depth(ray, depth, rays.interaction, rays.start, rays.length)
    n_branches = 2 + rng.poisson(np.log1p(energy))
    offset = np.cumsum(n_branches) - n_branches
    tilt = 0.3 * rng.standard_normal((2, int(n_branches.sum())))
    tilt[:, offset] /= 3.0  # the leading branch keeps the direction
    branch = offset[shower] + (n_branches[shower] * rng.random(shower.size) ** 2).astype(np.int64)
    # in interaction lengths of the volume
    lateral_mm = 0.06 / np.maximum(rays.interaction[ray, np.maximum(slot, 0)], 1e-9)
    u, v = _around(_ansatz(lateral_mm, rng), rng)
    path = np.where(slot >= 0, distance - interaction[shower], 0.0)
    return Spots(
        ray,
        distance,
        slot,
        u + tilt[0, branch] * path,
        v + tilt[1, branch] * path,
        _shared(visible, shower, rng),
    )


def ionisation(
    row: Integers,
    energy: Floats,
    stop: Floats,
    calorimeter: CalorimeterConfig,
    rays: Rays,
    volumes: Floats,
    rng: np.random.Generator,
) -> tuple[Spots, Floats]:
    """Return what minimum-ionising particles leave per layer up to ``stop`` (mm), and their loss.

    A particle whose ``energy`` (GeV) is used up stops there.
    """
    parts = [part_of_volume(calorimeter, index) for index in range(4)]
    mip = np.array([part.mip_mev / 1e3 for part in parts])[rays.volume[row]]
    pitch = ((volumes[:, 1] - volumes[:, 0]) / volumes[:, 4])[rays.volume[row]]
    along_r = np.hypot(rays.direction[row, 0], rays.direction[row, 1])
    along_z = np.abs(rays.direction[row, 2])
    cosine = np.maximum(
        np.where(rays.volume[row] % 2 == 0, along_r[:, None], along_z[:, None]), 0.1
    )
    begin = rays.start[row]
    path = np.clip(stop[:, None] - begin, 0.0, rays.length[row])
    layers = np.ceil(path * cosine / pitch - 1e-9).astype(np.int64)  # [n, 4]
    segment = np.repeat(np.arange(layers.size), layers.ravel())
    particle, slot = segment // layers.shape[1], (segment % layers.shape[1]).astype(np.int8)
    position = np.arange(segment.size) - (np.cumsum(layers.ravel()) - layers.ravel())[segment] + 0.5
    share = (path / np.maximum(layers, 1)).ravel()[segment]
    distance = begin.ravel()[segment] + position * share
    moyal = np.minimum(-2 * np.log(np.abs(rng.standard_normal(segment.size)) + 1e-9), 12.0)
    deposit = (mip / pitch).ravel()[segment] * share * (1 + 0.12 * (moyal - _MOYAL_MEAN))
    deposit = np.maximum(deposit, 0.0)
    total = np.cumsum(deposit)
    before = total - deposit
    first = np.searchsorted(particle, np.arange(len(row)))
    before -= np.append(before, 0.0)[first][particle] if segment.size else 0.0
    deposit = np.clip(energy[particle] - before, 0.0, deposit)
    zero = np.zeros(segment.size)
    spots = Spots(row[particle], distance, slot, zero, zero, deposit)
    return spots, np.bincount(particle, deposit, minlength=len(row)).astype(np.float64)
