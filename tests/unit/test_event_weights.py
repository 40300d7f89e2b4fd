"""An event's weight is the header's, one of its vector's, or 1 where nothing was ever filled."""

import numpy as np
import pytest

from particleforge.config.load import load_detector
from particleforge.delphes import reader as delphes
from particleforge.edm4hep.reader import read_chunks
from particleforge.errors import UserError
from particleforge.inputs.inspection import inspect_file

from .dataset_settings import CONFIG
from .delphes_events import write_delphes
from .edm4hep_events import leaves_of, write_leaves
from .test_delphes import ECAL, EVENT, FIELD
from .test_delphes import NAMES as BRANCHES
from .test_edm4hep_layouts import NAMES, sound_events

CLIC = load_detector(CONFIG, "clic")


def write(path, weight, weights=None, vector="_EventHeader_weights"):
    """Write two events with a weight each, and a vector of weights each."""
    leaves = leaves_of(sound_events())
    leaves["EventHeader.weight"] = (weight, np.float64)
    if weights is not None:
        leaves[vector] = (weights, np.float64)
        leaves["EventHeader.weights_begin"] = ([[0]] * 2, np.uint32)
        leaves["EventHeader.weights_end"] = ([[len(event)] for event in weights], np.uint32)
    write_leaves(path, leaves)
    return path


def read(path, entry=None, chunk=10):
    names = NAMES.model_copy(update={"event_weight_entry": entry})
    return [weight for raw in read_chunks(path, names, chunk) for weight in raw.weight.tolist()]


def test_an_event_header_that_was_never_filled(tmp_path):
    leaves = leaves_of(sound_events())
    for name in ("runNumber", "eventNumber", "weight"):
        leaves[f"EventHeader.{name}"] = ([[], []], leaves[f"EventHeader.{name}"][1])
    write_leaves(tmp_path / "events.root", leaves)
    (raw,) = read_chunks(tmp_path / "events.root", NAMES, 10)
    assert (raw.run_number.tolist(), raw.event_number.tolist()) == ([0, 0], [0, 1])
    assert raw.weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("weight", "weights", "entry", "expected"),
    [
        ([[0.5], [2.0]], None, None, [0.5, 2.0]),
        ([[0.0], [2.0]], None, None, [0.0, 2.0]),
        ([[0.0], [0.0]], None, None, [1.0, 1.0]),
        ([[0.0], [0.0]], [[], []], None, [1.0, 1.0]),
        ([[0.5], [2.0]], [[7.0, 8.0], [9.0, 10.0]], None, [0.5, 2.0]),
        ([[0.0], [0.0]], [[7.0, 8.0], [9.0, 10.0]], None, [7.0, 9.0]),
        ([[0.0], [0.0]], [[7.0, 8.0], [9.0, 10.0]], 1, [8.0, 10.0]),
        ([[0.5], [2.0]], [[7.0], [9.0, 10.0]], 0, [7.0, 9.0]),
        ([[0.5], [2.0]], [[0.0], [0.0]], 0, [1.0, 1.0]),
    ],
)
def test_weights_from_the_header_or_its_vector(tmp_path, weight, weights, entry, expected):
    path = write(tmp_path / "events.root", weight, weights)
    assert read(path, entry) == expected
    assert read(path, entry, chunk=1) == expected  # of the file, not of the chunk


def test_inspect_tells_of_weights_that_were_never_filled(tmp_path):
    never = "EventHeader.weight was never filled: weights"
    path = write(tmp_path / "events.root", [[0.0], [0.0]])
    assert f"{never} are 1" in inspect_file(path, CLIC).missing
    path = write(tmp_path / "events.root", [[0.0], [0.0]], [[7.0], [9.0]])
    assert f"{never} come from EventHeader.weights" in inspect_file(path, CLIC).missing
    path = write(tmp_path / "events.root", [[0.0], [2.0]])
    assert never not in " ".join(inspect_file(path, CLIC).missing)


@pytest.mark.fault("event weight that is not there")
@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "no EventHeader.weights, and collections.event_weight_entry is 3"),
        ([[1.0] * 4, [1.0] * 2], "has 2 entries in an event, and collections.event_weight_entry"),
        ([[1.0] * 4, [np.nan] * 4], "_EventHeader_weights holds numbers that are not finite"),
    ],
)
def test_a_weight_that_is_not_there_is_one_line(tmp_path, weights, said):
    path = write(tmp_path / "events.root", [[0.5], [2.0]], weights)
    with pytest.raises(UserError) as caught:
        read(path, 3)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(("weights", "expected"), [((0, 0), [1, 1]), ((0, 2), [0, 2])])
def test_weights_of_delphes(tmp_path, weights, expected):
    events = [
        EVENT | {"Event": [{"Number": number, "Weight": float(weight)}]}
        for number, weight in enumerate(weights)
    ]
    write_delphes(tmp_path / "events.root", events)
    chunks = delphes.read_chunks(tmp_path / "events.root", BRANCHES, FIELD, ECAL, 1)
    assert [raw.weight.tolist() for raw in chunks] == [[weight] for weight in expected]
