"""A copy of the package whose jobs edit files as they end, as a user may who works on.

``simulate_events`` edits the chain's preset and its detector, ``build_dataset`` a file of the copy.
So the edits are always made between two jobs, without waiting for files.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from chain import ROOT, Chain

EDITED = "selection/cutflow.py"  # of the package, which no test of these runs
TARGET = "results/clic/select/ttbar/00000.parquet"
SIZE = ("simulation={events_per_sample: 4, events_per_shard: 4}",)
CHUNK, FIELD = "chunk_events: 7", "b_field_tesla: 3.9"


def package_that_edits(chain: Chain, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process import a copy of the package that edits."""
    package = folder / "src/particleforge"
    shutil.copytree(ROOT / "src/particleforge", package)
    preset, detector = (
        chain.folder / f"config/{name}" for name in ("presets/tiny.yaml", "detectors/clic.yaml")
    )
    field = detector.read_text().replace("b_field_tesla: 4.0", FIELD)
    assert FIELD in field
    _after(
        package / "simulation/simulate.py",
        "simulate_events",
        f"Path({str(preset)!r}).open('a').write({f'dataset: {{{CHUNK}}}'!r})",
        f"Path({str(detector)!r}).write_text({field!r})",
    )
    edited = package / EDITED
    _after(
        package / "dataset/build.py",
        "build_dataset",
        f"Path({str(edited)!r}).open('a').write('# edited')",
    )
    places = (str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))


def _after(module: Path, function: str, *statements: str) -> None:
    """Let a stage's function end with ``statements``."""
    lines = (
        "",
        "",
        f"def _with_edits(*arguments, _work={function}):",
        "    _work(*arguments)",
        *(f"    {statement}" for statement in statements),
        "",
        "",
        f"{function} = _with_edits",
        "",
    )
    with module.open("a") as handle:
        handle.write("\n".join(lines))


def settings_used(chain: Chain) -> dict[str, object]:
    """Return what the dataset was made with, of what was edited, as its job recorded it."""
    record = chain.results / "dataset/ttbar/00000.parquet.provenance.json"
    settings = json.loads(record.read_text())["settings"]
    chunk, field = settings["dataset"]["chunk_events"], settings["b_field_tesla"]
    return {"chunk_events": chunk, "b_field_tesla": field}


AS_STARTED = {"chunk_events": 100, "b_field_tesla": 4.0}
STOPPED = f"error: particleforge/{EDITED}: changed since the run started"
