"""Pairs of selected and reconstructed files as batches of the views of the same events.

Inputs -> outputs: a selected Parquet file (all splits) and the reconstructed one of the same shard
(only the splits that were reconstructed) -> ``EventBatch``es, one per row group, so that memory
does not grow with the size or number of files.

The views, each a list of particles (px, py, pz, energy in GeV, charge, class) per event:

* ``truth``: visible generator particles, i.e. all whose fate is not INVISIBLE, whether or not an
  element hosts them;
* ``target``: the targets, what a model learns to output for the elements;
* ``ideal``: ideal particle flow, right assignments and measured energies (``ideal``);
* ``mlpf``: the model's candidates;
* ``baseline``: the candidates of the rule-based particle flow.

Beside them, ``generator``: all truth particles but neutrinos, visible or not, for ``closure`` only.

The model gives each candidate a weight (``model.decode``). Sums (jets, missing momentum,
visible energy) take all candidates, four-momenta times weights: ``EventBatch.weighted``. Lists of
particles take the candidates whose weight reaches ``presence_threshold`` in the file's metadata, as
they are: ``EventBatch.views``. In all other views every particle weighs 1, and the two are one.

Every event counts with its ``weight``, as the selected file has it, in all histograms. Weights may
be negative. A file that leaves all of them at 0 counts unweighted.

Invariant: rows are joined by ``event_id``; run and event numbers must agree too, and every selected
event of a reconstructed split must have been reconstructed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from particleforge.edm4hep.constants import is_neutrino
from particleforge.errors import UserError
from particleforge.reconstruction.reconstruct import ReconstructedMetadata
from particleforge.selection.select import SelectedMetadata
from particleforge.tables import parquet, schema
from particleforge.validation.ideal import ideal_particles

GENERATOR = "generator"
TRUTH = "truth"
RECONSTRUCTIONS = ("target", "ideal", "mlpf", "baseline")
_FOUR_MOMENTUM = ("px", "py", "pz", "energy")
_MEMBERS = (*_FOUR_MOMENTUM, "charge", "class_id")
_OF_TRACKS = ("tracks.list.element.p",)
_IDENTITY = ("event_id", "run_number", "event_number")


@dataclass(frozen=True)
class EventBatch:
    """Some events of one sample: ``views[name]`` holds records.

    Their members are px, py, pz, energy, charge, class_id, pt, eta, phi, and element of mlpf's.

    ``weighted`` holds the same for sums, four-momenta times weights, ``n_elements`` the numbers of
    tracks and of calorimeter elements per event, ``candidates`` all of the model's as they are
    stored, ``events`` what was asked for beside the views.
    ``weights`` are the events' own, float64 [n_events].
    """

    sample: str
    n_events: int
    views: dict[str, ak.Array]
    weighted: dict[str, ak.Array]
    n_elements: dict[str, ak.Array]
    candidates: ak.Array
    events: ak.Array
    weights: NDArray[np.float64]

    def weights_of(self, lists: ak.Array) -> NDArray[np.float64]:
        """Return the weight of each entry of ``lists``, which has one list per event."""
        found: NDArray[np.float64] = np.repeat(self.weights, ak.to_numpy(ak.num(lists)))
        return found


def sample_of(path: Path) -> str:
    """Return the sample that an event table belongs to, from its metadata."""
    parquet.require_truth(path, parquet.SELECTED)
    return parquet.described(path, SelectedMetadata).sample


def check_repeats(reconstructed: Sequence[Path]) -> None:
    """Refuse files that have an event in common, which would be counted twice; UserError."""
    found: list[NDArray[np.uint64]] = []
    for path in reconstructed:
        parquet.read_metadata(path, parquet.RECONSTRUCTED)
        found.append(parquet.read_columns(path, ["event_id"])["event_id"].to_numpy())
    ids = np.concatenate([np.zeros(0, np.uint64), *found])
    file = np.repeat(np.arange(len(found)), np.array([len(own) for own in found], np.int64))
    order = np.argsort(ids, kind="stable")
    ids, file = ids[order], file[order]
    twice = np.flatnonzero((ids[1:] == ids[:-1]) & (file[1:] != file[:-1]))
    if len(twice):
        first, second = file[twice[0]], file[twice[0] + 1]
        common = int(np.isin(found[second], found[first]).sum())
        raise UserError(
            f"{reconstructed[second]}: {common} of {len(found[second])} events are in"
            f" {reconstructed[first]}, too, and would be counted twice; give each pair of files"
            " once"
        )


def read_pair(
    selected: Path, reconstructed: Path, also: Sequence[str] = ()
) -> Iterator[EventBatch]:
    """Yield the common events of two files of the same shard; a mismatch is a UserError.

    ``also`` names further columns of the selected file, for ``EventBatch.events``.
    """
    sample = sample_of(selected)
    threshold = _presence_threshold(reconstructed)
    found = parquet.read_columns(reconstructed, [*_IDENTITY, "candidates"])
    known = parquet.read_columns(selected, [*_IDENTITY, "split", "weight"])
    _check_identity(selected, reconstructed, known, found)
    unweighted = not _event_weights(selected, known).any()
    model = parquet.from_arrow(found.select(["candidates"])).candidates
    ids = found["event_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    columns = ["event_id", "weight", "particles", "targets", "candidates", *_OF_TRACKS, *also]
    for block in parquet.iter_tables(selected, columns):
        rows = block.filter(
            pc.is_in(block["event_id"], value_set=found["event_id"].combine_chunks())
        )
        if rows.num_rows == 0:
            continue
        where = order[np.searchsorted(ids, rows["event_id"].to_numpy(), sorter=order)]
        events = parquet.from_arrow(rows)
        n_tracks = ak.num(events.tracks)
        n_elements = {"tracks": n_tracks, "clusters": ak.num(events.targets) - n_tracks}
        candidates = model[where]
        views = _views(events, candidates[candidates.weight >= threshold])
        weighted = {**views, "mlpf": _view(_times_weight(candidates), "element")}
        weights = np.ones(len(events)) if unweighted else ak.to_numpy(events.weight)
        yield EventBatch(
            sample, rows.num_rows, views, weighted, n_elements, candidates, events, weights
        )


def _event_weights(selected: Path, known: pa.Table) -> NDArray[np.float64]:
    """Return the weights of a file's events; UserError where one is no number."""
    weights: NDArray[np.float64] = known["weight"].to_numpy()
    if not np.isfinite(weights).all():
        raise UserError(
            f"{selected}: weight: {int(np.sum(~np.isfinite(weights)))} values are not finite; cut"
            " these events, or mend the file that they come from"
        )
    return weights


