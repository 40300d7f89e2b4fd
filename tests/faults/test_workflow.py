"""Faults as the workflow's user meets them: what Snakemake's terminal and the job's log say, and
that running again mends them.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings, simulate_settings
from particleforge.dataset.build import build_dataset
from particleforge.simulation.simulate import simulate_events

from ..workflow.chain import Chain, environment
from .disk import Disk

pytestmark = pytest.mark.workflow
SIMULATED, DATASET = "sim/ttbar/00000.root", "dataset/ttbar/00000.parquet"
EVENTS = "simulation={events_per_sample: 4, events_per_shard: 4}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the first two stages make of one shard."""
    folder = tmp_path_factory.mktemp("undisturbed")
    chain = Chain.new(folder / "config_of")
    overrides = {"preset": "tiny", "simulation": yaml.safe_load(EVENTS.partition("=")[2])}
    run = load_run(chain.folder / "config", overrides)
    detector = load_detector(chain.folder / "config", "clic")
    simulate_events(simulate_settings(run, detector, "ttbar"), "00000", folder / SIMULATED)
    build_dataset(
        DatasetSettings.of(run, detector, sample_name="ttbar"),
        [folder / SIMULATED],
        folder / DATASET,
    )
    return folder


def job_log(chain: Chain, rule: str) -> list[str]:
    return [
        line
        for line in (chain.results / f"logs/{rule}/ttbar/00000.log").read_text().splitlines()
        if " ERROR " in line
    ]


@pytest.mark.fault("full disk")
def test_full_disk(make_disk: Callable[[int], Disk], undisturbed: Path) -> None:
    disk = make_disk(64 * 1024)
    seen = Chain.new(disk.path / "run")  # as this process sees it
    chain = Chain(disk.folder / "run")  # as those on the disk do
    used_kib = sum(4 * (1 + len(content) // 4096) for content in disk.files().values())
    disk.remount(f"size={used_kib + 120}k")  # room for Snakemake's own records, not for the shard

    def run() -> subprocess.CompletedProcess[str]:
        arguments = chain.command(
            f"results/clic/{SIMULATED}", "--directory", str(chain.folder), config=(EVENTS,)
        )
        return disk.run(*arguments, env=environment())

    done = run()
    said = (
        f"results/clic/{SIMULATED}: the disk is full; free space on it, or put the results"
        " elsewhere, then run again"
    )
    assert done.returncode == 1
    assert f"error: {said}" in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    (line,) = job_log(seen, "simulate_events")
    assert line.endswith(said)
    assert list((seen.results / "sim").rglob("*")) == []
    disk.remount("size=64m")
    assert run().returncode == 0
    assert (seen.results / SIMULATED).read_bytes() == (undisturbed / SIMULATED).read_bytes()


@pytest.mark.fault("read-only results")
def test_read_only_results(make_disk: Callable[[int], Disk]) -> None:
    disk = make_disk(64 * 1024)
    (disk.path / "results").mkdir()
    disk.remount("ro")
    chain = Chain.new(disk.folder.parent / "run")
    (chain.folder / "results").symlink_to(disk.folder / "results")
    done = disk.run(
        *chain.command(
            f"results/clic/{SIMULATED}", "--directory", str(chain.folder), config=(EVENTS,)
        ),
        env=environment(),
    )
    assert done.returncode == 1
    assert "results/.workflow.lock: the file system is read-only" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault("truncated ROOT file")
def test_truncated_file(tmp_path: Path, undisturbed: Path) -> None:
    chain = Chain.new(tmp_path / "run")
    target = chain.results / SIMULATED
    target.parent.mkdir(parents=True)
    target.write_bytes((undisturbed / SIMULATED).read_bytes()[:-5000])
    text = chain.run(f"results/clic/{DATASET}", config=(EVENTS,), check=False)
    (line,) = job_log(chain, "build_dataset")
    assert f"results/clic/{SIMULATED}: a truncated ROOT file" in line
    assert f"error: results/clic/{SIMULATED}: a truncated ROOT file" in text
    assert "Traceback" not in text
    assert not (chain.results / DATASET).exists()
    target.unlink()
    chain.run(f"results/clic/{DATASET}", config=(EVENTS,))
    assert target.read_bytes() == (undisturbed / SIMULATED).read_bytes()
    assert (chain.results / DATASET).read_bytes() == (undisturbed / DATASET).read_bytes()
