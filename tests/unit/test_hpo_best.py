"""What a finished search hands over."""

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from particleforge.config.best import BestConfig, DefaultConfig
from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import SelectBestSettings, TrainSettings
from particleforge.config.space import apply_parameters
from particleforge.errors import UserError
from particleforge.hpo.best import compare_with_default, nested, select_best_trial
from particleforge.hpo.plots import importances
from particleforge.hpo.study import open_study
from particleforge.hpo.trials import SearchTrial
from particleforge.training.train import with_best_settings

from .hpo_fixtures import SPACE, FormulaTraining, Search, make_manifest, make_settings
from .synthetic_shards import write_synthetic

PLOTS = ("history", "importances", "rungs")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tiny records are written here.

    That each reaches the disk is not what these tests are about.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def select(search: Search, name: str = "out", plot_names: tuple[str, ...] = ()) -> Path:
    folder = search.folder / name
    plots = {plot: folder / f"{plot}.png" for plot in plot_names}
    select_best_trial(
        search.settings,
        slots=search.outputs(),
        work_dir=search.work,
        manifest=search.manifest,
        best=folder / "best.yaml",
        trials=folder / "trials.csv",
        plots=plots,
    )
    return folder


def test_the_winner_its_table_and_its_plots(tmp_path: Path) -> None:
    search = Search(tmp_path, make_settings(first_rung_slots=9, eta=3))
    results = search.run_all()
    folder = select(search, plot_names=PLOTS)
    best = yaml.safe_load((folder / "best.yaml").read_text())
    top = min((r for r in results if r["rung"] == 2), key=lambda r: r["value"])
    assert (best["trial"], best["config"], best["value"]) == (
        top["trial"],
        top["config"],
        top["value"],
    )
    assert {key for key, value in best.items() if isinstance(value, dict)} == {
        "model",
        "training",
        "against_default",
        "against_random",
        "search",
    }
    model, training = apply_parameters(
        top["params"], search.settings.model, search.settings.training
    )
    assert {**search.settings.model.model_dump(), **best["model"]} == model.model_dump()
    assert {**search.settings.training.model_dump(), **best["training"]} == training.model_dump()
    table = pd.read_csv(folder / "trials.csv", dtype={"config": str})
    assert len(table) == 9 + 3 + 1
    assert table.groupby("rung")["promoted"].sum().tolist() == [3, 1, 0]
    assert (table.loc[table["promoted"], "place"] <= 3).all()
    for plot in PLOTS:
        assert (folder / f"{plot}.png").stat().st_size > 5000
        assert (folder / f"{plot}.pdf").read_bytes().startswith(b"%PDF")


def test_selecting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run_all()
    one, two = select(search, "one", ("rungs",)), select(search, "two", ("rungs",))
    names = ["best.yaml", "trials.csv", "rungs.png", "rungs.pdf"]
    assert [name for name in names if (one / name).read_bytes() != (two / name).read_bytes()] == []


def test_the_winner_does_not_depend_on_the_order_of_slots(tmp_path: Path) -> None:
    """Random sampling, and curves that do not cross: then the same configurations are promoted in
    any order.
    """
    space = {"training.learning_rate": SPACE["training.learning_rate"]}
    winners = []
    for seed in range(2):
        search = Search(
            tmp_path / str(seed),
            make_settings(sampler="random", space=space, first_rung_slots=8, n_rungs=1),
        )
        search.run_all(order=random.Random(seed))
        best = yaml.safe_load((select(search) / "best.yaml").read_text())
        winners.append({key: value for key, value in best.items() if key != "trial"})
    assert winners[0] == winners[1]


def trial(number: int, config: str, rung: int, value: float | None) -> SearchTrial:
    return SearchTrial(
        number,
        config,
        rung,
        0,
        None,
        10 * 2**rung,
        {},
        "failed" if value is None else "complete",
        value,
    )


