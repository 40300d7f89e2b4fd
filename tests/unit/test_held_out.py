"""A sample that is held out: never trained on, validated by itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run, validate
from particleforge.config.settings import CutflowSettings, SelectSettings, ShardSettings
from particleforge.errors import UserError
from particleforge.orchestration.files import Files
from particleforge.paths import Paths
from particleforge.selection.select import select_events
from particleforge.tables import parquet
from particleforge.validation.histograms import without_held_out
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.validate import fill_histograms

from .synthetic import synthetic_events, write_dataset
from .validation_inputs import CONFIG, many_events, validate_settings, visible, write_pair

RUN = load_run(CONFIG, {"preset": "smoke"})
CLIC = load_detector(CONFIG, "clic")


def holding_out(*names: str) -> DetectorConfig:
    content = CLIC.model_dump(mode="json")
    for name in names:
        content["samples"][name]["held_out"] = True
    return validate(DetectorConfig, content, "clic.yaml")


def test_only_the_selection_of_the_sample_changes() -> None:
    detector = holding_out("ww")
    of = SelectSettings.of
    assert of(RUN, detector, sample_name="ww").plain()["held_out"] is True
    for name in ("qq", "a name of the command line"):
        before = of(RUN, CLIC, sample_name=name).plain()
        assert of(RUN, detector, sample_name=name).plain() == before
        assert "held_out" not in before
    assert ShardSettings.of(RUN, detector) == ShardSettings.of(RUN, CLIC)
    assert "held_out" not in str(CutflowSettings.of(RUN, CLIC).plain())


def test_all_of_its_events_are_test_events(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in.parquet", synthetic_events(60, 8), row_group_size=20)
    select_events(
        SelectSettings.of(RUN, holding_out("ww"), sample_name="ww"),
        dataset=source,
        output=tmp_path / "out.parquet",
        cutflow=tmp_path / "out.json",
    )
    assert set(parquet.read_table(tmp_path / "out.parquet").split.to_list()) == {"test"}


def test_its_files_are_not_among_those_of_the_training_shards() -> None:
    paths = Paths(RUN.results_dir)
    files = Files(RUN, {"clic": holding_out("ww")}, paths, None)
    job = SimpleNamespace(detector="clic")
    everything = files.shards(paths.selected)(job)
    trained = files.trained_shards(paths.selected)(job)
    left_out = sorted(set(everything) - set(trained))
    assert left_out
    assert all("/ww/" in path for path in left_out)
    assert all("/ww/" not in path for path in trained)


def test_something_is_left_to_train_on() -> None:
    with pytest.raises(UserError, match=r"samples: all are held_out \(ttbar, qq, ww\)"):
        holding_out("ttbar", "qq", "ww")


def test_figures_of_all_samples_leave_it_out(tmp_path: Path) -> None:
    pairs = []
    for sample, seed, scale in (("ttbar", 1, 1.0), ("ww", 2, 0.8)):
        events = many_events(45, seed=seed, mean_particles=15)
        pairs.append(write_pair(tmp_path, events, visible(events, scale=scale), sample=sample))
    settings = validate_settings()
    samples = {n: one for n, one in settings.samples.items() if n != "qq"}
    samples["ww"] = samples["ww"].model_copy(update={"held_out": True})
    settings = settings.model_copy(update={"samples": samples})
    hists = fill_histograms(settings, *zip(*pairs, strict=True))
    figures = compute_metrics(hists, settings)
    assert figures["held_out"] == ["ww"]
    assert figures["n_events"] == figures["by_sample"]["ttbar"]["n_events"] == 30
    assert figures["by_sample"]["ww"]["n_events"] == 30
    alone = figures["by_sample"]["ttbar"]["visible_energy"]["mlpf"]["median"]["value"]
    assert (
        figures["visible_energy"]["mlpf"]["median"]["value"] == alone == pytest.approx(1, abs=1e-4)
    )
    ww = figures["by_sample"]["ww"]["visible_energy"]["mlpf"]["median"]["value"]
    assert ww == pytest.approx(0.8, abs=1e-3)
    assert figures["jets"]["inclusive"]["mlpf"] != figures["by_sample"]["ww"]["jets"]["inclusive"]
    assert "dijet_mass" not in figures  # only ww has them
    assert figures["by_sample"]["ww"]["dijet_mass"]["truth"]["n"] is not None
    assert hists["events"]["ww"] == 30  # as filled
    assert without_held_out(hists, settings)["jet_truth"]["ww", ...].sum(flow=True).value == 0
