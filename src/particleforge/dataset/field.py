"""Whether tracks were measured in the magnetic field that the detector's file names.

Inputs -> outputs: valid events -> ratios of the tracks' pT, which come from curvature and field, to
that of the particles linked to them, and to that of the candidates made of them; ratios of a file
-> the factor between both, where most tracks agree on one. A wrong field scales the pT of all
tracks alike; wrong links scatter.
"""

import numpy as np

from particleforge.edm4hep.raw_events import FloatArray, Pairs, RawEvents, Table, summed

OF_PARTICLES, OF_CANDIDATES = "the particles linked to them", "the candidates made of them"
RATIOS_MAX = 100_000  # of a file that are looked at
_RATIOS_MIN = 3
_LINK_SHARE_MIN = 0.5  # of a track's links that its particle must have
_AGREE_WITHIN, _AGREE_MIN = 0.1, 0.5


def pt_ratios(events: RawEvents) -> dict[str, FloatArray]:
    """Return the ratios of a chunk, to particles and to candidates."""
    links = events.track_links.where(events.track_links.weight > 0)
    total = summed(links.left, links.weight, events.tracks.n_rows)
    of_particles = links.where(links.weight > _LINK_SHARE_MIN * total[links.left])
    n_tracks = summed(events.candidate_tracks.left, None, events.candidates.n_rows)
    pairs = events.candidate_tracks
    pairs = pairs.where(n_tracks[pairs.left] == 1)
    return {
        OF_PARTICLES: _ratios(events.tracks, events.particles, of_particles),
        OF_CANDIDATES: _ratios(events.tracks, events.candidates, Pairs.of(pairs.right, pairs.left)),
    }


def common_factor(ratios: FloatArray) -> float | None:
    """Return the median if most ratios are close to it, and there are enough to tell."""
    if len(ratios) < _RATIOS_MIN:
        return None
    median = float(np.median(ratios))
    agree = np.abs(ratios - median) < _AGREE_WITHIN * median
    return median if agree.mean() >= _AGREE_MIN else None


def _ratios(tracks: Table, others: Table, pairs: Pairs) -> FloatArray:
    """Return the pT of tracks over that of the charged particles or candidates of the pairs."""
    pt = np.hypot(*(others[name].astype(np.float64)[pairs.right] for name in ("px", "py")))
    usable = (others["charge"][pairs.right] != 0) & (pt > 0)
    return np.asarray(tracks["pt"][pairs.left[usable]] / pt[usable])
