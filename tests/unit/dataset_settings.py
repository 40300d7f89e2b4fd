"""Settings of the dataset stage for tests, from the shipped configuration."""

from functools import cache
from pathlib import Path

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings

CONFIG = Path(__file__).parents[2] / "config"


@cache
def _shipped(detector):
    return DatasetSettings.of(load_run(CONFIG), load_detector(CONFIG, detector), sample_name="test")


def dataset_settings(detector="clic", **changes):
    """Return the dataset stage's settings of a shipped detector."""
    return _shipped(detector).model_copy(update=changes)
