"""What comes of a scan: its comparisons, its fit, its page."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from particleforge.artefacts import write_json
from particleforge.config.load import load_detector
from particleforge.config.settings import ScanSettings
from particleforge.paths import SCAN_PLOTS
from particleforge.report.scans import gather_scans
from particleforge.scans import fine_tuning, scaling_batch, scaling_law
from particleforge.scans.gather import gather_scan
from particleforge.scans.results import PointResult, mean_loss

from .test_scans import CONFIG, run_with


def result(loss: float | None, labels: dict[str, Any], **sizes: Any) -> PointResult:
    known = {
        "steps": 10,
        "events_seen": 100,
        "train_events": 50,
        "elements_per_batch": 64,
        "learning_rate": 0.1,
        "parameters": 9,
    }
    status, train = ("complete", 0.8 * loss) if loss is not None else ("diverged", None)
    curve = [(5, 50, 2.0), (10, 100, loss or 9.0)]
    name = "_".join(map(str, labels.values()))
    return PointResult(
        **{"point": name, "labels": {**labels, "repeat": 0}, "status": status, "curve": curve},
        **{"loss": loss, "last_loss": loss, "train_loss": train, **known, **sizes},
    )


def batch_results() -> list[PointResult]:
    small: dict[tuple[str, int], list[float | None]] = {
        ("any", 1): [1.0, 1.2],
        ("none", 2): [1.1, 1.1],
        ("none", 4): [1.32, 1.32],
    }
    return [
        result(
            loss,
            {"optimiser": "adamw", "rule": rule, "factor": factor},
            elements_per_batch=64 * factor,
        )
        for (rule, factor), found in (
            small | {("linear", 2): [1.0, 1.0], ("linear", 4): [None, None]}
        ).items()
        for loss in found
    ]


def tuning_results() -> list[PointResult]:
    losses = {
        "scratch": {10: 2.0, 100: 1.0, 1000: 0.5},
        "fine_tuned": {10: 1.0, 100: 0.75, 1000: 0.45},
    }
    return [
        result(loss, {"start": start, "train_events": n}, train_events=n)
        for start, found in losses.items()
        for n, loss in found.items()
    ]


def law_results() -> list[PointResult]:
    events = [
        result(4 * n**-0.4 + 0.3, {"axis": "events", "train_events": n}, train_events=n)
        for n in (10, 40, 160, 640, 2560)
    ]
    return events + [
        result(9 / n, {"axis": "parameters", "width": n}, parameters=n) for n in (10, 20)
    ]


def test_large_batches_are_compared_with_the_small_one() -> None:
    found = {
        entry["rule"]: entry["points"]
        for entry in scaling_batch.summarise(batch_results())["series"]
    }
    assert (
        [p["factor"] for p in found["none"]] == [p["factor"] for p in found["linear"]] == [1, 2, 4]
    )
    assert [p["change"] for p in found["none"]] == pytest.approx([0, 0, 0.2])
    assert found["none"][0]["loss"] == {
        "value": pytest.approx(1.1),
        "error": pytest.approx(0.1),
        "n": 2,
        "n_diverged": 0,
    }
    assert found["linear"][2]["loss"] == {"value": None, "error": None, "n": 0, "n_diverged": 2}
    assert found["linear"][2]["change"] is None


def test_one_divergence_of_two_is_counted_and_most_leave_no_mean() -> None:
    labels = {"rule": "none"}
    assert mean_loss([result(1.0, labels), result(None, labels)]) == {
        "value": 1.0,
        "error": None,
        "n": 1,
        "n_diverged": 1,
    }
    assert (
        mean_loss([result(1.0, labels), result(None, labels), result(None, labels)])["value"]
        is None
    )


def test_fine_tuning_is_worth_events() -> None:
    worth = {
        entry["train_events"]: entry for entry in fine_tuning.summarise(tuning_results())["worth"]
    }
    assert (worth[10]["factor"], worth[10]["bound"]) == (pytest.approx(10), None)
    assert (worth[100]["factor"], worth[100]["bound"]) == (pytest.approx(10**0.5), None)
    assert (worth[1000]["factor"], worth[1000]["bound"]) == (pytest.approx(1), "lower")
    worse = fine_tuning.worth_from_scratch(
        100, 3.0, {10: {"value": 2.0}, 100: {"value": None}, 1000: {"value": 1.0}}
    )
    assert (worse["events_from_scratch"], worse["bound"]) == (pytest.approx(10), "upper")


def test_a_law_has_a_fit_and_a_forecast_where_there_are_sizes_enough() -> None:
    found = scaling_law.summarise(law_results())
    assert found["events"]["fit"]["b"]["value"] == pytest.approx(0.4, rel=1e-3)
    assert found["events"]["forecast"]["value"] == pytest.approx(4 * 25600**-0.4 + 0.3, rel=1e-3)
    assert (found["parameters"]["fit"], found["parameters"]["forecast"]) == (
        {"reason": found["parameters"]["fit"]["reason"]},
        None,
    )


@pytest.mark.parametrize(
    ("scan", "results", "words"),
    [
        (
            "scaling_batch",
            batch_results(),
            ["adamw at x4: +20.0% with its best rule, none", "2 of them diverged"],
        ),
        ("fine_tuning", tuning_results(), ["6 trainings"]),
        (
            "scaling_law",
            law_results(),
            ["Against training events, L = a N^-b + c: b = 0.40", "no fit (2 sizes"],
        ),
    ],
)
def test_a_scan_is_gathered_and_shown(
    scan: Any, results: list[PointResult], words: list[str], tmp_path: Path
) -> None:
    files = []
    for number, found in enumerate(results):
        files.append(tmp_path / f"points/{number}.json")
        write_json(files[-1], {"scan": scan, **found.model_dump()})
    settings = ScanSettings.of(run_with(), load_detector(CONFIG, "clic"))
    output = tmp_path / f"{scan}.json"
    rows = tmp_path / f"{scan}.csv"
    plots = tmp_path / scan / "plots"
    gather_scan(settings, scan, points=files, summary=output, table=rows, plots=plots)
    first = output.read_bytes(), rows.read_bytes()
    expected = sorted(f"{name}.{kind}" for name in SCAN_PLOTS[scan] for kind in ("png", "pdf"))
    assert sorted(path.name for path in plots.glob("*.p*")) == expected
    assert len(pd.read_csv(rows)) == len(results)
    assert Path(f"{plots}.provenance.json").exists()
    shown = gather_scans([output], [plots])[0]
    assert [picture.name for picture in shown.plots] == list(SCAN_PLOTS[scan])
    for word in words:
        assert word in shown.text
    assert all(len(row) == len(shown.rows.heads) for row in shown.rows.rows)
    gather_scan(settings, scan, points=files, summary=output, table=rows, plots=plots)
    assert (output.read_bytes(), rows.read_bytes()) == first
