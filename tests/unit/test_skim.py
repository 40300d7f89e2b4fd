"""Columns that selected files leave out: later stages must not miss them, and say so before any job
runs.
"""

import re
from pathlib import Path
from typing import Any

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ReportSettings, SelectSettings, ShardSettings
from particleforge.config.skim import check_skim, kept_collections
from particleforge.errors import UserError
from particleforge.orchestration.workflow import Workflow
from particleforge.preprocessing.features import element_features
from particleforge.preprocessing.shards import write_shards
from particleforge.report.displays import draw_displays
from particleforge.selection.select import select_events
from particleforge.tables import parquet, schema
from particleforge.validation.events import read_pair

from .synthetic import synthetic_events, write_dataset
from .validation_inputs import CONFIG, smeared

DETECTOR = load_detector(CONFIG, "clic")


def run_with(*patterns: str, **other: Any) -> Any:
    return load_run(
        CONFIG, {"preset": "smoke", "selection": {"drop_columns": list(patterns)}, **other}
    )


def droppable() -> list[str]:
    """Every member that no later stage is said to need."""
    found = []
    for collection in schema.DATASET:
        for name in collection.names:
            try:
                check_skim([f"{collection.name}.{name}"], DETECTOR.elements, "clusters", "x")
            except UserError:
                continue
            found.append(f"{collection.name}.{name}")
    return found


def members_of(types: pa.Schema) -> list[str]:
    """Return the members of a file's collections, as patterns name them."""
    collections = {c.name for c in schema.DATASET}
    return [
        f"{field.name}.{member.name}"
        for field in types
        if field.name in collections
        for member in field.type.value_type
    ]


def test_later_stages_do_not_miss_what_may_be_dropped(tmp_path: Path) -> None:
    patterns = droppable()
    assert {"track_links.weight", "targets.particle", "targets.n_merged", "candidates.pdg"} <= set(
        patterns
    )
    source = write_dataset(
        tmp_path / "in.parquet", synthetic_events(80, 3, mean_particles=15), sample="qq"
    )
    shards, pictures, views = [], [], []
    for name, run in (("all", run_with()), ("skimmed", run_with(*patterns))):
        folder = tmp_path / name
        selected, reconstructed = folder / "selected.parquet", folder / "reconstructed.parquet"
        select_events(
            SelectSettings.of(run, DETECTOR, sample_name="qq"),
            dataset=source,
            output=selected,
            cutflow=folder / "cutflow.json",
        )
        write_shards(ShardSettings.of(run, DETECTOR), [selected], folder / "shards")
        shards.append(
            [pq.read_table(path) for path in sorted((folder / "shards").glob("*/*.parquet"))]
        )
        events = parquet.read_table(tmp_path / "all/selected.parquet")
        found = ak.with_field(events, smeared(events, 1, width=0.03, efficiency=0.98), "candidates")
        types = parquet.RECONSTRUCTED_SCHEMA
        described = {"sample": "qq", "presence_threshold": 0.5}
        parquet.write_table(reconstructed, [parquet.to_arrow(found, types)], types, described)
        pictures.append(
            [
                picture.data_uri
                for picture in draw_displays(
                    [selected], [reconstructed], ReportSettings.of(run, DETECTOR)
                ).flat
            ]
        )
        views.append(
            [
                {name: view.to_list() for name, view in batch.views.items()}
                for batch in read_pair(selected, reconstructed)
            ]
        )
    assert shards[0] == shards[1]
    assert len(shards[0]) >= 3
    assert pictures[0] == pictures[1]
    assert views[0] == views[1] != []
    before, after = (
        pq.read_schema(tmp_path / name / "selected.parquet") for name in ("all", "skimmed")
    )
    assert "track_links" not in after.names
    assert [name for name in members_of(before) if name not in patterns] == members_of(after)
    assert after.field("tracks").type.value_type.field("pt").metadata[b"unit"] == b"GeV"
    assert (tmp_path / "skimmed/selected.parquet").stat().st_size < (
        tmp_path / "all/selected.parquet"
    ).stat().st_size


