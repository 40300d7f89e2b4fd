"""NaN and infinity in a file's tracks, clusters, energies and truth, and in the tables made of it.

What is reconstructed may fail for single objects: they are left out and counted, and too many of
them make the file a bad one. Truth has no such excuse: one momentum that is not finite and the file
is refused.
"""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.errors import UserError
from particleforge.tables.parquet import read_metadata, read_table

from ..unit.dataset_settings import dataset_settings
from ..unit.edm4hep_events import Event, leaves_of, write_leaves

N_EVENTS = 150
TRACKS, CLUSTERS, STATES = "SiTracks_Refitted", "PandoraClusters", "_SiTracks_Refitted_trackStates"


def event(number: int) -> Event:
    """Return a pion with a track and a cluster."""
    made = Event(
        particles=[
            {
                "pdg": 211,
                "status": 1,
                "charge": 1,
                "mass": 0.1396,
                "p": [5.0, 0.0, 1.0],
                "parents": [],
            }
        ]
    )
    made.tracks = [{"omega": 2.4e-4, "phi": 0.0, "tan_lambda": 0.2, "location": 1}]
    hits = {"ECALBarrel": [{"energy": 4.0, "position": [1600.0, 10.0 + number, 320.0]}]}
    made.hits |= hits
    made.clusters = [
        {"energy": 4.5, "position": [1600.0, 10.0, 320.0], "hits": [("ECALBarrel", 0)]}
    ]
    made.hit_links = [(("ECALBarrel", 0), 0, 1.0)]
    made.track_links, made.cluster_links = [(0, 0, 1.0)], [(0, 0, 1.0)]
    return made


def write(path: Path, leaf: str, bad: float, n_bad: int) -> Path:
    """Write events of which the first ``n_bad`` have ``bad`` in a leaf."""
    leaves = leaves_of([event(number) for number in range(N_EVENTS)])
    for values in leaves[leaf][0][:n_bad]:
        values[0] = bad
    write_leaves(path, leaves)
    return path


def settings(**changes: Any) -> Any:
    return dataset_settings(dataset=DatasetConfig(chunk_events=40, **changes))


def finite(table: ak.Array) -> bool:
    numbers = (
        table[name, member]
        for name in ("tracks", "clusters", "targets", "candidates")
        for member in table[name].fields
    )
    return all(np.all(np.isfinite(ak.to_numpy(ak.flatten(column)))) for column in numbers)


@pytest.mark.fault("NaN in tracks or clusters")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("leaf", "collection"),
    [
        (f"{STATES}.omega", "tracks"),
        (f"{STATES}.tanLambda", "tracks"),
        (f"{STATES}.D0", "tracks"),
        (f"{TRACKS}.chi2", "tracks"),
        (f"{CLUSTERS}.energy", "clusters"),
        ("ECALBarrel.energy", "hits"),
    ],
)
def test_a_single_object_is_left_out_and_counted(tmp_path, caplog, leaf, collection, bad):
    build_dataset(settings(), [write(tmp_path / "in.root", leaf, bad, 1)], tmp_path / "out.parquet")
    table = read_table(tmp_path / "out.parquet")
    counts = read_metadata(tmp_path / "out.parquet")["counts"]
    assert counts["events"] == len(table) == N_EVENTS
    assert {name: counts[f"{name}_dropped"] for name in ("tracks", "clusters", "hits")} == {
        name: int(name == collection) for name in ("tracks", "clusters", "hits")
    }
    for name in ("tracks", "clusters"):
        assert ak.num(table[name]).to_list() == [int(name != collection)] + [1] * (N_EVENTS - 1)
    assert finite(table)
    assert f"in.root: left out, as a value is missing or impossible: 1 {collection}" in caplog.text