def test_the_default_is_compared_at_the_largest_budget_that_both_reached() -> None:
    hpo = HpoConfig(eta=2, n_rungs=2, first_rung_slots=2, min_events=700)
    trials = [trial(0, "c00000", 0, 0.8), trial(1, "c00001", 0, 0.4), trial(2, "c00001", 1, 0.3)]
    found = compare_with_default(trials, trials[2], hpo)
    assert found == DefaultConfig(
        budget=700,
        budget_unit="events",
        default_value=0.8,
        best_value=0.4,
        relative_change=-0.5,
        at_full_budget=False,
    )
    both = [*trials, trial(3, "c00000", 1, 0.6)]
    found = compare_with_default(both, trials[2], hpo)
    assert (found.budget, found.at_full_budget) == (1400, True)
    assert found.relative_change == pytest.approx(-0.5)
    assert compare_with_default(both, both[1], hpo).budget == 700, "not beyond the chosen trial"
    failed = compare_with_default([trial(0, "c00000", 0, None), *trials[1:]], trials[2], hpo)
    assert (failed.budget, failed.reason) == (None, "the configured settings failed")


def test_other_batches_are_compared_after_as_many_events() -> None:
    hpo = HpoConfig(scheduler="none", n_rungs=1, first_rung_slots=2, min_events=700)
    small = replace(trial(1, "c00001", 0, 0.4), steps=80)  # the default made 10 steps
    found = compare_with_default([trial(0, "c00000", 0, 0.8), small], small, hpo)
    assert (found.budget, found.default_value, found.best_value) == (700, 0.8, 0.4)


def test_a_search_that_failed_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    search = Search(tmp_path / "some", make_settings(failed_fraction_max=0.2))
    search.train = FormulaTraining(
        fails=lambda spec: "out of memory" if spec.work_dir.name in ("0-00001", "0-00002") else ""
    )
    search.run_all()
    with pytest.raises(UserError, match=r"29% of 7 trials failed.*allows 20%.*out of memory"):
        select(search)
    everything = Search(
        tmp_path / "all",
        make_settings(n_rungs=1, failed_fraction_max=1.0),
        FormulaTraining(fails=lambda spec: "killed"),
    )
    everything.run_all()
    with pytest.raises(UserError, match="100% of 4 trials failed"):
        select(everything)


def test_a_search_whose_top_rung_failed_falls_back(tmp_path: Path) -> None:
    search = Search(
        tmp_path,
        train=FormulaTraining(
            fails=lambda spec: "bad" if spec.work_dir.name.startswith("2-") else ""
        ),
    )
    search.run_all()
    assert yaml.safe_load((select(search) / "best.yaml").read_text())["steps"] == 10


