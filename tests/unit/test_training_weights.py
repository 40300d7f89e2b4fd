"""Event weights on their way to the loss: selected files, shards, checks, loader, training."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest

from particleforge.artefacts import write_json
from particleforge.errors import UserError
from particleforge.paths import SPLITS
from particleforge.preprocessing.shards import write_shards
from particleforge.tables import parquet

from .checked_data import (
    change_training_shard,
    enter_checksum,
    judge_shards,
    rewrite,
    write_training_shards,
)
from .synthetic import synthetic_events
from .synthetic_shards import uneven, write_synthetic
from .test_preprocessing import read_shards, stage_settings, write_selected
from .test_training_loader import loader
from .test_training_loop import run, settings_of, trainer_of


def with_weight(events: ak.Array, weights: np.ndarray) -> ak.Array:
    return ak.with_field(events, ak.from_numpy(weights), "weight")


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_shards_keep_weights_and_the_manifest_has_their_mean(tmp_path: Path) -> None:
    """The mean is the same bit for bit however the events lie in files."""
    events = synthetic_events(240, 4)
    events = with_weight(events, 10.0 ** (np.arange(240) % 9 - 14))
    files = [
        write_selected(tmp_path / "a.parquet", events[:100]),
        write_selected(tmp_path / "b.parquet", events[100:]),
    ]
    order = np.random.default_rng(1).permutation(240)
    whole = write_selected(tmp_path / "c.parquet", events[order], row_group_size=11)
    write_shards(stage_settings(), files, tmp_path / "one")
    write_shards(stage_settings(), [whole], tmp_path / "two")
    assert (
        manifest_of(tmp_path / "one")["mean_weight"] == manifest_of(tmp_path / "two")["mean_weight"]
    )
    expected = dict(zip(events.event_id.to_list(), events.weight.to_list(), strict=True))
    found = {split: read_shards(tmp_path / "one", split) for split in SPLITS}
    for shards in found.values():
        assert shards.weight.to_list() == [expected[i] for i in shards.event_id.to_list()]
    assert manifest_of(tmp_path / "one")["mean_weight"] == pytest.approx(
        ak.mean(found["train"].weight), rel=1e-12
    )


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.37])
def test_equal_weights_are_no_weights(tmp_path: Path, weight: float) -> None:
    events = with_weight(synthetic_events(120, 4), np.full(120, weight))
    write_shards(
        stage_settings(), [write_selected(tmp_path / "a.parquet", events)], tmp_path / "shards"
    )
    assert manifest_of(tmp_path / "shards")["mean_weight"] is None


@pytest.mark.fault("values that are not finite")
def test_weights_that_a_training_cannot_take_are_one_line(tmp_path: Path) -> None:
    events = synthetic_events(120, 4)
    good = write_selected(tmp_path / "good.parquet", events)
    for bad in (-1.0, np.nan, np.inf):
        weights = np.where(np.arange(120) % 50 == 3, bad, 1.0)
        file = write_selected(tmp_path / "bad.parquet", with_weight(events, weights))
        with pytest.raises(UserError) as caught:
            write_shards(stage_settings(), [good, file], tmp_path / "shards")
        line = str(caught.value)
        assert line.startswith(
            f"{file}: weight is negative or not finite in 3 of 120 events, which a training cannot"
            " take; select them away (cuts.events, expression 'weight >= 0')"
        )
        assert "\n" not in line
    valid = parquet.read_table(good, ["split"]).split.to_numpy() == "valid"
    file = write_selected(tmp_path / "none.parquet", with_weight(events, np.where(valid, 0.0, 2.0)))
    with pytest.raises(UserError, match=rf"split 'valid': weight is 0 in all of its {sum(valid)} "):
        write_shards(stage_settings(), [file], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def drop_weight(manifest: Path, name: str) -> None:
    rewrite(manifest.parent / name, lambda table: table.drop_columns(["weight"]))
    enter_checksum(manifest, name)


def test_checks_refuse_wrong_weights(tmp_path: Path) -> None:
    manifest, name = write_training_shards(tmp_path, 120), "train/00000.parquet"
    judge_shards(manifest)
    described = manifest.read_text()

    def refused(line: str) -> None:
        with pytest.raises(UserError, match=line):
            judge_shards(manifest)

    write_json(manifest, json.loads(described) | {"mean_weight": 7.0})
    refused(r"manifest\.json: mean_weight: relative difference of the mean weight")
    write_json(manifest, json.loads(described) | {"mean_weight": None})
    refused(r"manifest\.json: mean_weight: relative difference of the mean weight")
    write_json(manifest, json.loads(described))
    change_training_shard(manifest, name, {"weight": lambda w: np.where(np.arange(len(w)), w, -1)})
    refused(r"00000\.parquet: weight: values out of range: 1, allowed at most 0")
    drop_weight(manifest, name)
    refused(r"00000\.parquet: weight \(missing\): columns unlike the schema: 1")


def test_shards_from_before_weights_are_read_as_unweighted(tmp_path: Path) -> None:
    old, new = write_synthetic(tmp_path / "old"), write_synthetic(tmp_path / "new")
    described = json.loads(old.read_text())
    del described["mean_weight"]
    write_json(old, described)
    for split in described["splits"].values():
        for shard in split["shards"]:
            drop_weight(old, shard["file"])
    for one, other in zip(loader(old).once(), loader(new).once(), strict=True):
        assert one.features.equal(other.features)
        assert one.weight.shape == (*one.element_type.shape, 0)
    weighted = write_synthetic(tmp_path / "weighted", weight_of=uneven)
    drop_weight(weighted, "train/00000.parquet")
    with pytest.raises(UserError, match=r"00000\.parquet: column weight is missing"):
        list(loader(weighted).once())


def test_old_shards_of_equal_weights_pass_the_checks(tmp_path: Path) -> None:
    manifest = write_training_shards(tmp_path, 120)
    described = json.loads(manifest.read_text())
    names = [shard["file"] for split in described["splits"].values() for shard in split["shards"]]
    write_json(manifest, described | {"mean_weight": None})
    for name in names:
        drop_weight(manifest, name)
    judge_shards(manifest)


def test_batches_have_the_weight_of_each_event(tmp_path: Path) -> None:
    """Divided by the mean, at each of its elements; weights change nothing else."""
    plain = write_synthetic(tmp_path / "plain")
    weighted = write_synthetic(tmp_path / "weighted", weight_of=uneven)
    expected = {}
    found = loader(weighted)
    for path in found.paths:
        table = pq.read_table(path)
        for features, weight in zip(
            table["features"].to_pylist(), table["weight"].to_pylist(), strict=True
        ):
            expected[tuple(features[:5])] = weight / manifest_of(weighted.parent)["mean_weight"]
    total = n_events = 0
    for batch, same in zip(found.once(), loader(plain).once(), strict=True):
        assert all(one.equal(other) for one, other in zip(batch[:-1], same[:-1], strict=True))
        real = batch.element_type > 0
        weight = batch.weight.squeeze(-1)
        assert not weight[~real].any()
        for row in np.flatnonzero(real[:, 0]):
            (value,) = set(weight[row][real[row]].tolist())
            first = tuple(batch.features[row, 0, :5].tolist())
            assert value == pytest.approx(expected[first], rel=1e-6)
            total, n_events = total + value, n_events + 1
    assert n_events > 100
    assert 0.5 < total / n_events < 1.5


def curves(manifest: Path, work_dir: Path) -> tuple[list[float], list[float]]:
    """Return the losses of train and valid of a short training."""
    trainer = trainer_of(manifest, work_dir, settings_of(log_every_steps=1), 4)
    _, _, rows = run(trainer)
    train, valid = (
        [row["values"]["loss"] for row in rows if row["split"] == split]
        for split in ("train", "valid")
    )
    return train, valid


def test_a_training_knows_ratios_of_weights_only(tmp_path: Path) -> None:
    """Its loss and that of the validation, by which trainings and trials are compared."""
    found = {
        name: curves(write_synthetic(tmp_path / name, weight_of=weight_of), tmp_path / f"w_{name}")
        for name, weight_of in {
            "unweighted": None,
            "equal": lambda numbers: np.full(len(numbers), 1e-10),
            "uneven": uneven,
            "in another unit": lambda numbers: 1e9 * uneven(numbers),
        }.items()
    }
    for same, other in (("equal", "unweighted"), ("in another unit", "uneven")):
        for one, two in zip(found[same], found[other], strict=True):
            assert one == pytest.approx(two, rel=1e-5)
    for one, two in zip(found["uneven"], found["unweighted"], strict=True):
        assert one[0] != pytest.approx(two[0], rel=1e-3)


def test_validation_is_the_mean_over_weighted_events(tmp_path: Path) -> None:
    """Events of weight 0 may as well be absent: only the first valid event weighs."""
    n_train, n_valid = 120, 30

    def only(numbers: np.ndarray) -> np.ndarray:
        return np.where((numbers < n_train + 1) | (numbers >= n_train + n_valid), 1.0, 0.0)

    weighted = write_synthetic(tmp_path / "weighted", weight_of=only)
    single = write_synthetic(tmp_path / "single")
    path = single.parent / "valid/00000.parquet"
    rewrite(path, lambda table: table.slice(0, 1))
    described = json.loads(single.read_text())
    described["splits"]["valid"]["shards"][0]["n_events"] = 1
    write_json(single, described)
    (_, one), (_, other) = (
        curves(manifest, tmp_path / f"w{number}")
        for number, manifest in enumerate((weighted, single))
    )
    assert one == pytest.approx(other, rel=1e-5)
