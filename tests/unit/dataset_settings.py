"""Settings of the dataset stage for tests, from the shipped configuration."""

from functools import cache
from pathlib import Path

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings

# of a file of made-up events, which need not be like any detector's
NO_LIMITS = {
    "visible_energy_fraction_min": 0.0,
    "dropped_energy_fraction_max": 1.0,
    "dropped_objects_fraction_max": 1.0,
    "orphan_energy_fraction_max": 1.0,
    "faint_energy_fraction_max": 1.0,
    "empty_events_fraction_max": 1.0,
    "track_pt_deviation_max": 1e9,
}
CONFIG = Path(__file__).parents[2] / "config"


@cache
def _shipped(detector):
    return DatasetSettings.of(load_run(CONFIG), load_detector(CONFIG, detector), sample_name="test")


def dataset_settings(detector="clic", **changes):
    """Return the dataset stage's settings of a shipped detector."""
    return _shipped(detector).model_copy(update=changes)