@pytest.mark.fault("NaN in tracks or clusters")
@pytest.mark.parametrize(
    ("leaf", "collection"), [(f"{STATES}.omega", "tracks"), (f"{CLUSTERS}.energy", "clusters")]
)
def test_too_many_make_the_file_a_bad_one(tmp_path, leaf, collection):
    bad = write(tmp_path / "bad.root", leaf, np.nan, 15)
    good = write(tmp_path / "good.root", leaf, 2e-4, 0)
    with pytest.raises(
        UserError,
        match=(
            rf"bad\.root: 15 of 150 {collection} are unusable .*, allowed 1\.0%; .* or raise"
            r" dataset\."
        ),
    ):
        build_dataset(settings(), [bad], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    build_dataset(settings(on_bad_file="quarantine"), [bad, good], tmp_path / "out.parquet")
    build_dataset(settings(on_bad_file="quarantine"), [good], tmp_path / "good.parquet")
    assert (
        read_table(tmp_path / "out.parquet").to_list()
        == read_table(tmp_path / "good.parquet").to_list()
    )
    assert [entry["file"] for entry in read_metadata(tmp_path / "out.parquet")["quarantined"]] == [
        "bad.root"
    ]


def carried(leaves: dict[str, Any], energy: float) -> None:
    """Let the first cluster carry its energy in the HCAL, in double precision, and have no hits."""
    n = len(leaves[f"{CLUSTERS}.energy"][0])
    leaves[f"_{CLUSTERS}_subdetectorEnergies"] = ([[0.0, energy]] + [[]] * (n - 1), np.float64)
    leaves[f"{CLUSTERS}.subdetectorEnergies_begin"] = ([[0]] * n, np.uint32)
    leaves[f"{CLUSTERS}.subdetectorEnergies_end"] = ([[2]] + [[0]] * (n - 1), np.uint32)
    leaves[f"{CLUSTERS}.hits_end"][0][0][0] = 0


def in_double(leaves: dict[str, Any], energy: float) -> None:
    """Let the first hit have its energy in double precision."""
    leaves["ECALBarrel.energy"] = (leaves["ECALBarrel.energy"][0], np.float64)
    leaves["ECALBarrel.energy"][0][0][0] = energy


@pytest.mark.fault("values beyond single precision")
@pytest.mark.parametrize(("make", "collection"), [(carried, "clusters"), (in_double, "hits")])
def test_what_single_precision_cannot_hold_is_unusable(tmp_path, make, collection):
    for energy, dropped in ((4.0, 0), (1e39, 1)):
        leaves = leaves_of([event(number) for number in range(N_EVENTS)])
        make(leaves, energy)
        write_leaves(tmp_path / "in.root", leaves)
        build_dataset(settings(), [tmp_path / "in.root"], tmp_path / "out.parquet")
        assert finite(read_table(tmp_path / "out.parquet"))
        counts = read_metadata(tmp_path / "out.parquet")["counts"]
        assert counts[f"{collection}_dropped"] == dropped


@pytest.mark.fault("values beyond single precision")
def test_a_sum_that_single_precision_cannot_hold_is_refused_where_it_is_written(tmp_path):
    """Two hits hold their energies, and no number of the table the energy of their particle."""
    made = event(0)
    made.hits["ECALBarrel"] = [
        {"energy": 3e38, "position": [1600.0, 10.0 * i, 320.0]} for i in range(2)
    ]
    made.hit_links = [(("ECALBarrel", i), 0, 1.0) for i in range(2)]
    write_leaves(tmp_path / "in.root", leaves_of([made]))
    with pytest.raises(
        UserError,
        match=(
            r"in\.root: particles\.deposited_energy: 1 values are not finite as float; simulate"
        ),
    ):
        build_dataset(settings(), [tmp_path / "in.root"], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.fault("candidates without energy")
@pytest.mark.parametrize("energy", [0.0, -1.0, 6.0])
def test_candidates_have_at_least_the_energy_of_their_momentum(tmp_path, caplog, energy):
    made = [event(number) for number in range(3)]
    made[0].candidates = [
        {"pdg": 22, "charge": 0.0, "energy": energy, "p": [0.0, 3.72, 4.96]}
        | {"tracks": [], "clusters": [0]},
        {"pdg": 130, "charge": -999.0, "energy": 6.2, "p": [0.0, 3.72, 4.96]}
        | {"tracks": [], "clusters": [0]},
    ]
    write_leaves(tmp_path / "in.root", leaves_of(made))
    build_dataset(settings(), [tmp_path / "in.root"], tmp_path / "out.parquet")
    candidates = read_table(tmp_path / "out.parquet")["candidates"][0]
    assert candidates["energy"].to_list() == pytest.approx([6.2, 6.2], rel=1e-6)
    assert candidates["charge"].to_list() == [0, 0]
    assert read_metadata(tmp_path / "out.parquet")["counts"]["candidates_raised"] == 1
    assert "in.root: 1 candidates have less energy than momentum" in caplog.text
    assert "left out" not in caplog.text


@pytest.mark.fault("NaN in truth or weights")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ("MCParticles.momentum.x", "MCParticles holds momenta that are not finite"),
        ("MCParticles.mass", "MCParticles holds momenta that are not finite"),
        ("EventHeader.weight", r"EventHeader\.weight must hold one finite number per event"),
    ],
)
def test_truth_is_refused(tmp_path, leaf, bad, message):
    with pytest.raises(UserError, match=message):
        build_dataset(
            settings(), [write(tmp_path / "in.root", leaf, bad, 1)], tmp_path / "out.parquet"
        )
    assert not (tmp_path / "out.parquet").exists()
