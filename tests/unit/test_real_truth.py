"""The truth of real files: its figures, as docs/truth.md has them, and event by event against the
slow reference.
"""

import re
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.dataset.accounting import read_accounts
from particleforge.dataset.build import build_dataset
from particleforge.inputs.formats import read_chunks
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import dataset_settings
from .edm4hep_events import Event
from .real_files import real_file
from .test_dataset_truth import RULES, assert_agrees
from .truth_reference import GEV_PER_TESLA_MM, reference

DETECTORS = {
    "cld_hbb_full_rec_1ev.edm4hep.root": "cld",
    "clic_photons_2021_layout_3ev.edm4hep.root": "clic",
    "edm4hep_ILD_mumuH_v01-00_podio_v01-07_10ev.root": "cld",
    "delphes.root": "cms_like",
    "p8_ee_WW_ecm240_edm4hep.root": "fcc_delphes",
    "test_FCC_Winter2023.root": "fcc_delphes",
    "test_FCC_Spring2021.root": "fcc_delphes",
}
TRUTH = Path(__file__).parents[2] / "docs/truth.md"


def account_rows():
    """Return the table of real files in docs/truth.md as {file: numbers as text}."""
    lines = [
        line
        for line in TRUTH.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `\S+\.root` \|", line)
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): [cell.replace(" ", "") for cell in row[1:]] for row in cells}


def on_elements(table):
    """Return the energy in GeV of targets on tracks and on clusters, and of charged and neutral
    candidates.
    """
    is_track = ak.local_index(table.targets.energy) < ak.num(table.tracks.pt)
    charged = table.candidates.charge != 0
    chosen = (table.targets.energy[is_track], table.targets.energy[~is_track])
    return [
        float(ak.sum(energy))
        for energy in (*chosen, table.candidates.energy[charged], table.candidates.energy[~charged])
    ]


def as_events(raw):  # noqa: C901
    """Return a chunk of the reader's tables as events of plain Python.

    A cluster without a position, and without a neutral candidate to show its direction, has no
    usable energy.
    """
    of = {
        name: getattr(raw, name)
        for name in ("particles", "tracks", "clusters", "hits", "candidates")
    }
    members = {name: table.local() for name, table in of.items()}
    events = [Event(hits={"all": []}) for _ in range(raw.n_events)]

    def rows(name):
        table = of[name]
        columns = {key: column.tolist() for key, column in table.columns.items()}
        for row, event in enumerate(table.events().tolist()):
            yield event, {key: column[row] for key, column in columns.items()}

    for event, row in rows("particles"):
        p = [row["px"], row["py"], row["pz"]]
        mass = np.sqrt(max(row["energy"] ** 2 - sum(x * x for x in p), 0.0))
        kept = {name: row[name] for name in ("pdg", "status", "charge")}
        kept["vertex"] = (row["vx"], row["vy"])
        events[event].particles.append(kept | {"p": p, "mass": mass, "parents": []})
    states = raw.track_states.where(raw.states["location"][raw.track_states.right] == 1)
    omega = dict(zip(states.left.tolist(), raw.states["omega"][states.right].tolist(), strict=True))
    for row, event in enumerate(raw.tracks.events().tolist()):
        events[event].tracks.append(
            {"location": 1 if row in omega else 0, "omega": omega.get(row, 0.0)}
        )
    for event, row in rows("clusters"):
        events[event].clusters.append(
            {"energy": row["energy"], "hits": [], "placed": any(row[axis] for axis in "xyz")}
        )
    for event, row in rows("hits"):
        events[event].hits["all"].append({"energy": row["energy"]})
    for event, row in rows("candidates"):
        events[event].candidates.append({"tracks": [], "clusters": [], "charge": row["charge"]})

    def pairs(relation, left, right):
        pairs = getattr(raw, relation)
        local = members[left][pairs.left].tolist(), members[right][pairs.right].tolist()
        return zip(
            of[left].events()[pairs.left].tolist(), *local, pairs.weight.tolist(), strict=True
        )

    for event, child, parent, _ in pairs("parents", "particles", "particles"):
        events[event].particles[child]["parents"].append(parent)
    for event, cluster, hit, _ in pairs("cluster_hits", "clusters", "hits"):
        events[event].clusters[cluster]["hits"].append(("all", hit))
    for event, hit, particle, weight in pairs("hit_links", "hits", "particles"):
        events[event].hit_links.append((("all", hit), particle, weight))
    for name in ("track", "cluster"):
        for event, left, particle, weight in pairs(f"{name}_links", f"{name}s", "particles"):
            getattr(events[event], f"{name}_links").append((left, particle, weight))
        for event, candidate, member, _ in pairs(f"candidate_{name}s", "candidates", f"{name}s"):
            events[event].candidates[candidate][f"{name}s"].append(member)
    for event in events:
        shown = {
            cluster
            for candidate in event.candidates
            if candidate["charge"] == 0
            for cluster in candidate["clusters"]
        }
        for number, cluster in enumerate(event.clusters):
            if not cluster["placed"] and number not in shown:
                cluster["energy"] = np.nan
    return events


@pytest.mark.parametrize("name", list(DETECTORS))
def test_real_files_agree_with_the_slow_reference_and_with_the_docs(tmp_path, name):
    path, settings = real_file(name), dataset_settings(DETECTORS[name])
    build_dataset(settings, [path], tmp_path / "out.parquet")
    table, metadata = read_table(tmp_path / "out.parquet"), read_metadata(tmp_path / "out.parquet")
    endcaps = (settings.calorimeter.ecal, settings.calorimeter.hcal)
    rules = RULES | {
        "pz_per_pt": max(
            endcap.endcap_z_min_mm / endcap.endcap_inner_radius_mm for endcap in endcaps
        ),
        "gev_per_mm": GEV_PER_TESLA_MM * settings.b_field_tesla,
        "reach_mm": settings.calorimeter.ecal.barrel_inner_radius_mm,
    }
    expected = []
    for raw in read_chunks(path, settings):
        expected += [reference(event, rules, raw.truth_from_hits) for event in as_events(raw)]
    assert_agrees(table, metadata, expected)
    (account,) = read_accounts([tmp_path / "out.parquet"])
    balance = account.balance
    on_tracks, on_clusters, charged, neutral = on_elements(table)
    unseen = (balance.neutrinos, balance.outside, balance.faint)
    hosted = (on_tracks, on_clusters, balance.merged, balance.dropped)
    found = (account.events, balance.generated, *unseen, balance.visible, *hosted, charged, neutral)
    assert (balance.unusable, balance.orphan_deposits) == (0, 0)
    for value, text in zip(found, account_rows()[name], strict=True):
        assert value == pytest.approx(
            float(text), abs=0.501 * 10 ** -len(text.partition(".")[2]) if text != "0" else 1e-6
        )
