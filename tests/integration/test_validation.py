"""The validation as a stage: all its files, twice the same."""

import json
from pathlib import Path

import pytest

from particleforge.validation.captions import captions
from particleforge.validation.validate import validate_model

from ..unit.validation_inputs import many_events, smeared, validate_settings, write_pair


@pytest.mark.integration
def test_validation_writes_everything_and_the_same_twice(tmp_path: Path) -> None:
    settings = validate_settings()
    few = settings.validation.model_copy(update={"n_bootstrap": 10})
    settings = settings.model_copy(update={"validation": few})
    pairs = []
    for seed, sample in enumerate(settings.samples):
        events = many_events(60, seed)
        pairs.append(
            write_pair(
                tmp_path, events, smeared(events, seed, width=0.05, efficiency=0.97), sample=sample
            )
        )
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        files = folder / "metrics.json", folder / "histograms.json", folder / "plots"
        validate_model(
            settings,
            selected=[pair[0] for pair in pairs],
            reconstructed=[pair[1] for pair in pairs],
            metrics=files[0],
            histograms=files[1],
            plots=files[2],
        )
    made = sorted(
        path.relative_to(folders[0])
        for path in folders[0].rglob("*.*")
        if not path.name.endswith(".provenance.json")
    )
    expected = {
        f"plots/{name}.{suffix}"
        for name in captions(settings.particle_classes)
        for suffix in ("png", "pdf")
    }
    assert {str(path) for path in made} == expected | {"metrics.json", "histograms.json"}
    for path in made:
        assert (folders[0] / path).read_bytes() == (folders[1] / path).read_bytes(), path
    figures = json.loads((folders[0] / "metrics.json").read_text(encoding="utf-8"))
    assert (
        sum(of_sample["n_events"] for of_sample in figures["by_sample"].values())
        == figures["n_events"]
        == 3 * 40
    )
