"""A search of 40 slots on Slurm whose jobs are killed at random: it ends with the trials of one
that nobody disturbed.

A job runs several slots one after the other, as with Snakemake's ``groups``, and imports torch
once: each training is a process forked from the job's, not one started anew. Who submits, and
submits again what was killed, is this test.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chain import BIN, PATIENCE_S, environment

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from synthetic_shards import write_synthetic

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.study import open_study

KILLS = 12
JOB = """
import os, sys
from pathlib import Path
from particleforge.config.settings import HpoSettings
from particleforge.hpo.slot import run_hpo_slot
from particleforge.training import launch, worker

def forked(spec_file, ranks, placement, lock, stop_at):
    environment = launch._environment(ranks, placement, stop_at)
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        os._exit(worker.main(str(spec_file)))
    os.waitpid(child, 0)
    return False

launch._run_workers = forked
manifest, folder = Path(sys.argv[1]), Path(sys.argv[2])
settings = HpoSettings.model_validate_json((folder / "settings.json").read_text())
for place in sys.argv[3:]:
    output = folder / "slots" / f"{place}.json"
    if not output.exists():
        slot = tuple(map(int, place.split("-")))
        run_hpo_slot(
            settings, slot, manifest=manifest, work_dir=folder / "work", output=output
        )
"""


def search_settings():
    space = {
        "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "model.width": {"type": "categorical", "choices": [8, 16]},
    }
    steps = {
        "warmup_steps": 1,
        "valid_every_steps": 1,
        "checkpoint_every_steps": 1,
        "max_steps": 27,
    }
    search = {
        "scheduler": "asha",
        "sampler": "qmc",
        "first_rung_slots": 27,
        "eta": 3,
        "n_rungs": 4,
        "min_steps": 1,
    }
    return HpoSettings(
        seed=5,
        model=ModelConfig(width=8, n_layers=1, n_heads=2),
        training=TrainingConfig(**steps, elements_per_batch=256, device="cpu"),
        hpo=HpoConfig(**search, attempts_max=100, space=space),
    )


def name_of(place):
    return "-".join(map(str, place))


class SearchOnSlurm:
    """The jobs of a search, and who submits them."""

    def __init__(self, cluster, folder, manifest):
        self.cluster, self.folder, self.manifest = cluster, folder, manifest
        hpo = search_settings().hpo
        by_three = [
            tuple((rung, first + k) for k in range(3))
            for rung in (0, 1)
            for first in range(0, dag.slots_of(hpo, rung), 3)
        ]
        self.groups = [*by_three, *((place,) for place in dag.all_slots(hpo) if place[0] > 1)]
        self.parents = {
            group: {p for place in group for p in dag.parents_of(hpo, *place)} - set(group)
            for group in self.groups
        }
        self.submitted = {}

    def has_ended(self, place):
        return (self.folder / f"slots/{name_of(place)}.json").exists()

    def is_training(self, group):
        folders = [
            next(self.folder.glob(f"work/*/{r}-{s:05d}"), None)
            for r, s in group
            if not self.has_ended((r, s))
        ]
        return any(folders)

    def submit_what_can_run(self):
        """Submit groups whose parents have ended and that are not done and in no job.

        Return the running ones' jobs by group.
        """
        states = {job: record["JobState"] for job, record in self.cluster.jobs().items()}
        for group in self.groups:
            alive = states.get(self.submitted.get(group)) in (
                "PENDING",
                "RUNNING",
                "CONFIGURING",
                "COMPLETING",
            )
            if (
                not alive
                and not all(map(self.has_ended, group))
                and all(map(self.has_ended, self.parents[group]))
            ):
                names = " ".join(map(name_of, group))
                command = f"{BIN}/python {self.folder}/job.py {self.manifest} {self.folder} {names}"
                options = (
                    "--parsable",
                    "--ntasks=1",
                    "--mem=1000",
                    f"--output={self.folder}/%j.log",
                    "--wrap",
                    command,
                )
                self.submitted[group] = self.cluster.call(
                    "sbatch", *options, cwd=self.folder
                ).strip()
        return {group: job for group, job in self.submitted.items() if states.get(job) == "RUNNING"}

    def run(self, dice, kills):
        """Run the search to its end, killing jobs at random.

        Return how many were killed, and how many of these while they trained.
        """
        killed, training, deadline = 0, 0, time.monotonic() + PATIENCE_S
        while not all(self.has_ended(place) for group in self.groups for place in group):
            assert time.monotonic() < deadline, "the search did not end"
            for group, job in self.submit_what_can_run().items():
                trains = self.is_training(group)
                idle = killed - training  # killed while they started, of which there is more time
                if killed < kills and dice.random() < (
                    0.6 if trains else 0.05 * (idle < kills // 3)
                ):
                    self.cluster.call("scancel", "--signal=KILL", "--full", job, check=False)
                    killed += 1
                    training += trains
            time.sleep(dice.uniform(0, 0.5))
        return killed, training


def prepared(folder):
    (folder / "slots").mkdir(parents=True)
    (folder / "job.py").write_text(JOB)
    (folder / "settings.json").write_text(search_settings().model_dump_json())
    return folder


def trials_of(folder, manifest):
    trials = open_study(search_settings(), manifest, folder / "work").trials()
    assert len({t.slot_id for t in trials}) == len(trials), "a slot has two trials"
    return {t.slot_id: t for t in trials}


@pytest.mark.fault("job cancelled with scancel")
def test_kills_change_no_trial(cluster, tmp_path):
    manifest = write_synthetic(tmp_path / "shards")
    undisturbed, folder = prepared(tmp_path / "undisturbed"), prepared(tmp_path / "killed")
    hpo = search_settings().hpo
    places = dag.all_slots(hpo)
    assert len(places) == 40
    command = [sys.executable, "job.py", str(manifest), str(undisturbed), *map(name_of, places)]
    done = subprocess.run(
        command,
        cwd=undisturbed,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    killed, training = SearchOnSlurm(cluster, folder, manifest).run(random.Random(9), KILLS)
    assert killed >= KILLS // 2
    assert training

    expected, found = trials_of(undisturbed, manifest), trials_of(folder, manifest)
    assert found.keys() == expected.keys() == set(places)
    assert {t.status for t in found.values()} == {"complete"}
    by_budget = {(t.config, t.rung): t.value for t in expected.values()}
    by_number = {t.number: t for t in found.values()}
    assert len({t.parent for t in found.values() if t.rung}) == 9 + 3 + 1, (
        "a trial was promoted twice"
    )
    for place, trial in found.items():
        if trial.rung == 0:
            assert (trial.params, trial.value) == (expected[place].params, expected[place].value)
        else:
            parent = by_number[trial.parent]
            assert (parent.rung, parent.config, parent.params) == (
                trial.rung - 1,
                trial.config,
                trial.params,
            )
            assert trial.value == by_budget.get((trial.config, trial.rung), trial.value)
        assert trial.steps == dag.budget_steps(hpo, trial.rung)
    best = sorted((t for t in found.values() if t.rung == 0), key=lambda t: t.order_key)
    promoted = {t.config for t in found.values() if t.rung == 1}
    assert best[0].config in promoted
