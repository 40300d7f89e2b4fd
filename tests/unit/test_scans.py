"""Scans: their lists of trainings, equal numbers of events seen, fits and what they find, the
page's section.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from particleforge.config.load import load_run
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.saved import save_model
from particleforge.orchestration.workflow import Workflow
from particleforge.scans.points import points_of, with_steps
from particleforge.scans.power_law import PowerLaw, fit_power_law
from particleforge.scans.results import PointResult
from particleforge.scans.train import n_parameters, run_scan_training
from particleforge.tables.parquet import write_table
from particleforge.training.budget import events_after_steps
from particleforge.training.loader import ShardLoader
from particleforge.training.metrics import metrics_table
from particleforge.training.spec import TrainingResult

from .synthetic_shards import random_network, write_synthetic

CONFIG = Path(__file__).parents[2] / "config"


def run_with(**scans: Any) -> RunConfig:
    return load_run(CONFIG, {"preset": "smoke", "scans": scans})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


# ---- lists of trainings


def test_large_batches_share_what_all_rules_agree_on() -> None:
    points = points_of(
        run_with(scaling_batch={"factors": [1, 2, 8], "elements_per_batch": 128, "repeats": 2}),
        "scaling_batch",
    )
    assert len(points) == 2 * 2 * (1 + 2 * 3)
    training = points["lamb_x8_sqrt_1"].settings.training
    assert (training.optimiser, training.learning_rate, training.learning_rate_scaling) == (
        "lamb",
        1e-2,
        "sqrt",
    )
    assert (
        training.elements_per_batch,
        training.reference_elements_per_batch,
        training.accumulation_steps,
    ) == (1024, 128, 8)
    assert len({point.settings.seed for point in points.values()}) == 2
    plain = [json.dumps(point.settings.plain(), sort_keys=True) for point in points.values()]
    assert len(set(plain)) == len(points)


@pytest.mark.parametrize(
    ("scan", "smaller", "larger"),
    [
        ("scaling_batch", {"factors": [1, 2]}, {"factors": [1, 2, 4], "repeats": 2}),
        ("fine_tuning", {"train_events": [10, 20]}, {"train_events": [5, 10, 20], "repeats": 2}),
        (
            "scaling_law",
            {"train_events": [10, 20]},
            {"train_events": [10, 20, 40], "model_sizes": [{"width": 8, "n_layers": 1}]},
        ),
    ],
)
def test_a_larger_scan_keeps_the_trainings_that_it_had(
    scan: Any, smaller: dict[str, Any], larger: dict[str, Any]
) -> None:
    if scan == "scaling_law":
        smaller = {**smaller, "model_sizes": []}
    few = points_of(run_with(**{scan: smaller}), scan)
    many = points_of(run_with(**{scan: larger}), scan)
    assert few.items() < many.items()


def test_only_the_starts_differ_in_fine_tuning() -> None:
    points = points_of(run_with(fine_tuning={"train_events": [10, 20]}), "fine_tuning")
    assert [
        (p.starts_from_source, p.settings.training.max_train_events) for p in points.values()
    ] == [(False, 10), (True, 10), (False, 20), (True, 20)]
    assert points["scratch_10_0"].settings == points["fine_tuned_10_0"].settings


def test_a_training_validates_evenly_and_ends_with_its_schedule() -> None:
    point = points_of(
        run_with(scaling_law={"n_validations": 4, "warmup_fraction": 0.2}), "scaling_law"
    )["events_10_0"]
    training = with_steps(point, 50).training
    assert (
        training.max_steps,
        training.schedule_length,
        training.valid_every_steps,
        training.warmup_steps,
    ) == (50, 50, 13, 10)


@pytest.mark.fault("unknown configuration key")
@pytest.mark.parametrize(
    ("scans", "words"),
    [
        ({"scaling_batch": {"factors": [2, 4]}}, "factors must begin with 1"),
        ({"scaling_batch": {"factors": [1, 4, 2]}}, "must rise"),
        ({"scaling_batch": {"learning_rates": {"sgd": 0.1}}}, "learning_rates.sgd"),
        ({"fine_tuning": {"train_events": [10, 10]}}, "must rise"),
        (
            {"scaling_law": {"model_sizes": [{"width": 10, "n_layers": 1}]}},
            "n_heads = 4 must divide width = 10",
        ),
        ({"scaling_law": {"train_events": [], "model_sizes": []}}, "both empty"),
    ],
)
def test_mistakes_are_one_line(scans: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        run_with(**scans)
    assert "scans." in str(caught.value)


def workflow(**changes: Any) -> Workflow:
    return Workflow([CONFIG], {"preset": "smoke", **changes})


def test_fine_tuning_takes_the_other_detectors_model_as_an_input() -> None:
    run = workflow(
        detector="cld",
        scans={"fine_tuning": {"from_detector": "clic"}},
        report={"scans": ["fine_tuning", "scaling_law"]},
    )
    assert run.run.detector == ("cld",)
    assert run.scans.source(SimpleNamespace(detector="cld", scan="fine_tuning")) == [
        "results/clic/train/best.pt"
    ]
    assert run.scans.source(SimpleNamespace(detector="cld", scan="scaling_law")) == []
    assert run.scans.results("fine_tuning")(None)[0] == "results/cld/scans/fine_tuning.json"
    shown = run.scans.in_report(run.paths.scan)
    assert shown(SimpleNamespace(detector="cld")) == [
        "results/cld/scans/fine_tuning.json",
        "results/cld/scans/scaling_law.json",
    ]
    assert shown(SimpleNamespace(detector="clic")) == ["results/clic/scans/scaling_law.json"]


@pytest.mark.fault("unknown configuration key")
def test_fine_tuning_without_another_detector_is_refused() -> None:
    with pytest.raises(UserError, match=r"scans\.fine_tuning\.from_detector: is not set"):
        workflow().scans.results("fine_tuning")(None)
    run = workflow(detector="clic", scans={"fine_tuning": {"from_detector": "clic"}})
    with pytest.raises(
        UserError, match=r"scans\.fine_tuning\.from_detector: clic is the only detector"
    ):
        run.scans.results("fine_tuning")(None)
    with pytest.raises(
        UserError, match=r"scans\.scaling_law: has no training none_0; there are: events_"
    ):
        workflow().scans.point(SimpleNamespace(scan="scaling_law", point="none_0"))


# ---- one training


@pytest.mark.parametrize("max_events", [None, 9])
@pytest.mark.parametrize("budget", [128, 512])
def test_all_batches_see_equally_many_events(
    manifest: Path, budget: int, max_events: int | None
) -> None:
    inputs = ModelInputs.from_manifest(manifest)
    loader = ShardLoader(
        manifest, "train", inputs, budget=budget, shards_in_memory=2, seed=1, max_events=max_events
    )
    seen = events_after_steps(loader, 400)
    stream, total = loader.stream(0, 0), 0
    for expected in seen:
        total += next(stream)[3]
        assert total == expected
    largest = max(np.diff(seen, prepend=0))
    assert abs(seen[-1] - 400) <= largest / 2


class Trained:
    """Stands in for a training: keeps what it was asked for and answers with fixed losses."""

    def __init__(self, folder: Path, status: str = "complete") -> None:
        self.folder, self.status, self.specs = folder, status, []

    def __call__(self, spec: Any, ranks: int) -> TrainingResult:
        self.specs.append((spec, ranks))
        rows = [
            {"step": step, "epoch": 0, "split": "train", "values": {"loss": 1 / step}}
            for step in (1, spec.until_step)
        ]
        table = metrics_table(rows)
        write_table(self.folder / "metrics.parquet", [table], table.schema, {})
        curve = [[1, 0.9], [spec.until_step, 0.6]]
        return TrainingResult(
            self.status,
            "because",
            spec.until_step,
            0.6,
            0.5,
            curve,
            metrics=self.folder / "metrics.parquet",
        )  # type: ignore[arg-type]


def test_a_result_says_what_was_trained(manifest: Path, tmp_path: Path) -> None:
    point = points_of(
        run_with(scaling_law={"train_events": [20], "events_seen": 90, "n_validations": 3}),
        "scaling_law",
    )["events_20_0"]
    trained = Trained(tmp_path)
    run_scan_training(
        point,
        manifest=manifest,
        source=None,
        work_dir=tmp_path / "work",
        output=tmp_path / "point.json",
        train=trained,
    )
    (spec, ranks), content = trained.specs[0], json.loads((tmp_path / "point.json").read_text())
    assert ranks == 1
    assert content["steps"] == spec.until_step == spec.settings.training.max_steps
    assert spec.settings.training.max_train_events == content["train_events"] == 20
    assert content["curve"][-1] == [content["steps"], content["events_seen"], 0.6]
    assert (content["loss"], content["last_loss"], content["train_loss"]) == (
        0.5,
        0.6,
        1 / content["steps"],
    )
    assert content["parameters"] == n_parameters(spec.settings, manifest)
    assert json.loads((tmp_path / "point.json.provenance.json").read_text())["part"] == {
        "scan": "scaling_law",
        "point": "events_20_0",
    }


def test_fine_tuned_trainings_have_the_sources_architecture_and_start_from_it(
    manifest: Path, tmp_path: Path
) -> None:
    run = run_with(fine_tuning={"train_events": [20], "events_seen": 40})
    inputs = ModelInputs.from_manifest(manifest)
    other = run.model.model_copy(update={"width": 24})
    content = {
        "weights": random_network(inputs, other).state_dict(),
        "model": other.model_dump(mode="json"),
        "inputs": inputs.plain(),
    }
    save_model(tmp_path / "best.pt", content)
    trained = Trained(tmp_path)
    for point in points_of(run, "fine_tuning").values():
        run_scan_training(
            point,
            manifest=manifest,
            source=tmp_path / "best.pt",
            work_dir=tmp_path / "work",
            output=tmp_path / f"{point.name}.json",
            train=trained,
        )
    scratch, tuned = (spec.settings for spec, _ in trained.specs)
    assert scratch.model == tuned.model == other
    assert (scratch.training.init_from, tuned.training.init_from) == (
        None,
        str(tmp_path / "best.pt"),
    )


def test_divergence_is_a_result_and_interruption_is_not(manifest: Path, tmp_path: Path) -> None:
    point = points_of(
        run_with(scaling_batch={"events_seen": 50, "factors": [1, 8]}), "scaling_batch"
    )["adamw_x8_linear_0"]
    run_scan_training(
        point,
        manifest=manifest,
        source=None,
        work_dir=tmp_path,
        output=tmp_path / "point.json",
        train=Trained(tmp_path, "diverged"),
    )
    found = PointResult.read(tmp_path / "point.json")
    assert (found.status, found.loss, found.train_loss) == ("diverged", None, None)
    with pytest.raises(UserError, match="training interrupted: because; run it again"):
        run_scan_training(
            point,
            manifest=manifest,
            source=None,
            work_dir=tmp_path,
            output=tmp_path / "other.json",
            train=Trained(tmp_path, "interrupted"),
        )
    assert not (tmp_path / "other.json").exists()


def test_more_events_than_there_are_is_refused(manifest: Path, tmp_path: Path) -> None:
    point = points_of(run_with(scaling_law={"train_events": [121]}), "scaling_law")["events_121_0"]
    with pytest.raises(
        UserError,
        match=r"scans\.scaling_law\.train_events: 121, but .*manifest\.json has 120 events",
    ):
        run_scan_training(
            point,
            manifest=manifest,
            source=None,
            work_dir=tmp_path,
            output=tmp_path / "point.json",
            train=Trained(tmp_path),
        )


# ---- fits and summaries


def test_the_fit_finds_the_law_and_its_errors_cover() -> None:
    rng, sizes = np.random.default_rng(1), np.array([100, 300, 1000, 3000, 10_000, 30_000])
    pulls = []
    for _ in range(60):
        fit = fit_power_law(sizes, 3 * sizes**-0.5 + 0.4 + rng.normal(0, 0.003, len(sizes)))
        assert isinstance(fit, PowerLaw)
        found = fit.plain()
        pulls.append(
            [
                (found[name]["value"] - true) / found[name]["error"]
                for name, true in (("a", 3), ("b", 0.5), ("c", 0.4))
            ]
        )
    covered = (np.abs(pulls) < 1).mean(axis=0)
    assert (covered > 0.4).all()
    assert (covered < 0.85).all()  # 68 % for many points; three degrees of freedom cover about 61 %
    assert (np.abs(np.median(pulls, axis=0)) < 0.5).all()


def test_the_exact_law_is_found_exactly() -> None:
    sizes = [10, 100, 1000, 10_000]
    fit = fit_power_law(sizes, [5 * n**-0.3 + 0.2 for n in sizes])
    assert isinstance(fit, PowerLaw)
    assert [fit.plain()[name]["value"] for name in "abc"] == pytest.approx([5, 0.3, 0.2], rel=1e-4)
    assert fit.at(1e5)[0] == pytest.approx(5 * 1e5**-0.3 + 0.2, rel=1e-4)


def test_a_law_without_a_floor_has_none() -> None:
    sizes = np.array([10, 30, 100, 300, 1000])
    # bends down, so that the best floor is negative
    fit = fit_power_law(sizes, 2 * sizes**-0.4 - 0.02)
    assert isinstance(fit, PowerLaw)
    assert fit.floor_is_fixed
    assert fit.plain()["c"] == {"value": 0.0, "error": None}
    assert fit.at([10.0])[1] > 0


@pytest.mark.parametrize(
    ("sizes", "losses", "reason"),
    [
        ([1, 2, 3], [3, 2, 1], "3 sizes"),
        ([1, 1, 2, 3], [3, 3, 2, 1], "3 sizes"),
        ([1, 2, 3, 4], [1, 1, 1, 1], "all the same"),
        ([1, 10, 100, 1000], [1, 1.1, 1.2, 1.3], "does not fall"),
    ],
)
def test_what_cannot_be_fitted_is_said(
    sizes: list[float], losses: list[float], reason: str
) -> None:
    assert reason in str(fit_power_law(sizes, losses))
