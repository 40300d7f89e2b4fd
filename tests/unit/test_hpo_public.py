"""The benchmark on public learning curves, its parts played on a small table made here."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N = 300


@pytest.fixture
def hpo_public(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("hpo_public")


@pytest.fixture
def path(hpo_public: Any, tmp_path: Path) -> Path:
    """A table whose losses fall to what the learning rate sets; one row diverges."""
    rng = np.random.default_rng(0)
    unit = rng.random((N, len(hpo_public.RANGES)))
    columns = {}
    for column, (name, (low, high)) in zip(unit.T, hpo_public.RANGES.items(), strict=True):
        values = low * (high / low) ** column
        columns[name] = 1 - values if name.startswith("beta") else values
    ends = 1 + np.abs(unit[:, 0] - 0.6)
    valid = ends[:, None] + 1 / np.arange(1, 52)
    valid[3, 5:] = math.nan
    test = valid + 0.1
    table = pa.table({**columns, "valid": valid.tolist(), "test": test.tolist()})
    pq.write_table(table, tmp_path / "bowl.parquet")
    return tmp_path / "bowl.parquet"


def test_a_table_is_read_into_the_unit_cube_and_back(hpo_public: Any, path: Path) -> None:
    table = hpo_public.Table.read(path)
    assert table.unit.shape == (N, 8)
    assert 0 <= table.unit.min() < 0.01 < 0.99 < table.unit.max() <= 1
    assert table.n_points == 50
    unused = hpo_public.Unused(table)
    assert unused.nearest(table.unit[7]) == 7
    assert unused.nearest(table.unit[7]) != 7


def test_searches_spend_what_nine_full_trainings_do(hpo_public: Any, path: Path) -> None:
    table = hpo_public.Table.read(path)
    hpo = hpo_public.settings_of("asha/random eta 3")
    assert [table.points_at(hpo, rung) for rung in range(4)] == [2, 6, 17, 50]
    early = hpo_public.settings_of("asha/random eta 7", 2)
    assert [table.points_at(early, rung) for rung in range(3)] == [1, 7, 50]
    assert early.first_rung_slots == 360
    spent = hpo_public.points_spent(table, 1)
    assert spent == 81 * 2 + 27 * 4 + 9 * 11 + 3 * 33
    assert abs(spent / 450 - 1) < 0.05


def test_a_training_that_diverged_is_as_good_as_none(hpo_public: Any, path: Path) -> None:
    table = hpo_public.Table.read(path)
    assert table.regret(3)["valid"] == pytest.approx(table.valid[3, 0] - np.nanmin(table.valid))
    assert table.regret(int(np.nanargmin(table.valid[:, -1]))) == {"test": 0, "valid": 0}


@pytest.mark.parametrize(
    "name",
    [
        "asha/random eta 7",
        "asha/qmc eta 3",
        "random x20",
        "top after one point",
        "optuna random/halving",
    ],
)
def test_searches_find_what_is_good_and_again_the_same(
    hpo_public: Any, path: Path, name: str
) -> None:
    regret, _ = hpo_public.one((path, name, 1, 5))
    losses = hpo_public.Table.read(path)
    some = [losses.regret(row)["valid"] for row in range(N)]
    assert regret["valid"] < np.quantile(some, 0.1)
    assert hpo_public.one((path, name, 1, 5))[0] == regret


def test_ratios_are_paired_and_their_intervals_hold_them(hpo_public: Any) -> None:
    others = np.random.default_rng(1).exponential(size=40)
    ratio, low, high = hpo_public.interval(2 * others, others)
    assert (ratio, low, high) == (2, 2, 2)
    ratio, low, high = hpo_public.interval(others[::-1], others)
    assert low < ratio == 1 < high


def test_the_worth_is_the_multiple_at_which_random_search_is_as_good(hpo_public: Any) -> None:
    random = {m: [1 / m] for m in hpo_public.MULTIPLES}
    assert hpo_public.worth([0.2], random) == 5
    assert hpo_public.worth([2.0], random) == 0
    assert hpo_public.worth([0.0], random) == 20


def test_the_last_line_judges_the_worst_task(hpo_public: Any) -> None:
    rows = {
        f"random x{multiple}": {"a": [1 / multiple] * 3, "b": [1.0] * 3}
        for multiple in hpo_public.MULTIPLES
    }
    rows[hpo_public.REFERENCE] = {"a": [0.1] * 3, "b": [0.5] * 3}
    rows["asha/qmc eta 3"] = {"a": [0.3] * 3, "b": [0.5] * 3}
    told = hpo_public.judged(hpo_public.summary(rows), "asha/qmc eta 3")
    assert told["worst_regret_ratio_to_asha_random"] == 3
    assert told["tasks_at_random_x5"] == 1
    assert told["to_asha_random"]["b"] == (1, 1, 1)
