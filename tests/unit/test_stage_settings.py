"""What plots call things is a setting of the stages that draw, of no other."""

from collections.abc import Iterator
from typing import Any

import pytest

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run, validate
from particleforge.config.settings import (
    CutflowSettings,
    FetchSettings,
    ReportSettings,
    ScanSettings,
    StageSettings,
    ValidateSettings,
    dataset_settings,
    simulate_settings,
)

from .simulation_fixtures import CONFIG

RUN = load_run(CONFIG)
DETECTOR = load_detector(CONFIG, "clic")
DRAWING = {CutflowSettings, ReportSettings, ScanSettings, ValidateSettings}


def renamed() -> DetectorConfig:
    """Return the detector with another title, other labels and other ranges of plots."""
    content: dict[str, Any] = DETECTOR.model_dump(mode="json")
    content["title"] = "Another title"
    for named in (*content["particle_classes"], *content["samples"].values()):
        named["label"] += " by another name"
    content["plots"]["met_max_gev"] += 1
    return validate(DetectorConfig, content, "clic.yaml")


def stages(base: type[StageSettings] = StageSettings) -> Iterator[type[StageSettings]]:
    """Yield the settings of all stages that read the configuration."""
    for stage in base.__subclasses__():
        yield stage
        yield from stages(stage)


def plain(stage: type[StageSettings], detector: DetectorConfig) -> dict[str, Any]:
    if stage.__name__ == "SimulateSettings":
        return simulate_settings(RUN, detector, "ttbar").plain()
    if stage.__name__ == "DatasetSettings":
        return dataset_settings(RUN, detector, "ttbar").plain()
    own = {"sample_name": "ttbar"} if "sample_name" in stage.model_fields else {}
    return stage.of(RUN, detector, **own).plain()


@pytest.mark.parametrize(
    "stage", [stage for stage in stages() if stage is not FetchSettings], ids=lambda s: s.__name__
)
def test_a_name_on_a_plot_is_a_setting_of_what_draws_alone(stage: type[StageSettings]) -> None:
    before, after = plain(stage, DETECTOR), plain(stage, renamed())
    assert (before != after) is (stage in DRAWING)
    assert ("label" in str(before)) is (stage in DRAWING - {ScanSettings})


def test_settings_of_a_job_are_those_that_its_rule_gave() -> None:
    settings = dataset_settings(RUN, DETECTOR, "ttbar")
    assert type(settings).model_validate(settings.plain()) == settings
