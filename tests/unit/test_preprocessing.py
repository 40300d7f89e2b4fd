"""Features, statistics, shuffling and shards."""

import itertools
import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.artefacts import sha256
from particleforge.config.detector import ElementsConfig, ParticleClassConfig
from particleforge.config.preprocessing import PreprocessingConfig
from particleforge.config.selection import SelectionConfig
from particleforge.config.settings import ShardSettings
from particleforge.errors import UserError
from particleforge.paths import SPLITS
from particleforge.preprocessing import shards as shards_module
from particleforge.preprocessing.features import element_features
from particleforge.preprocessing.normalisation import FeatureStatistics, transform
from particleforge.preprocessing.shards import write_shards
from particleforge.preprocessing.shuffle import GROUP, KEY, Buckets, cut
from particleforge.selection.split import split_of
from particleforge.tables import parquet, schema

from .synthetic import CLASSES, synthetic_events

ELEMENTS = ElementsConfig.model_validate(
    {
        "track": [
            {"name": "pt", "transform": "log"},
            {"name": "sin_phi"},
            {"name": "cos_phi_calo"},
            {"name": "d0", "transform": "asinh"},
            *({"name": name} for name in ("p", "eta", "cos_phi", "eta_calo", "sin_phi_calo")),
        ],
        "cluster": [
            {"name": "energy", "transform": "log1p"},
            *(
                {"name": name}
                for name in ("cos_phi", "sin_phi_calo", "x", "eta", "et", "sin_phi", "depth")
            ),
        ],
    }
)
PARTICLE_CLASSES = tuple(
    ParticleClassConfig(
        name=name, label=name, pdg=1, charged=name not in ("photon", "neutral_hadron"), mass_gev=0
    )
    for name in CLASSES
)


def stage_settings(events_per_shard: int = 40, seed: int = 3) -> ShardSettings:
    return ShardSettings(
        seed=seed,
        preprocessing=PreprocessingConfig(events_per_shard=events_per_shard),
        elements=ELEMENTS,
        particle_classes=PARTICLE_CLASSES,
    )


def write_selected(
    path: Path, events: ak.Array, sample: str = "ttbar", row_group_size: int = 30
) -> Path:
    selection = SelectionConfig(train_fraction=0.6, valid_fraction=0.2, test_fraction=0.2)
    selected = ak.with_field(
        events, ak.from_numpy(split_of(events.event_id.to_numpy(), selection, 1)), "split"
    )
    types = parquet.SELECTED_SCHEMA
    parquet.write_table(
        path,
        [parquet.to_arrow(selected, types)],
        types,
        {"sample": sample},
        row_group_size=row_group_size,
    )
    return path


def read_shards(folder: Path, split: str) -> ak.Array:
    manifest = json.loads((folder / "manifest.json").read_text())
    return ak.concatenate(
        [
            parquet.read_table(folder / shard["file"])
            for shard in manifest["splits"][split]["shards"]
        ]
    )


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 8), mean=st.sampled_from([0.0, 2.0, 9.0]), seed=st.integers(0, 99))
def test_features_equal_a_loop(n: int, mean: float, seed: int) -> None:
    events = synthetic_events(n, seed, mean_particles=mean)
    found = element_features(events, ELEMENTS)
    types, rows = [], []
    for event in events.to_list():
        for track in event["tracks"]:
            types.append(1)
            rows.append([track["pt"], np.sin(track["phi"]), np.cos(track["phi_calo"]), track["d0"]])
            rows[-1] += [
                track["p"],
                track["eta"],
                np.cos(track["phi"]),
                track["eta_calo"],
                np.sin(track["phi_calo"]),
            ]
        for cluster in event["clusters"]:
            types.append(2)
            rows.append(
                [
                    cluster["energy"],
                    np.cos(cluster["phi"]),
                    np.sin(cluster["phi"]),
                    cluster["x"],
                    cluster["eta"],
                ]
            )
            rows[-1] += [cluster["et"], np.sin(cluster["phi"]), cluster["depth"], 0.0]
    assert found.n_elements.tolist() == [len(event["targets"]) for event in events.to_list()]
    assert found.element_type.tolist() == types
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(
        found.features, np.array(rows, np.float32).reshape(-1, 9), rtol=1e-6, atol=1e-7
    )


