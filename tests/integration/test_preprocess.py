"""write_shards as a process: its memory against the number of files, and what is left when it is
killed.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ShardSettings
from particleforge.paths import SPLITS
from particleforge.tables import parquet

from ..unit.synthetic import synthetic_events

pytestmark = pytest.mark.integration
CONFIG = Path(__file__).parents[2] / "config"

RUN = """
import json, os, resource, signal, sys
from pathlib import Path
from particleforge.config.settings import ShardSettings
from particleforge.preprocessing import shards

settings, files, output, kill_at = json.loads(sys.argv[1])
shards.BUFFER_BYTES = 4 * 2**20
calls, checksum = [], shards.sha256

def counted(path):
    calls.append(path)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return checksum(path)

shards.sha256 = counted
settings = ShardSettings.model_validate(settings)
shards.write_shards(settings, [Path(file) for file in files], Path(output))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run(
    settings: ShardSettings, files: list[Path], output: Path, kill_at: int = 0
) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps([settings.plain(), [str(file) for file in files], str(output), kill_at])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return subprocess.run(
        [sys.executable, "-c", RUN, arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def stage_settings(events_per_shard: int) -> ShardSettings:
    run_config = load_run(CONFIG, {"preprocessing": {"events_per_shard": events_per_shard}})
    return ShardSettings.of(run_config, load_detector(CONFIG, "clic"))


def write_files(folder: Path, n_files: int, n_events: int, mean_particles: float) -> list[Path]:
    """Write selected files that differ in the identities of their events."""
    events, files = synthetic_events(n_events, 1, mean_particles=mean_particles), []
    rng = np.random.default_rng(1)
    for number in range(n_files):
        renamed = ak.with_field(
            events, rng.integers(0, 2**64, n_events, dtype=np.uint64), "event_id"
        )
        renamed = ak.with_field(
            renamed, ak.from_numpy(rng.choice(SPLITS, n_events, p=(0.8, 0.1, 0.1))), "split"
        )
        table = parquet.to_arrow(renamed, parquet.SELECTED_SCHEMA)
        files.append(folder / f"{number:05d}.parquet")
        parquet.write_table(
            files[-1], [table], parquet.SELECTED_SCHEMA, {"sample": "ttbar"}, row_group_size=50
        )
    return files


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    files = write_files(tmp_path, 40, 100, 200.0)
    peaks_mib = []
    for number in (4, 40):
        done = run(stage_settings(100), files[:number], tmp_path / f"shards{number}")
        assert done.returncode == 0, done.stderr
        peaks_mib.append(float(done.stdout))
    # what the records of all files would take
    content_mib = 40 * 100 * 300 * (16 * 4 + 4 * 4 + 3) / 2**20
    assert content_mib > 90
    assert peaks_mib[1] - peaks_mib[0] < 30, peaks_mib


def test_killed_at_any_shard_the_old_manifest_or_none_is_left_and_a_rerun_is_complete(
    tmp_path: Path,
) -> None:
    files = write_files(tmp_path, 4, 100, 5.0)
    settings = stage_settings(50)

    def contents(folder: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file() and "provenance" not in p.name
        }

    assert run(settings, files, tmp_path / "whole").returncode == 0
    whole = contents(tmp_path / "whole")
    output = tmp_path / "shards"
    for kill_at in (1, 5, sum(name.endswith(".parquet") for name in whole)):
        assert run(settings, files, output, kill_at).returncode == -signal.SIGKILL
        assert not (output / "manifest.json").exists()
    assert run(settings, files, output).returncode == 0
    assert contents(output) == whole
    assert run(settings, files[:3], output, 5).returncode == -signal.SIGKILL
    assert contents(output) == whole
    assert run(settings, files[:3], output).returncode == 0
    manifest = json.loads((output / "manifest.json").read_text())
    listed = {shard["file"] for split in SPLITS for shard in manifest["splits"][split]["shards"]}
    assert {name for name in contents(output) if name.endswith(".parquet")} == listed
    assert not list(tmp_path.glob(".shards.*"))
