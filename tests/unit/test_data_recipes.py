"""The Parquet files open in the readers that people use, with what docs/data.md says.

Its recipes run as they stand there.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from particleforge.config.detector import ElementsConfig
from particleforge.tables import parquet, schema

from .small_results import SAMPLES, make_results

ROOT = Path(__file__).parents[2]
SHARD = "results/clic/shards/train/00000.parquet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset, selected files and training shards as a run leaves them."""
    return make_results(tmp_path_factory.mktemp("recipes"))


def recipe(folder: Path, word: str) -> dict[str, Any]:
    """Run the one code block of docs/data.md that imports ``word``, where the results lie, and
    return its names.
    """
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (block,) = (block for block in blocks if f"import {word}" in block)
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(block, names)
    finally:
        os.chdir(before)
    return names


def events_of(folder: Path, sample: str) -> list[dict[str, Any]]:
    """What a selected file holds, as Python objects."""
    return pq.read_table(folder / f"results/clic/select/{sample}/00000.parquet").to_pylist()


def test_recipe_of_field_metadata(folder: Path) -> None:
    assert recipe(folder, "pyarrow")["pt"].metadata == {
        b"description": b"transverse momentum",
        b"unit": b"GeV",
    }


def test_recipe_of_invariant_mass(folder: Path) -> None:
    mass = recipe(folder, "awkward")["mass"]
    events = events_of(folder, "ttbar")
    assert len(mass) == len(events) > 10
    for found, event in zip(mass, events, strict=True):
        energy, x, y, z = (
            sum(target[name] for target in event["targets"])
            for name in ("energy", "px", "py", "pz")
        )
        assert found == pytest.approx(math.sqrt(max(energy**2 - x**2 - y**2 - z**2, 0)), rel=1e-6)


def test_recipe_of_mean_response(folder: Path) -> None:
    pytest.importorskip("duckdb")
    found = recipe(folder, "duckdb")["response"]
    expected = []
    for sample in SAMPLES:
        pairs = [
            [sum(x["energy"] for x in event[name]) for name in ("candidates", "targets")]
            for event in events_of(folder, sample)
        ]
        expected.append(
            (
                sample,
                len(pairs),
                pytest.approx(
                    np.mean([reconstructed / truth for reconstructed, truth in pairs]), rel=1e-5
                ),
            )
        )
    assert found == expected


def test_recipe_of_a_spectrum(folder: Path) -> None:
    pytest.importorskip("polars")
    found = recipe(folder, "polars")["spectrum"].rows()
    photons = [
        particle["energy"]
        for event in events_of(folder, "ttbar")
        for particle in event["particles"]
        if particle["pdg"] == 22 and particle["fate"] > 0
    ]
    bins, counts = np.unique(np.floor(np.array(photons) / 5) * 5, return_counts=True)
    assert found == list(zip(bins.tolist(), counts.tolist(), strict=True))
    assert sum(counts) > 20


def described(field: Any) -> list[tuple[str, bytes, bytes]]:
    """Path, unit and description of a field's leaves."""
    kind = field.type
    if hasattr(kind, "value_type") and hasattr(kind.value_type, "names"):
        assert field.metadata[b"description"]
        return [
            (f"{field.name}.{path}", *rest)
            for member in kind.value_type
            for path, *rest in described(member)
        ]
    return [(field.name, field.metadata.get(b"unit", b""), field.metadata[b"description"])]


@pytest.mark.parametrize(
    "path", ["dataset/qq/00000.parquet", "select/qq/00000.parquet", "shards/train/00000.parquet"]
)
def test_every_column_of_a_file_has_description_and_unit(folder: Path, path: str) -> None:
    types = pq.read_schema(folder / "results/clic" / path)
    found = {
        name: (unit.decode(), text.decode())
        for field in types
        for name, unit, text in described(field)
    }
    if path.startswith("shards"):
        expected = {field.name: (field.unit, field.description) for field in schema.SHARD}
    else:
        events = (*schema.EVENT, schema.SPLIT) if path.startswith("select") else schema.EVENT
        expected = {field.name: (field.unit, field.description) for field in events}
        expected |= {
            f"{c.name}.{field.name}": (field.unit, field.description)
            for c in schema.DATASET
            for field in c.fields
        }
    assert found == expected


