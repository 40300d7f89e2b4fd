"""Event tables keep types, units and metadata, and refuse what is not theirs."""

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from particleforge.errors import UserError
from particleforge.tables import parquet, schema

from .synthetic import synthetic_events, write_dataset


def test_every_table_has_unique_columns():
    for types in (
        parquet.DATASET_SCHEMA,
        parquet.SELECTED_SCHEMA,
        parquet.RECONSTRUCTED_SCHEMA,
        parquet.SHARD_SCHEMA,
    ):
        assert len(set(types.names)) == len(types.names)


def test_round_trip_with_empty_lists(tmp_path):
    events = ak.Array(
        {
            "event_id": [1, 2, 3],
            "sample": ["a", "b", "a"],
            "weight": [1.0, 0.5, 2.0],
            "n_elements": [1, 0, 2],
            "element_type": [[1], [], [1, 2]],
            "features": [[0.5], [], [1.0, 2.0]],
            "target_class": [[1], [], [0, 2]],
            "target_charge": [[1], [], [0, 0]],
            "target_p4": [[1.0, 2, 3, 4], [], [0.0] * 8],
            "share_host": [[-1] * 4, [], [-1] * 4 + [0, 1, -1, -1]],
            "share": [[0.0] * 5, [], [0.0] * 5 + [0.5, 0.25, 0.0, 0.0, 0.25]],
        }
    )
    path = tmp_path / "shard.parquet"
    table = parquet.to_arrow(events, parquet.SHARD_SCHEMA)
    assert parquet.write_table(path, iter([table, table]), parquet.SHARD_SCHEMA, {"note": "x"}) == 6
    assert parquet.read_metadata(path) == {
        "note": "x",
        "schema_version": schema.SCHEMA_VERSION,
        "kind": "shard",
    }
    back = parquet.read_table(path)
    assert ak.to_list(back[:3]) == ak.to_list(events)
    assert pq.read_schema(path).equals(parquet.SHARD_SCHEMA)


def test_large_events_make_smaller_row_groups(tmp_path, monkeypatch):
    events = parquet.to_arrow(synthetic_events(40, 2), parquet.DATASET_SCHEMA)
    path = tmp_path / "events.parquet"

    def rows_of_groups():
        parquet.write_table(path, [events], parquet.DATASET_SCHEMA, {})
        assert parquet.read_columns(path).equals(events)
        read = pq.read_metadata(path)
        return [read.row_group(number).num_rows for number in range(read.num_row_groups)]

    assert rows_of_groups() == [40]
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", events.nbytes // 4 + 1)
    assert rows_of_groups() == [10, 10, 10, 10]
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1)
    assert rows_of_groups() == [1] * 40


def test_integers_and_text_are_stored_by_dictionary_and_measured_values_are_not(tmp_path):
    path = tmp_path / "events.parquet"
    write_dataset(path, synthetic_events(40, 1))
    group = pq.read_metadata(path).row_group(0)
    found = {
        (column := group.column(i)).path_in_schema: "RLE_DICTIONARY" in column.encodings
        for i in range(group.num_columns)
    }
    types = parquet.column_types(parquet.DATASET_SCHEMA)
    assert types.keys() == found.keys()
    assert found == {path: not pa.types.is_floating(kind) for path, kind in types.items()}
    assert (found["particles.list.element.pdg"], found["tracks.list.element.pt"]) == (True, False)


def test_same_content_same_bytes(tmp_path):
    table = parquet.SHARD_SCHEMA.empty_table()
    for name in ("a", "b"):
        parquet.write_table(tmp_path / name, [table], parquet.SHARD_SCHEMA, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_foreign_and_broken_files_are_refused_by_name(tmp_path):
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(UserError, match=r"foreign\.parquet.*not written by particleforge"):
        parquet.read_metadata(foreign)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"broken\.parquet.*not a readable Parquet"):
        parquet.read_table(broken)
