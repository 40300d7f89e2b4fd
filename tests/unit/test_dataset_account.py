"""What of the visible energy the targets hold: by file, with a gate, and printed."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from particleforge.cli import app
from particleforge.dataset.accounting import read_accounts
from particleforge.dataset.build import build_dataset
from particleforge.dataset.elements import distance_to_face
from particleforge.errors import UserError
from particleforge.tables.parquet import DATASET_SCHEMA, write_table

from .dataset_settings import dataset_settings
from .edm4hep_events import Event, leaves_of, write_events, write_leaves
from .test_dataset_build import TOLERANT, build


def photons(n_events, first_number=0, linked=True):
    """Return leaves of events with one photon and one cluster.

    Unless ``linked``, the photon's hit belongs to no cluster.
    """
    event = Event(
        particles=[
            {"pdg": 22, "status": 1, "charge": 0, "mass": 0.0, "p": [4.0, 0.0, 0.0], "parents": []}
        ]
    )
    event.hits["ECALBarrel"] = [{"energy": 4.0, "position": [1600.0, 0.0, 0.0]}]
    event.clusters = [
        {
            "energy": 4.0,
            "position": [1600.0, 0.0, 0.0],
            "hits": [("ECALBarrel", 0)] if linked else [],
        }
    ]
    event.hit_links = [(("ECALBarrel", 0), 0, 1.0)]
    return leaves_of([event] * n_events) | {
        "EventHeader.eventNumber": ([[first_number + i] for i in range(n_events)], np.uint64)
    }


@pytest.mark.fault("visible energy without element")
def test_each_file_has_its_account_and_its_gate(tmp_path):
    """One bad file among many events of good ones does not hide in their sum."""
    for name, n_events, first, linked in (("good", 30, 0, True), ("bad", 1, 40, False)):
        write_leaves(tmp_path / f"{name}.root", photons(n_events, first, linked))
    files = [tmp_path / "good.root", tmp_path / "bad.root"]
    metadata = build(dataset_settings(dataset=TOLERANT), files, tmp_path / "out.parquet")[1]
    good, bad = metadata["files"]
    assert (good["file"], good["events"], bad["file"], bad["events"]) == (
        "good.root",
        30,
        "bad.root",
        1,
    )
    assert (good["energy_balance_gev"]["target"], good["energy_balance_gev"]["dropped"]) == (
        120.0,
        0.0,
    )
    assert (
        bad["energy_balance_gev"]["dropped_no_cluster"],
        bad["counts"]["n_dropped_no_cluster"],
    ) == (4.0, 1)
    summed = {
        name: good["energy_balance_gev"][name] + value
        for name, value in bad["energy_balance_gev"].items()
    }
    assert summed == metadata["energy_balance_gev"]
    # in sum, only 3 % are dropped
    strict = TOLERANT.model_copy(update={"dropped_energy_fraction_max": 0.1})
    line = (
        r"^\S*bad\.root: 100\.0% of the visible energy finds no element, allowed 10\.0%; most of"
        r" it: left energy only in hits"
    )
    with pytest.raises(UserError, match=line):
        build_dataset(dataset_settings(dataset=strict), files, tmp_path / "strict.parquet")
    assert not (tmp_path / "strict.parquet").exists()
    quarantine = strict.model_copy(update={"on_bad_file": "quarantine"})
    table, metadata = build(
        dataset_settings(dataset=quarantine), files, tmp_path / "quarantine.parquet"
    )
    assert len(table) == 30
    assert [entry["file"] for entry in metadata["quarantined"]] == ["bad.root"]
    assert [entry["file"] for entry in metadata["files"]] == ["good.root"]


@pytest.mark.fault("links that show nothing")
def test_file_in_which_nothing_is_visible_fails(tmp_path):
    """Links to a particle that left nothing: no target, nothing dropped, yet no sound file."""
    leaves = photons(5)
    leaves["CalohitMCTruthLink.weight"] = ([[0.0]] * 5, np.float32)
    write_leaves(tmp_path / "events.root", leaves)
    line = (
        r"^\S*events\.root: 0\.0% of the generated energy, without neutrinos and what flies past"
        r" the calorimeters, is visible, "
        r"asked for 10\.0%; check the file's truth links, or lower"
        r" dataset\.visible_energy_fraction_min$"
    )
    with pytest.raises(UserError, match=line):
        build_dataset(dataset_settings(), [tmp_path / "events.root"], tmp_path / "out.parquet")
    table, metadata = build(
        dataset_settings(dataset=TOLERANT), [tmp_path / "events.root"], tmp_path / "out.parquet"
    )
    assert (len(table), metadata["energy_balance_gev"]["faint"]) == (5, 20.0)


def test_cluster_without_position_takes_the_direction_of_its_neutral_candidate(tmp_path):
    """As in FCC-ee samples of spring 2021.

    A charged candidate points elsewhere than the cluster, so it does not help.
    """
    direction = np.array([3.0, -4.0, 12.0]) / 13
    candidate = {"energy": 4.0, "tracks": [], "p": [float(4 * x) for x in direction]}
    event = Event(
        particles=[
            {"pdg": 22, "status": 1, "charge": 0, "mass": 0.0, "p": [4.0, 0.0, 0.0], "parents": []}
        ]
    )
    event.clusters = [
        {"energy": energy, "position": [0.0, 0.0, 0.0], "hits": []} for energy in (4.0, 2.0, 1.0)
    ]
    event.cluster_links = [(0, 0, 1.0)]
    event.candidates = [
        {**candidate, "pdg": 211, "charge": 1.0, "clusters": [1]},
        {**candidate, "pdg": 22, "charge": 0.0, "clusters": [0]},
    ]
    event.candidates.append(
        {**candidate, "pdg": 130, "charge": 0.0, "clusters": [0], "p": [0.0, 1.0, 0.0]}
    )
    write_events(tmp_path / "events.root", [event], hits=False)
    settings = dataset_settings(dataset=TOLERANT)
    table, metadata = build(settings, [tmp_path / "events.root"], tmp_path / "out.parquet")
    ((cluster,),) = table["clusters"].to_list()
    assert metadata["counts"]["clusters_dropped"] == 2
    distance = distance_to_face(
        np.hypot(*direction[:2]), abs(direction[2]), settings.calorimeter.ecal
    )
    assert [cluster[axis] for axis in "xyz"] == pytest.approx(list(direction * distance), rel=1e-6)
    assert cluster["depth"] == pytest.approx(0, abs=1e-3)
    assert table["targets", "energy"].to_list() == [[4.0]]


def test_accounting_is_printed_for_each_file(tmp_path):
    write_leaves(tmp_path / "a.root", photons(2))
    write_leaves(tmp_path / "b.root", photons(1, linked=False))
    for name in "ab":
        build_dataset(
            dataset_settings(dataset=TOLERANT),
            [tmp_path / f"{name}.root"],
            tmp_path / f"{name}.parquet",
        )
    files = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    heads, first, second, both = (
        CliRunner().invoke(app, ["accounting", *files]).stdout.splitlines()[:4]
    )
    assert heads.split()[:3] == ["sample", "file", "events"]
    zero, whole = ["0.00", "%"], ["100.00", "%"]
    assert first.split() == ["test", "a.root", "2", "8.0", *4 * zero, "8.0", *whole, *6 * zero]
    assert second.split() == [
        "test",
        "b.root",
        "1",
        "4.0",
        *4 * zero,
        "4.0",
        *2 * zero,
        *whole,
        *2 * zero,
        *whole,
        *zero,
    ]
    assert both.split()[:3] == ["all", "3", "12.0"]
    plain = json.loads(CliRunner().invoke(app, ["accounting", "--json", *files]).stdout)
    assert [(entry["name"], entry["balance"]["dropped"]) for entry in plain] == [
        ("a.root", 0.0),
        ("b.root", 4.0),
    ]


def test_accounting_of_another_table_is_refused(tmp_path):
    write_table(tmp_path / "other.parquet", [], DATASET_SCHEMA, {"provenance": {}})
    with pytest.raises(UserError, match=r"other\.parquet: holds no energy accounting"):
        read_accounts([tmp_path / "other.parquet"])