@pytest.mark.parametrize("types", [parquet.HITS_DATASET_SCHEMA, parquet.RECONSTRUCTED_SCHEMA])
def test_every_column_of_other_schemas_has_a_description(types: Any) -> None:
    found = {name: (unit, text) for field in types for name, unit, text in described(field)}
    assert all(text for _, text in found.values())
    assert found["candidates.energy"][0] == b"GeV"
    if "clusters" in types.names:
        assert found["clusters.time"][0] == b"ns"


def test_a_shard_names_its_features_and_classes(folder: Path) -> None:
    stored = parquet.read_metadata(folder / SHARD)
    elements = ElementsConfig.model_validate(
        {kind: [{"name": f["name"]} for f in found] for kind, found in stored["elements"].items()}
    )
    shard = parquet.read_table(folder / SHARD)
    features = ak.to_numpy(ak.flatten(shard.features)).reshape(-1, stored["n_features"])
    is_track = ak.to_numpy(ak.flatten(shard.element_type)) == 1
    pt = [feature.name for feature in elements.track].index("pt")
    by_id = {event["event_id"]: event for sample in SAMPLES for event in events_of(folder, sample)}
    expected = [
        track["pt"] for event_id in shard.event_id.to_list() for track in by_id[event_id]["tracks"]
    ]
    assert features[is_track, pt].tolist() == expected
    assert stored["classes"][0] == {"name": "none"}
    assert (
        json.loads((folder / "results/clic/shards/manifest.json").read_text())["classes"]
        == stored["classes"]
    )


def test_pandas_reads_columns(folder: Path) -> None:
    frame = pd.read_parquet(folder / "results/clic/dataset/qq/00000.parquet")
    assert list(frame.columns[:4]) == ["event_id", "run_number", "event_number", "weight"]
    assert frame["event_id"].dtype == np.uint64
    tracks = frame["tracks"].explode().dropna().apply(pd.Series)
    table = pq.read_table(folder / "results/clic/dataset/qq/00000.parquet")
    assert tracks["pt"].sum() == pytest.approx(
        sum(t["pt"] for event in table["tracks"].to_pylist() for t in event), rel=1e-6
    )


def test_awkward_reads_lists_without_options(folder: Path) -> None:
    events = ak.from_parquet(folder / "results/clic/select/qq/00000.parquet")
    assert "?" not in str(events.type)
    assert events.to_list() == events_of(folder, "qq")


def test_polars_reads_columns(folder: Path) -> None:
    pl = pytest.importorskip("polars")
    for path in ("results/clic/select/qq/00000.parquet", SHARD):
        assert (
            pl.read_parquet(folder / path).to_arrow().to_pylist()
            == pq.read_table(folder / path).to_pylist()
        )


def test_duckdb_reads_columns(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    for path in ("results/clic/select/qq/00000.parquet", SHARD):
        found = duckdb.sql(f"SELECT * FROM '{folder / path}'")
        names = [field.name for field in pq.read_schema(folder / path)]
        assert found.columns == names
        assert [dict(zip(names, row, strict=True)) for row in found.fetchall()] == pq.read_table(
            folder / path
        ).to_pylist()


@pytest.mark.filterwarnings("ignore")  # of the library's own imports
def test_hugging_face_datasets_reads_columns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    for path in ("results/clic/select/qq/00000.parquet", SHARD):
        cache = str(tmp_path / Path(path).parent.name)
        found = datasets.load_dataset(
            "parquet", data_files=str(folder / path), split="train", cache_dir=cache
        )
        assert found.to_list() == pq.read_table(folder / path).to_pylist()
