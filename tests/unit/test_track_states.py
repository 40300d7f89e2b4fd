"""Track states count from their reference point; tracks count from the origin."""

import numpy as np
import pytest

from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.helix import seen_from_origin
from particleforge.errors import UserError
from particleforge.simulation.helix import State, advance
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import NO_LIMITS, dataset_settings
from .edm4hep_events import leaves_of, write_leaves
from .test_dataset_build import TOLERANT
from .test_edm4hep_layouts import sound_events

FIELD = 4.0
STATES = "_SiTracks_Refitted_trackStates"


def tracks_of(tmp_path, **members):
    """Build a dataset whose first tracks have these members of their states; return the tracks."""
    leaves = leaves_of(sound_events())
    for member, values in members.items():
        leaf = f"{STATES}.{member.replace('__', '.')}"
        rows, dtype = leaves[leaf]
        leaves[leaf] = ([[*values, *rows[0][len(values) :]], *rows[1:]], dtype)
    write_leaves(tmp_path / "events.root", leaves)
    build_dataset(
        dataset_settings(dataset=TOLERANT), [tmp_path / "events.root"], tmp_path / "out.parquet"
    )
    return read_table(tmp_path / "out.parquet")["tracks"]


def test_a_state_at_any_point_of_a_helix_is_the_same_track():
    """The reference point may lie anywhere on the helix, and beside it by D0."""
    rng = np.random.default_rng(1)
    n = 200
    charge = rng.choice([-1.0, 1.0], n)
    pt, phi, tan_lambda = 10 ** rng.uniform(-1, 3, n), rng.uniform(-3, 3, n), rng.normal(0, 1, n)
    omega = charge * 0.299792458e-3 * FIELD / pt
    d0, z0 = rng.uniform(-5, 5, n), rng.normal(0, 50, n)
    nearest = State(
        x=-d0 * np.sin(phi),
        y=d0 * np.cos(phi),
        z=z0,
        px=pt * np.cos(phi),
        py=pt * np.sin(phi),
        pz=pt * tan_lambda,
        charge=charge,
    )
    turn = rng.uniform(-3, 3, n)
    path = np.minimum(np.abs(turn / omega), 1000) * np.sign(turn) * np.hypot(1, tan_lambda)
    there = advance(nearest, path, FIELD)
    phi_there, beside, above = np.arctan2(there.py, there.px), rng.normal(0, 1, n), rng.normal(0, 9)
    found = seen_from_origin(
        {
            "d0": beside,
            "phi": phi_there,
            "omega": omega,
            "z0": np.full(n, above),
            "tan_lambda": tan_lambda,
            "x": there.x + beside * np.sin(phi_there),
            "y": there.y - beside * np.cos(phi_there),
            "z": there.z - above,
        }
    )
    np.testing.assert_allclose(found["d0"], d0, atol=1e-6)
    np.testing.assert_allclose(found["z0"], z0, atol=1e-5)
    np.testing.assert_allclose(np.cos(found["phi"] - phi), 1, atol=1e-12)
    np.testing.assert_array_equal(found["omega"], omega)


def test_impact_parameters_count_from_the_origin(tmp_path):
    """States with D0 = Z0 = 0 lie at their reference point.

    The third track flies along x, so that it passed the axis 10 mm before.
    """
    tracks = tracks_of(
        tmp_path,
        referencePoint__x=[0.0, 3.0, 10.0],
        referencePoint__z=[12.0, -7.0, 0.0],
        phi=[0.3, np.pi / 2, 0.0],
        tanLambda=[0.5, 0.5, 0.5],
        omega=[1e-3, 1e-3, 1e-6],
    )
    assert tracks["z0"][0].to_list() == pytest.approx([12, -7, -5], abs=1e-3)
    assert tracks["d0"][0].to_list() == pytest.approx([0, -3, 0], abs=1e-3)
    assert tracks["phi"][0].to_list() == pytest.approx([0.3, np.pi / 2, 0], abs=1e-3)


def test_a_reference_point_at_the_origin_changes_no_bit(tmp_path):
    rng = np.random.default_rng(2)
    values = {name: rng.normal(0, 1, 3).astype(np.float32) for name in ("D0", "Z0", "phi")}
    tracks = tracks_of(tmp_path, **values)
    for name, column in (("D0", "d0"), ("Z0", "z0")):
        np.testing.assert_array_equal(tracks[column][0], values[name])


@pytest.mark.fault("NaN in tracks or clusters")
@pytest.mark.parametrize("phi", [1.4e9, -1.4e9, 20.0])
def test_an_azimuth_that_was_never_filled_makes_a_track_unusable(tmp_path, phi):
    tracks = tracks_of(tmp_path, phi=[phi, 4.0])
    assert [len(event) for event in tracks] == [2, 6]
    assert tracks["phi"][0][0] == pytest.approx(4.0 - 2 * np.pi, abs=1e-6)
    assert read_metadata(tmp_path / "out.parquet")["counts"]["tracks_dropped"] == 1


@pytest.mark.fault("NaN in tracks or clusters")
def test_one_unusable_track_is_no_share_of_a_file_of_few(tmp_path):
    def build(share):
        rules = DatasetConfig(**{**NO_LIMITS, "dropped_objects_fraction_max": share})
        build_dataset(
            dataset_settings(dataset=rules), [tmp_path / "events.root"], tmp_path / "out.parquet"
        )

    tracks_of(tmp_path, phi=[1.4e9])
    build(0.01)
    assert read_metadata(tmp_path / "out.parquet")["counts"]["tracks_dropped"] == 1
    with pytest.raises(UserError, match="1 of 9 tracks are unusable"):
        build(0)
    tracks_of(tmp_path, phi=[1.4e9, 1.4e9])
    with pytest.raises(UserError, match="2 of 9 tracks are unusable"):
        build(0.01)