def test_transforms_continue_below_their_domain() -> None:
    x = np.array([-5.0, 0.0, 1e-9, 2.0])
    np.testing.assert_allclose(transform("log", x), np.log([1e-6, 1e-6, 1e-6, 2.0]))
    np.testing.assert_allclose(transform("log1p", x), [0, 0, 1e-9, np.log(3.0)])
    np.testing.assert_allclose(np.sinh(transform("asinh", x)), x)
    assert transform("none", x) is x


def test_statistics_by_blocks_equal_those_at_once() -> None:
    rng = np.random.default_rng(1)
    # mean >> std: naive sums of squares would fail
    features = (1e4 + rng.standard_normal((5000, 9))).astype(np.float32)
    types = rng.integers(1, 3, 5000).astype(np.int8)
    features[types == 2, 4] = 3.5
    statistics = FeatureStatistics(ELEMENTS)
    for start, stop in itertools.pairwise((0, 1, 700, 700, 4999, 5000)):
        statistics.add(types[start:stop], features[start:stop])
    result = statistics.result()
    clusters = features[types == 2].astype(np.float64)
    x = np.log1p(clusters[:, 0])
    assert result["cluster"]["mean"][0] == pytest.approx(x.mean(), rel=1e-12)
    assert result["cluster"]["std"][1] == pytest.approx(clusters[:, 1].std(), rel=1e-9)
    assert (result["cluster"]["mean"][4], result["cluster"]["std"][4]) == (3.5, 1.0)  # constant
    assert FeatureStatistics(ELEMENTS).result()["track"] == {"mean": [0.0] * 9, "std": [1.0] * 9}


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 300),
    buckets_per_group=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    buffer_bytes=st.sampled_from([1, 900]),
)
def test_external_shuffle_is_a_sort(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    buckets_per_group: tuple[int, int],
    buffer_bytes: int,
) -> None:
    rng = np.random.default_rng(n)
    key, group = rng.integers(0, 2**64, n, dtype=np.uint64), rng.integers(0, 2, n).astype(np.int8)
    key[: n // 3] = key[0]  # ties keep their order
    records = pa.table({KEY: key, GROUP: group, "value": np.arange(n)})
    folder = tmp_path_factory.mktemp("shuffle")
    buckets = Buckets(folder, list(buckets_per_group))
    buckets.scatter([records.slice(start, 37) for start in range(0, n, 37)], buffer_bytes)
    for number in (0, 1):
        found = [
            value for table in buckets.in_key_order(number) for value in table["value"].to_pylist()
        ]
        mine = np.flatnonzero(group == number)
        assert found == mine[np.argsort(key[mine], kind="stable")].tolist()
    assert not list(folder.iterdir())


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9), n_shards=st.integers(1, 6))
def test_cut_keeps_order_and_sizes(lengths: list[int], n_shards: int) -> None:
    total = sum(lengths)
    edges = np.cumsum([0, *lengths])
    sizes = [total // n_shards + (i < total % n_shards) for i in range(n_shards)]
    sizes = [size for size in sizes if size]
    source = [pa.table({"x": np.arange(a, b)}) for a, b in itertools.pairwise(edges)]
    pieces = list(cut(source, sizes))
    assert [piece.num_rows for piece in pieces] == sizes
    assert [x for piece in pieces for x in piece["x"].to_pylist()] == list(range(total))


def test_shards_hold_every_event_once_evenly_with_its_targets(tmp_path: Path) -> None:
    first, second = synthetic_events(211, 1), synthetic_events(150, 2)
    files = [
        write_selected(tmp_path / "a.parquet", first),
        write_selected(tmp_path / "b.parquet", second, sample="qq"),
    ]
    write_shards(stage_settings(), files, tmp_path / "shards")
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest["samples"] == ["qq", "ttbar"]
    assert manifest["classes"][0] == {"name": "none"}
    assert [c["name"] for c in manifest["classes"][1:]] == list(CLASSES)
    assert manifest["elements"]["track"][0] == {"name": "pt", "transform": "log", "unit": "GeV"}
    assert manifest["n_features"] == 9
    everything = {e["event_id"]: e for e in ak.concatenate([first, second]).to_list()}
    seen: dict[int, str] = {}
    for split in SPLITS:
        described = manifest["splits"][split]
        sizes = [shard["n_events"] for shard in described["shards"]]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= 40
        assert sum(sizes) == described["n_events"]
        for shard in described["shards"]:
            assert sha256(tmp_path / "shards" / shard["file"]) == shard["sha256"]
        events = read_shards(tmp_path / "shards", split)
        assert int(ak.sum(events.n_elements)) == described["n_elements"]
        samples = events.sample.to_list()
        assert sum(a != b for a, b in itertools.pairwise(samples)) > 5  # samples are mixed
        for event in events.to_list():
            assert event["event_id"] not in seen
            seen[event["event_id"]] = split
            targets = everything[event["event_id"]]["targets"]
            assert event["target_class"] == [t["class_id"] for t in targets]
            assert event["target_charge"] == [t["charge"] for t in targets]
            p4 = [
                [t[x] if t["class_id"] else 0.0 for x in ("px", "py", "pz", "energy")]
                for t in targets
            ]
            np.testing.assert_allclose(
                np.reshape(event["target_p4"], (-1, 4)), np.reshape(p4, (-1, 4)), rtol=1e-6
            )
    assert seen.keys() == everything.keys()
    selected = ak.concatenate([parquet.read_table(file, ["event_id", "split"]) for file in files])
    assert seen == dict(zip(selected.event_id.to_list(), selected.split.to_list(), strict=True))
    features = element_features(first, ELEMENTS)
    last = int(features.n_elements[-1])
    stored = [
        e
        for split in SPLITS
        for e in read_shards(tmp_path / "shards", split).to_list()
        if e["event_id"] == first.event_id[-1]
    ]
    assert stored[0]["n_elements"] == last > 0
    assert np.array_equal(
        np.array(stored[0]["features"], np.float32).reshape(-1, 9), features.features[-last:]
    )


def contents(folder: Path) -> dict[str, bytes]:
    ours = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".provenance.json")
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in ours}


