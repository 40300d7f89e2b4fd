"""Particle candidates from the model's predictions.

Predictions per element (flat) with the number of elements per event -> awkward records of
``schema.WEIGHTED_CANDIDATES`` per event. An element gives a candidate where its weight is above a
minimum; its class is the most probable particle class. Neutral classes have charge 0. The PDG code
is that of the class, negative for the antiparticle: of positive charge for leptons (e+ is -11), of
negative charge for hadrons (pi- is -211); see "Monte Carlo particle numbering scheme" of the
Particle Data Group.
"""

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.reconstruction.onnx_model import Predictions
from particleforge.tables import schema

NEGATIVE_PARTICLES = (11, 13, 15)  # positive code, negative charge


def candidates_of(
    found: Predictions,
    n_elements: NDArray[np.int32],
    classes: Sequence[dict[str, Any]],
    presence_min: float,
) -> ak.Array:
    """Return the candidates of each event, [n_events, var].

    ``classes`` as in the manifest, class 0 none.
    """
    counts = n_elements.astype(np.int64)
    event = np.repeat(np.arange(len(counts)), counts)
    element = np.arange(len(event)) - np.repeat(np.cumsum(counts) - counts, counts)
    present = found.weight > presence_min
    class_id = 1 + np.argmax(found.class_scores[present, 1:], axis=1)
    charged = np.array([bool(c.get("charged", False)) for c in classes])[class_id]
    code = np.array([c.get("pdg", 0) for c in classes])[class_id]
    charge = np.where(charged, found.charge[present], 0)
    antiparticle = charge * np.where(np.isin(code, NEGATIVE_PARTICLES), -1, 1) < 0
    p4 = found.p4[present]
    columns = {
        "pdg": np.where(antiparticle, -code, code),
        "class_id": class_id,
        "charge": charge,
        "px": p4[:, 0],
        "py": p4[:, 1],
        "pz": p4[:, 2],
        "energy": p4[:, 3],
        "element": element[present],
        "weight": found.weight[present],
    }
    typed = {
        field.name: columns[field.name].astype(field.dtype)
        for field in schema.WEIGHTED_CANDIDATES.fields
    }
    return ak.unflatten(ak.zip(typed), np.bincount(event[present], minlength=len(counts)))
