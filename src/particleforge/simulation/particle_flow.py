"""Rule-based particle flow: the baseline that a trained model is compared with.

Inputs: ``Tracks``, ``Clusters``, ``Hits`` of a batch (GeV, mm). Output: ``Candidates``. The rules
follow the spirit of PandoraPFA (Thomson, NIM A 611 (2009) 25, section 4) and of CMS (JINST 12
(2017) P10003, section 4); ``track_matching`` finds which clusters belong to which tracks, here
energies of clusters are compared with momenta of tracks:

1. A track with enough muon-system hits on its line and no more energy around it than a muon leaves
   is a muon.
2. A track alone on a cluster whose energy is in the ECAL, compact and equal to the momentum is an
   electron.
3. All other tracks are charged hadrons with the momentum of the track, except those that claim far
   more energy than was found and have almost none on their line: they did not reach the calorimeter
   and are dropped.
4. Clusters without a track near a charged hadron that lacks energy are fragments of its shower. A
   cluster with its fragments is a group.
5. Energy of a group beyond what its tracks leave, by more than N sigma of the calorimeter, is one
   neutral: a photon if the excess is in the ECAL, else a neutral hadron.
6. A cluster without a track is a photon if its energy is in the ECAL and compact, else a neutral
   hadron.

Energies of neutrals are those of the calorimeter; their direction is that of the cluster from the
origin. Neutral hadrons get the mass of the K0L where the energy allows it.

Invariants: a track is used at most once, a cluster gives at most one neutral; candidates refer to
elements of their own event.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from particleforge.config.geometry import CalorimeterConfig
from particleforge.config.settings import SimulateSettings
from particleforge.edm4hep.constants import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from particleforge.simulation.calorimeter import SUBDETECTOR
from particleforge.simulation.columns import Candidates, Clusters, Hits, SubDetector, Tracks
from particleforge.simulation.track_matching import Links, absorb_fragments, assign_tracks, link

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

MASS_GEV = {  # that candidates are given, rounded
    PHOTON: 0.0,
    ELECTRON: 0.000511,
    MUON: 0.105658,
    CHARGED_HADRON: 0.139570,
    NEUTRAL_HADRON: 0.497611,
}
# relative fluctuation of what a muon leaves, path lengths at all angles included
_MUON_SPREAD = 0.25


@dataclass(frozen=True)
class _Expected:
    """What tracks should leave in the calorimeters, in GeV: all, its variance, in the ECAL."""

    energy: Floats
    variance: Floats
    ecal: Floats

    def per_cluster(self, cluster_of_track: Integers, used: Mask, n_clusters: int) -> "_Expected":
        """Return the sums over the tracks of each cluster."""
        on = used & (cluster_of_track >= 0)
        columns = (self.energy, self.variance, self.ecal)
        return _Expected(
            *(
                np.bincount(cluster_of_track[on], column[on], minlength=n_clusters).astype(
                    np.float64
                )
                for column in columns
            )
        )


def reconstruct(
    tracks: Tracks, clusters: Clusters, hits: Hits, n_events: int, settings: SimulateSettings
) -> Candidates:
    """Return the candidates of each event, those of tracks first.

    Args:
        tracks: ordered by event.
        clusters: of ``hits``, ordered by event and descending energy.
        hits: ordered by event.
        n_events: events in the batch.
        settings: its particle_flow and calorimeter blocks are read.
    """
    rules, calorimeter = settings.particle_flow, settings.calorimeter
    compact = _width(clusters, hits) < rules.photon_width_max_mm
    electromagnetic = compact & (
        clusters.energies[:, SubDetector.ECAL] > rules.photon_ecal_fraction_min * clusters.energy
    )
    links = link(tracks, clusters, hits, n_events, settings)
    cluster_of_track = assign_tracks(
        links.first, links.tube, links.track_offsets, links.cluster_offsets
    )

    muon = _is_muon(links, settings)
    electron = ~muon & _is_electron(tracks, clusters, cluster_of_track, electromagnetic, settings)
    expected = _expected(tracks, muon, electron, calorimeter, rules.hadron_ecal_share)
    used = np.ones(len(tracks), np.bool_)
    group, found = _groups(
        links, clusters, cluster_of_track, expected, used, electromagnetic, settings
    )
    used = ~_is_bad(tracks, links, cluster_of_track, expected, found, settings)
    group, found = _groups(
        links, clusters, cluster_of_track, expected, used, electromagnetic, settings
    )

    pdg = np.select([muon, electron], [MUON, ELECTRON], CHARGED_HADRON)
    charged = _charged_candidates(tracks, cluster_of_track, pdg, used)
    on_cluster = expected.per_cluster(cluster_of_track, used, len(clusters))
    neutral = _neutral_candidates(clusters, group, found, on_cluster, electromagnetic, settings)
    return _by_event(charged, neutral)


def _width(clusters: Clusters, hits: Hits) -> Floats:
    """Return ECAL hits' mean distance (mm) from their cluster's axis.

    It is weighted with energy; 0 without ECAL hits.
    """
    inside = (clusters.cluster_of_hit >= 0) & (SUBDETECTOR[hits.collection] == SubDetector.ECAL)
    cluster, weight = clusters.cluster_of_hit[inside], hits.energy[inside]
    axis = np.stack([clusters.x, clusters.y, clusters.z], axis=1)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    position = np.stack([hits.x[inside], hits.y[inside], hits.z[inside]], axis=1)
    along = (position * axis[cluster]).sum(axis=1)
    distance = np.sqrt(np.maximum((position**2).sum(axis=1) - along**2, 0.0))
    total = np.bincount(cluster, weight, minlength=len(clusters))
    return np.asarray(
        np.bincount(cluster, weight * distance, minlength=len(clusters)) / np.maximum(total, 1e-12)
    )


def _muon_energy(calorimeter: CalorimeterConfig) -> tuple[float, float]:
    """Return what a muon leaves in the ECAL and in the HCAL at normal incidence, GeV."""
    ecal, hcal = calorimeter.ecal, calorimeter.hcal
    return ecal.n_layers * ecal.mip_mev / 1e3, hcal.n_layers * hcal.mip_mev / 1e3


def _is_muon(links: Links, settings: SimulateSettings) -> Mask:
    """Tell which tracks are muons: muon hits, less than two muons' energy around the line."""
    quiet = links.tube_total < 2 * sum(_muon_energy(settings.calorimeter))
    return (links.muon_hits >= settings.particle_flow.muon_hits_min) & quiet


