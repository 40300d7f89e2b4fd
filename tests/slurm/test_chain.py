"""A whole chain as Slurm jobs, trainings on two nodes, against the same chain on one
machine without Slurm.
"""

import json
import shutil

import yaml
from chain import data_hashes, same_training, training_record
from cluster import SMALL

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import HpoSettings
from particleforge.hpo.space import trial_settings
from particleforge.training.launch import TrainingSpec, run_training

JOBS = {
    "simulate_events": 3,
    "build_dataset": 3,
    "check_dataset": 3,
    "compare_samples": 1,
    "select_events": 3,
    "gather_cutflows": 1,
    "write_shards": 1,
    "check_shards": 1,
    "run_hpo_slot": 3,
    "select_best_trial": 1,
    "train_model": 1,
    "export_onnx": 1,
    "reconstruct_events": 3,
    "validate_model": 1,
    "build_report": 1,
}


def configured(words):
    """Return what Snakemake makes of ``--config``."""
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def test_every_job_ran_on_slurm(finished):
    chain, jobs, _ = finished
    own = [job for job in jobs.values() if job["WorkDir"] == str(chain.folder)]
    assert {job["JobState"] for job in own} == {"COMPLETED"}
    assert counted(own) == JOBS


def counted(jobs):
    """Return jobs per rule; the executor names the rule in the job's comment."""
    rules = [job["Comment"].split("_wildcards_")[0].removeprefix("rule_") for job in jobs]
    return {rule: rules.count(rule) for rule in rules}


def test_trainings_had_two_nodes(finished):
    chain, jobs, _ = finished
    nodes = {
        job["Comment"]: job["NodeList"]
        for job in jobs.values()
        if job["WorkDir"] == str(chain.folder)
    }
    for comment, names in nodes.items():
        assert (names == "n[1-2]") == any(
            rule in comment for rule in ("run_hpo_slot", "train_model")
        ), comment


def test_every_record_names_its_slurm_job(finished):
    chain, jobs, _ = finished
    records = [
        json.loads(path.read_text())["circumstances"]["slurm"]
        for path in chain.results.rglob("*.provenance.json")
    ]
    assert records
    assert {told["job_id"] for told in records} == {
        name for name, job in jobs.items() if job["WorkDir"] == str(chain.folder)
    }
    for told in records:
        assert told["node_list"] == jobs[told["job_id"]]["NodeList"]
        assert told["restart_count"] == jobs[told["job_id"]]["Restarts"]


def test_data_stages_are_the_same_bytes(finished):
    chain, _, here = finished
    assert data_hashes(chain.results) == data_hashes(here.results)


def test_a_trial_on_two_nodes_has_the_loss_of_one_node(finished, tmp_path):
    chain, _, _ = finished
    slot = json.loads((chain.results / "hpo/slots/0/0.json").read_text())
    run = load_run(chain.folder / "config", configured(SMALL))
    settings = trial_settings(
        HpoSettings.of(run, load_detector(chain.folder / "config", "clic")), slot["params"]
    )
    spec = TrainingSpec(settings, chain.results / "shards/manifest.json", tmp_path, slot["steps"])
    assert run_training(spec, ranks=run.hpo.ranks).valid_loss == slot["value"]


def test_the_final_training_on_two_nodes_has_the_losses_of_one_node(finished, tmp_path):
    chain, _, _ = finished
    again = chain.copy(tmp_path / "again")
    shutil.rmtree(again.results / "train")
    again.run("train", config=SMALL)
    assert len(training_record(chain.results)[0]) > 50
    assert same_training(chain.results, again.results)
