"""benchmarks/physics.py on small results folders: what it counts, and its last line."""

import importlib
import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from particleforge.config.load import load_detector, load_run
from particleforge.paths import Paths
from particleforge.tables import parquet

from .tiny_onnx import write_model
from .validation_inputs import (
    CONFIG,
    many_events,
    rewrite,
    smeared,
    visible,
    without_deposits,
    write_pair,
)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def physics(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("physics")


@pytest.fixture
def judged(physics: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> dict[str, Any]:
        physics.main([*map(str, arguments), "--processes", "1"])
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


def write_results(
    folder: Path, events: ak.Array, model: ak.Array, splits: tuple[str, ...] = ("test",)
) -> Path:
    """Write select/ and reco/ of one shard below ``folder``/clic; ``model`` as the candidates."""
    paths = Paths(str(folder))
    names = {"detector": "clic", "sample": "ttbar", "shard": "00000"}
    pair = write_pair(folder, events, model, splits=splits)
    for source, pattern in zip(pair, (paths.selected, paths.reconstructed), strict=True):
        target = Path(pattern.format(**names))
        target.parent.mkdir(parents=True)
        source.rename(target)
    return folder / "clic"


def baseline_of(events: ak.Array) -> ak.Array:
    """Return the rule-based candidates as a model's, of weight 1."""
    weight = ak.ones_like(events.candidates.energy)
    return ak.with_field(events.candidates, weight, "weight")


@pytest.fixture(scope="module")
def events() -> ak.Array:
    return many_events(210, seed=21)


def test_a_model_that_is_the_baseline(judged: Any, events: ak.Array, tmp_path: Path) -> None:
    """Its ratios are one and it closes nothing, without any error: events are drawn together."""
    found = judged(write_results(tmp_path, events, baseline_of(events)))
    assert found["n_events"] == [140]
    assert found["jet_resolution"] == found["baseline"] > found["ideal"] > 0
    for name in ("visible_energy_ratio", "met_ratio"):
        assert (found[name], found[f"{name}_error"]) == (1, 0)
    for name in ("gap_closed", "visible_energy_gap_closed"):
        assert (found[name], found[f"{name}_error"]) == (0, 0)
    assert 0 < found["jet_resolution_error"] < found["jet_resolution"]
    counted = [row for row in found["bins"] if row["counts"]]
    assert [row["ratio"] for row in counted] == [1] * len(counted) != []
    assert found["worst_bin_ratio"] == 1
    assert found["median_within_1_percent"] == all(abs(row["median"] - 1) < 0.01 for row in counted)


def test_only_test_events_count(judged: Any, events: ak.Array, tmp_path: Path) -> None:
    model = smeared(events, 1, width=0.2, efficiency=0.9)
    found = []
    for name, splits in (("test", ("test",)), ("all", ("train", "test"))):
        folder = tmp_path / name
        folder.mkdir()
        found.append(judged(write_results(folder, events, model, splits)))
    assert found[0] == found[1]
    assert found[0]["gap_closed"] < 0


def test_several_models_are_averaged(judged: Any, events: ak.Array, tmp_path: Path) -> None:
    folders = []
    for seed, width in ((1, 0.1), (2, 0.3)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        model = smeared(events, seed, width=width, efficiency=1)
        folders.append(write_results(folder, events, model))
    one, other, both = judged(folders[0]), judged(folders[1]), judged(*folders)
    assert both["n_models"] == 2
    for name in ("jet_resolution", "met_ratio", "gap_closed"):
        assert both[name] == pytest.approx((one[name] + other[name]) / 2)
        assert both[f"{name}_error"] >= abs(one[name] - other[name]) / 2
    assert both["baseline_error"] == pytest.approx(one["baseline_error"])


def test_charged_hadrons_are_compared_with_their_tracks(
    judged: Any, events: ak.Array, tmp_path: Path
) -> None:
    """Tracks' own momenta give one; twice as far from truth, two."""
    on_track = (events.targets.class_id == 1) & (
        ak.local_index(events.targets) < ak.num(events.tracks)
    )
    element = ak.local_index(events.targets)[on_track]
    owner = events.particles[events.targets.particle[element]]
    truth = np.hypot(owner.px, owner.py)
    for factor in (1, 2):
        pt = truth + factor * (events.tracks.pt[element] - truth)
        momenta = {name: owner[name] * pt / truth for name in ("px", "py", "pz", "energy")}
        zero = ak.zeros_like(element)
        columns = {"pdg": zero + 211, "class_id": zero + 1, "charge": owner.charge, **momenta}
        model = ak.zip({**columns, "element": element, "weight": zero + 1})
        folder = tmp_path / str(factor)
        folder.mkdir()
        found = judged(write_results(folder, events, model))
        assert found["charged_pt_ratio"] == pytest.approx(factor, rel=1e-3)


def test_figures_that_cannot_be_had_are_null(judged: Any, events: ak.Array, tmp_path: Path) -> None:
    folder = write_results(tmp_path, events, visible(events))
    selected = folder / "select/ttbar/00000.parquet"
    rewrite(selected, without_deposits(parquet.read_table(selected)))
    found = judged(folder)
    assert found["ideal"] is found["gap_closed"] is found["gap_closed_error"] is None
    assert found["visible_energy_gap_closed"] is None
    assert found["jet_resolution"] < 1e-4


def test_a_sample_that_training_never_saw_is_judged_by_itself(
    physics: Any, judged: Any, events: ak.Array, tmp_path: Path
) -> None:
    """In a finished run its files say so, whatever the configuration says now."""
    folder = write_results(tmp_path, events, baseline_of(events))
    (selected,) = (folder / "select/ttbar").iterdir()
    table, types = parquet.read_columns(selected), parquet.SELECTED_SCHEMA
    made = {"provenance": {"settings": {"held_out": True}}}
    parquet.write_table(selected, [table], types, {"sample": "ttbar", **made})
    assert judged(folder, "--sample", "ttbar")["n_events"] == [140]
    with pytest.raises(SystemExit, match=r"clic: has no \S*reco/\*/\*\.parquet; give the folder"):
        judged(folder)
    with pytest.raises(SystemExit, match=r"has no \S*parquet of qq; give the folder"):
        judged(folder, "--sample", "ttbar", "--sample", "qq")


def test_fresh_events_of_samples_that_training_never_saw(physics: Any, judged: Any) -> None:
    detector = load_detector(CONFIG, "clic")
    samples = dict(detector.samples)
    samples["ttbar"] = samples["ttbar"].model_copy(update={"held_out": True})
    detector = detector.model_copy(update={"samples": samples})
    assert {task.sample for task in physics.fresh(detector, [], 2000, 1)} == {"qq", "ww"}
    assert {task.sample for task in physics.fresh(detector, [], 2000, 1, ["ttbar"])} == {"ttbar"}
    with pytest.raises(SystemExit, match=r"^zz: no sample of the detector$"):
        judged("--model", "nowhere", "--sample", "zz")


def test_a_folder_that_holds_no_run_is_refused(judged: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"clic: has no \S*reco/\*/\*\.parquet; give the folder"):
        judged(tmp_path / "clic")


def test_fresh_events_are_split_by_the_fractions_of_samples(physics: Any) -> None:
    detector = load_detector(CONFIG, "clic")
    samples = dict(detector.samples)
    samples["qq"] = samples["qq"].model_copy(update={"fraction": 0.5})
    detector = detector.model_copy(update={"samples": samples})
    wanted = {"qq": 400, "ttbar": 800, "ww": 800}
    tasks = list(physics.fresh(detector, [Path("model.onnx")], 2000, 1))
    for sample, n in wanted.items():
        files = [task for task in tasks if task.sample == sample]
        assert [task.number for task in files] == list(range(-(-n // 250)))
        assert sum(task.run.simulation.events_per_shard for task in files) == n
    other = next(physics.fresh(detector, [], 2000, 2))
    seeds = {task.run.seed for task in tasks} | {other.run.seed, load_run(CONFIG).seed}
    assert len(seeds) == 3


def test_models_are_judged_on_the_same_fresh_events(judged: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name / "model.onnx")
    found = judged("--events", 6, "--model", tmp_path / "one", tmp_path / "other")
    assert found["n_events"] == [6, 6]
    assert found["met_ratio"] > 0  # 12 components
    assert found["jet_resolution"] is None or found["jet_resolution_error"] > 0