def _is_electron(
    tracks: Tracks,
    clusters: Clusters,
    cluster_of_track: Integers,
    electromagnetic: Mask,
    settings: SimulateSettings,
) -> Mask:
    """Tell which tracks are electrons."""
    rules, ecal = settings.particle_flow, settings.calorimeter.ecal
    matched = cluster_of_track >= 0
    found = np.zeros(len(tracks), np.bool_)
    cluster, p = cluster_of_track[matched], tracks.p[matched]
    alone = np.bincount(cluster, minlength=len(clusters))[cluster] == 1
    energy, in_ecal = clusters.energy[cluster], clusters.energies[cluster, SubDetector.ECAL]
    tolerance = np.maximum(
        rules.electron_ep_tolerance, 2.5 * np.sqrt(ecal.em_stochastic**2 / p + ecal.em_constant**2)
    )
    equal = np.abs(energy / p - 1) < tolerance
    found[matched] = (
        alone
        & equal
        & electromagnetic[cluster]
        & (in_ecal > rules.electron_ecal_fraction_min * energy)
    )
    return found


def _expected(
    tracks: Tracks,
    muon: Mask,
    electron: Mask,
    calorimeter: CalorimeterConfig,
    hadron_ecal_share: float,
) -> _Expected:
    """Return what each track should leave in the calorimeters."""
    p = tracks.p.astype(np.float64)
    in_ecal, in_hcal = _muon_energy(calorimeter)
    muon_energy = np.minimum(in_ecal + in_hcal, p)
    ecal, hcal = calorimeter.ecal, calorimeter.hcal
    hadron_variance = (
        np.maximum(ecal.hadronic_stochastic, hcal.hadronic_stochastic) ** 2 * p
        + (hcal.hadronic_constant * p) ** 2
    )
    electron_variance = ecal.em_stochastic**2 * p + (ecal.em_constant * p) ** 2
    return _Expected(
        energy=np.where(muon, muon_energy, p),
        variance=np.select(
            [muon, electron],
            [(_MUON_SPREAD * muon_energy) ** 2, electron_variance],
            hadron_variance,
        ),
        ecal=np.select([muon, electron], [np.minimum(in_ecal, p), p], hadron_ecal_share * p),
    )


def _groups(
    links: Links,
    clusters: Clusters,
    cluster_of_track: Integers,
    expected: _Expected,
    used: Mask,
    electromagnetic: Mask,
    settings: SimulateSettings,
) -> tuple[Integers, Floats]:
    """Return the group of each cluster, and the group's energy at its own cluster.

    The energy is 0 for absorbed ones.
    """
    rules = settings.particle_flow
    on_cluster = expected.per_cluster(cluster_of_track, used, len(clusters))
    energy = clusters.energy.astype(np.float64)
    group = absorb_fragments(
        (links.first, links.near, links.track_offsets, links.cluster_offsets),
        np.where(used, cluster_of_track, -1),
        on_cluster.energy,
        np.sqrt(on_cluster.variance),
        energy,
        electromagnetic,
        rules.fragment_distance_mm,
        rules.compatibility_sigma,
    )
    return group, np.bincount(group, energy, minlength=len(clusters)).astype(np.float64)


