"""Reconstruct the events of an EDM4hep file with plain onnxruntime.

    python reconstruct.py model.onnx FILE.root CANDIDATES.npz [INPUTS.bin]

CANDIDATES.npz gets one array for each column, over the candidates of all events. INPUTS.bin gets
the model's inputs, for examples/cpp: of each event the number n of its elements (int64), n rows of
features (float32) and n types (int64).
"""

import json
import sys

import numpy as np
import onnxruntime
import uproot
from edm4hep_features import cluster_columns, track_columns

TYPES = {"track": 1, "cluster": 2}  # 0 is padding
NEGATIVE_PARTICLES = (11, 13, 15)  # the particle with the positive code has charge -1
WEIGHT_MIN = 0.02  # reconstruction.presence_min
EVENTS_PER_BATCH = 16


def inputs_of(path, elements):
    """Yield features [n, F] and types [n] of each event: its tracks, then its clusters."""
    with uproot.open(path) as file:
        found = {"track": track_columns(file["events"])}
        found["cluster"] = cluster_columns(file, file["events"])
    width = max(len(features) for features in elements.values())
    blocks = {}
    for kind, (columns, n_in_event) in found.items():
        block = np.zeros((n_in_event.sum(), width), np.float32)  # columns without a feature stay 0
        for number, feature in enumerate(elements[kind]):
            block[:, number] = columns[feature["name"]]
        blocks[kind] = np.split(block, np.cumsum(n_in_event)[:-1])
    for parts in zip(*(blocks[kind] for kind in TYPES), strict=True):
        types = [np.full(len(part), TYPES[kind]) for kind, part in zip(TYPES, parts, strict=True)]
        yield np.concatenate(parts), np.concatenate(types).astype(np.int64)


def padded(events):
    """Return the inputs of a batch: rows of zeros and type 0 behind the elements of an event."""
    longest = max(len(types) for _, types in events)
    features = np.zeros((len(events), longest, events[0][0].shape[1]), np.float32)
    element_type = np.zeros((len(events), longest), np.int64)
    for row, (found, types) in enumerate(events):
        features[row, : len(types)], element_type[row, : len(types)] = found, types
    return {"features": features, "element_type": element_type}


def candidates_of(outputs, classes):
    """Return the columns of a batch's candidates, events in order, elements in order."""
    scores, charge, p4, weight = outputs
    event, element = np.nonzero(weight > WEIGHT_MIN)  # padding has weight 0
    class_id = 1 + scores[event, element, 1:].argmax(axis=1)  # column 0 is "no particle"
    code = np.array([one.get("pdg", 0) for one in classes])[class_id]
    charge = charge[event, element]
    sign = np.where(np.isin(code, NEGATIVE_PARTICLES), -1, 1) * charge
    found = {"event": event, "element": element, "class_id": class_id}
    found["pdg"] = np.where(sign < 0, -code, code)
    momentum = dict(zip(("px", "py", "pz", "energy"), p4[event, element].T, strict=True))
    return found | {"charge": charge} | momentum | {"weight": weight[event, element]}


def main(model, path, output, dump=None):
    """Reconstruct a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    told = {name: json.loads(metadata[name]) for name in ("elements", "classes")}
    events = list(inputs_of(path, told["elements"]))
    batches = []
    for start in range(0, len(events), EVENTS_PER_BATCH):
        batch = padded(events[start : start + EVENTS_PER_BATCH])
        outputs = session.run(["class_scores", "charge", "p4", "weight"], batch)
        batches.append(candidates_of(outputs, told["classes"]))
        batches[-1]["event"] += start
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    np.savez(output, **found)
    if dump:
        with open(dump, "wb") as file:
            for features, types in events:
                file.write(np.int64(len(types)).tobytes() + features.tobytes() + types.tobytes())
    # a sum takes all candidates times their weights
    energy = np.bincount(found["event"], found["energy"] * found["weight"], len(events))
    for number, value in enumerate(energy):
        n_found = (found["event"] == number).sum()
        print(f"event {number}: {n_found} candidates, visible energy {value:.3f} GeV")


if __name__ == "__main__":
    main(*sys.argv[1:])
