"""A search that begins with the winners of other searches."""

import os
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from particleforge.config.settings import HpoSettings, SelectBestSettings
from particleforge.errors import UserError
from particleforge.hpo.best import select_best_trial
from particleforge.hpo.slot import run_hpo_slot
from particleforge.hpo.transfer import configurations, next_configuration

from .hpo_fixtures import Search, make_settings

RATE, LAYERS, WIDTH = "training.learning_rate", "model.n_layers", "model.width"


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def table(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    """Write a table of trials; rows are config, rung, status, value and the parameters."""
    columns = ["config", "rung", "status", "value", RATE, LAYERS, WIDTH]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def run_first(search: Search, slot: int, files: list[Path]) -> dict[str, Any]:
    run_hpo_slot(
        search.settings,
        (0, slot),
        manifest=search.manifest,
        work_dir=search.work,
        output=search.output(0, slot),
        train=search.train,
        warm_start=files,
    )
    return dict(yaml.safe_load(search.output(0, slot).read_text())["params"])


def test_the_best_of_the_largest_budget_come_first_and_each_once(tmp_path: Path) -> None:
    rows = [
        ("c00000", 0, "complete", 0.1, 1e-2, 1, 16),
        ("c00001", 0, "complete", 0.2, 1e-3, 2, 16),
        ("c00001", 1, "complete", 0.5, 1e-3, 2, 16),
        ("c00002", 1, "complete", 0.4, 2e-3, 3, None),
        ("c00003", 1, "diverged", None, 9e-2, 1, 16),
        # the same as c00002, whose width was not searched
        ("c00004", 1, "complete", 0.9, 2e-3, 3, 64),
    ]
    found = configurations(
        [table(tmp_path / "trials.csv", rows)], make_settings(warm_start_trials=9)
    )
    assert found == [
        {RATE: 2e-3, LAYERS: 3, WIDTH: 64},
        {RATE: 1e-3, LAYERS: 2, WIDTH: 16},
        {RATE: 1e-2, LAYERS: 1, WIDTH: 16},
    ]
    assert all(
        isinstance(params[WIDTH], int) and isinstance(params[LAYERS], int) for params in found
    ), "a column with gaps holds floats"


def test_files_take_turns(tmp_path: Path) -> None:
    one = table(
        tmp_path / "one.csv",
        [(f"c{k:05d}", 1, "complete", 0.1 + k, 1e-3, 1 + k, 16) for k in range(3)],
    )
    best = tmp_path / "best.yaml"
    best.write_text(
        yaml.safe_dump({"model": {"n_layers": 6, "width": 32}, "training": {"learning_rate": 5e-3}})
    )
    found = configurations([one, best], make_settings())
    assert [params[LAYERS] for params in found] == [1, 6, 2]


def test_what_lies_outside_of_the_space_is_passed_over_never_clipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = ("c00000", 1, "complete", 0.1, 0.5, 1, 16)
    inside = ("c00001", 1, "complete", 0.2, 1e-3, 1, 16)
    assert configurations([table(tmp_path / "a.csv", [outside, inside])], make_settings()) == [
        {RATE: 1e-3, LAYERS: 1, WIDTH: 16}
    ]
    assert f"1 of 2 configurations lie outside of hpo.space, e.g. {RATE} = 0.5" in caplog.text
    with pytest.raises(
        UserError,
        match=(
            r"hpo.warm_start: .*b.csv: none of 1 configurations.*learning_rate = 0.5; widen the"
            r" space"
        ),
    ):
        configurations([table(tmp_path / "b.csv", [outside])], make_settings())
    with pytest.raises(UserError, match="the best: no trial ended well"):
        configurations(
            [table(tmp_path / "c.csv", [("c00000", 1, "failed", None, 1e-3, 1, 16)])],
            make_settings(),
        )


@pytest.mark.parametrize("content", ["event,pt\n1,2\n", "", "\x00\x01"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "trials.csv").write_text(content)
    with pytest.raises(
        UserError, match=r"hpo.warm_start: .*trials.csv: not a trials.csv or best.yaml"
    ):
        configurations([tmp_path / "trials.csv"], make_settings())
    (tmp_path / "best.yaml").write_text("modle: {width: 8}\n")
    with pytest.raises(UserError, match="did you mean 'model'"):
        configurations([tmp_path / "best.yaml"], make_settings())


def test_a_study_begins_with_the_winners_of_another_and_trains_for_itself(tmp_path: Path) -> None:
    other = Search(tmp_path / "other", make_settings(sampler="random", first_rung_slots=8))
    results = sorted(other.run_all(), key=lambda result: (-result["steps"], result["value"]))
    winners = list({result["config"]: result["params"] for result in results}.values())
    files = [tmp_path / "other/trials.csv"]
    choice = SelectBestSettings(**dict(other.settings))
    select_best_trial(
        choice,
        slots=other.outputs(),
        work_dir=other.work,
        manifest=other.manifest,
        best=tmp_path / "other/best.yaml",
        trials=files[0],
        plots={},
    )
    before = {path: path.read_bytes() for path in other.folder.rglob("*") if path.is_file()}
    own = Search(
        tmp_path / "own",
        make_settings(sampler="random", first_rung_slots=8).model_copy(update={"seed": 8}),
    )
    order = list(range(8))
    random.Random(3).shuffle(order)
    tried = {slot: run_first(own, slot, files) for slot in order}
    assert tried[0] == {RATE: 1e-3, LAYERS: 3, WIDTH: 64}, "the default is first"
    assert [tried[slot] for slot in (1, 2, 3)] == [
        params for params in winners if params != tried[0]
    ][:3]
    assert len({tuple(params.items()) for params in tried.values()}) == 8
    assert len(own.train.steps_made) == 8 * 5, "every configuration was trained here, once"
    assert {path: path.read_bytes() for path in other.folder.rglob("*") if path.is_file()} == before
    assert [run_first(own, slot, files) for slot in range(8)] == [tried[slot] for slot in range(8)]
    assert len(own.train.steps_made) == 8 * 5


def grown(settings: HpoSettings, **hpo: Any) -> HpoSettings:
    return settings.model_copy(update={"hpo": settings.hpo.model_copy(update=hpo)})


def test_a_running_study_takes_winners_into_its_next_new_slots(tmp_path: Path) -> None:
    search = Search(tmp_path, make_settings(sampler="random", schedule_steps=80))
    first = [run_first(search, slot, []) for slot in range(4)]
    search.settings = grown(search.settings, first_rung_slots=8)
    known = first[2]
    rows = [
        ("c00000", 1, "complete", 0.1, 3e-3, 5, 32),
        ("c00001", 1, "complete", 0.2, known[RATE], known[LAYERS], known[WIDTH]),
    ]
    files = [table(tmp_path / "trials.csv", rows)]
    assert [run_first(search, slot, files) for slot in range(4)] == first
    assert run_first(search, 6, files) == {RATE: 3e-3, LAYERS: 5, WIDTH: 32}
    assert run_first(search, 4, files) not in [*first, {RATE: 3e-3, LAYERS: 5, WIDTH: 32}], (
        "each winner is tried once"
    )
    assert len(search.train.steps_made) == 6 * 5


def test_the_first_slot_is_the_configured_one_if_asked_for() -> None:
    known = [{RATE: 3e-3, LAYERS: 5, WIDTH: 32}]
    defaults = {RATE: 1e-3, LAYERS: 3, WIDTH: 64}
    assert next_configuration(known, [], 0, defaults, default_first=False) == known[0]
    assert next_configuration(known, [], 0, defaults, default_first=True) is None
