"""The choice among the trials of a finished search, their confirmation, and a start from them: few
jobs, which see their inputs.
"""

import json
import shutil

import pytest
import yaml

from particleforge.provenance.record import read_record, record_of


@pytest.mark.parametrize(
    "key",
    ["pin_trial: c00000", "pick: lowest_loss, pick_loss_tolerance: 0.1", "confirm_trials: 2"],
)
def test_another_choice_among_finished_trials_trains_none(chain, key):
    assert chain.planned("hpo", config=(f"hpo={{{key}}}",)) == {"select_best_trial": 1, "hpo": 1}


def test_the_best_is_confirmed_from_another_seed_and_another_search_begins_with_it(chain, tmp_path):
    run = chain.copy(tmp_path / "run")
    text = run.run("hpo", config=("hpo={confirm_seeds: 2, confirm_trials: 1}",))
    assert "rule run_hpo_slot" not in text
    best = yaml.safe_load((run.results / "hpo/best.yaml").read_text())
    (confirmed,) = best["seeds"]
    told = json.loads((run.results / "hpo/confirm/0-1.json").read_text())
    assert (told["status"], told["config"]) == ("complete", best["config"])
    assert confirmed["values"] == [best["value"], told["value"]]
    assert told["value"] != best["value"], "another seed, another training"
    other = tmp_path / "trials.csv"
    shutil.copy2(run.results / "hpo/trials.csv", other)
    warm = (f"hpo={{warm_start: [{other}]}}",)
    assert run.planned("hpo", config=warm)["run_hpo_slot"] == 3
    run.run("hpo", config=warm)
    record = read_record(record_of(run.results / "hpo/slots/0/1.json"))
    assert "trials.csv" in {entry["file"].rsplit("/", 1)[-1] for entry in record["inputs"]}
    assert not run.planned("hpo", config=warm)
    other.write_text(other.read_text() + "\n")
    assert run.planned("hpo", config=warm)["run_hpo_slot"] == 3, "a changed file is seen"
