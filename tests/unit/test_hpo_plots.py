"""The plots of a search: they draw whatever a search leaves behind, and their numbers are right."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from particleforge.hpo.cost import costs
from particleforge.hpo.drawing import Budgets, loss_limit, plain_names
from particleforge.hpo.parallel import category_scale, number_scale
from particleforge.hpo.plots import importances, write_plots
from particleforge.hpo.timeline import busy_share, lanes, time_unit
from particleforge.hpo.trials import furthest_of, in_order
from particleforge.paths import HPO_PLOTS

from .hpo_trials import finished_search, search_settings


def test_every_plot_is_drawn_as_png_and_pdf(tmp_path: Path) -> None:
    settings = search_settings(9)
    trials = finished_search(settings, 3, failing=0.3)
    winner = in_order(furthest_of(trials))[0]
    write_plots(trials, settings, winner, {name: tmp_path / f"{name}.png" for name in HPO_PLOTS})
    for name in HPO_PLOTS:
        assert imread(tmp_path / f"{name}.png").std() > 0.05, name
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_plots_without_times_depend_on_the_trials_alone(tmp_path: Path) -> None:
    settings = search_settings(3)
    trials = finished_search(settings, 2)
    later = [
        replace(
            t, started=(t.started or 0) + 9, ended=(t.ended or 0) + 99, seconds=2 * (t.seconds or 0)
        )
        for t in trials
    ]
    names = ("rungs", "parallel")
    for folder, found in (("one", trials), ("two", later)):
        (tmp_path / folder).mkdir()
        write_plots(
            found,
            settings,
            in_order(furthest_of(found))[0],
            {name: tmp_path / folder / f"{name}.png" for name in names},
        )
    for name in names:
        assert (tmp_path / "one" / f"{name}.png").read_bytes() == (
            tmp_path / "two" / f"{name}.png"
        ).read_bytes()
        assert (tmp_path / "one" / f"{name}.pdf").read_bytes() == (
            tmp_path / "two" / f"{name}.pdf"
        ).read_bytes()


def test_a_search_of_one_configuration_without_times_or_space_is_drawn(tmp_path: Path) -> None:
    settings = search_settings(1, space={}, include_default=False)
    (trial,) = finished_search(settings, 1, failing=0.0)
    bare = replace(trial, params={}, started=None, ended=None, seconds=None)
    write_plots([bare], settings, bare, {name: tmp_path / f"{name}.png" for name in HPO_PLOTS})
    assert importances([bare], settings) == {}


def test_lanes_never_overlap_and_are_few() -> None:
    rng = np.random.default_rng(3)
    starts = np.sort(rng.uniform(0, 10, 200))
    spans = [
        (float(a), float(a + d)) for a, d in zip(starts, rng.exponential(0.5, 200), strict=True)
    ]
    rows = lanes(spans)
    for lane in set(rows):
        own = [span for span, row in zip(spans, rows, strict=True) if row == lane]
        assert all(one[1] <= two[0] for one, two in pairwise(own))
    most = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
    assert len(set(rows)) == max(rows) + 1 == most


def test_busy_share_and_units_of_time() -> None:
    assert busy_share([(0.0, 4.0), (0.0, 1.0), (3.0, 4.0)], 2) == pytest.approx(6 / 8)
    assert [time_unit(s)[1] for s in (20, 600, 3 * 3600, 5 * 86400)] == [
        "seconds",
        "minutes",
        "hours",
        "days",
    ]


def test_costs_add_up() -> None:
    settings = search_settings(27, ranks=4)
    trials = finished_search(settings, 5, failing=0.3)
    found = costs(trials, settings)
    assert [cost.rung for cost in found] == sorted({t.rung for t in trials})
    assert sum(cost.n_trials for cost in found) == len(trials)
    assert sum(cost.rank_hours for cost in found) == pytest.approx(
        4 * sum(t.seconds or 0 for t in trials) / 3600
    )
    assert sum(cost.failed for cost in found) == pytest.approx(
        4 * sum(t.seconds or 0 for t in trials if t.value is None) / 3600
    )


def test_outliers_do_not_squash_the_loss_axis() -> None:
    assert loss_limit([1.0, 1.1, 1.2, 1.3]) == 1.3
    assert loss_limit([1.0, 1.1, 1.2, 1.3, 1e6]) < 3
    assert loss_limit([]) == np.inf


def test_scales_of_parallel_coordinates() -> None:
    scale = number_scale([1e-4, 1e-2, 1e-3], log=True)
    assert [scale.place(x) for x in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [label for _, label in scale.ticks] == ["0.0001", "0.001", "0.01"]
    assert [label for _, label in number_scale([1, 6], log=False).ticks] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]
    assert number_scale([3.0], log=False).place(3.0) == 0.5
    scale = category_scale([True, 1.0, "a"])
    assert len({scale.place(x) for x in (True, 1.0, "a")}) == 3


def test_plain_names_tell_settings_apart() -> None:
    names = plain_names(
        ["training.learning_rate", "training.loss.momentum", "model.dropout", "training.dropout"]
    )
    assert list(names.values()) == [
        "learning rate",
        "loss momentum",
        "model dropout",
        "training dropout",
    ]


def test_budgets_have_colours_of_their_own() -> None:
    settings = search_settings(9)
    budgets = Budgets(finished_search(settings, 3, failing=0.0), settings.hpo)
    assert [budgets.label(rung) for rung in budgets.rungs] == ["60 steps", "180 steps", "540 steps"]
    assert (
        len({budgets.colour(rung) for rung in budgets.rungs})
        == len({budgets.marker(rung) for rung in budgets.rungs})
        == 3
    )