def test_same_bytes_and_no_dependence_on_how_events_lie_in_files(tmp_path: Path) -> None:
    events = synthetic_events(240, 4)
    files = [
        write_selected(tmp_path / "a.parquet", events[:100]),
        write_selected(tmp_path / "b.parquet", events[100:]),
    ]
    write_shards(stage_settings(), files, tmp_path / "one")
    write_shards(stage_settings(), files, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    order = np.random.default_rng(1).permutation(240)
    whole = write_selected(tmp_path / "c.parquet", events[order], row_group_size=11)
    write_shards(stage_settings(), [whole], tmp_path / "three")
    write_shards(stage_settings(seed=4), files, tmp_path / "four")
    for split in SPLITS:
        ids = [
            read_shards(tmp_path / name, split).event_id.to_list()
            for name in ("one", "three", "four")
        ]
        assert ids[0] == ids[1]
        assert ids[0] != ids[2]
        assert sorted(ids[0]) == sorted(ids[2])
    statistics = [
        json.loads((tmp_path / name / "normalisation.json").read_text())
        for name in ("one", "three")
    ]
    assert statistics[0]["track"] == statistics[1]["track"]


def test_normalisation_never_sees_valid_or_test(tmp_path: Path) -> None:
    events = synthetic_events(300, 5)
    clean = parquet.read_table(write_selected(tmp_path / "clean.parquet", events))
    poison = np.where(clean.split.to_numpy() == "train", 1.0, 1e6)
    tracks = ak.with_field(clean.tracks, clean.tracks.pt * poison, "pt")
    clusters = ak.with_field(clean.clusters, clean.clusters.energy * poison, "energy")
    poisoned = ak.with_field(ak.with_field(clean, tracks, "tracks"), clusters, "clusters")
    types = parquet.SELECTED_SCHEMA
    parquet.write_table(
        tmp_path / "poisoned.parquet",
        [parquet.to_arrow(poisoned, types)],
        types,
        {"sample": "ttbar"},
    )
    found = []
    for name in ("clean", "poisoned"):
        write_shards(stage_settings(), [tmp_path / f"{name}.parquet"], tmp_path / name)
        found.append(
            {
                key: json.loads((tmp_path / name / "normalisation.json").read_text())[key]
                for key in ("track", "cluster", "n_events")
            }
        )
    assert found[0] == found[1]
    train = clean[clean.split.to_numpy() == "train"]
    pt = np.log(ak.flatten(train.tracks.pt).to_numpy().astype(np.float64))
    assert found[0]["n_events"] == len(train)
    assert found[0]["track"]["mean"][0] == pytest.approx(pt.mean(), rel=1e-6)
    assert found[0]["track"]["std"][0] == pytest.approx(pt.std(), rel=1e-6)


@pytest.mark.fault("job killed while writing")
def test_what_an_earlier_or_killed_run_left_does_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = synthetic_events(300, 6)
    file, output = write_selected(tmp_path / "a.parquet", events), tmp_path / "shards"
    write_shards(stage_settings(10), [file], output)
    many = contents(output)
    killed = tmp_path / f".{output.name}.99999.tmp"
    killed.mkdir()

    def interrupted(*arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "sha256", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_shards(stage_settings(40), [file], output)
    assert contents(output) == many  # whole and consistent
    write_shards(stage_settings(40), [file], output)
    manifest = json.loads((output / "manifest.json").read_text())
    listed = {shard["file"] for split in SPLITS for shard in manifest["splits"][split]["shards"]}
    assert {name for name in contents(output) if name.endswith(".parquet")} == listed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "shards"]


@pytest.mark.fault("values that are not finite")
def test_refusals_name_file_column_count_and_remedy(tmp_path: Path) -> None:
    events = synthetic_events(120, 7)
    bad = ak.with_field(
        events,
        ak.with_field(
            events.tracks, events.tracks.d0 * np.where(np.arange(120) == 4, np.inf, 1), "d0"
        ),
        "tracks",
    )
    with pytest.raises(
        UserError,
        match=rf"bad.parquet: tracks.d0: {ak.num(events.tracks)[4]} values are not finite",
    ):
        write_shards(
            stage_settings(), [write_selected(tmp_path / "bad.parquet", bad)], tmp_path / "shards"
        )
    px = events.targets.px * np.where(np.arange(120) == 4, np.nan, 1)
    bad = ak.with_field(events, ak.with_field(events.targets, px, "px"), "targets")
    with pytest.raises(UserError, match=r"bad.parquet: targets.px: \d+ values are not finite"):
        write_shards(
            stage_settings(), [write_selected(tmp_path / "bad.parquet", bad)], tmp_path / "shards"
        )
    good = write_selected(tmp_path / "good.parquet", events)
    fewer = stage_settings().model_copy(update={"particle_classes": PARTICLE_CLASSES[:2]})
    with pytest.raises(
        UserError, match=r"good.parquet: targets.class_id: \d+ values are outside 0 ... 2"
    ):
        write_shards(fewer, [good], tmp_path / "shards")
    with pytest.raises(
        UserError,
        match=r"split 'valid' is empty.*simulation\.events_per_sample.*selection\.valid_fraction",
    ):
        train = events[parquet.read_table(good).split.to_numpy() != "valid"]
        write_shards(
            stage_settings(),
            [write_selected(tmp_path / "some.parquet", train)],
            tmp_path / "shards",
        )
    unsplit = tmp_path / "unsplit.parquet"
    parquet.write_table(
        unsplit,
        [parquet.to_arrow(events, parquet.DATASET_SCHEMA)],
        parquet.DATASET_SCHEMA,
        {"sample": "ttbar"},
    )
    with pytest.raises(
        UserError, match=r"unsplit.parquet: kind: is 'dataset' where 'selected' is expected"
    ):
        write_shards(stage_settings(), [unsplit], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("ptt", "did you mean 'pt'"), ("pt", "'pt' repeats"), (None, "cos_phi_calo missing")],
)
def test_wrong_features_are_refused_when_the_configuration_is_read(
    name: str | None, message: str
) -> None:
    features = [{"name": host} for host in schema.REQUIRED_FEATURES["track"]]
    features = [*features, {"name": name}] if name else features[:-1]
    with pytest.raises(ValueError, match=message):
        ElementsConfig.model_validate(
            {
                "track": features,
                "cluster": [{"name": host} for host in schema.HOST_FEATURES["cluster"]],
            }
        )
