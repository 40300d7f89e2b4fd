"""Delphes files as they come: what is missing or broken, and real ones."""

import math
from collections import Counter

import numpy as np
import pytest
import uproot

from particleforge.config.delphes import DelphesConfig
from particleforge.dataset.build import build_dataset
from particleforge.delphes.reader import read_chunks
from particleforge.errors import UserError
from particleforge.inputs.inspection import inspect_file
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import dataset_settings
from .delphes_events import particle, rename_branch, write_delphes
from .real_files import real_file
from .test_delphes import DETECTOR, ECAL, EVENT, FIELD, NAMES, changed, read, without


@pytest.mark.fault("missing branch")
@pytest.mark.parametrize(
    ("branches", "said"),
    [
        (
            {"Particle": None},
            "no branch PileUpMix or Particle; correct the detector's 'delphes.particles'",
        ),
        (
            {
                "Track": None,
                "Tower": None,
                "EFlowTrack": None,
                "EFlowPhoton": None,
                "EFlowNeutralHadron": None,
            },
            (
                "neither Track or EFlowTrack nor Tower or EFlowPhoton + EFlowNeutralHadron is"
                " there; let the Delphes card write tracks and"
            ),
        ),
        (
            {"Particle": without(EVENT["Particle"], "PID")},
            "branch Particle.PID is missing; check the file and the detector's 'delphes'",
        ),
        (
            {"Particle": without(EVENT["Particle"], "fUniqueID")},
            "branch Particle.fUniqueID is missing",
        ),
        ({"Track": without(EVENT["Track"], "Particle")}, "branch Track.Particle is missing"),
        ({"Track": without(EVENT["Track"], "D0")}, "branch Track.D0 or Track.Dxy is missing"),
        ({"Tower": without(EVENT["Tower"], "Particles")}, "branch Tower.Particles is missing"),
        ({"Tower": without(EVENT["Tower"], "Eem")}, "branch Tower.Eem is missing"),
        (
            {"Event": [{"Number": 1, "Weight": math.nan}]},
            "Event.Weight must hold one finite number per event",
        ),
        (
            {"Event": [{"Number": 1, "Weight": 1.0}] * 2},
            "Event.Number must hold one finite number per event",
        ),
        (
            {"Particle": [particle(11, 211, (math.inf, 0, 0))]},
            "Particle holds momenta that are not finite",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_or_broken_is_one_line(tmp_path, branches, said):
    write_delphes(tmp_path / "events.root", [changed(EVENT, **branches)])
    with pytest.raises(UserError) as caught:
        read(tmp_path / "events.root")
    assert str(caught.value).startswith(f"{tmp_path}/events.root: {said}")
    assert "\n" not in str(caught.value)
    assert inspect_file(tmp_path / "events.root", DETECTOR).refused == str(caught.value)


@pytest.mark.fault("file that is not EDM4hep")
def test_delphes_output_in_another_form_is_one_line(tmp_path):
    """Delphes may write RNTuples one day, and other trees bear its name."""
    with uproot.recreate(tmp_path / "ntuple.root") as file:
        file.mkrntuple("Delphes", {"Track": np.ones(3)})
    with uproot.recreate(tmp_path / "flat.root") as file:
        file.mktree("Delphes", {"jet_pt": np.ones(3)})
    with uproot.recreate(tmp_path / "folder.root") as file:
        file["Delphes/tree"] = {"Track": np.ones(3)}
    folder = "'Delphes' is a folder, not a tree"
    for name, said in (
        ("folder", folder),
        ("ntuple", "'Delphes' is a ROOT::RNTuple, not a tree"),
        ("flat", "no branch PileUpMix or Particle"),
    ):
        with pytest.raises(UserError, match=said):
            read(tmp_path / f"{name}.root")


@pytest.mark.fault("two branches of one name")
def test_of_two_branches_of_one_name_the_first_counts(tmp_path, caplog):
    """A user's card may call its jets ``Particle``, with members that particles have, too."""
    write_delphes(tmp_path / "once.root", [EVENT])
    jets = [{"fUniqueID": 1, "PID": 9, "Charge": 0, "Mass": 5.0, "Px": 1.0, "BTag": 1.0}]
    write_delphes(tmp_path / "twice.root", [EVENT | {"Particlf": jets}])
    rename_branch(tmp_path / "twice.root", "Particlf", "Particle")
    once, twice = read(tmp_path / "once.root"), read(tmp_path / "twice.root")
    for name in ("pdg", "px", "charge", "energy"):
        np.testing.assert_array_equal(twice.particles[name], once.particles[name])
    lines = [line for line in caplog.messages if "two branches are called" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path}/twice.root: two branches are called Particle.")
    assert lines[0].endswith("is not")
    assert (
        lines[0].removeprefix(f"{tmp_path}/twice.root: ")
        in inspect_file(tmp_path / "twice.root", DETECTOR).missing
    )


def slow_sums(path):
    """Return counts and sums of the real file, event by event, object by object."""
    tree, found = uproot.open(path)["Delphes"], Counter()
    leaves = {
        name: tree[name].array(library="ak").to_list()
        for name in tree.keys(full_paths=False)
        if name.split(".")[0] in SLOW
    }

    def number(reference):
        return reference["ref" if "ref" in reference else "refs"]

    for event in range(tree.num_entries):
        energy, by_number = [], {}
        for i, (px, py, pz, mass, unique) in enumerate(
            zip(
                *(
                    leaves[f"Particle.{name}"][event]
                    for name in ("Px", "Py", "Pz", "Mass", "fUniqueID")
                ),
                strict=True,
            )
        ):
            energy.append(math.sqrt(px * px + py * py + pz * pz + mass * mass))
            by_number[unique & 0xFFFFFF] = i
            found["particles"] += 1
            found["particle energy"] += energy[-1]
        pids = leaves["Particle.PID"][event]
        for i, reference in enumerate(leaves["Track.Particle"][event]):
            found["tracks"] += 1
            found["track links"] += 1
            found["track links' pid"] += pids[by_number[number(reference) & 0xFFFFFF]]
            found["track pt"] += leaves["Track.PT"][event][i]
        for i, references in enumerate(leaves["Tower.Particles"][event]):
            found["clusters"] += 1
            found["cluster energy"] += leaves["Tower.E"][event][i]
            for reference in number(references):
                found["cluster links"] += 1
                found["cluster links' energy"] += energy[by_number[reference & 0xFFFFFF]]
        for branch, momentum in (
            ("EFlowTrack", "PT"),
            ("EFlowPhoton", "ET"),
            ("EFlowNeutralHadron", "ET"),
        ):
            for i, value in enumerate(leaves[f"{branch}.{momentum}"][event]):
                found["candidates"] += 1
                found["candidate px"] += value * math.cos(leaves[f"{branch}.Phi"][event][i])
    return found


SLOW = ("Particle", "Track", "Tower", "EFlowTrack", "EFlowPhoton", "EFlowNeutralHadron")


def test_real_file_against_a_slow_reference():
    path = real_file("delphes.root")
    expected, found = slow_sums(path), Counter()
    for raw in read_chunks(path, NAMES, FIELD, ECAL, 7):
        at_ip = raw.states["location"] == 1
        found["particles"] += raw.particles.n_rows
        found["particle energy"] += raw.particles["energy"].sum()
        found["tracks"] += raw.tracks.n_rows
        found["track pt"] += float(
            np.sum(0.299792458e-3 * FIELD / np.abs(raw.states["omega"][at_ip]))
        )
        found["track links"] += len(raw.track_links.left)
        found["track links' pid"] += int(raw.particles["pdg"][raw.track_links.right].sum())
        found["clusters"] += raw.clusters.n_rows
        found["cluster energy"] += raw.clusters["energy"].sum()
        found["cluster links"] += len(raw.cluster_links.left)
        found["cluster links' energy"] += raw.cluster_links.weight.sum()
        found["candidates"] += raw.candidates.n_rows
        found["candidate px"] += raw.candidates["px"].sum()
        assert len(np.unique(raw.candidate_tracks.left)) == np.sum(raw.candidates["charge"] != 0)
        neutral = raw.candidates["charge"] == 0
        assert np.isin(np.flatnonzero(neutral), raw.candidate_clusters.left).mean() > 0.99
        assert raw.counts == {"references_dropped": 0}
    assert expected["particles"] == 77394
    for key in expected.keys() | found.keys():
        assert found[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-6), key


def test_real_file_becomes_a_dataset_whose_energy_closes(tmp_path):
    build_dataset(
        dataset_settings("cms_delphes"), [real_file("delphes.root")], tmp_path / "out.parquet"
    )
    balance = read_metadata(tmp_path / "out.parquet")["energy_balance_gev"]
    assert len(read_table(tmp_path / "out.parquet")) == 25
    assert balance["visible"] == pytest.approx(balance["target"] + balance["dropped"], rel=1e-6)
    assert balance["target"] > 0.95 * balance["visible"] > 0


def test_defaults_are_the_names_of_delphes_cards():
    assert DelphesConfig() == NAMES