def _presence_threshold(reconstructed: Path) -> np.float32:
    """Return the smallest weight of a candidate in lists, in the precision of weights."""
    return np.float32(parquet.described(reconstructed, ReconstructedMetadata).presence_threshold)


def _times_weight(candidates: ak.Array) -> ak.Array:
    """Return candidates with their four-momenta times their weights."""
    for name in _FOUR_MOMENTUM:
        value = ak.values_astype(candidates[name], np.float64)
        candidates = ak.with_field(candidates, value * candidates.weight, name)
    return candidates


def _views(events: ak.Array, model: ak.Array) -> dict[str, ak.Array]:
    particles, targets = events.particles, events.targets
    return {
        GENERATOR: _view(particles[~_per_event(is_neutrino, particles.pdg)]),
        TRUTH: _view(particles[particles.fate != int(schema.Fate.INVISIBLE)]),
        "target": _view(targets[targets.class_id != schema.NONE_CLASS]),
        "ideal": _view(ideal_particles(particles, events.tracks)),
        "mlpf": _view(model, "element"),
        "baseline": _view(events.candidates),
    }


def _per_event(function: Callable[[Any], Any], values: ak.Array) -> ak.Array:
    """Apply a function of a flat array to one of lists."""
    return ak.unflatten(function(ak.to_numpy(ak.flatten(values))), ak.num(values))


def _view(particles: ak.Array, *also: str) -> ak.Array:
    """Return the members that matter, in double precision, with pt, eta and phi."""
    columns = {
        name: ak.values_astype(particles[name], np.float64 if name in _FOUR_MOMENTUM else np.int64)
        for name in (*_MEMBERS, *also)
    }
    pt = np.hypot(columns["px"], columns["py"])
    # eta = asinh(pz/pt); a particle along the beam gets a large, finite value
    columns |= {
        "pt": pt,
        "eta": np.arcsinh(columns["pz"] / np.maximum(pt, 1e-9)),
        "phi": np.arctan2(columns["py"], columns["px"]),
    }
    return ak.zip(columns, depth_limit=2)


def _check_identity(selected: Path, reconstructed: Path, known: pa.Table, found: pa.Table) -> None:
    """Raise a UserError unless ``found`` holds exactly the events of some splits of ``known``."""
    remedy = "rerun reconstruct_events on this selected file"
    known_ids, found_ids = known["event_id"].to_numpy(), found["event_id"].to_numpy()
    if len(np.unique(found_ids)) != len(found_ids):
        raise UserError(f"{reconstructed}: event_id repeats; {remedy}")
    order = np.argsort(known_ids, kind="stable")
    place = np.searchsorted(known_ids, found_ids, sorter=order)
    where = (
        order[np.minimum(place, max(len(known_ids) - 1, 0))]
        if len(known_ids)
        else np.zeros(0, np.int64)
    )
    strangers = len(found_ids) if not len(known_ids) else int(np.sum(known_ids[where] != found_ids))
    if strangers:
        raise UserError(
            f"{reconstructed}: {strangers} of {len(found_ids)} events are not in {selected};"
            f" {remedy}"
        )
    for name in ("run_number", "event_number"):
        if len(where) and not np.array_equal(known[name].to_numpy()[where], found[name].to_numpy()):
            raise UserError(
                f"{reconstructed}: {name} differs from {selected} for the same event_id; {remedy}"
            )
    splits = known["split"].to_numpy(zero_copy_only=False)
    missing = np.isin(splits, np.unique(splits[where])) & ~np.isin(known_ids, found_ids)
    if missing.any():
        raise UserError(
            f"{reconstructed}: {int(missing.sum())} events of the same splits in {selected} are"
            f" missing; {remedy}"
        )


def flat(values: ak.Array) -> np.ndarray:
    """Return the values of all events in one array."""
    found: np.ndarray = ak.to_numpy(ak.flatten(values))
    return found