def test_slots_of_another_study_are_refused(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run_all()
    make_manifest(search.folder, checksum="other")
    with pytest.raises(UserError, match=r"made by study .* run the slots again"):
        select(search)


def test_importances_find_the_parameter_that_matters(tmp_path: Path) -> None:
    search = Search(
        tmp_path, make_settings(sampler="random", first_rung_slots=20, n_rungs=1, min_steps=2)
    )
    search.run_all()
    shares = importances(
        open_study(search.settings, search.manifest, search.work).trials(), search.settings
    )
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["model.width"] < 0.2 < max(shares.values())
    assert importances([], search.settings) == {}


def test_nested() -> None:
    assert nested({"training.loss.momentum": 2.0, "model.width": 8}) == {
        "model": {"width": 8},
        "training": {"loss": {"momentum": 2.0}},
    }
    assert nested({}) == {"model": {}, "training": {}}


def chosen(search: Search, **hpo: Any) -> dict[str, Any]:
    """Select with other settings of the choice and return the content of best.yaml."""
    search.settings = SelectBestSettings(
        **{**dict(search.settings), "hpo": HpoConfig(**{**search.settings.hpo.model_dump(), **hpo})}
    )
    return dict(yaml.safe_load((select(search) / "best.yaml").read_text()))


def test_a_user_pins_another_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search = Search(
        tmp_path,
        train=FormulaTraining(
            fails=lambda spec: "out of memory" if spec.work_dir.name == "0-00001" else ""
        ),
    )
    results = search.run_all()
    best = chosen(search)
    other = next(r for r in results if r["rung"] == 1 and r["config"] != best["config"])
    pinned = chosen(search, pin_trial=other["config"])
    assert (pinned["trial"], pinned["value"]) == (other["trial"], other["value"]), (
        "the trial of its largest budget"
    )
    assert pinned["why"].startswith(
        f"pinned by hpo.pin_trial; hpo.pick = lowest_loss prefers {best['config']}"
    )
    assert f"trial {other['trial']} was trained for 10 steps only, the best for 20" in caplog.text
    first = next(r for r in results if r["rung"] == 0 and r["config"] == other["config"])
    assert chosen(search, pin_trial=first["trial"])["value"] == first["value"], (
        "a number means that very trial"
    )
    assert chosen(search, pin_trial=best["config"])["trial"] == best["trial"]
    for pin, expected in (
        (
            "c00099",
            (
                r"hpo.pin_trial: 'c00099': no such configuration; trials.csv has all; did you mean"
                r" 'c0000\d'"
            ),
        ),
        (99, r"hpo.pin_trial: 99: no trial has this number \(0 to \d\)"),
        ("c00001", "trial 1 failed: out of memory; pin one that ended well"),
    ):
        with pytest.raises(UserError, match=expected):
            chosen(search, pin_trial=pin)


def test_two_objectives_give_a_front_and_the_cheapest_may_win(tmp_path: Path) -> None:
    manifest = write_synthetic(tmp_path, train=(20,), valid=2, test=2)
    space = {"model.n_layers": {"type": "int", "low": 1, "high": 6}}
    search = Search(
        tmp_path,
        make_settings(
            scheduler="none", sampler="grid", first_rung_slots=6, min_steps=50, space=space
        ),
    )
    assert search.manifest == manifest
    search.run_all()
    trained = len(search.train.steps_made)
    lowest = chosen(search, objectives=("valid_loss", "inference_gflop"))
    assert lowest["model"] == {"n_layers": 6}
    front = lowest["pareto_front"]
    assert len(front) == 6, "each layer costs more and lowers the loss"
    assert [point["value"] for point in front] == sorted(point["value"] for point in front)
    assert [point["inference_gflop"] for point in front] == sorted(
        (point["inference_gflop"] for point in front), reverse=True
    )
    assert (front[0]["trial"], front[0]["inference_gflop"]) == (
        lowest["trial"],
        lowest["inference_gflop"],
    )
    cheap = chosen(search, pick="cheapest", pick_loss_tolerance=0.2)
    assert cheap["value"] <= 1.2 * lowest["value"]
    assert (
        cheap["trial"]
        == min(
            (p for p in front if p["value"] <= 1.2 * lowest["value"]),
            key=lambda p: p["inference_gflop"],
        )["trial"]
    )
    assert cheap["trial"] != lowest["trial"]
    assert (
        f"whose validation loss is within 0.2 of the lowest, {lowest['value']:.6g}" in cheap["why"]
    )
    assert (select(search, plot_names=("pareto",)) / "pareto.png").stat().st_size > 5000
    table = pd.read_csv(tmp_path / "out/trials.csv")
    assert table.sort_values("model.n_layers")["inference_gflop"].is_monotonic_increasing
    assert len(search.train.steps_made) == trained, "an added objective trains nothing"
    assert search.run(0, 0)["value"] == next(p["value"] for p in front if p["config"] == "c00000")


def test_the_file_explains_itself_and_is_checked_when_it_is_read(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run_all()
    folder = select(search)
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# The settings that the search found.")
    best = BestConfig.model_validate(yaml.safe_load(text))
    assert best.search is not None
    assert best.search.model_dump() == {
        **{
            "scheduler": "asha",
            "sampler": search.settings.hpo.sampler,
            "configurations": 4,
            "trials": {"complete": 7},
        },
        **{"trained_steps": 4 * 5 + 2 * 5 + 10, "full_trainings": 2.0},
    }
    assert best.why == "lowest validation loss of the 1 configurations that reached 20 steps"
    own = TrainSettings(seed=7, model=search.settings.model, training=search.settings.training)
    final = with_best_settings(own, folder / "best.yaml")
    assert final.training.learning_rate == best.training["learning_rate"]
    for broken, expected in (
        ("modle: {width: 8}", "best.yaml: modle: unknown key; .*did you mean 'model'"),
        ("model: {widht: 8}", "best.yaml: model.widht: unknown key; .*did you mean 'width'"),
        ("model: 3", "best.yaml: model: "),
        ("model: {width: 7}", "best.yaml: model: model.n_heads = 4 must divide model.width = 7"),
        ("value: .nan", "best.yaml: value: "),
        ("- 1", "must hold keys and values"),
    ):
        (folder / "best.yaml").write_text(broken)
        with pytest.raises(UserError, match=expected):
            with_best_settings(own, folder / "best.yaml")
