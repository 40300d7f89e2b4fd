"""Small made-up Delphes events as plain Python, and files of them as Delphes writes them,
references included.

Branches hold objects as dicts; ``Particle`` of a track or ``Particles`` of a tower are the
``fUniqueID`` of what they mean.
"""

import struct

import awkward as ak
import numpy as np
import uproot

TYPES = {
    "PID": np.int32,
    "Status": np.int32,
    "IsPU": np.int32,
    "Charge": np.int32,
    "Number": np.int64,
    "fUniqueID": np.uint32,
}


def particle(number, pid, p, charge=0, status=1, mass=0.0, **more):
    return (
        {"fUniqueID": number, "PID": pid, "Status": status, "Charge": charge, "Mass": mass}
        | dict(zip(("Px", "Py", "Pz"), p, strict=True))
        | more
    )


def track(of, pt, phi, charge, ctg_theta=0.5, pid=211, **more):
    """Return a track that starts at the origin; where it reaches the calorimeter is made up."""
    members = {
        "PID": pid,
        "PT": pt,
        "Eta": float(np.arcsinh(ctg_theta)),
        "Phi": phi,
        "Charge": charge,
        "CtgTheta": ctg_theta,
    }
    members |= {
        "D0": 0.0,
        "DZ": 0.0,
        "Mass": 0.0,
        "XOuter": 1290.0,
        "YOuter": 10.0,
        "ZOuter": 300.0,
    }
    return members | more | {"Particle": of}


def tower(of, energy, eta, phi, ecal=None, hcal=0.0):
    return {
        "E": energy,
        "Eta": eta,
        "Phi": phi,
        "Eem": energy if ecal is None else ecal,
        "Ehad": hcal,
        "Particles": list(of),
    }


def candidate(of, pid, charge, energy, pt, eta, phi, hcal=0.0):
    return {
        "PID": pid,
        "Charge": charge,
        "E": energy,
        "PT": pt,
        "Eta": eta,
        "Phi": phi,
        "Ehad": hcal,
        "Particles": list(of),
    }


def write_delphes(path, events, empty=(), processes=0):
    """Write events, each ``{branch: [objects]}``.

    ``empty`` are objects of branches that no event fills, whose members it gives.

    ``processes`` are the upper 8 bits of every reference, which say in which process of ROOT it was
    made.
    """
    members = {}
    for event in (*events, *empty):
        for branch, objects in event.items():
            for one in objects:
                members.setdefault(branch, list(one))
    arrays = {}
    for branch, names in members.items():
        of_events = [event.get(branch, []) for event in events]
        for name in names:
            values = [[one[name] for one in objects] for objects in of_events]
            if name == "Particle":
                arrays[f"{branch}.{name}"] = _bytes(
                    [b"".join(_reference(x, processes) for x in event) for event in values]
                )
            elif name == "Particles":
                arrays[f"{branch}.{name}"] = _bytes(
                    [b"".join(_references(x, processes) for x in event) for event in values]
                )
            else:
                arrays[f"{branch}.{name}"] = _jagged(values, TYPES.get(name, np.float32))
    with uproot.recreate(path) as file:
        tree = file.mktree("Delphes", {name: array.type.content for name, array in arrays.items()})
        if events:
            tree.extend(arrays)


def rename_branch(path, old, new):
    """Give a branch another name, even one that the file has; both must be of one length."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def _reference(number, processes):
    """Return a TRef as it lies in a file: version, number, bits, process."""
    return struct.pack(">HIIH", 1, number | processes << 24, 0x3000000, 0)


def _references(numbers, processes):
    """Return a TRefArray as it lies in a file: length in bytes, version, object, name, size, lower
    bound, process, numbers.
    """
    body = struct.pack(">HHIIBIIH", 1, 1, 0, 0x3000000, 0, len(numbers), 0, 0)
    body += b"".join(struct.pack(">I", number | processes << 24) for number in numbers)
    return struct.pack(">I", 0x40000000 | len(body)) + body


def _bytes(events):
    return _jagged([list(event) for event in events], np.uint8)


def _jagged(events, dtype):
    offsets = np.concatenate([[0], np.cumsum([len(event) for event in events])]).astype(np.int64)
    flat = np.array([value for event in events for value in event], dtype)
    return ak.Array(
        ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(flat))
    )
