"""What a run plans: exactly the stages that a change touches."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from chain import BIN, PATIENCE_S, ROOT, Chain, environment, planned_jobs

from particleforge.config.load import merge
from particleforge.errors import UserError
from particleforge.orchestration.workflow import Workflow

STAGES = ["simulate", "dataset", "check_dataset", "select", "cutflow", "preprocess", "check_shards"]
STAGES += ["hpo", "train", "export", "reconstruct", "validate", "report"]
RULES = {
    "simulate": {"simulate_events"},
    "dataset": {"build_dataset"},
    "check_dataset": {"check_dataset", "compare_samples"},
    "select": {"select_events"},
    "cutflow": {"gather_cutflows"},
    "preprocess": {"write_shards"},
    "check_shards": {"check_shards"},
    "hpo": {"run_hpo_slot", "select_best_trial"},
    "train": {"train_model"},
    "export": {"export_onnx"},
    "reconstruct": {"reconstruct_events"},
    "validate": {"validate_model"},
    "report": {"build_report"},
}
FROM_TRAIN = ["train", "export", "reconstruct", "validate", "report"]
FROM_HPO = ["hpo", *FROM_TRAIN]
FROM_SELECT = STAGES[STAGES.index("select") :]

RUN_KEYS = [
    ("seed=1", STAGES),
    ("dataset={visible_fraction_min: 0.2}", STAGES[1:]),
    ("dataset={calorimeter_elements: hits}", STAGES[1:]),
    ("dataset={hit_energy_min_mev: 5}", []),
    ("selection={train_fraction: 0.6, valid_fraction: 0.2, test_fraction: 0.2}", FROM_SELECT),
    ("checks={abs_eta_max: 14}", ["check_dataset", "preprocess", "check_shards", *FROM_HPO]),
    ("selection={drop_columns: [track_links]}", FROM_SELECT),
    ("preprocessing={events_per_shard: 9}", ["preprocess", "check_shards", *FROM_HPO]),
    ("model={head_layers: 1}", FROM_HPO),
    ("training={gradient_clip: 0.5}", FROM_HPO),
    ("hpo={sampler: qmc}", FROM_HPO),
    ("export={opset: 21}", ["export", "reconstruct", "validate", "report"]),
    ("reconstruction={presence_min: 0.05}", ["reconstruct", "validate", "report"]),
    ("validation={n_bootstrap: 11}", ["validate", "report"]),
    ("resources={train_model: {mem_mb: 9000}}", []),
]
RELABELLED = [
    {**one, "label": "another"}
    for one in yaml.safe_load((ROOT / "config/detectors/clic.yaml").read_text())["particle_classes"]
]
DETECTOR_KEYS = [
    ({"b_field_tesla": 3.9}, STAGES),
    (
        {
            "cuts": {
                "objects": {
                    "clusters": [{"name": "energy", "expression": "clusters.energy >= 0.06"}]
                }
            }
        },
        FROM_SELECT,
    ),
    (
        {
            "cuts": {
                "overlaps": [
                    {
                        "name": "duplicates",
                        "collection": "tracks",
                        "delta_r_max": 0.01,
                        "prefer": "tracks.n_hits",
                    }
                ]
            }
        },
        FROM_SELECT,
    ),
    ({"jets": {"pt_min_gev": 6.0}}, ["validate", "report"]),
    ({"plots": {"met_max_gev": 100}}, ["validate", "report"]),
    ({"particle_flow": {"compatibility_sigma": 2.5}}, STAGES),
    ({"title": "Another title"}, ["validate", "report"]),
    ({"particle_classes": RELABELLED}, ["validate", "report"]),
    ({"samples": {"ttbar": {"label": "tops"}}}, ["cutflow", "validate", "report"]),
]


def rules_of(stages):
    return set().union(*(RULES[name] for name in stages))


@pytest.mark.parametrize(("key", "stages"), RUN_KEYS, ids=[key for key, _ in RUN_KEYS])
def test_a_changed_key_reruns_exactly_what_depends_on_it(chain, key, stages):
    assert set(chain.planned(config=(key,))) == rules_of(stages)


@pytest.mark.parametrize(
    ("change", "stages"), DETECTOR_KEYS, ids=[next(iter(change)) for change, _ in DETECTOR_KEYS]
)
def test_a_changed_key_of_the_detector(chain, change, stages):
    path = chain.folder / "config/detectors/clic.yaml"
    original = path.read_text()
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(original), change), sort_keys=False))
    try:
        assert set(chain.planned()) == rules_of(stages)
    finally:
        path.write_text(original)


def test_more_events_simulate_only_the_new_shards(chain):
    jobs = chain.planned(config=("simulation={events_per_sample: 36}",))
    n_samples = len(list((chain.results / "sim").iterdir()))
    assert jobs["simulate_events"] == jobs["build_dataset"] == jobs["select_events"] == n_samples


def test_weights_to_start_from_are_an_input_of_search_and_training(chain):
    key = "training={init_from: pretrained.pt}"
    refused = chain.run("-n", config=(key,), check=False)
    assert (
        "training.init_from: pretrained.pt: no such file; give the best.pt or a checkpoint of a"
        " training" in refused
    )
    pretrained = chain.folder / "pretrained.pt"
    pretrained.write_bytes(b"the plan does not open it")
    try:
        assert set(chain.planned(config=(key,))) == rules_of(FROM_HPO)
        for target, rule in (
            ("hpo/slots/0/0.json", "run_hpo_slot"),
            ("train/best.pt", "train_model"),
        ):
            planned = chain.run(
                f"results/clic/{target}", "-n", "--allowed-rules", rule, config=(key,)
            )
            assert re.search(r"Updated input files: .*pretrained\.pt", planned)
    finally:
        pretrained.unlink()
    inside = chain.run(
        "-n", config=("training={init_from: results/clic/train/best.pt}",), check=False
    )
    assert "training.init_from: results/clic/train/best.pt: lies in results_dir" in inside


@pytest.mark.parametrize(
    ("model", "stage"), [("DatasetSettings", "dataset"), ("ExportSettings", "export")]
)
def test_a_raised_version_reruns_the_stage_and_what_follows(chain, model, stage):
    program = (
        "import sys, particleforge.config.settings as s\n"
        f"m = s.{model}; m.model_fields['version'].default = 99; m.model_rebuild(force=True)\n"
        "from snakemake.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, *chain.command("-n", "--quiet", "rules")[1:]]
    done = subprocess.run(
        command,
        cwd=chain.folder,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = STAGES[STAGES.index(stage) :]
    assert set(planned_jobs(done.stdout + done.stderr)) == rules_of(expected)


TARGETS = [
    "simulate",
    "dataset",
    "check_data",
    "select",
    "preprocess",
    "hpo",
    "train",
    "export",
    "reconstruct",
    "validate",
    "report",
]


@pytest.mark.parametrize("target", TARGETS)
def test_each_stage_is_a_target(tmp_path, target):
    jobs = set(Chain.new(tmp_path / "new").planned(target)) - {target}
    last = {"select": "cutflow", "check_data": "check_shards"}.get(target, target)
    spared = {"select": {"check_dataset"}, "report": set()}.get(target, {"cutflow"})
    needed = [name for name in STAGES[: STAGES.index(last) + 1] if name not in spared]
    assert jobs == rules_of(needed)


@pytest.mark.parametrize("detector", ["clic", "cld", "cms_like"])
@pytest.mark.parametrize("preset", ["smoke", "demo"])
def test_shipped_presets_plan_for_every_detector(tmp_path, detector, preset):
    jobs = Chain.new(tmp_path / "new").planned(config=(f"preset={preset}", f"detector={detector}"))
    assert set(jobs) == rules_of(STAGES)


def test_the_largest_preset_plans(tmp_path):
    jobs = Chain.new(tmp_path / "new").planned(config=("preset=large",))
    assert set(jobs) == rules_of(STAGES)
    assert jobs["simulate_events"] == 10 * jobs["build_dataset"] > 1000
    assert jobs["run_hpo_slot"] == 147 + 21 + 3


def test_the_search_is_a_static_dag(tmp_path):
    chain = Chain.new(tmp_path / "new")
    for scheduler, slots in (("asha", 9 + 3 + 1), ("none", 9)):
        hpo = f"hpo={{scheduler: {scheduler}, first_rung_slots: 9, eta: 3, n_rungs: 3}}"
        assert chain.planned("hpo", config=(hpo,))["run_hpo_slot"] == slots


def test_several_detectors_share_one_results_folder(tmp_path):
    jobs = Chain.new(tmp_path / "new").planned(config=("detector=[clic, cld]",))
    assert jobs["train_model"] == 2


def test_the_slurm_profile_plans_the_chain(tmp_path):
    assert set(Chain.new(tmp_path / "new").planned(profile="slurm")) == rules_of(STAGES)


def workflow_with(**asked):
    return Workflow([ROOT / "config"], {"resources": asked, "training": {"ranks": 4}})


def test_resources_come_from_the_configuration():
    run = workflow_with(
        train_model={"gpus": 2, "partition": "gpu", "mem_mb": 7000, "runtime_min": 90}
    )
    found = run.resources("train_model")
    assert (found["gpu"], found["slurm_partition"]) == (2, "gpu")
    assert [found["mem_mb"](None, attempt) for attempt in (1, 2)] == [7000, 14000]
    assert found["runtime"](None, 3) == 270
    assert run.threads("train_model") == 4
    assert "nodes" not in found
    assert "gpu" not in run.resources("build_dataset")


def test_a_training_on_several_nodes_is_a_job_of_many_tasks():
    run = workflow_with(train_model={"nodes": 2, "threads": 12, "gpus": 2})
    found = run.resources("train_model")
    assert (found["mpi"], found["nodes"], found["tasks"], found["cpus_per_task"]) == (
        "srun",
        2,
        4,
        3,
    )
    assert (found["gres"], found["tasks_per_gpu"]) == ("gpu:2", 0)
    assert "gpu" not in found


@pytest.mark.parametrize(
    ("rule", "remedy"),
    [
        ("train_model", "make training.ranks (now 4) a multiple"),
        ("build_dataset", "only trainings"),
    ],
)
def test_ranks_that_do_not_fit_the_nodes_are_refused(rule, remedy):
    with pytest.raises(
        UserError, match=re.escape(f"resources.{rule}.nodes: 3; ") + ".*" + re.escape(remedy)
    ):
        workflow_with(**{rule: {"nodes": 3}})


def test_cuts_that_the_dataset_has_no_columns_for_are_refused(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config/detectors/clic.yaml"
    cut = {"name": "long", "expression": "max(clusters.width_longitudinal) < 100"}
    path.write_text(
        yaml.safe_dump(
            merge(yaml.safe_load(path.read_text()), {"cuts": {"events": [cut]}}), sort_keys=False
        )
    )
    Workflow([tmp_path / "config"], {})
    with pytest.raises(
        UserError,
        match=re.escape(
            f"{path}: cuts.events: long: hits, as dataset.calorimeter_elements has it, have no"
        ),
    ):
        Workflow([tmp_path / "config"], {"dataset": {"calorimeter_elements": "hits"}})


def test_a_wrong_key_is_one_line(tmp_path):
    text = Chain.new(tmp_path / "new").run("-n", config=("training={max_stepz: 3}",), check=False)
    assert "--config: training.max_stepz: unknown key" in text
    assert "Traceback" not in text


def test_a_new_detector_is_one_file(tmp_path):
    new = Chain.new(tmp_path / "new")
    content = yaml.safe_load((new.folder / "config/detectors/cld.yaml").read_text())
    content |= {"title": "A fourth detector", "b_field_tesla": 3.0}
    (new.folder / "config/detectors/fourth.yaml").write_text(yaml.safe_dump(content))
    assert set(new.planned(config=("detector=fourth",))) == rules_of(STAGES)
    sample = next(iter(content["samples"]))
    new.run(
        f"results/fourth/select/{sample}/00000.parquet",
        config=("detector=fourth", "simulation={events_per_sample: 4, events_per_shard: 4}"),
    )
    assert (new.folder / f"results/fourth/select/{sample}/00000.parquet").is_file()


def test_parsing_loads_nothing_heavy():
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from particleforge.orchestration.workflow import Workflow\n"
        "Workflow([Path('config')], {})\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {
        "torch",
        "awkward",
        "uproot",
        "pyarrow",
        "pandas",
        "numpy",
        "numba",
        "optuna",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "fastjet",
    }
    assert heavy.isdisjoint(json.loads(done.stdout))


def test_lint(tmp_path):
    done = subprocess.run(
        [BIN / "snakemake", "--lint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
