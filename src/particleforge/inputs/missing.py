"""What a file of simulated events lacks, and what that costs, a line for each thing."""

import numpy as np

from particleforge.edm4hep.datamodel import AT_CALORIMETER
from particleforge.edm4hep.mapping import BranchMap
from particleforge.edm4hep.raw_events import RawEvents
from particleforge.edm4hep.rootfile import TreeFile


def missing_in_edm4hep(file: TreeFile, chosen: BranchMap, events: RawEvents | None) -> list[str]:
    """Return a line for each thing that is not there, with what that costs."""
    lines = _of_header(file, events)
    if not chosen.tracks:
        lines.append("no tracks: every target stands on a cluster")
    elif not chosen.track_links:
        instead = _first(
            (chosen.tracker_hit_sim_links, "track truth from tracker hits"),
            (chosen.candidate_links, "track truth from candidates' links"),
        )
        lines.append(f"no track links: {instead or 'no track gets a target'}")
    if not chosen.clusters:
        lines.append("no clusters: neutral particles find no element")
    if not chosen.hits:
        lines.append(
            "no calorimeter hits: n_hits, widths, shape and depth of clusters are 0;"
            " dataset.calorimeter_elements: hits is not possible"
        )
    elif not chosen.hit_links and chosen.hit_sim_links:
        lines.append("no hit links: hit truth from the contributions to simulated hits")
    if chosen.clusters and not chosen.linked_hits:
        instead = _first(
            (chosen.cluster_links, "cluster truth from cluster links"),
            (chosen.candidate_links, "cluster truth from candidates' links"),
        )
        lines.append(f"no hits with links: {instead or 'no cluster gets a target'}")
    if not chosen.candidates:
        lines.append("no candidates: no baseline to compare with")
    if events is None:
        return lines
    return lines + _missing_values(chosen, events) + references_dropped(events)


def _of_header(file: TreeFile, events: RawEvents | None) -> list[str]:
    """Return what is said of numbers and weights that the file does not tell."""
    if not file.layout.has("EventHeader"):
        return ["no EventHeader: events are numbered by their position, weights are 1"]
    leaf = file.layout.member("EventHeader", "weight")
    if events is None or leaf is None or np.any(file.column(leaf, 0, file.n_events)):
        return []
    instead = "are 1" if np.all(events.weight == 1) else "come from EventHeader.weights"
    return [f"EventHeader.weight was never filled: weights {instead}"]


def _first(*options: tuple[object, str]) -> str | None:
    """Return the text of the first option that holds, None if there is none."""
    return next((text for holds, text in options if holds), None)


def _missing_values(chosen: BranchMap, events: RawEvents) -> list[str]:
    """Return a line for each thing that has a place but no values."""
    lines = []
    if events.tracks.n_rows:
        if without := events.n_tracks_without_state:
            lines.append(
                f"{without} tracks have no state at the interaction point: they are left out"
                " (collections.track_state_at_ip)"
            )
        if not np.any(events.tracks["dedx"]):
            lines.append("no dE/dx: feature dedx is 0")
        if not np.any(events.states["location"] == AT_CALORIMETER):
            lines.append(
                "no track states at the calorimeter: eta_calo and phi_calo repeat eta and phi"
            )
        if not np.any(events.tracks["n_hits"]):
            lines.append("tracks name no hits: feature n_hits is 0")
    place = np.stack([np.nan_to_num(events.clusters[axis]) for axis in "xyz"])
    if unplaced := int(np.sum(~np.any(place != 0, axis=0))):
        lines.append(
            f"{unplaced} clusters have no position: they take the direction of a neutral candidate"
            " made of them, or are left out"
        )
    if events.clusters.n_rows and "energy_ecal" not in events.clusters and not chosen.hits:
        lines.append(
            "no sub-detector energies: energy_ecal, energy_hcal and energy_other of clusters are 0"
        )
    if events.hits.n_rows and not np.any(events.hits["energy"] > 0):
        lines.append("hits have no energy: they give clusters a position, no truth and no shape")
    return lines


def references_dropped(events: RawEvents | None) -> list[str]:
    """Return a line about references that could not be followed, if there are any."""
    number = events.counts.get("references_dropped", 0) if events is not None else 0
    if not number:
        return []
    return [
        f"{number} references point nowhere or at what is not read: what they tell is lost"
        " (pile-up, or hits left out)"
    ]
