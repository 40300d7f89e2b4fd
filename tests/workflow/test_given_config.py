"""What Snakemake makes of ``--config``, and the package of that; all of it in few real parses."""

import json
import subprocess
from pathlib import Path
from typing import Any

from chain import BIN, PATIENCE_S, ROOT, Chain, environment

SNAKEFILE = f"""
include: "{ROOT}/workflow/rules/common.smk"

print("CONFIG " + RUN.run.model_dump_json())

rule all:
"""


def parse(folder: Path, *config: str) -> str:
    """Let Snakemake parse a Snakefile that prints the configuration; return what it printed."""
    chain = Chain.new(folder)
    (folder / "Snakefile").write_text(SNAKEFILE)
    done = subprocess.run(
        [BIN / "snakemake", "--list-rules", "--config", *config],
        cwd=chain.folder,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    return done.stdout + done.stderr


def test_nested_values_have_the_type_of_their_setting(tmp_path: Path) -> None:
    text = parse(
        tmp_path / "run",
        "detector=clic,cld",
        "seed=7",
        "preset=demo",
        "hpo={min_events: null, min_epochs: 0.5, storage_url: null, schedule_rungs: 4,"
        " pin_trial: 17, include_default: false, scheduler: none,"
        " objectives: [valid_loss, inference_gflop],"
        " warm_start: [], slot_minutes_max: ~, space: {model.n_layers: null,"
        " training.beta2: {type: categorical, choices: [0.9, 0.99]},"
        " model.local_attention: {type: categorical, choices: [true, false]},"
        " model.activation: {type: categorical, choices: [gelu, relu],"
        " when: {model.local_attention: [true]}}, training.weight_decay: {high: 0.2}}}",
        "training={max_train_events: null, learning_rate: 1e-3, compile: true, ranks: 1,"
        " loss: {event: 0.5, momentum_form: absolute}, init_from: null}",
        "scans={fine_tuning: {from_detector: null, train_events: [100, 300]},"
        " scaling_batch: {learning_rates: {adamw: 2e-3}, factors: [1, 4]},"
        " scaling_law: {model_sizes: [{width: 16, n_layers: 2}, {width: 32, n_layers: 2}]}}",
        "resources={train_model: {partition: null, gpus: 2}, run_hpo_slot: {partition: gpu}}",
    )
    found: dict[str, Any] = json.loads(text.partition("CONFIG ")[2].splitlines()[0])
    assert found["detector"] == ["clic", "cld"]
    assert found["seed"] == 7
    hpo, space = found["hpo"], found["hpo"]["space"]
    asked = ("min_events", "storage_url", "slot_minutes_max")
    assert [hpo[name] for name in asked] == [None, None, None]
    assert (hpo["min_epochs"], hpo["schedule_rungs"], hpo["pin_trial"]) == (0.5, 4, 17)
    assert hpo["include_default"] is False
    assert hpo["scheduler"] == "none", "a name, as the setting has it, and no null"
    assert hpo["objectives"] == ["valid_loss", "inference_gflop"]
    assert hpo["warm_start"] == []
    assert "model.n_layers" not in space
    assert "model.width" in space
    assert space["training.beta2"]["choices"] == [0.9, 0.99]
    assert space["model.local_attention"]["choices"] == [True, False]
    assert space["model.activation"]["when"] == {"model.local_attention": [True]}
    weight_decay = space["training.weight_decay"]
    assert (weight_decay["type"], weight_decay["low"], weight_decay["high"]) == ("float", 1e-4, 0.2)
    training, scans = found["training"], found["scans"]
    assert (training["max_train_events"], training["init_from"]) == (None, None)
    assert (training["learning_rate"], training["compile"]) == (1e-3, True)
    assert (training["loss"]["event"], training["loss"]["momentum_form"]) == (0.5, "absolute")
    assert scans["fine_tuning"]["from_detector"] is None
    assert scans["fine_tuning"]["train_events"] == [100, 300]
    assert scans["scaling_batch"]["learning_rates"] == {"adamw": 2e-3}
    assert [size["width"] for size in scans["scaling_law"]["model_sizes"]] == [16, 32]
    assert found["resources"]["train_model"]["partition"] is None
    assert found["resources"]["run_hpo_slot"]["partition"] == "gpu"


def test_no_space_and_a_configuration_by_name(tmp_path: Path) -> None:
    text = parse(tmp_path / "run", "hpo={space_from: null, pin_trial: c00017}")
    hpo = json.loads(text.partition("CONFIG ")[2].splitlines()[0])["hpo"]
    assert (hpo["space"], hpo["space_from"], hpo["pin_trial"]) == ({}, None, "c00017")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = parse(tmp_path / "run", "training={max_steps: 3, max_steps: 4}")
    assert "--config training: max_steps: is given twice, in line 1; keep one of them" in text
    assert "Traceback" not in text
