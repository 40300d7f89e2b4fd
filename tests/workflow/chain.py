"""Run the workflow as a user does, in a folder of its own, with sizes that a test can afford."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from tests.workflow.starter import starter

from particleforge.model.saved import load_model

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TINY = """
simulation: {events_per_sample: 24, events_per_shard: 12}
selection: {train_fraction: 0.5, valid_fraction: 0.25, test_fraction: 0.25}
preprocessing: {events_per_shard: 10}
model: {width: 8, n_layers: 1, n_heads: 2}
training:
  max_steps: 4
  schedule_steps: 8
  valid_every_steps: 2
  checkpoint_every_steps: 2
  log_every_steps: 1
  warmup_steps: 1
  elements_per_batch: 1024
hpo:
  scheduler: asha
  first_rung_slots: 2
  eta: 2
  n_rungs: 2
  min_steps: 2
  space: {model.width: {type: categorical, choices: [8, 16]}}
validation: {n_bootstrap: 10}
"""
IMPORTED_FROM = os.environ.get("PYTHONPATH")
PATIENCE_S = 2400  # no run of a test takes so long on the slowest machine: it hangs
DATA_STAGES = ("sim", "dataset", "select", "shards")


@dataclass(frozen=True)
class Chain:
    """A folder with a configuration of its own and, once run, results."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> "Chain":
        """Make a folder with the shipped configuration and the preset ``tiny``."""
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "config/presets/tiny.yaml").write_text(TINY)
        return cls(folder)

    @property
    def results(self) -> Path:
        return self.folder / "results/clic"

    def copy(self, folder: Path) -> "Chain":
        """Copy everything, times and Snakemake's records included."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2)
        return Chain(folder)

    def command(
        self, *arguments: str, config: tuple[str, ...] = (), profile: str = "local"
    ) -> list[str]:
        chosen = {"preset": "preset=tiny", "detector": "detector=clic"} | {
            item.split("=")[0]: item for item in config
        }
        fixed = [
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--profile",
            str(ROOT / "profiles" / profile),
            "--cores",
            "2",
        ]
        return [str(BIN / "snakemake"), *fixed, *arguments, "--config", *chosen.values()]

    def run(
        self,
        *arguments: str,
        config: tuple[str, ...] = (),
        profile: str = "local",
        check: bool = True,
        threads: int = 1,
        afresh: bool = False,
    ) -> str:
        """Run Snakemake and return what it printed.

        ``afresh`` starts its program as a user does, and not a process that has imported it; so
        does another PYTHONPATH, which such a process would not see.
        """
        command = self.command(*arguments, config=config, profile=profile)
        if afresh or os.environ.get("PYTHONPATH") != IMPORTED_FROM:
            done = subprocess.run(
                command,
                cwd=self.folder,
                capture_output=True,
                text=True,
                env=environment(threads),
                timeout=PATIENCE_S,
            )
            status, text = done.returncode, done.stdout + done.stderr
        else:
            status, text = starter().run(command, self.folder, environment(threads), PATIENCE_S)
        assert status == 0 or not check, text[-6000:]
        return text

    def planned(
        self, *arguments: str, config: tuple[str, ...] = (), profile: str = "local"
    ) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans."""
        return planned_jobs(
            self.run(*arguments, "-n", "--quiet", "rules", config=config, profile=profile)
        )

    def visible_files(self) -> list[str]:
        """Return the results' files below the detector's folder, sorted."""
        return sorted(
            str(path.relative_to(self.results))
            for path in self.results.rglob("*")
            if path.is_file()
        )


def data_hashes(results: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that the data stages made, by path below ``results``.

    Records of circumstances left out.
    """
    files = [path for stage in DATA_STAGES for path in sorted((results / stage).rglob("*"))]
    made = [
        path
        for path in files
        if path.is_file()
        and not path.name.endswith(".provenance.json")
        and not path.name.startswith(".")
    ]
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made
    }


def training_record(results: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return what the final training recorded, its speed and shares of time left out, and the
    weights that it saved.
    """
    metrics = pq.read_table(results / "train/metrics.parquet").to_pandas()
    weights = load_model(results / "train/best.pt")[0].state_dict()
    return (
        metrics[~metrics["name"].str.endswith(("_per_s", "_share"))].reset_index(drop=True),
        weights,
    )


def same_training(results: Path, others: Path) -> bool:
    """Return whether two final trainings are equal bit for bit."""
    (metrics, weights), (other_metrics, other_weights) = (
        training_record(results),
        training_record(others),
    )
    return metrics.equals(other_metrics) and all(
        value.equal(other_weights[name]) for name, value in weights.items()
    )


def planned_jobs(text: str) -> dict[str, int]:
    """Read the table of jobs that Snakemake prints."""
    rows = re.findall(
        r"^(\w+)\s+(\d+)$", text.split("Job stats:")[-1].split("\n\n")[0], flags=re.MULTILINE
    )
    return (
        {rule: int(count) for rule, count in rows if rule not in {"total", "all"}}
        if "Job stats:" in text
        else {}
    )


def environment(threads: int = 1) -> dict[str, str]:
    """Return the environment of a test's processes: one thread each, so that two cores are not
    oversubscribed.
    """
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PATH": f"{BIN}:{os.environ['PATH']}"}
