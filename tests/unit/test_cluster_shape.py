"""The shape of clusters: known ones, what must not change it, clusters without hits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.cluster_shape import ClusterShapeConfig
from particleforge.dataset.build import build_dataset
from particleforge.dataset.cluster_shape import cluster_shape
from particleforge.edm4hep.raw_events import Pairs, Table
from particleforge.tables import schema
from particleforge.tables.parquet import read_table

from .dataset_settings import dataset_settings
from .edm4hep_events import random_event, write_events
from .test_dataset_build import TOLERANT

CALORIMETER = dataset_settings().calorimeter
ECAL, HCAL = CALORIMETER.ecal, CALORIMETER.hcal
MOLIERE = ECAL.moliere_radius_mm
X0_MM = (ECAL.barrel_outer_radius_mm - ECAL.barrel_inner_radius_mm) / (
    ECAL.n_layers * ECAL.radiation_lengths_per_layer
)
LAMBDA_MM = (HCAL.barrel_outer_radius_mm - HCAL.barrel_inner_radius_mm) / (
    HCAL.n_layers * HCAL.interaction_lengths_per_layer
)
IN_ECAL, IN_HCAL = ECAL.barrel_inner_radius_mm, HCAL.barrel_inner_radius_mm
ALONG_X = (1.0, 0.0, 0.0)
FRACTIONS = [name for name in schema.CLUSTERS.names if name.startswith("fraction_")]


def shape_of(*clusters):
    """Return the columns of clusters, each an axis and hits (energy, x, y, z)."""
    axis = np.array([axis for axis, _ in clusters], float).reshape(-1, 3)
    rows = np.array([hit for _, hits in clusters for hit in hits], float).reshape(-1, 4)
    n_hits = [len(hits) for _, hits in clusters]
    columns = dict(zip(("energy", "x", "y", "z"), rows.T, strict=True))
    hits = Table(np.array([0, len(rows)]), columns)
    pairs = Pairs.of(np.repeat(np.arange(len(clusters)), n_hits), np.arange(len(rows)))
    return cluster_shape(axis, hits, pairs, CALORIMETER, ClusterShapeConfig())


def one_shape(axis, hits):
    return {name: column[0] for name, column in shape_of((axis, hits)).items()}


def test_energy_by_depth():
    behind_ecal = [(2.0**i, IN_ECAL + x0 * X0_MM, 0, 0) for i, x0 in enumerate((1, 7, 12, 20))]
    behind_hcal = [(16.0 * 2**i, IN_HCAL + n * LAMBDA_MM, 0, 0) for i, n in enumerate((0.5, 2, 5))]
    found = one_shape(ALONG_X, [*behind_ecal, *behind_hcal])
    names = [f"fraction_ecal_{i}" for i in (1, 2, 3, 4)] + [f"fraction_hcal_{i}" for i in (1, 2, 3)]
    assert [found[name] for name in names] == pytest.approx([2**i / 127 for i in range(7)])
    assert found["fraction_hottest"] == pytest.approx(64 / 127)


def test_depth_in_the_endcap_is_counted_along_the_line():
    # 4.5 X0 of layers at 60 degrees to them are 5.2 X0 on the way
    plane = ECAL.endcap_z_min_mm + 4.5 * X0_MM
    sine = np.sqrt(0.25)
    hit = (1.0, plane * sine / np.sqrt(0.75), 0, plane)
    assert one_shape((sine, 0, np.sqrt(0.75)), [hit])["fraction_ecal_2"] == 1
    assert one_shape((0, 0, 1), [(1.0, 0, 0, plane)])["fraction_ecal_1"] == 1


def test_energy_near_the_axis_and_widths_across_it():
    deep = IN_ECAL + 10
    hits = [
        (1.0, deep, 0.5 * MOLIERE, 0),
        (2.0, deep, -1.5 * MOLIERE, 0),
        (4.0, deep, 3 * MOLIERE, 0),
        (1.0, deep, 0, 5 * MOLIERE),
    ]
    found = one_shape(ALONG_X, hits)
    core = [found[f"fraction_core_{i}"] for i in (1, 2, 3)]
    assert core == pytest.approx([1 / 8, 3 / 8, 7 / 8])
    # y: 0.25 + 4.5 + 36 = 40.75, z: 25 of the energy times square Moliere radii
    assert found["width_minor"] == pytest.approx(MOLIERE * np.sqrt(25 / 8))


def random_clusters(seed, n_hits):
    """Return clusters with the given numbers of hits, anywhere in barrel or endcap."""
    rng = np.random.default_rng(seed)
    clusters = []
    for n in n_hits:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        face = min(IN_ECAL / np.hypot(*axis[:2]), ECAL.endcap_z_min_mm / abs(axis[2]))
        places = axis * (face + rng.uniform(0, 500, (n, 1))) + rng.normal(0, 60, (n, 3))
        clusters.append((axis, np.column_stack([rng.exponential(1, n), places])))
    return clusters


def test_neither_rotation_nor_order_changes_anything():
    rng = np.random.default_rng(5)
    clusters = random_clusters(4, [40, 1, 25])
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    turned = [
        (axis @ turn.T, np.column_stack([hits[:, 0], hits[:, 1:] @ turn.T]))
        for axis, hits in clusters
    ]
    shuffled = [(axis, rng.permutation(hits)) for axis, hits in clusters]
    expected = shape_of(*clusters)
    for other in (turned, shuffled):
        found = shape_of(*other)
        for name, column in expected.items():
            np.testing.assert_allclose(found[name], column, rtol=1e-9, atol=1e-6, err_msg=name)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.lists(st.integers(0, 30), max_size=6))
def test_clusters_of_any_number_of_hits(seed, n_hits):
    clusters = random_clusters(seed, n_hits)
    together = shape_of(*clusters)
    assert set(together) <= set(schema.CLUSTERS.names)
    for number, (axis, hits) in enumerate(clusters):
        alone = one_shape(axis, hits)
        assert alone == {name: column[number] for name, column in together.items()}
        assert all(np.isfinite(value) and value >= 0 for value in alone.values())
        depths = [alone[name] for name in FRACTIONS if "cal_" in name]
        assert sum(depths) == pytest.approx(1 if len(hits) else 0)
        core = [alone[f"fraction_core_{i}"] for i in (1, 2, 3)]
        assert sorted(core) == core
        assert core[-1] <= 1 + 1e-9


def test_columns_are_zero_where_the_file_relates_no_hits_to_clusters(tmp_path):
    rng = np.random.default_rng(3)
    write_events(tmp_path / "a.root", [random_event(rng, 9, 3, 4, 4) for _ in range(4)], hits=False)
    build_dataset(
        dataset_settings(dataset=TOLERANT), [tmp_path / "a.root"], tmp_path / "out.parquet"
    )
    clusters = read_table(tmp_path / "out.parquet").clusters
    assert len(clusters.energy.to_list()[0])
    for name in shape_of((ALONG_X, [])):
        assert not np.any(clusters[name]), name


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ecal_depth_edges_radiation_lengths", (5, 17, 10), r"must rise, got \[5\.0, 17\.0, 10\.0"),
        ("hcal_depth_edges_interaction_lengths", (1, 1), r"must rise, got \[1\.0, 1\.0\]"),
        ("core_radii_moliere", (0, 1, 2), "greater than 0"),
        ("core_radii_moliere", (1, 2), "Field required"),
    ],
)
def test_scales_that_cannot_be_are_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        ClusterShapeConfig(**{key: value})
