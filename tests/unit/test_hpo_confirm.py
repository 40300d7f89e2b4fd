"""The best configurations of a search, trained again from other seeds."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from particleforge.config.settings import SelectBestSettings
from particleforge.errors import UserError
from particleforge.hpo.best import select_best_trial
from particleforge.hpo.confirm import confirm_trial, further_seed
from particleforge.training.launch import TrainingResult, TrainingSpec

from .hpo_fixtures import FormulaTraining, Search, make_settings

SPACE = {"model.n_layers": {"type": "int", "low": 1, "high": 6}}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@dataclass
class Luck:
    """Trainings whose loss is worse from further seeds, by configuration (number of layers) and
    seed.
    """

    worse: dict[int, tuple[float, ...]]
    fails: set[tuple[int, int]] = field(default_factory=set)
    plain: FormulaTraining = field(default_factory=FormulaTraining)

    def __call__(self, spec: TrainingSpec, ranks: int) -> TrainingResult:
        result = self.plain(spec, ranks)
        layers = spec.settings.model.n_layers
        number = [7, further_seed(7, 1), further_seed(7, 2)].index(spec.settings.seed)
        if (layers, number) in self.fails:
            return replace(result, status="diverged", reason="loss is nan", valid_loss=None)
        assert result.valid_loss is not None
        return replace(
            result,
            valid_loss=result.valid_loss
            + (self.worse.get(layers, (0, 0))[number - 1] if number else 0),
        )


def search_in(folder: Path) -> Search:
    """Six configurations, three of which reach the end: the deeper the better."""
    search = Search(
        folder,
        make_settings(
            scheduler="none", sampler="grid", first_rung_slots=6, min_steps=15, space=SPACE
        ),
    )
    search.run_all()
    return search


def choose(search: Search, train: Any, **hpo: Any) -> dict[str, Any]:
    """Confirm and select as the workflow does and return the content of best.yaml."""
    settings = SelectBestSettings(
        **{**dict(search.settings), "hpo": search.settings.hpo.model_copy(update=hpo)}
    )
    further = [
        (place, seed)
        for place in range(settings.hpo.confirm_trials)
        for seed in range(1, settings.hpo.confirm_seeds)
    ]
    files = [search.folder / f"confirm/{place}-{seed}.json" for place, seed in further]
    for (place, seed), path in zip(further, files, strict=True):
        confirm_trial(
            settings,
            slots=search.outputs(),
            work_dir=search.work,
            manifest=search.manifest,
            place=place,
            seed=seed,
            output=path,
            train=train,
        )
    best = search.folder / "best.yaml"
    select_best_trial(
        settings,
        slots=search.outputs(),
        work_dir=search.work,
        manifest=search.manifest,
        best=best,
        trials=search.folder / "trials.csv",
        plots={},
        confirmations=files,
    )
    return dict(yaml.safe_load(best.read_text()))


def test_the_winner_is_the_best_mean_and_the_file_says_so(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    one = choose(search, Luck({}))
    assert one["model"] == {"n_layers": 6}
    assert "seeds" not in one
    luck = Luck({6: (0.2, 0.1), 5: (0.0, 0.01)})
    best = choose(search, luck, confirm_seeds=3, confirm_trials=2)
    assert best["model"] == {"n_layers": 5}, "six layers were lucky"
    assert [len(entry["values"]) for entry in best["seeds"]] == [3, 3]
    own, lost = best["seeds"]
    assert (own["config"], own["values"][0]) == (best["config"], best["value"])
    assert own["mean"] == pytest.approx(best["value"] + 0.01 / 3)
    assert own["standard_deviation"] == pytest.approx(0.01 / 3**0.5)
    assert lost["mean"] == pytest.approx(one["value"] + 0.1)
    assert (
        best["why"]
        == "lowest mean validation loss over 3 seeds of the 2 configurations trained from further"
        " seeds"
    )
    assert {name for name, _ in luck.plain.steps_made} == {
        f"confirm-{entry['config']}-{seed}" for entry in best["seeds"] for seed in (1, 2)
    }


def test_what_failed_from_another_seed_loses_to_what_did_not(tmp_path: Path) -> None:
    best = choose(search_in(tmp_path), Luck({}, fails={(6, 2)}), confirm_seeds=3, confirm_trials=2)
    assert best["model"] == {"n_layers": 5}
    assert [(entry["failures"], len(entry["values"])) for entry in best["seeds"]] == [
        (0, 3),
        (1, 2),
    ]


def test_a_grown_search_trains_only_what_is_newly_among_the_best(tmp_path: Path) -> None:
    search = Search(
        tmp_path,
        make_settings(
            scheduler="none", sampler="grid", first_rung_slots=4, min_steps=15, space=SPACE
        ),
    )
    search.run_all()
    luck = Luck({})
    first = choose(search, luck, confirm_seeds=2, confirm_trials=2)
    made = len(luck.plain.steps_made)
    assert choose(search, luck, confirm_seeds=2, confirm_trials=2) == first
    assert len(luck.plain.steps_made) == made, "run again, nothing is trained"
    search.settings = search.settings.model_copy(
        update={"hpo": search.settings.hpo.model_copy(update={"first_rung_slots": 6})}
    )
    search.run_all()
    second = choose(search, luck, confirm_seeds=2, confirm_trials=2)
    known, now = ({entry["config"] for entry in found["seeds"]} for found in (first, second))
    assert {name for name, _ in luck.plain.steps_made[made:]} == {
        f"confirm-{config}-1" for config in now - known
    }


def test_places_without_a_configuration_stay_empty_and_interruptions_are_told(
    tmp_path: Path,
) -> None:
    search = Search(tmp_path, make_settings(first_rung_slots=4, n_rungs=3, space=SPACE))
    search.run_all()
    best = choose(search, Luck({}), confirm_seeds=2, confirm_trials=3)
    assert len(best["seeds"]) == 1, "one trial reached the top rung"
    told = json.loads((tmp_path / "confirm/2-1.json").read_text())
    assert (told["status"], told["reason"]) == (
        "no_contender",
        "configurations that reached the last budget: 1",
    )

    def interrupted(spec: TrainingSpec, ranks: int) -> TrainingResult:
        return replace(FormulaTraining()(spec, ranks), status="interrupted", reason="SIGTERM")

    with pytest.raises(
        UserError, match=r"confirm-c0000\d-1: training interrupted .* SIGTERM; run it again"
    ):
        choose(search, interrupted, confirm_seeds=2, confirm_trials=1)


def test_with_growing_workers_it_is_trained_rung_by_rung_as_the_search_did(tmp_path: Path) -> None:
    search = Search(
        tmp_path, make_settings(scheduler="rasda", n_rungs=2, first_rung_slots=2, space=SPACE)
    )
    search.run_all()
    specs: list[tuple[TrainingSpec, int]] = []

    def train(spec: TrainingSpec, ranks: int) -> TrainingResult:
        specs.append((spec, ranks))
        return FormulaTraining()(spec, ranks)

    choose(search, train, confirm_seeds=2, confirm_trials=1)
    (first, ranks), (second, ranks_again) = specs
    assert (first.until_step, second.until_step) == (5, 10)
    assert (
        second.settings.training.elements_per_batch
        == 2 * first.settings.training.elements_per_batch
    )
    assert second.parent_checkpoint is not None
    assert second.parent_checkpoint.is_relative_to(first.work_dir)
    assert ranks == ranks_again == 2, "the job has the workers of the last rung"
    assert first.settings.seed == second.settings.seed == further_seed(7, 1)