def test_patterns_name_columns_or_collections() -> None:
    kept = kept_collections(["cluster_links", "tracks.d*"], schema.DATASET)
    assert [collection.name for collection in kept] == [
        c.name for c in schema.DATASET if c.name != "cluster_links"
    ]
    assert set(schema.TRACKS.names) - set(kept[0].names) == {"d0", "dedx"}
    assert kept_collections([], schema.DATASET) == schema.DATASET


@pytest.mark.parametrize(
    "pattern", ["track_link", "tracks.*xx", "tracks.time", "weight", "tracks.pt.x", ""]
)
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{pattern!r} matches no column")) as raised:
        run_with(pattern)
    assert "selection.drop_columns" in str(raised.value)
    assert ("did you mean 'track_links'" in str(raised.value)) == (pattern == "track_link")


@pytest.mark.fault("needed columns left out")
@pytest.mark.parametrize(
    ("pattern", "column", "reader"),
    [
        ("tracks.pt", "tracks.pt", "elements.track"),
        ("tracks.phi_c*", "tracks.phi_calo", "elements.track"),  # behind sin_phi_calo
        ("clusters.*", "clusters", "elements.cluster"),
        ("tracks", "tracks", "elements.track"),
        ("*.charge", "charge", "elements.track"),
        ("targets", "targets", "validate_model"),
        ("particles.fate", "particles.fate", "validate_model"),
        ("candidates.p?", "candidates.px", "validate_model"),
    ],
)
def test_a_column_that_a_later_stage_reads_cannot_be_dropped(
    pattern: str, column: str, reader: str
) -> None:
    expected = (
        rf"^selection\.drop_columns: {re.escape(repr(pattern))} drops \S*{re.escape(column)}\S*,"
        rf" which {reader}"
    )
    with pytest.raises(UserError, match=expected):
        Workflow([CONFIG], {"preset": "smoke", "selection": {"drop_columns": [pattern]}})
    with pytest.raises(UserError, match=expected):
        SelectSettings.of(run_with(pattern), DETECTOR, sample_name="qq")


def test_what_tells_hits_from_clusters_stays() -> None:
    hits = {"dataset": {"calorimeter_elements": "hits"}}
    Workflow([CONFIG], {"preset": "smoke", "selection": {"drop_columns": ["clusters.in_other"]}})
    elements = DETECTOR.elements.model_copy(
        update={"hit": tuple(f for f in DETECTOR.elements.hit if f.name != "in_ecal")}
    )
    with pytest.raises(
        UserError, match=r"drops clusters\.in_ecal, which every stage, to tell hits from clusters"
    ):
        check_skim(["clusters.in_ecal"], elements, "hits", "x")
    check_skim(["clusters.in_ecal"], DETECTOR.elements, "clusters", "x")
    with pytest.raises(UserError, match=r"drops clusters\.\w+, which elements\.hit"):
        SelectSettings.of(run_with("clusters", **hits), DETECTOR, sample_name="qq")


def test_features_are_computed_from_the_members_that_they_are_said_to_need() -> None:
    """``schema.member_of`` is what the check goes by: without the other members, all features are
    still there.
    """
    events = synthetic_events(5, 1)
    for kind, collection in (("track", "tracks"), ("cluster", "clusters")):
        members = {
            schema.member_of(feature.name, kind) for feature in getattr(DETECTOR.elements, kind)
        }
        events = ak.with_field(events, events[collection][sorted(members)], collection)
    elements = DETECTOR.elements.chosen("clusters")
    assert (
        element_features(events, elements).features.tolist()
        == element_features(synthetic_events(5, 1), elements).features.tolist()
    )


def test_shipped_detectors_may_drop_links_of_tracks() -> None:
    for path in sorted((CONFIG / "detectors").glob("*.yaml")):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
        SelectSettings.of(
            run_with("track_links"), load_detector(CONFIG, path.stem), sample_name="qq"
        )
