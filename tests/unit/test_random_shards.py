"""Random shards that benchmarks train on are such as ``write_shards`` writes."""

import importlib
from pathlib import Path

import pytest


def test_the_loader_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    speed = importlib.import_module("loader_speed")
    manifest = speed.write_shards(tmp_path, "clic", train=24, valid=6)
    batches = list(speed.make_loader(manifest, 2048).once())
    assert sum(len(batch.element_type) for batch in batches) == 24