def _is_bad(
    tracks: Tracks,
    links: Links,
    cluster_of_track: Integers,
    expected: _Expected,
    found: Floats,
    settings: SimulateSettings,
) -> Mask:
    """Tell which tracks did not reach the calorimeters.

    Their group lacks energy, and there is little on their own line.

    Most are of particles that interacted or decayed on the way; what these made is seen by itself.
    """
    rules = settings.particle_flow
    on_cluster = expected.per_cluster(cluster_of_track, np.ones(len(tracks), np.bool_), len(found))
    matched = cluster_of_track >= 0
    # a track on no cluster lacks all
    lacks, sigma = (expected.energy.copy(), np.sqrt(expected.variance))
    lacks[matched] = (on_cluster.energy - found)[cluster_of_track[matched]]
    sigma[matched] = np.sqrt(on_cluster.variance)[cluster_of_track[matched]]
    empty = links.tube_total < rules.bad_track_energy_fraction * tracks.p
    return np.asarray(empty & (lacks > rules.bad_track_lack_sigma * sigma) & (links.muon_hits == 0))


def _charged_candidates(
    tracks: Tracks, cluster_of_track: Integers, pdg: Integers, used: Mask
) -> Candidates:
    """Return one candidate per used track."""
    mass = np.select(
        [pdg == MUON, pdg == ELECTRON],
        [MASS_GEV[MUON], MASS_GEV[ELECTRON]],
        MASS_GEV[CHARGED_HADRON],
    )
    px = tracks.pt * np.cos(tracks.phi0)
    py = tracks.pt * np.sin(tracks.phi0)
    pz = tracks.pt * tracks.tan_lambda
    lepton = pdg != CHARGED_HADRON
    candidates = Candidates(
        event=tracks.event,
        pdg=np.where(lepton, -pdg, pdg)
        * tracks.charge,  # leptons of negative charge have positive codes
        charge=tracks.charge,
        px=px,
        py=py,
        pz=pz,
        energy=np.sqrt(px**2 + py**2 + pz**2 + mass**2),
        mass=mass,
        track=np.arange(len(tracks)),
        cluster=cluster_of_track,
    )
    return candidates.take(used)


def _neutral_candidates(
    clusters: Clusters,
    group: Integers,
    found: Floats,
    charged: _Expected,
    electromagnetic: Mask,
    settings: SimulateSettings,
) -> Candidates:
    """Return a candidate for each group without track and for each excess over the tracks.

    The excess is one of energy.
    """
    rules = settings.particle_flow
    n = len(clusters)
    with_track = charged.energy > 0
    ecal = np.bincount(group, clusters.energies[:, SubDetector.ECAL], minlength=n)
    excess = found - charged.energy
    significant = ~with_track | (excess > rules.compatibility_sigma * np.sqrt(charged.variance))
    own = group == np.arange(n)
    rows = np.flatnonzero(own & significant & (excess > rules.neutral_energy_min_gev))
    in_ecal = ecal - charged.ecal > 0.5 * excess
    photon = np.where(with_track, in_ecal, electromagnetic)[rows]
    energy = excess[rows]
    mass = np.where(photon | (energy < 2 * MASS_GEV[NEUTRAL_HADRON]), 0.0, MASS_GEV[NEUTRAL_HADRON])
    position = np.stack([clusters.x, clusters.y, clusters.z], axis=1)[rows]
    direction = position / np.linalg.norm(position, axis=1, keepdims=True)
    px, py, pz = (np.sqrt(energy**2 - mass**2)[:, None] * direction).T
    return Candidates(
        event=clusters.event[rows],
        pdg=np.where(photon, PHOTON, NEUTRAL_HADRON),
        charge=np.zeros(len(rows), np.int8),
        px=px,
        py=py,
        pz=pz,
        energy=energy,
        mass=mass,
        track=np.full(len(rows), -1),
        cluster=rows,
    )


def _by_event(charged: Candidates, neutral: Candidates) -> Candidates:
    """Return both, ordered by event, charged ones first."""
    joined = Candidates(
        *(
            np.concatenate([getattr(part, name) for part in (charged, neutral)])
            for name in Candidates.__annotations__
        )
    )
    return joined.take(np.argsort(joined.event, kind="stable"))
