"""Why candidates match no particle, and which charges are wrong, in a finished run.

    python benchmarks/fakes.py RESULTS_DIR [--reconstruction mlpf|baseline]

RESULTS_DIR is results/<detector>, with select/ and reco/; the events that were reconstructed count,
by default those of the test split. Particles are matched as the validation does
(docs/validation.md). Each fake candidate of the list counts under what its
element is:

* its own particle: the element hosts a particle, but direction or partner were missed;
* second track: a track without a target;
* fragment of CLASS: a cluster without a target, most of whose energy a particle of CLASS left;
* noise: a cluster that no particle left energy in.

Also prints, for each charged class, how often matched candidates have the wrong charge, apart for
particles beside which one of the opposite charge flies (within 0.001). Prints tables; the last line
is one JSON object.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import awkward as ak
import numpy as np
import physics

from particleforge.config.load import load_detector, load_run
from particleforge.validation.events import TRUTH, EventBatch, flat, read_pair
from particleforge.validation.matching import match
from particleforge.validation.particles import LOG_PT_SCALE

Counts = Counter[tuple[str, str]]
RADIUS = load_run(physics.CONFIG).validation.match_radius
COLLINEAR = 1e-3


def causes(batch: EventBatch, view: str, names: list[str], counts: Counts) -> None:
    """Count the candidates of a batch by class and cause, matched ones under "matched"."""
    found, events = batch.views[view], batch.events
    _, partner = match(batch.views[TRUTH], found, RADIUS, LOG_PT_SCALE)
    n_tracks = ak.to_numpy(batch.n_elements["tracks"])
    event = np.repeat(np.arange(batch.n_events), ak.to_numpy(ak.num(found)))
    element, fake = flat(found.element), flat(partner) < 0
    first = np.cumsum(n_tracks + ak.to_numpy(batch.n_elements["clusters"]))
    first = np.concatenate([[0], first])
    hosts = flat(events.targets.class_id)[first[event] + element] > 0
    on_track = element < n_tracks[event]
    cluster = first[event] + element  # one number for elements of all events
    main_class = _main_class(batch, first, n_tracks)
    of_cluster = np.array(["noise", *(f"fragment of {name}" for name in names)], dtype=object)
    cause = np.where(on_track, "second track", of_cluster[main_class[cluster]])
    cause = np.where(hosts, "its own particle", cause)
    cause = np.where(fake, cause, "matched")
    labels = np.array(["none", *names], dtype=object)[flat(found.class_id)]
    counts.update(zip(labels.tolist(), cause.tolist(), strict=True))


def _main_class(batch: EventBatch, first: np.ndarray, n_tracks: np.ndarray) -> np.ndarray:
    """Return for every element the class that left most of a cluster's energy, 0 for none."""
    links, particles = batch.events.cluster_links, batch.events.particles
    event = np.repeat(np.arange(batch.n_events), ak.to_numpy(ak.num(links)))
    starts = np.cumsum(ak.to_numpy(ak.num(particles))) - ak.to_numpy(ak.num(particles))
    element = first[event] + n_tracks[event] + flat(links.cluster)
    class_id = flat(particles.class_id)[starts[event] + flat(links.particle)]
    order = np.argsort(flat(links.energy), kind="stable")  # the last one written has the most
    main = np.zeros(first[-1], np.int64)
    main[element[order]] = class_id[order]
    return main


def charges(batch: EventBatch, view: str, names: list[str], counts: Counts) -> None:
    """Count matched particles of charged classes by neighbourhood and whether charges agree."""
    truth, found = batch.views[TRUTH], batch.views[view]
    partner, _ = match(truth, found, RADIUS, LOG_PT_SCALE)
    pairs = ak.cartesian({"a": truth, "b": truth}, nested=True)
    angle = np.hypot(
        pairs.a.eta - pairs.b.eta, (pairs.a.phi - pairs.b.phi + np.pi) % (2 * np.pi) - np.pi
    )
    beside = ak.any((pairs.a.charge * pairs.b.charge < 0) & (angle < COLLINEAR), axis=-1)
    of_partner = found[ak.where(partner >= 0, partner, 0)]
    same = (partner >= 0) & (truth.charge != 0) & (of_partner.class_id == truth.class_id)
    wrong = np.sign(of_partner.charge) != np.sign(truth.charge)
    labels = np.array(["none", *names], dtype=object)[flat(truth.class_id[same])]
    kinds = [
        f"{'beside another' if near else 'alone'}, {'wrong' if bad else 'right'}"
        for near, bad in zip(flat(beside[same]), flat(wrong[same]), strict=True)
    ]
    counts.update(zip(labels.tolist(), kinds, strict=True))


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--reconstruction", default="mlpf", choices=("mlpf", "baseline"))
    options = parser.parse_args()
    detector = load_detector(physics.CONFIG, options.results.absolute().name)
    names = [c.name for c in detector.particle_classes]
    of_candidates = Counts()
    of_charges = Counts()
    for pair in physics.finished(options.results, detector):
        for batch in read_pair(pair.selected, pair.reconstructed, also=("cluster_links",)):
            causes(batch, options.reconstruction, names, of_candidates)
            charges(batch, options.reconstruction, names, of_charges)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for title, counts in (("candidates", of_candidates), ("charges", of_charges)):
        print(f"\n{title}, fraction of the class")
        result[title] = {}
        for name in dict.fromkeys(key[0] for key in counts):
            own = {kind: n for (label, kind), n in counts.most_common() if label == name}
            total = sum(own.values())
            result[title][name] = {kind: n / total for kind, n in own.items()}
            print(f"{name} ({total})")
            for kind, n in own.items():
                print(f"    {kind:<32} {n / total:.3f}")
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
